"""Which replicas stand on one host together, for targets that know no cluster: packed as the plan's purchases hold them, equal hosts counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from planner.deploy.release import Release, Served


@dataclass(frozen=True)
class Placed:
    """One replica on a host, and the first of the GPUs that it has there."""

    served: Served
    first_gpu: int


@dataclass(frozen=True)
class Host:
    """So many equal hosts."""

    count: int
    instance: str
    placed: tuple[Placed, ...]


def hosts(release: Release) -> tuple[Host, ...]:
    """Hosts of every kind, most numerous first; on each purchase line replicas go to the first instance with room, the largest first."""
    found: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for i, line in enumerate(release.plan.purchases):
        wanted = [(s.engine_gpus, k) for k, s in enumerate(release.served) for h in s.deployment.hosts if h.purchase == i for _ in range(h.replicas)]
        size = max([line.gpus_per_instance, *(g for g, _ in wanted)]) if line.basis == "gpu" else line.gpus_per_instance
        found.update((f"{line.instance_type} of {line.provider}", tuple(names)) for names in _packed(sorted(wanted, reverse=True), size))
    return tuple(Host(n, instance, _placed(release, names)) for (instance, names), n in sorted(found.items(), key=lambda x: (-x[1], x[0])))


def _packed(wanted: list[tuple[int, int]], size: int) -> list[list[int]]:
    """Deployments (by index) on each instance of a size: first fit of (GPUs, index), which come largest first."""
    held: list[list[int]] = []
    room: list[int] = []
    for gpus, k in wanted:
        at = next((j for j, left in enumerate(room) if left >= gpus), len(room))
        if at == len(room):
            held.append([])
            room.append(size)
        held[at].append(k)
        room[at] -= gpus
    return held


def _placed(release: Release, names: tuple[int, ...]) -> tuple[Placed, ...]:
    found, first = [], 0
    for k in names:
        found.append(Placed(release.served[k], first))
        first += release.served[k].engine_gpus
    return tuple(found)
