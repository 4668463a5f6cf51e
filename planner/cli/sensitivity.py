"""`plan sensitivity` moves every assumption, and draws the errors of predictions, to see what the choice hangs on."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import Printed
from planner.cli.study import Answers, FileOption, asked_scenario, deliver_study, progress
from planner.errors import PlannerError


def sensitivity(
    asked: dict[str, object],
    *,
    file: FileOption = None,
    swing: Annotated[float, typer.Option("--swing", help="how far each assumption moves, as a share", metavar="SHARE")] = 0.2,
    draws: Annotated[int, typer.Option("--draws", help="random draws of the errors of predictions", metavar="N", min=0, max=100_000)] = 0,
    printed: Printed,
    kept: Answers,
) -> None:
    """Print a tornado of the assumptions, and the odds that the plan stays best.

    plan sensitivity --qps 200 --min-quality 0.8 --draws 50
    """
    printed.check()
    if not 0 < swing < 1:
        raise PlannerError(f"not a swing: {swing:g}", "--swing", "give a share between 0 and 1, such as 0.2")
    where = kept.where()
    scenario, catalog = asked_scenario(asked, file)
    from planner.economics.sensitivity import sensitivity as study
    from planner.report.sensitivity import sensitivity_payload, sensitivity_rows, sensitivity_sections

    with progress("sensitivity") as done:
        found = study(scenario, catalog, swing=swing, draws=draws, where=where, done=done)
    deliver_study(printed.form, printed.output, sensitivity_sections(found), sensitivity_payload(found), sensitivity_rows(found))
