"""`plan explain` says what each demand costs at the margin, why not something else, and what comes next."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import Printed
from planner.cli.study import Answers, FileOption, asked_scenario, deliver_study, progress
from planner.errors import PlannerError


def explain(
    asked: dict[str, object],
    *,
    file: FileOption = None,
    why_not: Annotated[list[str] | None, typer.Option("--why-not", help="a GPU, model or provider that the plan does not use", metavar="NAME")] = None,
    runners_up: Annotated[int, typer.Option("--runners-up", help="so many cheapest plans of another structure", metavar="K", min=0, max=50)] = 0,
    within: Annotated[float, typer.Option("--within", help="runners-up cost at most this share more", metavar="SHARE")] = 1.0,
    printed: Printed,
    kept: Answers,
) -> None:
    """Explain a plan: binding demands, marginal costs, break-evens.

    plan explain --qps 200 --min-quality 0.8 --why-not H200-SXM-141GB
    """
    printed.check()
    if not 0 < within <= 1000:
        raise PlannerError(f"not a premium: {within:g}", "--within", "give a share of the cost, such as 0.2")
    where = kept.where()
    scenario, catalog = asked_scenario(asked, file)
    from planner.economics.explain import explain as explained
    from planner.report.explain import explain_payload, explain_rows, explain_sections

    with progress("margins") as done:
        found = explained(scenario, catalog, why_not=why_not or (), runners_up=runners_up, within=within, where=where, done=done)
    deliver_study(printed.form, printed.output, explain_sections(found), explain_payload(found), explain_rows(found))
