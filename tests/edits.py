"""Plans of every kind with one value changed each, and what the check says of them. A campaign of any length: python tests/edits.py 1000

``CANNOT_MATTER`` lists each field that no check derives again, with the reason; a field that is neither caught nor listed is a hole.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner import Catalog, Scenario, autoscale, load_catalog, solve
from planner.check.check import Report, check_plan
from planner.result.plan import Plan

Place = tuple[str | int, ...]
SMALL = 1e-5  # numbers this near to nothing are changed by more than a share of themselves, as rounding is no edit

DAY = [0.5] * 8 + [1.0] * 8 + [1.5] * 8
MODEST = {"kinds": ["neocloud"], "gpus": ["H100-SXM-80GB", "L40S"]}
OWN = {
    "basement": {"name": "basement", "gpu": "H100-SXM-80GB", "count": 2, "gpus_per_node": 2, "usd_per_hour": 0.9},
    "lab": {"name": "lab", "gpu": "L40S", "count": 2, "gpus_per_node": 1, "usd_per_hour": 0.3},
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "one workload": {"workload": [{"qps": 20, "min_quality": 0.6}]},
    "three workloads": {
        "workload": [
            {"name": "chat", "qps": 60, "min_quality": 0.8},
            {"name": "code", "qps": 5, "models": ["Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"], "input_tokens": 3000, "slo": {"ttft_p99": "3s"}},
            {"name": "bulk", "qps": 3, "min_quality": 0.6, "slo": {"e2e_p95": "60s", "itl_p99": "none"}},
        ]
    },
    "shared": {"workload": [{"name": f"tenant {i}", "qps": 1, "min_quality": 0.6, "output_tokens": 100 * (i + 1)} for i in range(3)]},
    "in flight": {"workload": [{"concurrency": 300, "min_quality": 0.6}]},
    "spares": {"workload": [{"qps": 60, "min_quality": 0.7}], "policy": {"spare_replicas": 2, "max_slo_load": 0.8}},
    "pools": {"workload": [{"qps": 150, "min_quality": 0.7}], "policy": {"max_pools": 3, "mix": True}},
    "most traffic": {"workload": [{"qps": 10, "min_quality": 0.7}], "policy": {"budget": "20/h"}, "objective": {"maximize": "qps"}},
    "instances": {"workload": [{"qps": 30, "min_quality": 0.8}], "supply": {"kinds": ["hyperscaler"]}},
    "unequal instances": {
        "workload": [{"qps": 90, "min_quality": 0.6}],
        "supply": {"owned": [*OWN.values()], "kinds": ["neocloud"]},
        "policy": {"max_pools": 2},
    },
    "thinking": {"workload": [{"qps": 2, "models": ["Qwen/Qwen3-4B-Thinking-2507"], "slo": {"e2e_p95": "300s", "ttft_p95": "200s"}, "output_factor": 8}]},
    "prefix cache": {"workload": [{"qps": 20, "min_quality": 0.6, "slo": {"itl_p99": "30ms"}, "burst_factor": 1.5, "prefix_cache_hit": 0.3}]},
    "sglang": {"workload": [{"qps": 20, "min_quality": 0.8}], "policy": {"engines": ["sglang"], "chunked_prefill": False}},
    "trtllm": {"workload": [{"qps": 20, "min_quality": 0.8}], "policy": {"engines": ["trtllm"], "allow": ["attention_dp", "expert_parallel", "fp8_kv"]}},
}
HOURS: dict[str, dict[str, Any]] = {
    "day": {"workload": [{"qps": 60, "min_quality": 0.6, "profile": DAY}], "supply": MODEST},
    "day and waiting work": {
        "workload": [
            {"name": "chat", "qps": 30, "min_quality": 0.6, "profile": DAY},
            {"name": "night", "requests_per_day": 300_000, "min_quality": 0.6, "deadline": "08:00"},
        ],
        "supply": MODEST,
    },
}
CAPACITIES = """candidate,gpu,gpus,usd_per_hour,class,max_qps
small,L4,1,0.8,chat,5
small,L4,1,0.8,code,2
large,H100,2,5.0,chat,40
large,H100,2,5.0,code,22
spare,A100,1,9.0,chat,1
"""
DEMAND = "class,qps\nchat,33\ncode,9\n"
TABLES = ("own table", "own table, other place")
KINDS = (*QUESTIONS, *HOURS, *TABLES)

# Fields (indices left out) that an edit of which may pass, each with the reason why it cannot mislead about what to buy, run or pay.
SEARCH = "a record of how the search went: nothing is bought, run or paid by it, and only the search could make it again"
WORDS = "a sentence: what it tells stands as checked numbers beside it"
CANNOT_MATTER: dict[str, str] = {
    "solver": SEARCH,
    "excluded": SEARCH,
    "deployments.*.busiest": "another hour with as many replicas; what is stated is checked at the hour that is named",
    "origins": "where the question's values came from; they stand in it",
    "planner_version": "names the program that wrote the plan; the numbers are derived anew whatever wrote them",
    "supply": "the question's supply in words; the question stands beside it, and every purchase is held against it",
    "defaults": "the question's values in words; the question stands beside them, with the origin of each",
    "assumptions": "fixed sentences on how hours are planned",
    "warnings": f"{WORDS} (tier, score, price, date, load with a replica lost)",
    "notes": f"{WORDS}, or says what looser rules would save: no part of this plan",
    "flat.words": "names the fleet compared with; its cost is tied to the saving stated",
    "alternatives": "absent where a plan was made without comparison; those that stand there are checked",
    "prudent": "absent where a plan was made without comparison, or is prudent itself; a bridge that stands there is checked",
    "prudent.steps.*.why": "a sentence on why a step has no plan or no proof; that it stands where it must is checked",
    "alternatives.*.difference": "a heading: what is bought and deployed must differ as its words say",
    "alternatives.*.deployments.*.ep": "where whole experts may spread, another layout of the same GPUs at the same price",
    "alternatives.*.why": f"{WORDS}; prices, rates and idle GPUs named in it are checked",
    "headroom.*.note": "a sentence; the numbers in it are checked, and so is the factor",
    "own": "where both files are at hand they say the same; without them a plan whose rows are gone is refused",
}
WHOLE = ("origins", "solver", "excluded", "defaults", "assumptions", "warnings", "notes")  # with all that is below them


@dataclass
class Tally:
    """Outcomes of a campaign."""

    tried: int = 0
    caught: int = 0
    missed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # field -> kinds and edits
    allowed: Counter[str] = field(default_factory=Counter)
    crashed: list[str] = field(default_factory=list)


@cache
def catalog() -> Catalog:
    """The shipped one, read once."""
    return load_catalog()


@cache
def planned(kind: str) -> Plan:
    """The plan of a kind, alternatives included."""
    if kind in HOURS:
        return autoscale(Scenario.model_validate(HOURS[kind]), load_catalog())
    if kind in QUESTIONS:
        return solve(Scenario.model_validate(QUESTIONS[kind]), load_catalog())
    folder = Path(tempfile.mkdtemp())
    files = {"capacities": folder / "capacities.csv", "demand": folder / "demand.csv"}
    for file, text in zip(files.values(), (CAPACITIES, DEMAND), strict=True):
        file.write_text(text)
    plan = solve(Scenario.model_validate({"tables": {k: str(f) for k, f in files.items()}}))
    if kind != TABLES[0]:
        for file in files.values():
            file.unlink()
    return plan


def checked(plan: Plan) -> Report:
    """What the check says."""
    return check_plan(plan, catalog())


def leaves(value: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every single value of a plan, and every part as a whole, which may be removed. The question itself is what is answered, and stays."""
    if at == ("scenario",):
        return
    if at and isinstance(value, (dict, list)) and value:
        yield at, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*at, key))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from leaves(part, (*at, i))
    else:
        yield at, value


def edits(value: Any) -> list[Any]:
    """Other values of the same kind. A part is removed: null for an object, and an emptied list."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, 0 if value else 2]
        case float():
            return [value * 1.1 if abs(value) > SMALL else 0.5, 0.0 if abs(value) > SMALL else 1.0]
        case str():
            bumped = re.sub(r"\d+", lambda m: str(int(m.group()) + 1), value, count=1)
            return [f"{value}x", bumped] if bumped != value else [f"{value}x"]
        case None:
            return [1.0, "x"]
        case list():
            return [[]]
        case _:
            return [None]


def changed(value: Any, at: Place, to: Any) -> Any:
    """A copy of JSON data with one value changed."""
    if not at:
        return to
    key, *rest = at
    if isinstance(value, list):
        return [changed(v, tuple(rest), to) if i == key else v for i, v in enumerate(value)]
    return {k: changed(v, tuple(rest), to) if k == key else v for k, v in value.items()}


def field_of(at: Place) -> str:
    """The field without its indices."""
    return ".".join("*" if isinstance(k, int) else k for k in at)


def drawn(count: int | None, seed: int = 0, kinds: Sequence[str] = KINDS) -> list[tuple[str, Place, Any]]:
    """(kind, place, new value): all there are, or so many of them, every field of every kind first."""
    draw, first, rest = random.Random(seed), [], []
    for kind in kinds:
        seen: set[tuple[str, int]] = set()
        found = [(at, i, to) for at, old in leaves(planned(kind).model_dump(mode="json")) for i, to in enumerate(edits(old))]
        draw.shuffle(found)
        for at, i, to in found:
            (rest if (field_of(at), i) in seen else first).append((kind, at, to))
            seen.add((field_of(at), i))
    for many in (first, rest):
        draw.shuffle(many)
    return [*first, *rest][:count]


def outcome(kind: str, at: Place, to: Any) -> str:
    """caught, passed, or the internal error that it made."""
    good = planned(kind)
    try:
        plan = type(good).model_validate(changed(good.model_dump(mode="json"), at, to))
    except ValidationError:
        return "caught"
    try:
        return "passed" if checked(plan).ok else "caught"
    except Exception as error:  # any error is the finding
        return f"{type(error).__name__}: {error}"


def allowed(name: str) -> str:
    """The entry of the list that a field falls under, or ""."""
    return next((known for known in CANNOT_MATTER if name == known or (known in WHOLE and name.startswith(f"{known}."))), "")


def campaign(count: int | None, seed: int = 0, kinds: Sequence[str] = KINDS) -> Tally:
    """So many edits, each checked."""
    found = Tally()
    for kind, at, to in drawn(count, seed, kinds):
        what, name = outcome(kind, at, to), field_of(at)
        found.tried += 1
        if what == "caught":
            found.caught += 1
        elif what != "passed":
            found.crashed.append(f"{kind}: {name} to {to!r}: {what}")
        elif known := allowed(name):
            found.allowed[known] += 1
        else:
            found.missed[name].append(f"{kind} to {to!r}")
    return found


if __name__ == "__main__":
    tally = campaign(None if sys.argv[1:] == ["all"] else int((sys.argv[1:] or ["1000"])[0]))
    print(f"{tally.tried} edits of {len(KINDS)} plans: {tally.caught} caught, {sum(tally.allowed.values())} in fields that cannot matter")
    for name, n in tally.allowed.most_common():
        print(f"  {n:4d}  {name}: {CANNOT_MATTER[name]}")
    print(f"missed: {sum(map(len, tally.missed.values()))}, crashed: {len(tally.crashed)}")
    for name, many in sorted(tally.missed.items()):
        print(f"  {len(many):4d}  {name}  ({many[0]})")
    print("\n".join(tally.crashed[:20]))
