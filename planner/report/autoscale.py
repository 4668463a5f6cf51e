"""An hourly plan as sections for the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from planner.figures import digits
from planner.report.page import MOST_WARNINGS, losses_in_words, spot_in_words
from planner.report.power import power_line
from planner.report.sections import Grid, Section, hosted_section, losses_section, money, plural, power_section, short
from planner.report.studies import bar
from planner.result.plan import FlatComparison, Period, Plan
from planner.scenario.units import format_lead

DAY = 24
MOST_ROWS = 48  # hours shown one by one; a longer plan is shown as days by hours


def hours_page(plan: Plan) -> list[Section]:
    """The short page: the decision, what serves when and on what, and the warnings with most at stake."""
    names = [f"{d.layout} {d.gpu}, {short(d.checkpoint)}" for d in plan.deployments]
    items = [(f"#{i + 1}", f"{_serves(plan, i)}: {_counts([h.deployments[i].replicas for h in plan.periods])} x {name}") for i, name in enumerate(names)]
    held = zip(plan.purchases, zip(*(h.instances for h in plan.periods), strict=True), strict=True)
    items += [("buy", f"{_counts(counts)} x {o.instance_type} at {o.provider}, {money(o.usd_per_hour / o.instances)}/h each") for o, counts in held]
    items += [("API", text) for text in _apis(plan)]
    items += [("GPUs held", _spans(plan))] if plan.purchases and len(plan.periods) <= MOST_ROWS else []
    items += [("losses", text) for text in losses_in_words(plan)]
    items += [("spot", text) for text in spot_in_words(plan)]
    items += [("power", text) for text in power_line(plan)]
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


def _spans(plan: Plan) -> str:
    """GPUs held, hour after hour: 00-06 3, 07 5, ..."""
    return ", ".join(f"{n} ({a:02d}:00-{b:02d}:00)" for a, b, n in _stretches([h.gpus_held for h in plan.periods]))


def _stretches(values: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first hour, hour after the last, value) of each stretch of equal values."""
    spans: list[tuple[int, int, int]] = []
    for hour, value in enumerate(values):
        if spans and spans[-1][2] == value:
            spans[-1] = (spans[-1][0], hour + 1, value)
        else:
            spans.append((hour, hour + 1, value))
    return spans


def _apis(plan: Plan) -> list[str]:
    """What each API serves, when, and what it costs."""
    found = []
    for i, h in enumerate(plan.hosted):
        rates = next(w.rates for w in plan.workloads if w.name == h.workload)
        had = [p.hosted[i] for p in plan.periods]
        whole = sum(x > 0.999 * rate for x, rate in zip(had, rates, strict=True) if x > 0)
        some = sum(x > 0 for x in had) - whole
        hours = [f"all of it in {whole} {plural('hour', whole)}"] if whole else []
        hours += [f"what is beyond the fleet in {some} {plural('hour', some)}"] if some else []
        when = f"; {', '.join(f'{a:02d}:00-{b:02d}:00' for a, b, n in _stretches([int(x > 0) for x in had]) if n)}" if len(plan.periods) <= MOST_ROWS else ""
        of = f" of {h.workload}" if len(plan.workloads) > 1 else ""
        found.append(
            f"{digits(100 * h.share)}%{of} at {h.provider}, {short(h.checkpoint)}: {' and '.join(hours)} (most {digits(max(had))} req/s{when}), "
            f"{money(h.usd_per_hour * DAY)}/day; latency there not known"
        )
    return found


def hours_sections(plan: Plan) -> list[Section]:
    """Decision first, then what serves, what is bought, and the hours."""
    hours = _hours(plan) if len(plan.periods) <= MOST_ROWS else _days(plan)
    commands = tuple(line for d in plan.deployments for line in d.serve_command.splitlines())
    return [
        Section("Autoscaled plan", _decision(plan)),
        *([_deployments(plan), _offers(plan)] if plan.deployments else []),
        *([hosted_section(plan)] if plan.hosted else []),
        *hours,
        *([losses_section(plan, plan.redundancy)] if plan.redundancy else []),
        *([power_section(plan.power, plan)] if plan.power else []),
        *([Section("Notes", plan.notes)] if plan.notes else []),
        *([Section("Warnings", plan.warnings, is_caution=True)] if plan.warnings else []),
        Section("Assumed", plan.assumptions),
        *([Section("Start one replica", commands, is_code=True)] if commands else []),
        *([Section("Defaults used", ("; ".join(plan.defaults) + ".",))] if plan.defaults else []),
    ]


def _decision(plan: Plan) -> tuple[str, ...]:
    proven = f"proven within {plan.gap:.1%}" if plan.status == "optimal" else f"not proven: the search stopped {plan.gap:.1%} above its bound"
    hours, usd, flat = len(plan.periods), plan.cost.usd_per_hour, plan.flat or FlatComparison(words="nothing to compare with")
    span = f"{money(usd * hours)} for {hours} hours: " if hours != DAY else ""
    each = f"{money(usd * DAY)}/day, {money(usd * 7 * DAY)}/week, {money(usd)} an hour on average"
    lines = [f"{span}{each}, {proven} (bound {money(plan.bound_usd_per_hour * hours)} for {hours} hours)."]
    if plan.hosted:
        apis = plan.cost.api_usd_per_hour
        lines.append(f"APIs serve for {money(apis * DAY)}/day of it, the fleet for {money(max(usd - apis, 0.0) * DAY)}/day.")
    if all(w.is_waiting for w in plan.workloads):
        gpu_hours = sum(h.gpus_held for h in plan.periods)
        lines.append(f"Requests may wait: GPUs are held in {sum(h.gpus_held > 0 for h in plan.periods)} of {hours} hours, {gpu_hours:,} GPU-hours in all.")
    if flat.usd_per_hour is None or flat.saving is None:
        why = f"{flat.words[0].upper()}{flat.words[1:]}" if "time limit" in flat.words else "No plan holds the peaks all day within the limits"
        lines.append(f"{why}, so there is nothing to compare with.")
    else:
        held = "A fleet held around the clock for them costs" if all(w.is_waiting for w in plan.workloads) else "Holding the peaks all day costs"
        held = "The best of one fleet and one share of APIs all day costs" if plan.scenario.policy.api != "none" else held
        lines.append(f"{held} {money(flat.usd_per_hour * DAY)}/day ({flat.words}): {round(flat.saving, 3) + 0.0:.1%} saved.")
    if not plan.deployments:
        return tuple(lines)
    lead = format_lead(plan.scenario.policy.startup_lead)
    starts = sum(sum(h.started) for h in plan.periods)
    many = "1 instance is" if starts == 1 else f"{starts} instances are"
    lines.append(f"{many} started, {lead} before serving (--startup-lead; measure yours): {money(plan.startup_usd_per_hour * hours)} of the cost.")
    return tuple(lines)


def _serves(plan: Plan, i: int) -> str:
    return ", ".join(f"{w.name} (waits)" if w.is_waiting else w.name for w in plan.workloads if i in (r.deployment for r in w.routing))


def _deployments(plan: Plan) -> Section:
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


def _offers(plan: Plan) -> Section:
    rows = tuple(
        (
            f"{o.provider} {o.region}",
            o.instance_type,
            f"{o.gpus_per_instance} x {o.gpu}",
            money(o.usd_per_hour / o.instances),
            f"{min(counts)} to {o.instances}",
            o.as_of,
        )
        for o, counts in zip(plan.purchases, zip(*(h.instances for h in plan.periods), strict=True), strict=True)
    )
    header = ("provider", "instance", "GPUs", "$/h each", "held", "price of")
    return Section("What is held", grid=Grid(header, rows, ("$/h each", "held")))


def _hours(plan: Plan) -> list[Section]:
    """A row for each hour, with a bar of its cost."""
    most = max(h.usd for h in plan.periods)
    several, bought = len(plan.workloads) > 1, [w for w in plan.workloads if w.name in {h.workload for h in plan.hosted}]
    header = (
        "hour",
        *(f"{w.name} {'in flight' if w.demand.kind == 'concurrency' else 'req/s'}" for w in plan.workloads),
        *(f"#{i + 1}" for i in range(len(plan.deployments))),
        *(f"API{f' {w.name}' if several else ''} req/s" for w in bought),
    )
    header = (*header, "GPUs", "$/h", "cost")
    rows = tuple(
        (
            f"{h.hour % DAY:02d}:00",
            *(digits(w.rates[h.hour]) for w in plan.workloads),
            *(str(d.replicas) for d in h.deployments),
            *(digits(plan.at_apis(w.name, h)) for w in bought),
            str(h.gpus_held),
            money(h.usd),
            bar(h.usd, most, 20),
        )
        for h in plan.periods
    )
    words = "Mean traffic of each hour, replicas of each deployment (#), what is held, and what the hour costs with its start-ups."
    note = words if several else words.replace("each deployment", "the deployment")
    note = note.replace("what is held", "what APIs serve of it, what is held") if bought else note
    return [Section("By the hour", (note,), Grid(header, rows, header[:-1]))]


def _days(plan: Plan) -> list[Section]:
    """Days down, hours across: GPUs held, then replicas of each deployment."""

    def value(title: str, of: list[int]) -> Section:
        days = range(len(plan.periods) // DAY)
        rows = tuple(
            (str(day + 1), *(str(n) for n in of[day * DAY : (day + 1) * DAY]), bar(sum(of[day * DAY : (day + 1) * DAY]) / DAY, max(of), 10)) for day in days
        )
        header = ("day", *(f"{h:02d}" for h in range(DAY)), "mean")
        return Section(title, grid=Grid(header, rows, header[:-1]))

    def replicas(i: int) -> list[int]:
        return [h.deployments[i].replicas for h in plan.periods]

    each = [value(f"Replicas of #{i + 1} ({_serves(plan, i)})", replicas(i)) for i in range(len(plan.deployments))]
    bought = [[round(plan.at_apis(name, h)) for h in plan.periods] for name in dict.fromkeys(h.workload for h in plan.hosted)]
    each += [value(f"Requests/s of {h} at APIs, rounded", n) for h, n in zip(dict.fromkeys(h.workload for h in plan.hosted), bought) if any(n)]
    held = [value("GPUs held, by day and hour", [h.gpus_held for h in plan.periods])] if plan.purchases else []
    return [*held, *each, _cost_of_days(plan)]


def _cost_of_days(plan: Plan) -> Section:
    def total(hours: tuple[Period, ...]) -> float:
        return sum(h.usd for h in hours)

    days = [total(plan.periods[d : d + DAY]) for d in range(0, len(plan.periods), DAY)]
    rows = tuple((str(i + 1), money(usd), bar(usd, max(days), 30)) for i, usd in enumerate(days))
    return Section("Cost by day", grid=Grid(("day", "$", "cost"), rows, ("day", "$")))
