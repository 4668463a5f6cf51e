"""A sensitivity study as sections, rows and plain data."""

from __future__ import annotations

from planner.economics.sensitivity import Blade, Odds, Sensitivity
from planner.economics.sweep import structure
from planner.report.sections import Grid, Section, money
from planner.report.studies import what

HALF = 16  # characters of the widest half of a blade


def sensitivity_sections(found: Sensitivity) -> list[Section]:
    """The plan, the tornado, the odds."""
    ours, cost = structure(found.plan), found.plan.cost.usd_per_hour
    most = max((abs(c - cost) for b in found.blades for c in (b.low_usd_per_hour, b.high_usd_per_hour) if c is not None), default=0.0)
    rows = tuple(
        (b.assumption, b.low, _change(b.low_usd_per_hour, cost), b.high, _change(b.high_usd_per_hour, cost), blade(b, cost, most), _moved(b, ours))
        for b in found.blades
    )
    header = ("assumption", "low", "$/h", "high", "$/h ", "tornado", "another plan")
    sections = [
        Section("Plan", (f"{what(found.plan)}: {money(cost)}/h.",)),
        Section("What moves the cost", ("Each assumption alone, the plan chosen anew.",), Grid(header, rows, ("low", "$/h", "high", "$/h "))),
    ]
    return [*sections, _odds(found.odds)] if found.odds else sections


def blade(b: Blade, cost: float, most: float) -> str:
    """Two bars around the plan's cost: left what saves, right what costs."""
    changes = [c - cost for c in (b.low_usd_per_hour, b.high_usd_per_hour) if c is not None]
    if not most:
        return f"{' ' * HALF}|"
    left, right = (round(max((s * c for c in changes), default=0.0) / most * HALF) for s in (-1, 1))
    return f"{'█' * max(left, 0):>{HALF}}|{'█' * max(right, 0)}" + (" no plan" if len(changes) < 2 else "")


def _change(cost: float | None, ours: float) -> str:
    return "no plan" if cost is None else f"{cost - ours:+,.2f}"


def _moved(b: Blade, ours: str | None) -> str:
    """Where the choice itself changes."""
    sides = [f"{side}: {s}" for side, s in (("low", b.low_structure), ("high", b.high_structure)) if s is not None and s != ours]
    return "; ".join(sides) or "-"


def _odds(o: Odds) -> Section:
    low, middle, high = (o.costs[min(int(q * len(o.costs)), len(o.costs) - 1)] if o.costs else float("nan") for q in (0.05, 0.5, 0.95))
    lines = (
        f"In {o.stays_best:.0%} (± {o.stays_best_error:.0%}) of {o.draws} draws the same plan is cheapest; in {o.holds:.0%} of those "
        "no more replicas are needed than bought.",
        f"The cheapest plan costs {money(low)} to {money(high)}/h in nine of ten draws, {money(middle)}/h in the middle.",
        "Each draw gives every configuration (architecture, precision, GPU, engine) an error from its evidence tier, and plans anew with hindsight.",
    )
    rows = tuple((name, f"{n / o.draws:.0%}") for name, n in o.structures[:8])
    return Section("How often the choice stays best", lines, Grid(("cheapest", "draws"), rows, ("draws",)))


def sensitivity_rows(found: Sensitivity) -> list[dict[str, object]]:
    """One row per assumption."""
    return [vars(b) for b in found.blades]


def sensitivity_payload(found: Sensitivity) -> dict[str, object]:
    """Plain data with the plan."""
    odds = vars(found.odds) if found.odds else None
    return {"plan": found.plan.model_dump(mode="json"), "tornado": sensitivity_rows(found), "odds": odds}
