"""What the program is given and what it answers: plain records of numbers and keys, nothing of LLMs in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

Measure = Literal["gpus", "usd", "kw"]


@dataclass(frozen=True)
class Traffic:
    """One workload w: its rate λ[w] in its own unit (requests/s or requests in flight)."""

    name: str
    rate: float
    mean_quality: float | None = None


@dataclass(frozen=True)
class Tier:
    """Capacity per replica of a pool that has at least this many replicas in service."""

    replicas: int
    capacity: float


@dataclass(frozen=True)
class Column:
    """One candidate c: a replica type with its operating point.

    ``tiers[w]``: capacities μ[c,w] where the pool serves w alone, by pool size; ``shared[w]``: where it serves several
    workloads. A workload that it cannot serve is absent. ``offers``: indices of the offers a replica fits on.
    """

    name: str
    model: str
    checkpoint: str
    gpu: str
    gpus: int
    tiers: Mapping[int, tuple[Tier, ...]]
    shared: Mapping[int, float]
    offers: tuple[int, ...]
    quality: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Purchasable:
    """One offer o: an instance of G[o] GPUs, or (``whole`` False) single GPUs of one node, at p[o] $/h each.

    ``location`` "": at no provider's place, so limits on locations do not count it. ``available``: most instances; None = no limit.
    ``kw``: what it draws; None = not known, so nothing capped in kW may hold it.
    """

    location: str
    gpu: str
    gpus: int
    usd_per_hour: float
    whole: bool = True
    available: int | None = None
    kw: float | None = None


@dataclass(frozen=True)
class Cap:
    """A limit on what is held, (11): Σ_o a[o]·I[o] ≤ most, with a[o] the GPUs, $/h or kW of one instance, 0 outside its scope.

    ``family`` names the rule; ``key`` tells caps of one family apart. Scope: one GPU type, one location; "" = all.
    """

    family: str
    of: Measure
    most: float
    key: str = ""
    gpu: str = ""
    location: str = ""

    @property
    def name(self) -> str:
        """Of its row and slack."""
        return f"{self.family}:{self.key}" if self.key else self.family

    def amount(self, offer: Purchasable) -> float:
        """What one instance counts towards it."""
        if self.gpu not in ("", offer.gpu) or self.location not in ("", offer.location):
            return 0.0
        return {"gpus": float(offer.gpus), "usd": offer.usd_per_hour, "kw": offer.kw or 0.0}[self.of]

    def held(self, offers: Sequence[Purchasable], held: Mapping[int, int]) -> float:
        """What so many instances of each offer count towards it."""
        return sum(self.amount(offers[o]) * n for o, n in held.items())


@dataclass(frozen=True)
class Rules:
    """The policy in numbers; None = no limit."""

    max_slo_load: float = 1.0
    spare_replicas: int = 0
    pools_per_workload: int | None = 1
    mix: bool = False
    max_models: int | None = None
    max_gpu_types: int | None = None
    max_locations: int | None = None
    caps: tuple[Cap, ...] = ()
    apart: frozenset[frozenset[int]] = frozenset()  # pairs of workloads that no pool may serve both

    @property
    def budget(self) -> float:
        """$/h that everything may cost at most; infinite without such a cap."""
        return min((c.most for c in self.caps if c.of == "usd" and not (c.gpu or c.location)), default=inf)

    def within(self, usd_per_hour: float) -> Rules:
        """The rules with this cost as the budget, if it is less than theirs."""
        if usd_per_hour >= self.budget:
            return self
        others = (c for c in self.caps if c.of != "usd" or c.gpu or c.location)
        return replace(self, caps=(Cap("budget", "usd", usd_per_hour), *others))

    def without(self, family: str) -> Rules:
        """The rules but for one family of caps."""
        return replace(self, caps=tuple(c for c in self.caps if c.family != family))


@dataclass(frozen=True)
class Problem:
    """All the program needs."""

    demands: tuple[Traffic, ...]
    columns: tuple[Column, ...]
    offers: tuple[Purchasable, ...]
    rules: Rules = Rules()


@dataclass(frozen=True)
class Pool:
    """A candidate put to use for given workloads: alone for one, or shared by several."""

    column: int
    workloads: tuple[int, ...]
    capacity: Mapping[int, float]
    replicas: int  # least replicas in service for this capacity to hold

    @property
    def is_shared(self) -> bool:
        """Whether several workloads may meet here."""
        return len(self.workloads) > 1


@dataclass(frozen=True)
class ChosenPool:
    """One pool of a solution: replicas by offer and traffic by workload."""

    pool: Pool
    replicas: Mapping[int, int]
    traffic: Mapping[int, float]

    @property
    def total(self) -> int:
        """All its replicas."""
        return sum(self.replicas.values())


@dataclass(frozen=True)
class Solution:
    """What the solver found. ``status``: optimal, feasible (a wider gap), infeasible, or unknown (nothing found)."""

    status: str
    cost: float = float("inf")
    bound: float = 0.0
    gap: float = 0.0
    pools: tuple[ChosenPool, ...] = ()
    held: Mapping[int, int] = field(default_factory=dict)
    slack: Mapping[str, float] = field(default_factory=dict)
    variables: int = 0
    constraints: int = 0

    @property
    def found(self) -> bool:
        """Whether there is a plan."""
        return self.status in ("optimal", "feasible")
