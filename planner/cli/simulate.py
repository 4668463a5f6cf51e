"""`plan simulate` runs requests through a saved plan, step by step, and says which limits hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.options import CatalogOption, deliver
from planner.cli.show import PlanFile, read_saved
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.simulation.results import Simulation


@dataclass(frozen=True)
class Requested:
    """Which requests run through the plan, and what happens to it, as typed."""

    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", help="requests as plan import demand reads them; NAME=FILE for one of several workloads", metavar="FILE"),
    ] = None
    poisson: Annotated[bool, typer.Option("--poisson", help="independent requests at each workload's peak rate (without --trace)", show_default=False)] = False
    superpose: Annotated[int, typer.Option("--superpose", help="copies of each trace on top of each other, turned by random times", metavar="N", min=1)] = 1
    requests: Annotated[
        int | None,
        typer.Option("--requests", help="requests to draw without a trace (200000; by the hour: all)", metavar="N", min=1, show_default=False),
    ] = None
    burst: Annotated[str, typer.Option("--burst", help="let everything arrive so many times as fast, such as 1.5x", metavar="X")] = "1x"
    fail: Annotated[
        list[str] | None,
        typer.Option("--fail", help="what fails when: replica@10min, instance:2@…, zone@…, spot@…; back after the lead", metavar="WHAT@TIME"),
    ] = None
    median: Annotated[bool, typer.Option("--median", help="step times as expected, not at the plan's confidence", show_default=False)] = False
    router: Annotated[str, typer.Option("--router", help="random, round_robin or least_loaded instead of the plan's", metavar="NAME", show_default=False)] = ""
    seed: Annotated[int, typer.Option("--seed", help="of everything random", metavar="N", min=0)] = 0


def simulate(
    path: PlanFile,
    *,
    q: Requested,
    printed: Charted,
    catalog: CatalogOption = None,
) -> None:
    """Simulate a saved plan: exit 0 if every limit holds, 1 if one is missed.

    plan simulate plan.json --trace requests.csv.gz --fail replica@10min
    """
    printed.check()
    if q.poisson and q.trace:
        raise PlannerError("a trace and --poisson are both given; give one", "--poisson")
    if q.superpose > 1 and not q.trace:
        raise PlannerError("there is no trace to superpose", "--superpose", "give one with --trace")
    times = times_of(q.burst)
    plan = read_saved(path)
    from planner.catalog.load import load_catalog
    from planner.simulation.hours import simulate_hours
    from planner.simulation.run import REQUESTS
    from planner.simulation.run import simulate as run
    from planner.simulation.stream import RequestBlock, read_trace, superposed

    loaded = load_catalog(catalog if catalog is not None else list(plan.scenario.catalog))
    if plan.periods:
        if q.trace or q.fail or q.requests:
            raise PlannerError("a plan by the hour is simulated over all its hours", "--trace, --fail and --requests", "leave them out")
        _deliver(simulate_hours(plan, loaded, seed=q.seed, burst=times, median=q.median, router=q.router), printed)
        return
    traces: dict[str, RequestBlock] = {}
    for text in q.trace or ():
        name, file = named(text, [w.name for w in plan.workloads])
        traces[name] = superposed(read_trace(Path(file)), q.superpose, q.seed)
    wanted = REQUESTS if q.requests is None else q.requests
    found = run(plan, loaded, traces=traces, requests=wanted, seed=q.seed, burst=times, failures=tuple(q.fail or ()), median=q.median, router=q.router)
    _deliver(found, printed)


def _deliver(found: Simulation, printed: Charted) -> None:
    """The result; exit 1 where a limit is missed."""
    from planner.report.charts import simulation_chart
    from planner.report.simulate import formatted

    draw(printed.chart, lambda: simulation_chart(found))
    deliver(formatted(found, printed.form), printed.output)
    if not found.met:
        raise typer.Exit(1)


def named(text: str, names: list[str]) -> tuple[str, str]:
    """(workload, file) of NAME=FILE, or of a FILE for the only workload. Raises PlannerError."""
    name, equals, file = text.partition("=")
    if equals and name in names:
        return name, file
    if len(names) > 1:
        raise PlannerError(f"which workload is '{text}' for?", "--trace", f"write NAME=FILE with one of {', '.join(names)}")
    return names[0], text


def times_of(text: str) -> float:
    """1.5 of 1.5x. Raises PlannerError."""
    try:
        found = float(text.strip().removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 1000:
        raise PlannerError(f"not a factor: '{text}'", "--burst", "such as 1.5x")
    return found
