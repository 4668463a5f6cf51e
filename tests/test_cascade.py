"""Facts about cascades: a share of the requests is answered again, costs what so many requests of a better model cost, and scores by the last answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from planner import Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.planning.periods import autoscale

TINY = Path(__file__).parent / "data" / "tiny"
RAW = {"qps": 40, "min_quality": 0.55, "escalate": "20%", "escalate_quality": 0.75, "models": ["Small-8B"]}


def asked(*workloads: dict[str, object]) -> Scenario:
    return Scenario.model_validate({"workload": list(workloads)})


def test_a_cascade_is_all_requests_and_a_share_of_them_again() -> None:
    """All 40/s at the small model, 8/s again at the large one: the cost is that of these two workloads, the mean 0.8 of the one score and 0.2 of the other."""
    catalog = load_catalog([TINY], shipped=False)
    plan = solve(asked(RAW), catalog, compare=False)
    by_hand = solve(
        asked({"name": "all", "qps": 40, "min_quality": 0.55, "models": ["Small-8B"]}, {"name": "again", "qps": 8, "min_quality": 0.75}), catalog, compare=False
    )
    first, again = plan.workloads
    assert (first.qps, again.qps) == (40, 8) and plan.cost.usd_per_hour == pytest.approx(by_hand.cost.usd_per_hour)
    assert first.mean_quality_served and again.mean_quality_served and first.predicted and again.predicted
    assert 0.55 <= first.mean_quality_served < 0.75 <= again.mean_quality_served
    assert f"mean mmlu-pro {0.8 * first.mean_quality_served + 0.2 * again.mean_quality_served:.4f}" in plan.notes[0]
    assert f"{(first.predicted.e2e_ms.mean + again.predicted.e2e_ms.mean) / 1e3:.3g} s" in plan.notes[0]
    assert check_plan(Plan.model_validate_json(plan.to_json()), catalog).ok


def test_a_cascade_by_the_hour_agrees_with_its_check() -> None:
    plan = autoscale(asked(RAW | {"profile": "m-small"}), load_catalog([TINY], shipped=False))
    assert [w.name for w in plan.workloads] == ["requests", "requests (escalated)"]


def test_a_share_that_is_not_the_one_stated_is_found() -> None:
    catalog = load_catalog([TINY], shipped=False)
    plan = solve(asked(RAW), catalog, compare=False)
    first, again = plan.scenario.workload
    other = plan.scenario.model_copy(update={"workload": (first, again.model_copy(update={"escalate": 0.3}))})
    assert not check_plan(plan.model_copy(update={"scenario": other}), catalog).ok


def test_where_the_better_model_alone_is_cheaper_nothing_is_escalated() -> None:
    """Ninety in a hundred requests answered twice are dearer than all of them answered once."""
    catalog = load_catalog([TINY], shipped=False)
    raw = RAW | {"escalate": 0.95, "models": []}
    alone = solve(asked({"qps": 40, "min_quality": 0.75}), catalog, compare=False)
    plan = solve(asked(raw), catalog, compare=False)
    assert len(plan.workloads) == 1 and "escalates nothing" in plan.notes[0] and plan.cost.usd_per_hour == alone.cost.usd_per_hour


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"escalate_quality": None}, "go together"),
        ({"escalate_quality": 0.5}, "escalate to more"),
        ({"qps": None, "concurrency": 9}, "needs a rate of its own"),
        ({"escalate": 1}, "less than 1"),
    ],
)
def test_what_cannot_be_escalated_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        asked(RAW | change)


@pytest.mark.parametrize(
    ("said", "instead"),
    [("0.2 of", "0.3 of"), ("mean mmlu-pro 0.", "mean mmlu-pro 0.9"), ("with escalation $", "with escalation $1"), ("both answers, ", "both answers, 9")],
)
def test_notes_that_say_otherwise_than_is_served_are_found(said: str, instead: str) -> None:
    catalog = load_catalog([TINY], shipped=False)
    plan = solve(asked(RAW), catalog, compare=False)
    assert any(said in note for note in plan.notes)
    other = plan.model_copy(update={"notes": tuple(note.replace(said, instead) for note in plan.notes)})
    assert [b.name for b in check_plan(other, catalog).breaches] == ["cascade"]
