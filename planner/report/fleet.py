"""From today's fleet in words: the lines of a page, the table of the details, and the steps of a path."""

from __future__ import annotations

from collections.abc import Sequence

from planner.report.sections import Grid, Section, money, plural
from planner.result.plan import FleetChanges, FleetLine, Plan

HEADER = ("from today's fleet", "where", "today", "plan", "", "$/h each", "contract")
MOST_LINES = 4  # of one kind on a page


def fleet_lines(plan: Plan) -> tuple[str, ...]:
    """What to keep, add and drop; and what that costs beside staying."""
    c = plan.changes
    if c is None:
        return ()
    kinds = (("keep", [(x.kept, x) for x in c.lines]), ("add", [(x.added, x) for x in c.lines]), ("drop", [(x.returned, x) for x in c.lines]))
    what = "; ".join(f"{verb} {_several(some)}" for verb, rows in kinds if (some := [row for row in rows if row[0]]))
    return (f"{what} ({_changes(plan, c)})", _staying(c), *_contracts(c))


def fleet_sections(plan: Plan) -> list[Section]:
    """The same as a table; nothing where no fleet is held today."""
    c = plan.changes
    if c is None:
        return []
    rows = tuple(
        (x.instance_type, _place(x), str(x.today), str(x.planned), _verb(x), money(x.usd_per_hour, 3), f"to {x.until}" if x.until else "") for x in c.lines
    )
    first = (f"As of {c.as_of}: {_changes(plan, c)}.", f"{_staying(c)[0].upper()}{_staying(c)[1:]}.", *(f"{text}." for text in _contracts(c)))
    return [Section("From today's fleet", first, Grid(HEADER, rows, ("today", "plan", "$/h each")))]


def path_rows(steps: Sequence[Plan]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a path: one for each step."""
    rows = [[str(i), f"{p.cost.usd_per_hour:.2f}", str(c.added + c.returned), _step(c)] for i, p in enumerate(steps, 1) if (c := p.changes)]
    return ["step", "$/h", "changes", "what"], rows


def path_sections(steps: Sequence[Plan], end_usd_per_hour: float | None, is_cut: bool) -> list[Section]:
    """A path in steps: what changes in each and what it costs then, and where it ends."""
    header, rows = path_rows(steps)
    first = steps[0].changes
    begin = (f"{_staying(first)[0].upper()}{_staying(first)[1:]}.",) if first else ()
    grid = Grid(tuple(header), tuple(map(tuple, rows)), ("$/h", "changes"))
    return [Section("Path from today's fleet", (*begin, _end(steps, end_usd_per_hour, is_cut)), grid)]


def _end(steps: Sequence[Plan], end: float | None, is_cut: bool) -> str:
    usd, last = steps[-1].cost.usd_per_hour, len(steps)
    if is_cut:
        return f"Stopped after {last} steps: more may save more."
    if end is not None and usd > end * (1 + 1e-3):
        return f"No further step pays alone; all at once {money(end)}/h would be reached, changes included."
    return f"{last} {plural('step', last)} to the cheapest plan there is."


def _step(c: FleetChanges) -> str:
    kinds = (("add", [(x.added, x) for x in c.lines]), ("drop", [(x.returned, x) for x in c.lines]))
    return "; ".join(f"{verb} {_several(some)}" for verb, rows in kinds if (some := [row for row in rows if row[0]])) or "stay"


def _several(rows: list[tuple[int, FleetLine]]) -> str:
    more = f" and {len(rows) - MOST_LINES} other kinds" if len(rows) > MOST_LINES else ""
    return ", ".join(f"{n} x {x.instance_type} at {_place(x)}" for n, x in rows[:MOST_LINES]) + more


def _changes(plan: Plan, c: FleetChanges) -> str:
    n, supply = c.added + c.returned, plan.scenario.supply
    most = f" of at most {supply.max_changes}" if supply.max_changes is not None else ""
    cost = f", {money(c.usd, 0)} once = {money(c.usd_per_hour)}/h over {supply.change_over:g} h" if supply.change_cost else ""
    return f"{n or 'no'} {plural('change', n)}{most}{cost}"


def _staying(c: FleetChanges) -> str:
    enough = {True: "which suffices", False: "which does not suffice", None: "not known to suffice"}[c.suffices]
    free = f"; without a limit on changes {money(c.free_usd_per_hour)}/h, by {c.free_changes}" if c.free_usd_per_hour is not None else ""
    return f"today {money(c.today_usd_per_hour)}/h, {enough}{free}"


def _contracts(c: FleetChanges) -> tuple[str, ...]:
    if not c.contracted_usd_per_hour:
        return ()
    until = ", ".join(sorted({x.until for x in c.lines if x.until}))
    return (f"contracted to {until}: {money(c.contracted_usd_per_hour)}/h paid either way, {money(c.contracted_idle_usd_per_hour)}/h of it idle",)


def _verb(x: FleetLine) -> str:
    parts = ((x.kept, "keep"), (x.added, "add"), (x.returned, "drop"))
    return ", ".join(f"{word} {n}" for n, word in parts if n)


def _place(x: FleetLine) -> str:
    return " ".join(dict.fromkeys(w for w in (x.provider, x.region, x.zone) if w and w != "any"))
