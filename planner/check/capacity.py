"""Checks memory and capacity: each replica type fits, and carries its traffic at the replicas there really are."""

from __future__ import annotations

from planner.check.case import Case, Rebuilt, batched_tokens_of
from planner.check.findings import Finding, Notes, at_most
from planner.result.plan import Deployment

STATED = 1e-4  # relative: stated capacities may come from another, equal way of adding up


def memory(case: Case) -> Finding:
    """Weights, activations and reserve leave room for at least one whole request, and the breakdown says so."""
    notes, said = Notes("memory"), []
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        if built is None or not built.fits:
            continue
        where = case.where(i)
        for w in built.serves:
            if w in built.fits:
                _room(notes, built, w, where)
        most = max(f.slots for f in built.fits.values())
        notes.require(d.max_num_seqs <= most, where, f"max_num_seqs {d.max_num_seqs}, but {most} requests find room or were measured")
        _steps(notes, case, d, built, where)
        _breakdown(notes, d, built, where)
        said.append(f"{most} slots")
    return notes.finding(f"memory: fits within {case.scenario.policy.gpu_memory_utilization:g} of each GPU ({', '.join(said)})")


def _room(notes: Notes, built: Rebuilt, w: int, where: str) -> None:
    m = built.fits[w].memory
    fixed = float(m.weights[0] + m.activations[0] + m.reserve[0])
    notes.require(at_most(fixed, float(m.limit[0])), where, f"weights, activations and reserve take {fixed:.1f} GiB of {float(m.limit[0]):.1f}")
    notes.require(built.fits[w].slots >= 1, where, f"no room for one request of {built.fits[w].workload.name}")


def _steps(notes: Notes, case: Case, d: Deployment, built: Rebuilt, where: str) -> None:
    """A step holds a token of each sequence, and, where prompts are not cut into chunks, any whole request."""
    mixes = [built.fits[w].mix for w in built.serves if w in built.fits]
    tokens, longest = batched_tokens_of(d), max((float((m.input_tokens + m.output_tokens).max()) for m in mixes), default=0.0)
    notes.require(tokens >= d.max_num_seqs, where, f"max_num_batched_tokens {tokens}, fewer than its {d.max_num_seqs} sequences")
    notes.require(case.scenario.policy.chunked_prefill or tokens >= longest, where, f"max_num_batched_tokens {tokens}, but requests of {longest:,.0f}")


def _breakdown(notes: Notes, d: Deployment, built: Rebuilt, where: str) -> None:
    if d.memory_gib is None:
        notes.add(where, "states no memory")
        return
    m = next(built.fits[w] for w in (*built.serves, *built.fits) if w in built.fits).memory
    s = d.memory_gib
    right = {"weights": m.weights, "kv_cache": m.kv_budget_gib, "activations": m.activations, "reserve": m.reserve, "limit": m.limit}
    for name, value in right.items():
        notes.agree(getattr(s, name), float(value[0]), where, f"{name} (GiB)", STATED)
    notes.agree(s.total, s.weights + s.kv_cache + s.activations + s.reserve, where, "a total (GiB)", STATED)
    notes.require(at_most(s.total, s.limit), where, f"takes {s.total:.2f} GiB of {s.limit:.2f}")


def capacity(case: Case) -> Finding:
    """Σ_w traffic/capacity ≤ max_slo_load × (replicas − spare), at the capacity of that many replicas."""
    notes, said = Notes("capacity"), []
    for i, built in enumerate(case.built):
        if built is None:
            continue
        here = case.in_service(i)
        loads = [_load(case, i, w) for w in built.serves]
        load = sum(loads) / here if here > 0 else float("inf")
        carries = sum(case.flow(w, i) for w in built.serves)
        sustains = carries / load if load > 0 else 0.0
        most = case.scenario.policy.max_slo_load
        text = f"carries {carries:.6g} {_unit(case, built)}, sustains {sustains * most:.6g} on {here} replicas (SLO load {load:.4f} of {most:g})"
        notes.require(at_most(load, most), case.where(i), text)
        _stated(notes, case, i, built)
        said.append(f"{case.plan.deployments[i].checkpoint} {load:.4f}")
    policy = case.scenario.policy
    gone = f" with {policy.spare_replicas} replicas gone" if policy.spare_replicas else ""
    return notes.finding(f"capacity: SLO load {', '.join(said)}, at most {policy.max_slo_load:g}{gone}")


def _load(case: Case, i: int, w: int) -> float:
    """Replicas' worth of work; infinite where the workload cannot be served within its limits."""
    able = case.capacity(i, w)
    return case.flow(w, i) / able if able > 0 else float("inf")


def _stated(notes: Notes, case: Case, i: int, built: Rebuilt) -> None:
    """Stated capacity and SLO load are those of the replicas in service; of several workloads, the capacity of their mix."""
    d, where, here = case.plan.deployments[i], case.where(i), case.in_service(i)
    if here < 1 or not all(w in built.fits for w in built.serves):
        return
    load = sum(_load(case, i, w) for w in built.serves) / here
    if not 0 < load < float("inf"):
        return
    alone = built.fits[built.serves[0]] if len(built.serves) == 1 else None
    is_loop = alone is not None and alone.workload.is_closed
    rate = alone.single * alone.qps_per_unit if alone and is_loop else sum(peak_qps(case, i, w) for w in built.serves) / load / here
    notes.agree(d.capacity_qps_per_replica, rate, where, "a capacity (req/s per replica) of", STATED)
    notes.agree(d.slo_load, load, where, "SLO load", STATED)
    notes.require((d.slo_load_one_replica_lost is None) == (d.replicas == 1), where, f"states an SLO load of {d.slo_load_one_replica_lost} with a replica lost")
    if d.slo_load_one_replica_lost is not None:
        notes.agree(d.slo_load_one_replica_lost, d.slo_load * here / max(d.replicas - 1, 1e-9), where, "SLO load with a replica lost", STATED)
    notes.require(is_loop == (d.capacity_in_flight_per_replica is not None), where, "states a capacity in flight where there is none, or none where there is")
    if alone and d.capacity_in_flight_per_replica is not None:
        notes.agree(d.capacity_in_flight_per_replica, case.capacity(i, built.serves[0]), where, "a capacity in flight", STATED)


def peak_qps(case: Case, i: int, w: int) -> float:
    """Peak traffic of a workload in requests/s."""
    if not case.scenario.workload[w].is_closed:
        return case.flow(w, i)
    built, replicas = case.built[i], case.plan.deployments[i].replicas
    if built and (now := case.together(i, replicas)) is not None:
        return float(now.rates[built.serves.index(w)]) * replicas
    return case.flow(w, i) / float(case.loop(w, i).e2e_s["mean"][0])


def _unit(case: Case, built: Rebuilt) -> str:
    kinds = {not case.scenario.workload[w].is_closed for w in built.serves}
    return "req/s" if kinds == {True} else "in flight" if kinds == {False} else "req/s and in flight"
