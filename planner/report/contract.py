"""A contract as sections, rows and plain data."""

from __future__ import annotations

from collections.abc import Iterable

from planner.report.sections import Grid, Section, money, short
from planner.result.contract import Commitment, Contract
from planner.scenario.units import HOURS_PER_MONTH


def contract_sections(c: Contract) -> list[Section]:
    """What to sign, what it costs and in which future, what it is worth, and what serves."""
    sections = [Section("Contract", _decision(c)), _commitments(c), _futures(c), _worth(c), _months(c), _serves(c)]
    sections += [Section("Assumed", _assumed(c))]
    return [*(s for s in sections if s.lines or s.grid or s.items), *([Section("Warnings", c.warnings[:3], is_caution=True)] if c.warnings else [])]


def _decision(c: Contract) -> tuple[str, ...]:
    proven = f"proven within {max(c.gap, 0.0):.1%}" if c.status == "optimal" else f"not proven: the search stopped {c.gap:.1%} above its bound"
    expected = "expected over the futures, " if len(c.futures) > 1 else ""
    lines = [f"{money(c.usd, 0)} for {c.outlook.months} months, {money(c.usd_per_hour)}/h on average: {expected}{proven}."]
    free = c.by_the_hour_usd_per_hour
    if free is not None:
        lines.append(
            f"All by the hour it is {money(free)}/h: the commitments save {1 - c.usd_per_hour / free:.0%}, {money((free - c.usd_per_hour) * c.hours, 0)}."
        )
    if len(c.futures) > 1:
        level = c.outlook.risk.level if c.outlook.risk else 1.0
        which = "The dearest future costs" if level >= 1 else f"The dearest {1 - level:.0%} of the futures cost"
        lines.append(f"{which} {money(c.dearest_usd_per_hour)}/h.")
    return tuple(lines)


def _grid(rows: Iterable[tuple[str, ...]], words: tuple[str, ...], numbers: tuple[str, ...]) -> Grid:
    """A table whose columns of words come first; numbers stand to the right."""
    return Grid((*words, *numbers), tuple(rows), numbers)


def _commitments(c: Contract) -> Section:
    """What to sign now."""
    if not c.commitments:
        is_offered = c.outlook.commit or any(line.term for line in c.lines)
        return Section(
            "Sign now", ("Nothing: no commitment pays for itself at these prices." if is_offered else "Nothing: no term is offered (--commit 1y=30%).",)
        )
    covered = f"{c.coverage:.0%} of the GPU-hours used stand on commitments, the rest is bought by the hour."
    numbers = ("$/h", "used", "idle $/month", "pays above")
    return Section("Sign now", (covered,), _grid((_commitment(c, x) for x in c.commitments), ("what", "term"), numbers))


def _commitment(c: Contract, x: Commitment) -> tuple[str, ...]:
    line = c.lines[x.line]
    what = f"{x.instances} x {line.instance_type} at {' '.join(dict.fromkeys(w for w in (line.provider, line.region) if w != 'any'))}"
    above = "not sold by the hour" if x.break_even is None else f"{x.break_even:.0%} of hours"
    return (what, line.term, money(x.usd_per_hour), f"{x.used:.0%}", money(x.idle_usd_per_month, 0), above)


def _futures(c: Contract) -> Section:
    if len(c.futures) < 2:
        return Section("Futures")
    rows = ((f.name, f"{f.probability:.0%}", f"{f.factor:.2f}", money(f.usd_per_hour), money(f.known_usd_per_hour), str(f.most_gpus)) for f in c.futures)
    return Section("Futures", (), _grid(rows, ("future",), ("probability", "traffic x", "$/h", "$/h if known", "GPUs at most")))


def _worth(c: Contract) -> Section:
    """What knowing more, and promising less, would be worth."""
    items = [
        ("the future known before signing", c.perfect_information_usd),
        ("signed for the mean of the futures instead", None if c.stochastic_usd is None else -c.stochastic_usd),
        ("the limit on the dearest futures", None if c.risk_premium_usd is None else -c.risk_premium_usd),
    ]
    found = [(name, _moved(usd)) for name, usd in items if usd is not None]
    best = sorted(c.measuring, key=lambda m: -m.worth_usd)
    found += [
        (
            f"#{m.deployment + 1} measured before signing",
            f"{_moved(m.worth_usd)} (its load may be {m.low_factor:.2f} to {m.high_factor:.2f} of the planned)",
        )
        for m in best[:2]
    ]
    if c.robust:
        what = " + ".join(f"{n} x {c.lines[o].instance_type} {c.lines[o].term}" for o, n in c.robust.signed.items()) or "nothing"
        saved = (c.robust.as_signed_usd_per_hour - c.robust.usd_per_hour) * c.hours
        found.append(("capacities as uncertain as their evidence", f"sign {what}: {money(c.robust.usd_per_hour)}/h, saves {money(saved, 0)} then"))
    found += [(f"traffic x {s.factor:g}", f"{money(s.usd_per_hour)}/h" if s.usd_per_hour is not None else "not to be had within the limits") for s in c.stress]
    return Section(f"Over {c.outlook.months} months", items=tuple(found))


def _moved(usd: float) -> str:
    """What is saved, or costs more, in words."""
    return "changes nothing" if abs(usd) < 0.5 else f"{'saves' if usd > 0 else 'costs'} {money(abs(usd), 0)}"


def _months(c: Contract) -> Section:
    """GPUs by month in the likeliest future: a first, a middle and the last month."""
    likely = max(range(len(c.futures)), key=lambda s: c.futures[s].probability)
    shown = sorted({0, c.outlook.months // 4, c.outlook.months // 2, 3 * c.outlook.months // 4, c.outlook.months - 1})
    title = "By month" if len(c.futures) == 1 else f"By month, future {c.futures[likely].name}"
    return Section(title, (), _grid((_month(c, likely, m) for m in shown), ("month",), ("committed GPUs", "most held", "mean held", "$/month")))


def month_of(c: Contract, future: int, month: int) -> dict[str, float]:
    """GPUs committed, held at most and on average, and $ of a month."""
    first = (future * c.outlook.months + month) * c.hours_per_cycle
    states, lead = c.states[first : first + c.hours_per_cycle], c.scenario.policy.startup_lead / 3600
    held = [sum(c.lines[o].gpus_per_instance * n for o, n in s.instances.items()) for s in states]
    committed = sum(c.lines[o].gpus_per_instance * n for o, n in states[0].instances.items() if c.lines[o].term)
    usd = sum(c.lines[o].usd_per_hour * (n + lead * s.started.get(o, 0)) for s in states for o, n in s.instances.items())
    return {"committed_gpus": committed, "most_gpus": max(held), "mean_gpus": sum(held) / len(held), "usd": usd * HOURS_PER_MONTH / len(states)}


def _month(c: Contract, future: int, month: int) -> tuple[str, ...]:
    m = month_of(c, future, month)
    return (str(month + 1), f"{m['committed_gpus']:.0f}", f"{m['most_gpus']:.0f}", f"{m['mean_gpus']:.1f}", money(m["usd"], 0))


def _serves(c: Contract) -> Section:
    items = []
    for i, part in enumerate(c.parts):
        d = part.deployments[0]
        counts = [sum(s.replicas[i].values()) for s in c.states]
        span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
        items.append((f"#{i + 1}", f"{', '.join(w.name for w in part.workloads)}: {span} x {d.layout} {d.gpu}, {short(d.checkpoint)}"))
    return Section("Serves", items=tuple(items))


def _assumed(c: Contract) -> tuple[str, ...]:
    o = c.outlook
    cycle = f"a {'day' if c.hours_per_cycle == 24 else 'span'} of {c.hours_per_cycle} h"
    lines = [f"Each month repeats {cycle}, traffic grows by {o.monthly_growth:.1%} a month, prices stay as they are."]
    if o.commit:
        terms = ", ".join(f"{t} {d:.0%}" for t, d in o.commit.items())
        lines.append(f"Discounts as asked, not from a price list: {terms}; {o.upfront:.0%} upfront, money at {o.cost_of_capital:.0%} a year.")
    own = sorted({(line.source, line.term) for line in c.lines if line.purchase in ("reserved_1y", "reserved_3y")})
    lines += [f"For a term alone, at the price stated: {', '.join(f'{source} ({term})' for source, term in own)}."] if own else []
    lines += ["The first terms are signed now, for every future alike; later ones when they end, in each future as it is then."] if o.commit or own else []
    after = sum(x.obliged_after_usd for x in c.commitments)
    lines += [f"After the {o.months} months {money(after, 0)} of commitments are still to be paid, which is in no cost above."] if after else []
    return (*lines, *c.notes)


def contract_rows(c: Contract) -> list[dict[str, object]]:
    """One row for each month of each future."""
    return [{"future": f.name, "month": m + 1, **month_of(c, s, m)} for s, f in enumerate(c.futures) for m in range(c.outlook.months)]


def contract_payload(c: Contract) -> dict[str, object]:
    """All of it as plain data."""
    return c.model_dump(mode="json")
