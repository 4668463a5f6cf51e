"""One question answered: the plan's JSON as the command prints it, or one line that says why there is none, with an HTTP status."""

from __future__ import annotations

import json
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.clean import clipped, error_line
from planner.deadline import Deadline
from planner.errors import PlannerError, SolverError, TimeUp
from planner.planning.infeasible import Infeasible
from planner.planning.periods import autoscale
from planner.planning.solve import solve
from planner.report.formats import formatted
from planner.result.plan import Plan
from planner.scenario.sources import Question
from planner.service.question import question_of

OK, CONFLICT, UNUSABLE, FAILED, LATE = 200, 409, 422, 500, 504


@dataclass(frozen=True)
class Terms:
    """What every question is answered under: the server's catalogue ``folders``, and the most seconds for one answer."""

    folders: tuple[str, ...] = ()
    seconds: float = 30.0


@dataclass(frozen=True)
class Reply:
    """An HTTP status and a JSON text."""

    status: int
    text: str


def answered(body: bytes, catalog: Catalog, terms: Terms) -> Reply:
    """The answer to a question as JSON text; never raises for what a question holds."""
    try:
        question = question_of(body, terms.folders)
        return Reply(OK, formatted(_plan(question, catalog, terms.seconds), "json"))
    except Infeasible as error:
        return _no_plan(error)
    except PlannerError as error:
        return failed(LATE if isinstance(error, TimeUp) else FAILED if isinstance(error, SolverError) else UNUSABLE, str(error))
    except Exception as error:  # the process answers others after this one
        return failed(FAILED, f"internal error: {type(error).__name__}: {clipped(str(error))}")


def failed(status: int, why: str) -> Reply:
    """A reply of one line."""
    return Reply(status, json.dumps({"error": error_line(why)}) + "\n")


def _plan(question: Question, catalog: Catalog, seconds: float) -> Plan:
    """The plan that the command makes; in less time where the server allows less, with the gap that is then left."""
    deadline = Deadline.after(min(question.scenario.solver.time_limit, seconds))
    if question.scenario.has_waiting:
        return autoscale(question.scenario, catalog, origins=question.origins, deadline=deadline)
    return solve(question.scenario, catalog, origins=question.origins, deadline=deadline)


def _no_plan(error: Infeasible) -> Reply:
    """Why no plan meets all demands, and what would make one."""
    told = {"changes": error.changes, "conflict": error.conflict, "together": error.together, "unsearched": error.unsearched}
    return Reply(CONFLICT, json.dumps({"error": error_line(str(error)), "status": "infeasible", **told}) + "\n")
