"""An explanation as sections, rows and plain data."""

from __future__ import annotations

from planner.economics.explain import Explanation, Margin, WhyNot, distinct
from planner.report.sections import Grid, Section, money
from planner.report.studies import noise_words, what
from planner.result.plan import Plan


def explain_sections(found: Explanation) -> list[Section]:
    """The plan in a line, its margins, then what was asked."""
    plan = found.plan
    bound = "; ".join(plan.binding) or "nothing but whole replicas"
    sections = [Section("Plan", (f"{what(plan)}: {money(plan.cost.usd_per_hour)}/h.", f"Bound by {bound}."))]
    header = ("demand", "now", "a step tighter", "$/h", "a step looser", "$/h ", "long run", "per")
    rows = tuple(_margin_row(m, plan.cost.usd_per_hour) for m in found.margins)
    notes = (
        "Steps are solved again, whole replicas and instances counted. Traffic steps just past what the plan carries.",
        "Long run: the LP relaxation, where fractions of replicas can be bought and pools are large; its change per unit given.",
    )
    sections.append(Section("What each demand costs at the margin", notes, Grid(header, rows, ("$/h", "$/h ", "long run"))))
    sections += [_why_not(w) for w in found.why_not]
    if found.runners_up:
        mixed = len({distinct(p) for p in (plan, *found.runners_up)}) > 1
        several = len({b.purchase for p in (plan, *found.runners_up) for b in p.purchases}) > 1
        runners = tuple(
            (
                str(i + 1),
                what(p),
                ", ".join(sorted({f"{b.provider} ({b.purchase})" if several else b.provider for b in p.purchases})),
                money(p.cost.usd_per_hour),
                f"{p.cost.usd_per_hour / plan.cost.usd_per_hour - 1:+.1%}",
                *((str(distinct(p)),) if mixed else ()),
            )
            for i, p in enumerate(found.runners_up)
        )
        header = ("#", "what", "where", "$/h", "more", *(("distinct things",) if mixed else ()))
        sections.append(Section("Cheapest plans of another structure", grid=Grid(header, runners, ("$/h", "more"))))
    return sections


def _margin_row(m: Margin, cost: float) -> tuple[str, ...]:
    tighter, looser = _change(m.tighter_usd_per_hour, cost), _change(m.looser_usd_per_hour, cost)
    return (m.demand, m.now, m.tighter, tighter, m.looser, looser, _long(m), m.long_run_per)


def _change(cost: float | None, ours: float) -> str:
    return "no plan" if cost is None else f"{money(cost)} ({cost - ours:+,.2f})"


def _long(m: Margin) -> str:
    return "-" if m.long_run_usd_per_hour is None else f"{m.long_run_usd_per_hour:+,.4g}"


def _why_not(w: WhyNot) -> Section:
    title = f"Why not {w.name}?"
    if w.plan is None or w.premium is None:
        return Section(title, (w.why,))
    if w.premium <= 1e-9:
        return Section(title, (f"{w.why[0].upper()}{w.why[1:]}: {what(w.plan)}.",))
    lines = [f"The cheapest plan with it alone: {what(w.plan)}, {money(w.plan.cost.usd_per_hour)}/h, {w.premium:+.1%}.", f"{w.why}."]
    if w.noise is not None and w.noise.is_main:
        words = noise_words(w.noise)
        lines.append(f"{words[0].upper()}{words[1:]}")
    if w.price_factor is not None:
        what_falls = "all its GPUs come" if w.kind == "model" else "its price falls"
        aside = ", those of the plan at today's price" if w.kind == "model" else ""
        cheaper = f"{1 - w.price_factor:.1%} cheaper" if w.kind == "model" else f"by {1 - w.price_factor:.1%}"
        lines.append(f"It wins when {what_falls} {cheaper} (to {w.price_factor:.3f} of today's{aside}).")
    if w.step_factor is not None:
        lines.append(f"Or when its steps take {1 - w.step_factor:.1%} less time than predicted at the confidence asked (factor {w.step_factor:.3f}).")
    elif w.price_factor is None:
        lines.append("No step time within reach makes it win.")
    return Section(title, tuple(lines))


def explain_rows(found: Explanation) -> list[dict[str, object]]:
    """One row per demand."""
    return [vars(m) for m in found.margins]


def explain_payload(found: Explanation) -> dict[str, object]:
    """Plain data with every plan."""

    def plan(p: Plan | None) -> object:
        return p.model_dump(mode="json") if p else None

    def why_not(w: WhyNot) -> dict[str, object]:
        return {**vars(w), "plan": plan(w.plan), "noise": vars(w.noise) if w.noise else None}

    return {
        "plan": plan(found.plan), "margins": explain_rows(found), "why_not": [why_not(w) for w in found.why_not],
        "runners_up": [plan(p) for p in found.runners_up],
    }  # fmt: skip
