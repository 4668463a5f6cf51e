"""The only bridge to HiGHS: a Pyomo program goes over in one piece, values, bound and gap come back.

Pyomo's own walker gives each row's coefficients; handing HiGHS the whole matrix at once is several times faster than
Pyomo's solver plug-ins and opens interrupts and gaps. One thread: parallelism is across solves.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from pyomo.core.base import Constraint, Objective
from pyomo.repn.linear import LinearRepnVisitor
from pyomo.repn.util import VarRecorder

from planner.errors import SolverError
from planner.interrupts import seen
from planner.program.kinds import Model
from planner.program.problem import Status

LEAST = 0.0  # what every objective here is at least: costs, counts and slacks; HiGHS says -inf where time was too short for any bound


class _Silent(highspy.Highs):
    """HiGHS that logs nothing: switched off before its callbacks are registered, which is when 1.16 prints its licence to standard output."""

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


@dataclass(frozen=True)
class SolverOptions:
    """How exactly and how long to search (relative gap, seconds)."""

    gap: float = 0.001
    time_limit_s: float = 30.0
    seed: int = 0
    nodes: int | None = None  # search at most so many: unlike time, the same on every machine
    needed: bool = False  # for a plan that is found: Ctrl-C does not stop it
    careful: bool = False  # to 1e-9, without presolve: slower, and right where numbers lie so far apart that presolve errs


@dataclass(frozen=True)
class Outcome:
    """What HiGHS said; values are set on the Pyomo variables when there is an incumbent."""

    status: Status
    objective: float
    bound: float
    gap: float
    variables: int
    constraints: int


def optimise(m: Model, options: SolverOptions, scales: Mapping[int, float] | None = None) -> Outcome:
    """Solves the program; the incumbent, if any, is left on its variables. Raises SolverError on solver failure.

    scales: factors by which the solver counts variables (by id) instead of in their own unit.
    """
    highs, variables, rows = _transfer(m, scales or {})
    for name, value in (
        ("mip_rel_gap", options.gap),
        ("mip_abs_gap", 0.0 if options.gap == 0 else 1e-6),
        ("time_limit", options.time_limit_s),
        ("random_seed", options.seed),
        ("threads", 1),
        ("mip_feasibility_tolerance", 1e-7),
    ):
        highs.setOptionValue(name, value)
    if options.careful:
        _be_careful(highs)
    if options.nodes is not None:
        highs.setOptionValue("mip_max_nodes", options.nodes)
    _run(highs, options.needed)
    if highs.getModelStatus() == highspy.HighsModelStatus.kSolveError and not options.careful:
        _be_careful(highs)
        _run(highs, options.needed)
    return _read(highs, variables, rows, [scales.get(id(v), 1.0) for v in variables] if scales else None)


def _be_careful(highs: Any) -> None:
    highs.setOptionValue("presolve", "off")
    for name in ("mip_feasibility_tolerance", "primal_feasibility_tolerance"):
        highs.setOptionValue(name, 1e-9)


def relaxation(m: Model) -> tuple[float, dict[str, float]]:
    """Cost of the program with every whole number allowed to be a fraction, and the duals of its caps by name, over all states.

    A dual is the change of the cost per unit more of the limit: never positive for an upper limit, and only to one side where
    the relaxation has a kink. Infinite and empty when even the relaxation has no solution. Raises SolverError on solver failure.
    """
    highs, variables, _ = _transfer(m, {})
    highs.changeColsIntegrality(len(variables), np.arange(len(variables), dtype=np.int32), np.array([highspy.HighsVarType.kContinuous] * len(variables)))
    highs.setOptionValue("threads", 1)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return float("inf"), {}
    duals = highs.getSolution().row_dual
    found: dict[str, float] = {}
    for row, dual in zip(m.component_data_objects(Constraint, active=True), duals, strict=True):
        if row.parent_component() is m.cap:
            name, _ = row.index()
            found[name] = found.get(name, 0.0) + float(dual)
    return float(highs.getInfo().objective_function_value), found


def version() -> str:
    """HiGHS's version."""
    return str(_Silent().version())


def _transfer(m: Model, scales: Mapping[int, float]) -> tuple[Any, list[Any], int]:
    """Highs instance holding the program, its variables in column order, and the number of rows."""
    seen: dict[int, Any] = {}
    visitor = LinearRepnVisitor({}, var_recorder=VarRecorder(seen, None))
    objective = next(m.component_data_objects(Objective, active=True))
    cost = visitor.walk_expression(objective.expr)
    starts, index, value, lower, upper = [0], [], [], [], []
    for row in m.component_data_objects(Constraint, active=True):
        low, body, high = row.to_bounded_expression(evaluate_bounds=True)
        linear = visitor.walk_expression(body)
        index += linear.linear.keys()
        value += linear.linear.values()
        starts.append(len(index))
        lower.append(-highspy.kHighsInf if low is None else low - linear.constant)
        upper.append(highspy.kHighsInf if high is None else high - linear.constant)
    variables = list(seen.values())
    scale = np.array([scales.get(key, 1.0) for key in seen], dtype=float)
    column = {key: j for j, key in enumerate(seen)}
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_, lp.offset_ = len(variables), len(lower), cost.constant
    lp.col_cost_ = np.array([cost.linear.get(key, 0.0) for key in seen], dtype=float) / scale
    lp.col_lower_ = np.array([-highspy.kHighsInf if v.lb is None else v.lb for v in variables], dtype=float) * scale
    lp.col_upper_ = np.array([highspy.kHighsInf if v.ub is None else v.ub for v in variables], dtype=float) * scale
    lp.row_lower_, lp.row_upper_ = np.array(lower, dtype=float), np.array(upper, dtype=float)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = len(variables), len(lower)
    lp.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array([column[k] for k in index], dtype=np.int32)
    lp.a_matrix_.value_ = np.array(value, dtype=float) / scale[lp.a_matrix_.index_]
    kinds = highspy.HighsVarType
    lp.integrality_ = [kinds.kContinuous if v.is_continuous() else kinds.kInteger for v in variables]
    highs = _Silent()
    if highs.passModel(lp) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS refused the program", hint="please report this with the scenario")
    return highs, variables, len(lower)


def _read(highs: Any, variables: list[Any], rows: int, scale: list[float] | None) -> Outcome:
    status, info = highs.getModelStatus(), highs.getInfo()
    kinds = highspy.HighsModelStatus
    has_incumbent = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    nothing_serves = status == kinds.kModelEmpty and rows > 0  # rows without variables: demand that no column meets
    if nothing_serves or status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Outcome(Status.INFEASIBLE, float("inf"), float("inf"), 0.0, len(variables), rows)
    if not has_incumbent:
        if status not in (kinds.kTimeLimit, kinds.kInterrupt, kinds.kIterationLimit, kinds.kSolutionLimit):
            raise SolverError(f"HiGHS stopped with status '{highs.modelStatusToString(status)}'", hint="please report this with the scenario")
        return Outcome(Status.UNKNOWN, float("inf"), max(float(info.mip_dual_bound), LEAST), float("inf"), len(variables), rows)
    for variable, x in zip(variables, highs.getSolution().col_value, strict=True):
        variable.set_value(x, skip_validation=True)
    for variable, factor in zip(variables, scale or (), strict=False):
        variable.set_value(variable.value / factor, skip_validation=True)
    optimal = status == kinds.kOptimal
    gap = max(0.0, float(info.mip_gap)) if info.mip_node_count >= 0 else 0.0
    bound = max(float(info.mip_dual_bound), LEAST) if info.mip_node_count >= 0 else float(info.objective_function_value)
    return Outcome(Status.OPTIMAL if optimal else Status.FEASIBLE, float(info.objective_function_value), bound, gap, len(variables), rows)


def _run(highs: Any, needed: bool) -> None:
    """Searches, until Ctrl-C at most: in a thread of its own, so that the main one hears of signals at once."""
    given_up = threading.Event()
    highs.cbMipInterrupt.subscribe(lambda event: event.interrupt() if given_up.is_set() or (seen() and not needed) else None)
    if threading.current_thread() is not threading.main_thread():
        highs.run()
        return
    worker = threading.Thread(target=highs.run, daemon=True)
    worker.start()
    try:
        worker.join()
    finally:  # KeyboardInterrupt in a program that uses the library
        given_up.set()
        worker.join()
