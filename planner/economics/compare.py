"""Plans side by side: what each costs, what it is made of, and which demand moved the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from planner.catalog.catalog import Catalog
from planner.catalog.files import message_of, parse_toml, read_text
from planner.economics.runs import HERE, Done, Where, answers, quietly
from planner.economics.store import Result
from planner.errors import CatalogError, ScenarioError, did_you_mean
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.raw import Raw
from planner.result.plan import Deployment, Plan
from planner.scenario.records import Scenario
from planner.scenario.sources import ask

BASE = "base"


@dataclass(frozen=True)
class Change:
    """How a plan differs from the first: ``sign`` + (new), - (gone) or ~ (another number of replicas)."""

    sign: str
    what: str


@dataclass(frozen=True)
class Compared:
    """One scenario's plan beside the first's; ``asked``: what its question changes, ``why``: what bounds it, or why there is no plan;
    ``moved``: what its cost differs by."""

    name: str
    plan: Plan | None
    asked: tuple[str, ...]
    changes: tuple[Change, ...]
    why: str
    moved: tuple[str, ...] = ()

    @property
    def usd_per_hour(self) -> float | None:
        """Cost, if there is a plan."""
        return self.plan.cost.usd_per_hour if self.plan else None


def compare(scenarios: Sequence[tuple[str, Scenario]], catalog: Catalog, where: Where = HERE, done: Done = quietly) -> tuple[Compared, ...]:
    """The plans of several scenarios of one catalogue, each beside the first."""
    results = answers([s for _, s in scenarios], catalog, where, done)
    told = [r if r.plan else Result(None, _explained(s, catalog)) for (_, s), r in zip(scenarios, results, strict=True)]
    return beside([(name, r, s.model_dump(mode="json")) for (name, s), r in zip(scenarios, told, strict=True)])


def _explained(scenario: Scenario, catalog: Catalog) -> str:
    """Why there is no plan, with the smallest changes that would make one."""
    try:
        solve(scenario, catalog, compare=False)
    except Infeasible as error:
        return str(error)
    return "no plan"


def compare_plans(plans: Sequence[tuple[str, Plan]]) -> tuple[Compared, ...]:
    """Saved plans, each beside the first."""
    return beside([(name, Result(p), p.scenario.model_dump(mode="json")) for name, p in plans])


def beside(rows: Sequence[tuple[str, Result, Raw]]) -> tuple[Compared, ...]:
    """Each answer beside the first, with the difference of the questions."""
    first = rows[0]
    return tuple(
        Compared(
            name, r.plan, differences(first[2], asked), changes(first[1].plan, r.plan) if r.plan and first[1].plan else (), _why(r, first[1]),
            money_moved(first[1].plan, r.plan) if r.plan and first[1].plan and i else (),
        )
        for i, (name, r, asked) in enumerate(rows)
    )  # fmt: skip


def _why(result: Result, first: Result) -> str:
    """What bounds a plan; beside another, what has come to bind or ceased to."""
    if result.plan is None:
        return result.why
    ours, theirs = result.plan.binding, first.plan.binding if first.plan else ()
    new, gone = ([b for b in a if b not in c] for a, c in ((ours, theirs), (theirs, ours)))
    if result is first or not theirs:
        return f"bound by {'; '.join(ours)}" if ours else "nothing binds but whole replicas"
    words = ([f"now bound by {'; '.join(new)}"] if new else []) + ([f"no longer by {'; '.join(gone)}"] if gone else [])
    return ", ".join(words) or "bound by the same"


def money_moved(first: Plan, other: Plan) -> tuple[str, ...]:
    """The difference in cost by its two parts: what a GPU-hour costs (on the first's GPUs) and how many are held (at the other's price).

    They add up: g₁(p₂ - p₁) + (g₂ - g₁)p₂ = g₂p₂ - g₁p₁.
    """
    if first.hosted or other.hosted:
        parts = {"APIs": [p.cost.api_usd_per_hour for p in (first, other)], "GPUs": [p.cost.usd_per_hour - p.cost.api_usd_per_hour for p in (first, other)]}
        return tuple(f"{name} ${a:,.2f}/h -> ${b:,.2f}/h: {_signed(b - a)}/h" for name, (a, b) in parts.items() if round(a, 2) != round(b, 2))
    held, now = first.gpus_held, other.gpus_held
    before, after = (p.cost.usd_per_hour / p.gpus_held for p in (first, other))
    by_price = round(held * (after - before), 2)
    by_size = round(other.cost.usd_per_hour - first.cost.usd_per_hour - by_price, 2)
    found = [f"price of a GPU-hour ${before:.2f} -> ${after:.2f}{_sellers(first, other)}: {_signed(by_price)}/h"] if by_price or _sellers(first, other) else []
    if by_size:
        each = [sum(w.qps for w in p.workloads) / p.gpus_used for p in (first, other)]
        idle = f"; {now - other.gpus_used} idle in whole instances" if now > other.gpus_used else ""
        found.append(f"GPUs held {held} -> {now} ({each[0]:.3g} -> {each[1]:.3g} req/s per GPU used{idle}): {_signed(by_size)}/h")
    return tuple(found)


def _sellers(first: Plan, other: Plan) -> str:
    """From whom to whom, and of which GPU."""
    before, after = (", ".join(dict.fromkeys(f"{b.gpu} of {b.provider}, {b.purchase.replace('_', '-')}" for b in p.purchases)) for p in (first, other))
    return f" ({before} -> {after})" if before != after else ""


def _signed(usd: float) -> str:
    return f"{'-' if usd < 0 else '+'}${abs(usd):,.2f}"


def changes(first: Plan | None, other: Plan | None) -> tuple[Change, ...]:
    """Deployments new (+), gone (-) and resized (~), by checkpoint, GPU and layout."""
    before, after = (_sizes(p) for p in (first, other))
    found = [Change("-", f"{n} x {key}") for key, n in before.items() if key not in after]
    found += [Change("~", f"{before[key]} -> {n} x {key}") for key, n in after.items() if key in before and before[key] != n]
    return (*found, *(Change("+", f"{n} x {key}") for key, n in after.items() if key not in before))


def _sizes(plan: Plan | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for d in plan.deployments if plan else ():
        found[_kind(d)] = found.get(_kind(d), 0) + d.replicas
    for h in plan.hosted if plan else ():
        found[f"{h.api_name} at {h.provider} for {h.workload}"] = 1
    return found


def _kind(d: Deployment) -> str:
    return f"{d.layout} {d.gpu}, {d.checkpoint.split('/')[-1]}"


def differences(base: Mapping[str, object], other: Mapping[str, object], path: str = "") -> tuple[str, ...]:
    """Leaves that differ, as "policy.budget: none -> $30/h"."""
    found: list[str] = []
    for key in dict.fromkeys((*base, *other)):
        a, b, here = base.get(key), other.get(key), f"{path}.{key}".lstrip(".")
        if a == b or key == "name":
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, here)
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(isinstance(x, Mapping) for x in (*a, *b)):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                found += differences(x, y, f"{here}.{x.get('name', i)}")
        else:
            found.append(f"{here}: {_word(a)} -> {_word(b)}")
    return tuple(found)


def _word(value: object) -> str:
    return "none" if value in (None, [], {}, "") else f"{value:g}" if isinstance(value, float) else str(value)


# ---- named scenarios in one file


def scenarios_in(path: Path) -> list[tuple[str, Scenario]]:
    """The scenarios of a file: itself, and every ``[scenario.NAME]`` that overrides it or, with ``inherit``, another one.

    An override merges tables; ``workload`` may be a list (replaces all), a table of fields (for every workload) or of workloads
    by name. Raises ScenarioError with file, name and reason.
    """
    try:
        raw = parse_toml(read_text(path), path)
    except CatalogError as error:
        raise ScenarioError(error.what, error.where, error.hint) from None
    named = raw.pop("scenario", None)
    if named is None:
        return [(raw.get("name") or path.stem, ask(file=path).scenario)]
    if not isinstance(named, dict) or not all(isinstance(v, dict) for v in named.values()):
        raise ScenarioError("'scenario' holds named tables, such as [scenario.cut10]", str(path))
    whole: dict[str, Raw] = {BASE: raw} if raw.get("workload") else {}
    order = [*whole, *(n for n in named if n not in whole)]
    found = {name: _resolved(name, named, whole, path, ()) for name in order}
    return [(name, _validated(name, found[name], path)) for name in order]


def _resolved(name: str, named: Raw, whole: Raw, path: Path, via: tuple[str, ...]) -> Raw:
    """A scenario with all that it inherits."""
    if name in via:
        raise ScenarioError(f"scenario '{name}' inherits from itself ({' -> '.join((*via, name))})", str(path))
    if name in whole and name not in named:
        return dict(whole[name])
    own = dict(named[name])
    parent = own.pop("inherit", BASE if BASE in whole and name != BASE else None)
    if parent is None:
        return merged(whole.get(name, {}), own)
    if parent not in named and parent not in whole:
        known = [*whole, *named]
        raise ScenarioError(
            f"scenario '{name}' inherits from '{parent}', which is not there", str(path), did_you_mean(str(parent), known) or f"one of {', '.join(known)}"
        )
    return merged(_resolved(str(parent), named, whole, path, (*via, name)), own)


def merged(base: Mapping[str, object], override: Mapping[str, object]) -> Raw:
    """The base with an override's leaves; tables are merged, lists replaced, workloads addressed as in ``scenarios_in``."""
    found = dict(base)
    for key, value in override.items():
        old = found.get(key)
        if key == "workload" and isinstance(value, Mapping) and isinstance(old, list) and all(isinstance(w, Mapping) for w in old):
            names = {w.get("name", "requests") for w in old}
            by_name = all(isinstance(v, Mapping) for v in value.values()) and set(value) <= names
            found[key] = [_demand(w, value.get(w.get("name", "requests"), {}) if by_name else value) for w in old]
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _demand(workload: Mapping[str, object], override: Mapping[str, object]) -> Raw:
    """A workload with another demand: qps takes the place of concurrency and the other way round."""
    twin = {"qps": "concurrency", "concurrency": "qps"}
    dropped = {twin[k] for k in override if k in twin}
    return merged({k: v for k, v in workload.items() if k not in dropped}, override)


def _validated(name: str, raw: Raw, path: Path) -> Scenario:
    try:
        return Scenario.model_validate({**raw, "name": raw.get("name") or name})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in (first.get("ctx", {}).get("at") or first["loc"]))
        raise ScenarioError(f"scenario '{name}': {where + ': ' if where else ''}{message_of(first)}", str(path)) from None
