"""Capacities and demand of one's own, read from two CSV tables, as a problem for the program.

Classes are the user's own: nothing is looked up in a catalogue, packed or pooled, and a replica is bought as one thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, create_model

from planner.candidates.columns import caps_of
from planner.catalog.files import numbered_csv
from planner.catalog.records import Name, Record
from planner.errors import CatalogError, ScenarioError, did_you_mean
from planner.program.problem import Column, Problem, Purchasable, Rules, Tier, Traffic
from planner.scenario.own import OwnCandidate, OwnTables
from planner.scenario.part import Part
from planner.scenario.records import Scenario

Named = Annotated[Name, StringConstraints(min_length=1)]
Amount = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Gpus = Annotated[int, Field(gt=0, le=100_000)]

# "class" is a Python keyword, so the two records cannot be written as classes.
_CAPACITY: dict[str, Any] = {
    **{"candidate": (Named, ...), "gpu": (Named, ...), "gpus": (Gpus, ...)},
    **{"usd_per_hour": (Amount, ...), "class": (Named, ...), "max_qps": (Amount, ...)},
}
_DEMAND: dict[str, Any] = {"class": (Named, ...), "qps": (Amount, ...)}
CapacityRow: type[Record] = create_model("CapacityRow", __base__=Record, **_CAPACITY)
DemandRow: type[Record] = create_model("DemandRow", __base__=Record, **_DEMAND)

# A rate this far below the demand stands for "cannot serve", and numbers so far apart make solvers return wrong answers.
MOST_REPLICAS = 1e6
LEAST_AMOUNT = 1e-12  # requests/s or $/h: one request in 30,000 years
# What of supply and policy means something without catalogues; any other setting is refused rather than ignored.
SUPPLY = {"quota", "max_gpus"}
POLICY = {"max_slo_load", "spare_replicas", "max_pools", "max_gpu_types", "budget"}


@dataclass(frozen=True)
class TableCandidate:
    """One candidate of the capacities table; its price is per replica."""

    name: str
    gpu: str
    gpus: int
    usd_per_hour: float


@dataclass(frozen=True)
class TableProblem:
    """The program's problem with the names behind its indices: one column and one offer per candidate, in their order.

    ``unused``: classes with capacities that nobody demands; ``unserved``: demanded classes that no candidate serves,
    which make the problem infeasible. ``own``: what the tables say, for the plan to carry.
    """

    problem: Problem
    candidates: tuple[TableCandidate, ...]
    classes: tuple[str, ...]
    unused: tuple[str, ...]
    unserved: tuple[str, ...]
    own: OwnTables


def read_tables(scenario: Scenario) -> TableProblem:
    """The problem that the scenario's two tables state. Raises ScenarioError naming file, line and remedy."""
    _refuse_meaningless(scenario)
    demand_file, capacity_file = Path(scenario.tables.demand or ""), Path(scenario.tables.capacities or "")
    demand = _demand(demand_file)
    candidates, capacities = _capacities(capacity_file, demand)
    _check_quota(scenario, candidates)
    index = {name: w for w, name in enumerate(demand)}
    served = {c.name: {index[k]: qps for k, qps in capacities[c.name].items() if k in index} for c in candidates}
    useful = tuple(c for c in candidates if served[c.name])
    problem = Problem(
        demands=tuple(Traffic(name, (qps,)) for name, qps in demand.items()),
        columns=tuple(_column(i, c, served[c.name]) for i, c in enumerate(useful)),
        offers=tuple(Purchasable("own", c.gpu, c.gpus, c.usd_per_hour) for c in useful),
        rules=_rules(scenario),
    )
    known = dict.fromkeys(k for row in capacities.values() for k in row)
    unused, unserved = (tuple(k for k in these if k not in those) for these, those in ((known, demand), (demand, known)))
    rates = [{k: qps for k, qps in capacities[c.name].items() if k in demand} for c in useful]
    own = OwnTables(
        candidates=tuple(OwnCandidate(name=c.name, gpu=c.gpu, gpus=c.gpus, usd_per_hour=c.usd_per_hour, max_qps=r) for c, r in zip(useful, rates, strict=True)),
        demand=demand,
    )
    return TableProblem(problem, useful, tuple(demand), unused, unserved, own)


def _column(offer: int, candidate: TableCandidate, qps: dict[int, float]) -> Column:
    """A candidate as numbers; several classes share one pool, and one class alone needs no sharing."""
    shares = len(qps) > 1
    return Column(
        name=candidate.name,
        model=candidate.name,
        checkpoint=candidate.name,
        gpu=candidate.gpu,
        gpus=candidate.gpus,
        tiers={} if shares else {w: (Tier(1, rate),) for w, rate in qps.items()},
        shared=qps if shares else {},
        offers=(offer,),
    )


def _rules(scenario: Scenario) -> Rules:
    """The policy as the program takes it; classes may be split over any candidates unless one is asked for."""
    policy = scenario.policy
    return Rules(
        max_slo_load=policy.max_slo_load,
        spare_replicas=policy.spare_replicas,
        pools_per_workload=1 if scenario.tables.single_candidate_per_class else policy.max_pools,
        mix=True,
        max_gpu_types=policy.max_gpu_types,
        caps=caps_of(scenario),
    )


def _demand(path: Path) -> dict[str, float]:
    """qps of each class, in the order of the file."""
    found: dict[str, float] = {}
    for line, row in _rows(path, DemandRow):
        name = row["class"]
        if name in found:
            raise ScenarioError(f"class '{name}' stands twice", f"{path}:{line}", "add its rates up, or give the second one a name of its own")
        found[name] = row["qps"]
    if not found:
        raise ScenarioError("the table has no rows", str(path), "needs one row per class: class,qps")
    return found


def _capacities(path: Path, demand: dict[str, float]) -> tuple[list[TableCandidate], dict[str, dict[str, float]]]:
    """The candidates in the order of the file, and the rate each sustains of each class."""
    candidates: dict[str, TableCandidate] = {}
    capacities: dict[str, dict[str, float]] = {}
    for line, row in _rows(path, CapacityRow):
        candidate = TableCandidate(row["candidate"], row["gpu"], row["gpus"], row["usd_per_hour"])
        name, group, qps = candidate.name, row["class"], row["max_qps"]
        _check_same(candidates.setdefault(name, candidate), candidate, f"{path}:{line}")
        if group in capacities.setdefault(name, {}):
            raise ScenarioError(f"candidate '{name}' has class '{group}' twice", f"{path}:{line}", "keep one max_qps per candidate and class")
        if demand.get(group, 0.0) > qps * MOST_REPLICAS:
            what = f"'max_qps' of {qps:g} would need {demand[group] / qps:.1g} replicas for class '{group}'"
            raise ScenarioError(what, f"{path}:{line}", "leave the row out if the candidate cannot serve the class")
        capacities[name][group] = qps
    if not candidates:
        raise ScenarioError("the table has no rows", str(path), f"needs one row per candidate and class: {','.join(CapacityRow.model_fields)}")
    return list(candidates.values()), capacities


def _rows(path: Path, kind: type[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, cells) of each row. Raises ScenarioError."""
    try:
        for line, record in numbered_csv(path, kind):
            row = record.model_dump()
            for name, value in row.items():
                if isinstance(value, float) and value < LEAST_AMOUNT:
                    raise ScenarioError(f"'{name}' of {value:g} is less than {LEAST_AMOUNT:g}", f"{path}:{line}", "leave the row out, or use larger units")
            yield line, row
    except CatalogError as error:
        absent = "leave the row out if the candidate cannot serve the class" if "'max_qps'" in error.what else ""
        raise ScenarioError(error.what, error.where, error.hint or absent) from None


def _check_same(first: TableCandidate, now: TableCandidate, where: str) -> None:
    """A candidate is one thing to buy, so its rows must agree on what it is and costs."""
    for field in ("gpu", "gpus", "usd_per_hour"):
        before, after = getattr(first, field), getattr(now, field)
        if before != after:
            what = f"candidate '{now.name}' has {field} {after}, and {before} in an earlier row"
            raise ScenarioError(what, where, "give the second one a name of its own")


def _check_quota(scenario: Scenario, candidates: Sequence[TableCandidate]) -> None:
    """A quota on a GPU type that nothing has would be ignored in silence."""
    gpus = sorted({c.gpu for c in candidates})
    for gpu in scenario.supply.quota:
        if gpu not in gpus:
            hint = did_you_mean(gpu, gpus) or f"the table has {', '.join(gpus)}"
            raise ScenarioError(f"quota names '{gpu}', which no candidate has", "--quota", hint)


def _refuse_meaningless(scenario: Scenario) -> None:
    """Settings that only mean something with the catalogues."""
    if scenario.workload:
        raise ScenarioError("the demand stands in the table of classes", "--demand", "drop the workload, or the tables")
    given = _set(scenario.supply, SUPPLY) + _set(scenario.policy, POLICY) + (["catalog"] if scenario.catalog else [])
    given += ["carbon_price"] if scenario.objective.carbon_price else []
    if given:
        hint = "drop it, or leave the candidates it excludes out of the table"
        raise ScenarioError(f"'{given[0]}' has no meaning with capacities of your own", "--capacities", hint)


def _set(part: Part, known: set[str]) -> list[str]:
    """Settings outside ``known`` that differ from their default."""
    return [name for name, field in type(part).model_fields.items() if name not in known and getattr(part, name) != field.default]
