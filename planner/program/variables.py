"""The variables: traffic x, replicas n, instances I, use of pools y and z, and slack where a demand is relaxed."""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Binary, NonNegativeIntegers, NonNegativeReals, Var

from planner.program.problem import Pool, Problem


def declare(m: Any, problem: Problem, pools: tuple[Pool, ...], counted: bool, relax: str | None) -> None:
    """x[w,p] ≥ 0 share of workload w on pool p; n[p,o] replicas of p on offer o; I[o] instances held, no more than there are;
    y[p] pool in use; z[w,p] workload w on shared pool p; v[w,k] workload w on checkpoint k (where pools may not mix);
    slack[·] ≥ 0 of the relaxed demand.
    """
    m.flow_keys = [(w, p) for p, pool in enumerate(pools) for w in pool.workloads]
    m.replica_keys = [(p, o) for p, pool in enumerate(pools) for o in problem.columns[pool.column].offers]
    m.offer_keys = sorted({o for _, o in m.replica_keys})
    m.whole = counted and problem.rules.pools_per_workload == 1 and relax != "demand"  # one pool takes all: x itself says which
    m.x = Var(m.flow_keys, domain=Binary if m.whole else NonNegativeReals)
    m.n = Var(m.replica_keys, domain=NonNegativeIntegers)
    m.I = Var(m.offer_keys, domain=NonNegativeIntegers, bounds=lambda _, o: (0, problem.offers[o].available))
    m.counted = counted
    m.pool_keys = list(range(len(pools))) if counted else []
    m.y = Var(m.pool_keys, domain=Binary)
    m.z = Var([(w, p) for w, p in m.flow_keys if counted and not m.whole and pools[p].is_shared], domain=Binary)
    single = counted and not problem.rules.mix and problem.rules.pools_per_workload != 1
    m.v = Var(sorted({(w, problem.columns[pools[p].column].checkpoint) for w, p in m.flow_keys}) if single else [], domain=Binary)
    m.slack = Var([k for k in (("demand", ""), *((c.family, c.key) for c in problem.rules.caps)) if k[0] == relax], domain=NonNegativeReals)
    m.flow_by_workload = _grouped(m.flow_keys, 0)
    m.flow_by_pool = _grouped(m.flow_keys, 1)
    m.replicas_by_pool = _grouped(m.replica_keys, 0)
    m.replicas_by_offer = _grouped(m.replica_keys, 1)


def uses(m: Any, pools: tuple[Pool, ...], w: int, p: int) -> Any:
    """The binary "workload w is served by pool p"."""
    return m.z[w, p] if pools[p].is_shared else m.y[p]


def slack(m: Any, name: str, key: str = "") -> Any:
    """The slack variable of a relaxed demand, or 0."""
    return m.slack[name, key] if (name, key) in m.slack else 0  # noqa: SIM401 - a Pyomo variable has no get


def _grouped(keys: list[tuple[int, int]], position: int) -> dict[int, list[tuple[int, int]]]:
    groups: dict[int, list[tuple[int, int]]] = {}
    for key in keys:
        groups.setdefault(key[position], []).append(key)
    return groups
