"""Many questions of one catalogue: answered in threads or on a Dask cluster, finished answers kept on disk by their content.

The same questions have the same answers wherever they are solved: a plan depends on scenario, catalogue and planner alone.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.economics.store import Result, Tell, from_text, keep, read, to_text
from planner.errors import PlannerError
from planner.files import reason
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.scenario.records import Scenario
from planner.search.apart import kept_apart
from planner.search.posed import posed
from planner.search.survey_cache import SurveyCache
from planner.version import planner_version, source_hash

T = TypeVar("T")
U = TypeVar("U")
Done = Callable[[int, int], None]  # called with (answers there are, answers wanted)


@dataclass(frozen=True)
class Where:
    """How to run: threads here (``workers`` of them) or a Dask scheduler, and where to keep answers (None = nowhere).

    tell: called with what goes wrong with keeping, which stops nothing. surveys: candidates that several studies of one catalogue share.
    """

    keep: Path | None = None
    scheduler: str = ""
    workers: int = 0  # 0 = as many as there are cores
    tell: Tell = warnings.warn
    surveys: SurveyCache | None = None

    def cache(self, catalog: Catalog) -> SurveyCache:
        """The surveys shared, else new ones."""
        return self.surveys if self.surveys is not None and self.surveys.catalog is catalog else SurveyCache(catalog)


HERE = Where()


def quietly(there: int, wanted: int) -> None:
    """Tells nobody how far it is."""


def answers(scenarios: Sequence[Scenario], catalog: Catalog, where: Where = HERE, done: Done = quietly, cache: SurveyCache | None = None) -> list[Result]:
    """The answer to every scenario, in order. Answers already kept are not solved again; equal questions are solved once.

    Raises CatalogError and ScenarioError of the first unusable question, PlannerError where the cluster cannot be used.
    Interrupted, it leaves every finished answer in ``where.keep``.
    """
    keys = [key_of(s, catalog) for s in scenarios]
    folder = where.keep
    found: dict[str, Result] = {k: r for k in dict.fromkeys(keys) if folder and (r := read(folder, k, where.tell)) is not None}
    todo = {k: s for k, s in zip(keys, scenarios, strict=True) if k not in found}
    done(sum(k in found for k in keys), len(keys))
    solved = _on_cluster(todo, catalog, where) if where.scheduler else _in_threads(todo, cache or where.cache(catalog), where.workers)
    for key, result in solved:
        folder = _kept(folder, key, result, where.tell)
        found[key] = result
        done(sum(k in found for k in keys), len(keys))
    return [found[k] for k in keys]


def answer_one(scenario: Scenario, cache: SurveyCache) -> Result:
    """The answer to one scenario, candidates kept for the next."""
    try:
        return Result(solve(scenario, cache.catalog, compare=False, cache=cache))
    except Infeasible as error:
        return Result(None, str(error))


def least_cost(scenario: Scenario, cache: SurveyCache) -> float:
    """$/h of the cheapest plan, infinite without one: the program alone, where a plan described and checked is not needed."""
    if has_open(scenario):
        return answer_one(scenario, cache).cost
    asked, points = posed(scenario, cache)
    return kept_apart(points, asked, break_ties=False)[0].cost


def has_open(scenario: Scenario) -> bool:
    """Whether rates follow from the plan itself, or a workload is split by length, escalates or is nearer to some regions: then a plan is more than one
    program."""
    return any(w.route_by or w.is_cascade or w.network_at or (w.demand and w.demand.is_open) for w in scenario.workload)


def key_of(scenario: Scenario, catalog: Catalog) -> str:
    """A name for the question: equal for equal scenarios of one catalogue and planner, whatever the scenario is called."""
    text = scenario.model_copy(update={"name": ""}).model_dump_json()
    return hashlib.sha256("\n".join((planner_version(), source_hash(), catalog.hash, text)).encode()).hexdigest()[:32]


def side_by_side(ask: Callable[[T], U], questions: Sequence[T], workers: int, done: Done = quietly) -> list[U]:
    """What ``ask`` says to each question, in order, in so many threads (0: as many as cores). Whoever interrupts does not wait for the rest."""
    pool, found = ThreadPoolExecutor(workers or os.cpu_count() or 1), list[U]()
    try:
        for answer in pool.map(ask, questions):
            found.append(answer)
            done(len(found), len(questions))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def _kept(folder: Path | None, key: str, result: Result, tell: Tell) -> Path | None:
    """Keeps an answer; where it cannot be kept this is told once, and the rest of the run keeps none."""
    if folder is None:
        return None
    try:
        keep(folder, key, result)
    except OSError as error:
        tell(f"answers are not kept in {folder}: {reason(error)}")
        return None
    return folder


def _in_threads(todo: dict[str, Scenario], cache: SurveyCache, workers: int) -> Iterator[tuple[str, Result]]:
    """HiGHS and numpy leave the interpreter while they work, so threads do."""
    if len(todo) <= 1:
        yield from ((k, answer_one(s, cache)) for k, s in todo.items())
        return
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        futures: dict[Future[Result], str] = {pool.submit(answer_one, s, cache): k for k, s in todo.items()}
        waiting = set(futures)
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield futures[future], future.result()
    finally:  # whoever interrupts does not wait for what is being solved
        pool.shutdown(wait=False, cancel_futures=True)


def _on_cluster(todo: dict[str, Scenario], catalog: Catalog, where: Where) -> Iterator[tuple[str, Result]]:
    """On a Dask cluster whose workers have this planner and can read the catalogue's folders."""
    try:
        distributed: Any = import_module("distributed")  # which has no types
    except ImportError:
        raise PlannerError("Dask is not installed", "--scheduler", "pip install 'inference-planner[cluster]'") from None
    try:
        client = distributed.Client(where.scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise PlannerError(f"no Dask scheduler answers at {where.scheduler}: {error}", "--scheduler") from None
    folders = tuple(str(f) for f in catalog.folders)
    with client:
        futures = {client.submit(_far, s.model_dump_json(), folders, (catalog.hash, source_hash()), key=f"plan-{k}", pure=True): k for k, s in todo.items()}
        for future in distributed.as_completed(list(futures)):
            yield futures[future], from_text(future.result())


def _far(scenario: str, folders: tuple[str, ...], hashes: tuple[str, str]) -> str:
    """What a worker does: text in, text out, so that nothing depends on how objects are pickled."""
    cache = _cache_there(folders)
    if (cache.catalog.hash, source_hash()) != hashes:
        raise PlannerError("a worker has another planner or catalogue than this one", "--scheduler", "install the same version everywhere")
    return to_text(answer_one(Scenario.model_validate_json(scenario), cache))


@lru_cache(maxsize=2)
def _cache_there(folders: tuple[str, ...]) -> SurveyCache:
    return SurveyCache(load_catalog(folders))
