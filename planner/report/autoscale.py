"""An hourly plan as sections for the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from planner.clean import json_text
from planner.report.page import MOST_WARNINGS
from planner.report.sections import Grid, Section, money, short
from planner.report.studies import bar
from planner.result.hourly import Hour, HourlyPlan
from planner.scenario.records import format_lead

DAY = 24
MOST_ROWS = 48  # hours shown one by one; a longer plan is shown as days by hours


def formatted_hours(plan: HourlyPlan, form: str, details: bool = False) -> str:
    """The plan as text: json, csv (a row for each hour), markdown or table; the last two as the short page or with all details."""
    if form == "json":
        return json_text(plan.to_json())
    from planner.report import render

    if form == "csv":
        rows = plan.rows()
        return render.csv_text(list(rows[0]), [list(r.values()) for r in rows])
    sections = autoscale_sections(plan) if details else page_sections(plan)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def page_sections(plan: HourlyPlan) -> list[Section]:
    """The short page: the decision, what serves when and on what, and the warnings with most at stake."""
    names = [f"{d.layout} {d.gpu}, {short(d.checkpoint)}" for d in plan.deployments]
    items = [(f"#{i + 1}", f"{_serves(plan, i)}: {_counts([h.deployments[i].replicas for h in plan.periods])} x {name}") for i, name in enumerate(names)]
    held = zip(plan.offers, zip(*(h.instances for h in plan.periods), strict=True), strict=True)
    items += [("buy", f"{_counts(counts)} x {o.instance_type} at {o.provider}, {money(o.usd_per_hour)}/h each") for o, counts in held]
    items += [("GPUs held", _spans(plan))] if plan.hours <= MOST_ROWS else []
    items += [("notes", f"{note[0].upper()}{note[1:]}.") for note in plan.notes]
    items += [("defaults", f"{len(plan.defaults)} (--details)")] if plan.defaults else []
    warnings = plan.warnings[:MOST_WARNINGS]
    more = f" ({len(warnings)} of {len(plan.warnings)})" if len(plan.warnings) > len(warnings) else ""
    return [
        Section("Autoscaled plan", _decision(plan), items=tuple(items)),
        *([Section(f"Warnings{more}", warnings, is_caution=True)] if warnings else []),
    ]


def _counts(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def _spans(plan: HourlyPlan) -> str:
    """GPUs held, hour after hour: 00-06 3, 07 5, ..."""
    spans: list[tuple[int, int, int]] = []
    for h in plan.periods:
        if spans and spans[-1][2] == h.gpus_held:
            spans[-1] = (spans[-1][0], h.hour, h.gpus_held)
        else:
            spans.append((h.hour, h.hour, h.gpus_held))
    return ", ".join(f"{n} ({a:02d}:00-{b + 1:02d}:00)" for a, b, n in spans)


def autoscale_sections(plan: HourlyPlan) -> list[Section]:
    """Decision first, then what serves, what is bought, and the hours."""
    hours = _hours(plan) if plan.hours <= MOST_ROWS else _days(plan)
    commands = tuple(line for d in plan.deployments for line in d.serve_command.splitlines())
    return [
        Section("Autoscaled plan", _decision(plan)),
        _deployments(plan),
        _offers(plan),
        *hours,
        *([Section("Notes", plan.notes)] if plan.notes else []),
        *([Section("Warnings", plan.warnings, is_caution=True)] if plan.warnings else []),
        Section("Assumed", plan.assumptions),
        *([Section("Start one replica", commands, is_code=True)] if commands else []),
        *([Section("Defaults used", ("; ".join(plan.defaults) + ".",))] if plan.defaults else []),
    ]


def _decision(plan: HourlyPlan) -> tuple[str, ...]:
    proven = f"proven within {plan.gap:.1%}" if plan.status == "optimal" else f"not proven: the search stopped {plan.gap:.1%} above its bound"
    span = f"{money(plan.usd)} for {plan.hours} hours: " if plan.hours != DAY else ""
    each = f"{money(plan.usd_per_day)}/day, {money(plan.usd_per_week)}/week, {money(plan.usd / plan.hours)} an hour on average"
    lines = [f"{span}{each}, {proven} (bound {money(plan.bound_usd)} for {plan.hours} hours)."]
    if all(w.is_waiting for w in plan.workloads):
        gpu_hours = sum(h.gpus_held for h in plan.periods)
        lines.append(f"Requests may wait: GPUs are held in {sum(h.gpus_held > 0 for h in plan.periods)} of {plan.hours} hours, {gpu_hours:,} GPU-hours in all.")
    if plan.flat_usd_per_hour is None or plan.saving is None:
        why = f"{plan.flat[0].upper()}{plan.flat[1:]}" if "time limit" in plan.flat else "No plan holds the peaks all day within the limits"
        lines.append(f"{why}, so there is nothing to compare with.")
    else:
        held = "A fleet held around the clock for them" if all(w.is_waiting for w in plan.workloads) else "Holding the peaks all day"
        lines.append(f"{held} costs {money(plan.flat_usd_per_hour * DAY)}/day ({plan.flat}): {round(plan.saving, 3) + 0.0:.1%} saved.")
    lead = format_lead(plan.scenario.policy.startup_lead)
    starts = sum(sum(h.started) for h in plan.periods)
    many = "1 instance is" if starts == 1 else f"{starts} instances are"
    lines.append(f"{many} started, {lead} before serving (--startup-lead; measure yours): {money(plan.startup_usd)} of the cost.")
    return tuple(lines)


def _serves(plan: HourlyPlan, i: int) -> str:
    return ", ".join(f"{w.name} (waits)" if w.is_waiting else w.name for w in plan.workloads if i in w.deployments)


def _deployments(plan: HourlyPlan) -> Section:
    rows = []
    for i, d in enumerate(plan.deployments):
        counts = [h.deployments[i].replicas for h in plan.periods]
        loads = [h.deployments[i].slo_load for h in plan.periods]
        quality = f"{d.quality.score:.4f}" if d.quality else "-"
        replicas = f"{min(counts)} to {max(counts)}"
        rows.append(
            (str(i + 1), _serves(plan, i), d.checkpoint, f"{d.layout} {d.gpu}", quality, replicas, f"{sum(counts) / len(counts):.1f}", f"{max(loads):.3f}")
        )
    header = ("#", "serves", "checkpoint", "replica", "quality", "replicas", "mean", "most SLO load")
    return Section("What serves at every hour", grid=Grid(header, tuple(rows), ("quality", "replicas", "mean", "most SLO load")))


def _offers(plan: HourlyPlan) -> Section:
    rows = tuple(
        (
            f"{o.provider} {o.region}",
            o.instance_type,
            f"{o.gpus_per_instance} x {o.gpu}",
            money(o.usd_per_hour),
            f"{min(counts)} to {o.most_instances}",
            o.as_of,
        )
        for o, counts in zip(plan.offers, zip(*(h.instances for h in plan.periods), strict=True), strict=True)
    )
    header = ("provider", "instance", "GPUs", "$/h each", "held", "price of")
    return Section("What is held", grid=Grid(header, rows, ("$/h each", "held")))


def _hours(plan: HourlyPlan) -> list[Section]:
    """A row for each hour, with a bar of its cost."""
    most = max(h.usd for h in plan.periods)
    several = len(plan.workloads) > 1
    header = (
        "hour",
        *(f"{w.name} {'in flight' if w.unit == 'concurrency' else 'req/s'}" for w in plan.workloads),
        *(f"#{i + 1}" for i in range(len(plan.plans))),
    )
    header = (*header, "GPUs", "$/h", "cost")
    rows = tuple(
        (
            f"{h.hour % DAY:02d}:00",
            *(f"{w.rates[h.hour]:,.4g}" for w in plan.workloads),
            *(str(d.replicas) for d in h.deployments),
            str(h.gpus_held),
            money(h.usd),
            bar(h.usd, most, 20),
        )
        for h in plan.periods
    )
    words = "Mean traffic of each hour, replicas of each deployment (#), what is held, and what the hour costs with its start-ups."
    note = words if several else words.replace("each deployment", "the deployment")
    return [Section("By the hour", (note,), Grid(header, rows, header[:-1]))]


def _days(plan: HourlyPlan) -> list[Section]:
    """Days down, hours across: GPUs held, then replicas of each deployment."""

    def value(title: str, of: list[int]) -> Section:
        days = range(plan.hours // DAY)
        rows = tuple(
            (str(day + 1), *(str(n) for n in of[day * DAY : (day + 1) * DAY]), bar(sum(of[day * DAY : (day + 1) * DAY]) / DAY, max(of), 10)) for day in days
        )
        header = ("day", *(f"{h:02d}" for h in range(DAY)), "mean")
        return Section(title, grid=Grid(header, rows, header[:-1]))

    def replicas(i: int) -> list[int]:
        return [h.deployments[i].replicas for h in plan.periods]

    each = [value(f"Replicas of #{i + 1} ({_serves(plan, i)})", replicas(i)) for i in range(len(plan.plans))]
    return [value("GPUs held, by day and hour", [h.gpus_held for h in plan.periods]), *each, _cost_of_days(plan)]


def _cost_of_days(plan: HourlyPlan) -> Section:
    def total(hours: tuple[Hour, ...]) -> float:
        return sum(h.usd for h in hours)

    days = [total(plan.periods[d : d + DAY]) for d in range(0, plan.hours, DAY)]
    rows = tuple((str(i + 1), money(usd), bar(usd, max(days), 30)) for i, usd in enumerate(days))
    return Section("Cost by day", grid=Grid(("day", "$", "cost"), rows, ("day", "$")))
