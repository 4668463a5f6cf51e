"""Many questions of one catalogue: answered in threads or on a Dask cluster, finished answers kept on disk by their content.

The same questions have the same answers wherever they are solved: a plan depends on scenario, catalogue and planner alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.errors import PlannerError
from planner.plan import Plan
from planner.planning.infeasible import Infeasible
from planner.planning.known import Known
from planner.planning.solve import solve
from planner.planning.version import planner_version, source_hash
from planner.scenario.records import Scenario

Done = Callable[[int, int], None]  # called with (answers there are, answers wanted)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-planner" / "answers"


@dataclass(frozen=True)
class Result:
    """One answer: a plan, or why there is none."""

    plan: Plan | None
    why: str = ""

    @property
    def cost(self) -> float:
        """$/h; infinite without a plan."""
        return self.plan.cost.usd_per_hour if self.plan else float("inf")


@dataclass(frozen=True)
class Where:
    """How to run: threads here (``workers`` of them) or a Dask scheduler, and where to keep answers (None = nowhere)."""

    keep: Path | None = None
    scheduler: str = ""
    workers: int = 0  # 0 = as many as there are cores


HERE = Where()


def quietly(there: int, wanted: int) -> None:
    """Tells nobody how far it is."""


def answers(scenarios: Sequence[Scenario], catalog: Catalog, where: Where = HERE, done: Done = quietly, known: Known | None = None) -> list[Result]:
    """The answer to every scenario, in order. Answers already kept are not solved again; equal questions are solved once.

    Raises CatalogError and ScenarioError of the first unusable question, PlannerError where the cluster cannot be used.
    Interrupted, it leaves every finished answer in ``where.keep``.
    """
    keys = [key_of(s, catalog) for s in scenarios]
    found: dict[str, Result] = {k: r for k in dict.fromkeys(keys) if (r := _read(where.keep, k)) is not None}
    todo = {k: s for k, s in zip(keys, scenarios, strict=True) if k not in found}
    done(sum(k in found for k in keys), len(keys))
    solved = _on_cluster(todo, catalog, where) if where.scheduler else _in_threads(todo, known or Known(catalog), where.workers)
    for key, result in solved:
        _write(where.keep, key, result)
        found[key] = result
        done(sum(k in found for k in keys), len(keys))
    return [found[k] for k in keys]


def answer_one(scenario: Scenario, known: Known) -> Result:
    """The answer to one scenario, candidates kept for the next."""
    try:
        return Result(solve(scenario, known.catalog, compare=False, known=known))
    except Infeasible as error:
        return Result(None, str(error))


def key_of(scenario: Scenario, catalog: Catalog) -> str:
    """A name for the question: equal for equal scenarios of one catalogue and planner, whatever the scenario is called."""
    text = scenario.model_copy(update={"name": ""}).model_dump_json()
    return hashlib.sha256("\n".join((planner_version(), source_hash(), catalog.hash, text)).encode()).hexdigest()[:32]


def _in_threads(todo: dict[str, Scenario], known: Known, workers: int) -> Iterator[tuple[str, Result]]:
    """HiGHS and numpy leave the interpreter while they work, so threads do."""
    if len(todo) <= 1:
        yield from ((k, answer_one(s, known)) for k, s in todo.items())
        return
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        futures: dict[Future[Result], str] = {pool.submit(answer_one, s, known): k for k, s in todo.items()}
        waiting = set(futures)
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield futures[future], future.result()
        finally:
            for future in waiting:
                future.cancel()


def _on_cluster(todo: dict[str, Scenario], catalog: Catalog, where: Where) -> Iterator[tuple[str, Result]]:
    """On a Dask cluster whose workers have this planner and can read the catalogue's folders."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise PlannerError("Dask is not installed", "--scheduler", "pip install 'inference-planner[cluster]'") from None
    try:
        client: Any = Client(where.scheduler, timeout=10)  # type: ignore[no-untyped-call]  # distributed has no types
    except (OSError, ValueError) as error:
        raise PlannerError(f"no Dask scheduler answers at {where.scheduler}: {error}", "--scheduler") from None
    folders = tuple(str(f) for f in catalog.folders)
    with client:
        futures = {client.submit(_far, s.model_dump_json(), folders, (catalog.hash, source_hash()), key=f"plan-{k}", pure=True): k for k, s in todo.items()}
        for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
            yield futures[future], _from_text(future.result())


def _far(scenario: str, folders: tuple[str, ...], hashes: tuple[str, str]) -> str:
    """What a worker does: text in, text out, so that nothing depends on how objects are pickled."""
    known = _known_there(folders)
    if (known.catalog.hash, source_hash()) != hashes:
        raise PlannerError("a worker has another planner or catalogue than this one", "--scheduler", "install the same version everywhere")
    return _to_text(answer_one(Scenario.model_validate_json(scenario), known))


@lru_cache(maxsize=2)
def _known_there(folders: tuple[str, ...]) -> Known:
    return Known(load_catalog(folders))


def _to_text(result: Result) -> str:
    return json.dumps({"plan": result.plan.model_dump(mode="json") if result.plan else None, "why": result.why})


def _from_text(text: str) -> Result:
    raw = json.loads(text)
    return Result(Plan.model_validate(raw["plan"]) if raw["plan"] else None, raw["why"])


def _read(folder: Path | None, key: str) -> Result | None:
    """A kept answer; None where there is none or it cannot be read (it is then solved again)."""
    if folder is None:
        return None
    try:
        return _from_text((folder / key[:2] / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError):
        return None


def _write(folder: Path | None, key: str, result: Result) -> None:
    """Whole or not at all. What cannot be kept is only lost to the next run."""
    if folder is None:
        return
    try:
        place = folder / key[:2]
        place.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place, suffix=".new")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_to_text(result))
        Path(name).replace(place / f"{key}.json")
    except OSError:
        return
