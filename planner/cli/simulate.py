"""`plan simulate` runs requests through a saved plan, step by step, and says which limits hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.charts import ChartOption, check_chart, draw
from planner.cli.options import CatalogOption, FormatOption, OutputOption, check_writable, deliver, known_format
from planner.cli.show import PlanFile, read_saved
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.simulation.results import Simulation


def simulate(
    path: PlanFile,
    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", help="requests as plan import demand reads them; NAME=FILE for one of several workloads", metavar="FILE"),
    ] = None,
    poisson: Annotated[bool, typer.Option("--poisson", help="independent requests at each workload's peak rate (without --trace)", show_default=False)] = False,
    superpose: Annotated[int, typer.Option("--superpose", help="copies of each trace on top of each other, turned by random times", metavar="N", min=1)] = 1,
    requests: Annotated[
        int | None,
        typer.Option("--requests", help="requests to draw without a trace (200000; by the hour: all)", metavar="N", min=1, show_default=False),
    ] = None,
    burst: Annotated[str, typer.Option("--burst", help="let everything arrive so many times as fast, such as 1.5x", metavar="X")] = "1x",
    fail: Annotated[
        list[str] | None, typer.Option("--fail", help="what fails when: replica@10min, instance@… or zone@…; back after the startup lead", metavar="WHAT@TIME")
    ] = None,
    median: Annotated[bool, typer.Option("--median", help="step times as expected, not at the plan's confidence", show_default=False)] = False,
    router: Annotated[str, typer.Option("--router", help="random, round_robin or least_loaded instead of the plan's", metavar="NAME", show_default=False)] = "",
    seed: Annotated[int, typer.Option("--seed", help="of everything random", metavar="N", min=0)] = 0,
    form: FormatOption = "table",
    output: OutputOption = None,
    chart: ChartOption = None,
    catalog: CatalogOption = None,
) -> None:
    """Simulate a saved plan: exit 0 if every limit holds, 1 if one is missed.

    plan simulate plan.json --trace requests.csv.gz --fail replica@10min
    """
    known_format(form)
    check_writable(output)
    check_chart(chart)
    if poisson and trace:
        raise PlannerError("a trace and --poisson are both given; give one", "--poisson")
    if superpose > 1 and not trace:
        raise PlannerError("there is no trace to superpose", "--superpose", "give one with --trace")
    times = times_of(burst)
    plan = read_saved(path)
    from planner.catalog.load import load_catalog
    from planner.simulation.hours import simulate_hours
    from planner.simulation.run import REQUESTS
    from planner.simulation.run import simulate as run
    from planner.simulation.stream import RequestBlock, read_trace, superposed

    loaded = load_catalog(catalog if catalog is not None else list(plan.scenario.catalog))
    if plan.periods:
        if trace or fail or requests:
            raise PlannerError("a plan by the hour is simulated over all its hours", "--trace, --fail and --requests", "leave them out")
        _deliver(simulate_hours(plan, loaded, seed=seed, burst=times, median=median, router=router), form, output, chart)
        return
    traces: dict[str, RequestBlock] = {}
    for text in trace or ():
        name, file = named(text, [w.name for w in plan.workloads])
        traces[name] = superposed(read_trace(Path(file)), superpose, seed)
    wanted = REQUESTS if requests is None else requests
    found = run(plan, loaded, traces=traces, requests=wanted, seed=seed, burst=times, failures=tuple(fail or ()), median=median, router=router)
    _deliver(found, form, output, chart)


def _deliver(found: Simulation, form: str, output: str | None, chart: str | None) -> None:
    """The result; exit 1 where a limit is missed."""
    from planner.report.charts import simulation_chart
    from planner.report.simulate import formatted

    draw(chart, lambda: simulation_chart(found))
    deliver(formatted(found, form), output)
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
