"""Noise or technique: whether two plans differ by what their GPUs can do, or by how well it is known. Thinner evidence lengthens predicted steps, so a
model that nobody measured looks worse than it is likely to be; at the median of the evidence that part is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

from planner.result.plan import Deployment, Plan

MATERIAL = 1.1  # a difference of evidence below a tenth is not worth a line


@dataclass(frozen=True)
class Noise:
    """A plan against a cheaper one. Factors: requests/s per GPU at full load, the cheaper plan's over this one's, as ``by_evidence`` x ``otherwise``.

    ``premium_usd_per_hour`` as planned, and with both at the replicas that the median of the evidence asks for.
    """

    by_evidence: float
    otherwise: float
    tier: str
    cheaper_tier: str
    premium_usd_per_hour: float
    premium_at_median_usd_per_hour: float

    @property
    def is_main(self) -> bool:
        """Whether evidence makes more of the difference per GPU than all else together, and of the premium (whole replicas may hide it)."""
        moved = abs(self.premium_usd_per_hour - self.premium_at_median_usd_per_hour) > (MATERIAL - 1) * abs(self.premium_usd_per_hour)
        return moved and abs(log(self.by_evidence)) > max(abs(log(self.otherwise)), log(MATERIAL))


def noise(plan: Plan, cheaper: Plan) -> Noise | None:
    """How much of the difference is evidence; None where it is not known of a deployment of either."""
    ours, theirs = at_median(plan), at_median(cheaper)
    if ours is None or theirs is None:
        return None
    by_evidence = _factor(cheaper) / _factor(plan)
    per_gpu = [sum(w.qps for w in p.workloads) / sum(d.gpus * d.slo_load for d in p.deployments) for p in (cheaper, plan)]
    premium = plan.cost.usd_per_hour - cheaper.cost.usd_per_hour
    return Noise(by_evidence, per_gpu[0] / per_gpu[1] / by_evidence, _tiers(plan), _tiers(cheaper), premium, ours - theirs)


def at_median(plan: Plan) -> float | None:
    """$/h of the same deployments with the replicas that confidence 0.5 takes, their prices alike; None where that is not known."""
    known = [(d, _median_replicas(d)) for d in plan.deployments]
    return None if any(n is None for _, n in known) else sum(d.usd_per_hour * (n or 0) / d.replicas for d, n in known)


def _median_replicas(d: Deployment) -> int | None:
    return d.evidence.replicas_at_median if d.evidence and d.evidence.capacity_factor > 0 and d.slo_load > 0 else None


def _factor(plan: Plan) -> float:
    """Capacity at the confidence asked over that at the median, the mean over loaded GPUs (geometric, as factors multiply)."""
    weights = [d.gpus * d.slo_load for d in plan.deployments]
    return exp(sum(w * log(d.evidence.capacity_factor) for w, d in zip(weights, plan.deployments, strict=True) if d.evidence) / sum(weights))


def _tiers(plan: Plan) -> str:
    return "+".join(dict.fromkeys(d.evidence.tier for d in plan.deployments if d.evidence))
