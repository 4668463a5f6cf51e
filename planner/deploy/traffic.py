"""Where requests go: the shares of workloads that several deployments serve, as whole weights."""

from __future__ import annotations

from dataclasses import dataclass

from planner.deploy.names import unique
from planner.deploy.release import Release

WHOLE = 1000  # parts that weights are counted in
HEADER = "x-workload"  # tells requests of several split workloads apart


@dataclass(frozen=True)
class Split:
    """A workload that several deployments serve: (name of the deployment, its weight), largest first."""

    workload: str
    name: str  # an RFC 1123 label, no other split's
    weights: tuple[tuple[str, int], ...]


def splits(release: Release) -> tuple[Split, ...]:
    """The workloads of a plan that more than one deployment serves."""
    found = [w for w in release.plan.workloads if sum(r.share > 0 for r in w.routing) > 1]
    names = unique([w.name for w in found])
    whole = [sum(r.share for r in w.routing) for w in found]  # less than all where an API serves the rest
    each = [{release.served[r.deployment].name: r.share / all_of for r in w.routing if r.share > 0} for w, all_of in zip(found, whole)]
    return tuple(Split(w.name, n, _weights(shares)) for w, n, shares in zip(found, names, each))


def weights_of_all(release: Release) -> dict[str, int]:
    """Weights of the deployments that share workloads, over all requests of these together."""
    rates: dict[str, float] = {}
    for w in release.plan.workloads:
        routes = [r for r in w.routing if r.share > 0]
        for r in routes if len(routes) > 1 else ():
            name = release.served[r.deployment].name
            rates[name] = rates.get(name, 0.0) + r.qps
    total = sum(rates.values())
    return dict(_weights({n: q / total for n, q in rates.items()})) if total > 0 else {}


def _weights(shares: dict[str, float]) -> tuple[tuple[str, int], ...]:
    """Parts of a thousand, at least one each."""
    return tuple((n, max(1, round(WHOLE * s))) for n, s in sorted(shares.items(), key=lambda x: (-x[1], x[0])))
