"""What the program is given and what it answers: plain records of numbers and keys, nothing of LLMs in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import inf
from typing import Literal

from planner.program.kinds import ColumnIndex, StateIndex, WorkloadIndex

Measure = Literal["gpus", "usd", "paid", "kw", "kg"]


class Status(StrEnum):
    """What is known of a problem: the best plan, within the gap asked; a plan; that there is none; nothing."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class State:
    """One period of one scenario of demand, i: how long it lasts, how likely the scenario is, and which state goes before it.

    What is held more than before is started. ``before`` None: as if it had been held, so starts are not counted. ``case``: its scenario.
    ``times``: how often it comes, an hour of a month's day say as often as the month has days.
    """

    hours: float = 1.0
    probability: float = 1.0
    before: StateIndex | None = None
    case: int = 0
    times: float = 1.0

    @property
    def weight(self) -> float:
        """Hours expected."""
        return self.hours * self.times * self.probability

    @property
    def starts(self) -> float:
        """How often what is started for it is started, expected."""
        return self.times * self.probability


def circle(periods: int) -> tuple[State, ...]:
    """Hours of which the first follows the last."""
    return tuple(State(before=StateIndex((i - 1) % periods)) for i in range(periods)) if periods > 1 else (State(),)


@dataclass(frozen=True)
class Traffic:
    """One workload w: its rate λ[w,i] in each state, in its own unit (requests/s or requests in flight)."""

    name: str
    rates: tuple[float, ...]
    mean_quality: float | None = None

    @property
    def rate(self) -> float:
        """Of the only state; of several the highest."""
        return max(self.rates)


@dataclass(frozen=True)
class Waiting:
    """Work k that may wait: requests of each window of states, and what one replica does of it in an hour, by column.

    ``beside``: on replicas that traffic needs, in what it leaves. ``alone``: on replicas of its own, of one column at most.
    """

    windows: tuple[tuple[int, ...], ...]
    amounts: tuple[float, ...]
    beside: Mapping[int, float] = field(default_factory=dict)
    alone: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tier:
    """Capacity per replica of a pool that has at least this many replicas in service.

    ``remain``: replicas that must remain after a loss, where all the traffic is known to be the pool's; None: as many as carry what it has.
    ``after_loss``: the capacity then; None: the same.
    """

    replicas: int
    capacity: float
    remain: int | None = None
    after_loss: float | None = None


@dataclass(frozen=True)
class Column:
    """One candidate c: a replica type with its operating point.

    ``tiers[w]``: capacities μ[c,w] where the pool serves w alone, by pool size; ``shared[w]``: where it serves several
    workloads, or w beside waiting work. A workload that it cannot serve is absent. ``offers``: indices of the offers a replica fits on.

    Hosted by somebody else (an API) where ``usd_per_unit[w]`` gives the $/h of one unit of w's traffic: no replicas, offers and capacities;
    ``most[w]``: the traffic that it takes at most, absent: no limit; ``host``: whose limit of all traffic counts (``Rules.host_limits``).
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
    usd_per_unit: Mapping[int, float] = field(default_factory=dict)
    most: Mapping[int, float] = field(default_factory=dict)
    host: str = ""
    shared_after_loss: Mapping[int, float] = field(default_factory=dict)  # as ``shared``, after a loss; empty: the same

    @property
    def is_hosted(self) -> bool:
        """Whether somebody else runs it."""
        return bool(self.usd_per_unit)


@dataclass(frozen=True)
class Purchasable:
    """One offer o: an instance of G[o] GPUs, or (``whole`` False) single GPUs of one node, at p[o] $/h each.

    ``location`` "": at no provider's place, so limits on locations do not count it. ``available``: most instances; None = no limit.
    ``minimum``: instances held in every state in which any are. ``owned``: one's own, so not part of today's fleet.
    ``kw``, ``kg``: kW that it draws and kgCO2e that it emits in an hour; None = not known, so nothing capped in them may hold it.
    ``unpaid``: of p[o], what is charged and nobody is paid (carbon). ``fails``: GPUs that are lost together with one of an
    instance (0: the instance's). ``committed``: held alike in every state, or within each of ``spans`` (groups of states) and
    not outside. ``spot``: may be taken back. ``now``: instances held today; ``least``: those held whatever is chosen, as they are
    contracted. ``place``: provider and region, for caps that name them.
    """

    location: str
    gpu: str
    gpus: int
    usd_per_hour: float
    whole: bool = True
    available: int | None = None
    kw: float | None = None
    zone: str = ""
    fails: int = 0
    committed: bool = False
    spans: tuple[tuple[int, ...], ...] = ()
    spot: bool = False
    now: int = 0
    least: int = 0
    place: tuple[str, ...] = ()
    kg: float | None = None
    unpaid: float = 0.0
    minimum: int = 1
    owned: bool = False

    def at_once(self, gpus: int) -> int:
        """Replicas of so many GPUs that one instance takes with it at most when it fails; of a replica over several instances, itself."""
        return max(1, (self.fails or self.gpus) // gpus)

    @cached_property
    def labels(self) -> frozenset[str]:
        """What caps may name it by."""
        return frozenset((self.gpu, self.location, self.zone, *self.place))

    def amount(self, of: Measure) -> float:
        """GPUs, $/h, $/h paid, kW or kgCO2e/h of one instance."""
        return {"gpus": float(self.gpus), "usd": self.usd_per_hour, "paid": self.usd_per_hour - self.unpaid, "kw": self.kw or 0.0, "kg": self.kg or 0.0}[of]


@dataclass(frozen=True)
class Cap:
    """A limit on what is held, (11): Σ_o a[o]·I[o] ≤ most, with a[o] the GPUs, $/h, $/h paid, kW or kgCO2e/h of one instance, 0 outside its scope.

    ``family`` names the rule; ``key`` tells caps of one family apart. ``scope``: labels that an offer has all of (GPU type, location,
    provider, region, zone); empty = every offer.
    """

    family: str
    of: Measure
    most: float
    key: str = ""
    scope: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Of its row and slack."""
        return f"{self.family}:{self.key}" if self.key else self.family

    @property
    def is_money(self) -> bool:
        """Whether it limits the cost of everything."""
        return self.of == "usd" and not self.scope

    def amount(self, offer: Purchasable) -> float:
        """What one instance counts towards it."""
        if not self.scope <= offer.labels:
            return 0.0
        return offer.amount(self.of)

    def held(self, offers: Sequence[Purchasable], held: Mapping[int, int]) -> float:
        """What so many instances of each offer count towards it."""
        return sum(self.amount(offers[o]) * n for o, n in held.items())


Loss = Literal["instance", "zone", "spot"]  # any one instance; any one zone; everything bought as spot


@dataclass(frozen=True)
class Risk:
    """The mean cost of the dearest scenarios, of a share 1 − ``level`` of all, is at most so many $/h; level 1: of the dearest one."""

    level: float
    most: float


@dataclass(frozen=True)
class Changes:
    """From what is held today: instances more or fewer at most (None = no limit), and what one GPU's change costs, spread over time as $/h."""

    most: int | None = None
    usd_per_gpu: float = 0.0

    @property
    def count(self) -> bool:
        """Whether it matters how many there are."""
        return self.most is not None or self.usd_per_gpu > 0


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
    floor_replicas: int = 0  # of each deployment in use, in every state
    lead_hours: float = 0.0  # from starting an instance to its replicas serving: paid, and serves nothing
    min_up: int = 1  # states for which an instance is held at least once started
    overflow: bool = False  # whether a hosted deployment may serve beside those that ``pools_per_workload`` counts
    at_once: bool = False  # whether in each state all of a workload is on one pool
    host_limits: Mapping[str, float] = field(default_factory=dict)  # traffic that hosted columns of one host take at most, all workloads together
    survives: frozenset[Loss] = frozenset()  # each of these leaves replicas enough
    load_after_loss: float = 1.0  # most traffic per capacity then
    most_spot: float | None = None  # share of each deployment's replicas that may be on spot
    risk: Risk | None = None
    changes: Changes | None = None

    @property
    def budget(self) -> float:
        """$/h that everything may cost at most; infinite without such a cap."""
        return min((c.most for c in self.caps if c.is_money), default=inf)

    def within(self, usd_per_hour: float) -> Rules:
        """The rules with this cost as the budget, if it is less than theirs; beside a budget on what is paid, which stays."""
        if usd_per_hour >= self.budget:
            return self
        others = [c for c in self.caps if not c.is_money]
        return replace(self, caps=(Cap("cutoff" if any(c.of == "paid" for c in others) else "budget", "usd", usd_per_hour), *others))

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
    states: tuple[State, ...] = (State(),)
    waiting: tuple[Waiting, ...] = ()

    def spans_of(self, o: int) -> tuple[tuple[int, ...], ...]:
        """The groups of states within each of which a committed offer is held alike."""
        return self.offers[o].spans or (tuple(range(len(self.states))),)

    @property
    def is_flat(self) -> bool:
        """Whether one state is all there is: then who serves and who serves now are one question."""
        return len(self.states) == 1 and not self.waiting

    def started(self, held: Sequence[Mapping[int, int]]) -> tuple[dict[int, int], ...]:
        """Instances of each offer that are held by state, and were not before."""
        before = [held[i] if s.before is None else held[s.before] for i, s in enumerate(self.states)]
        return tuple({o: more for o, n in now.items() if (more := n - was.get(o, 0)) > 0} for now, was in zip(held, before, strict=True))

    def cost(self, held: Sequence[Mapping[int, int]], pools: Sequence[ChosenPool] = ()) -> float:
        """(1) of instances held by state, and of what hosted pools serve."""
        price, lead = [o.usd_per_hour for o in self.offers], self.rules.lead_hours
        spent = [sum(price[o] * n for o, n in now.items()) for now in held]
        begun = [sum(price[o] * n for o, n in new.items()) for new in self.started(held)]
        hosted = sum(s.weight * usd for c in pools for s, usd in zip(self.states, self.hosted_usd(c), strict=True))
        return hosted + sum(s.weight * usd + s.starts * lead * more for s, usd, more in zip(self.states, spent, begun, strict=True)) + self.moved(held)

    def hosted_usd(self, chosen: ChosenPool) -> tuple[float, ...]:
        """$/h by state of a pool's traffic where it is hosted; 0 of others, whose instances are paid."""
        each = self.columns[chosen.pool.column].usd_per_unit
        return tuple(sum(each.get(w, 0.0) * rate for w, rate in flows.items()) for flows in chosen.flows)

    def moved(self, held: Sequence[Mapping[int, int]]) -> float:
        """(27) $/h of what is held more or less than today, in the only state; 0 where changes cost nothing."""
        each = self.rules.changes.usd_per_gpu if self.rules.changes else 0.0
        return each * sum(offer.gpus * abs(held[0].get(o, 0) - offer.now) for o, offer in enumerate(self.offers) if not offer.owned) if each else 0.0

    @property
    def counts_starts(self) -> bool:
        """Whether it matters when instances are started."""
        return (self.rules.lead_hours > 0 or self.rules.min_up > 1) and any(s.before is not None for s in self.states)


@dataclass(frozen=True)
class Pool:
    """A candidate put to use for given workloads: alone for one, or shared by several; for none, to do work that waits.

    ``need``: replicas by state, where the deployment is the only one its workloads can have; None where the program chooses.
    ``remain``: those that must remain after a loss, where all the traffic is known to be its; ``after_loss``: capacities then, empty: the same.
    """

    column: ColumnIndex
    workloads: tuple[WorkloadIndex, ...]
    capacity: Mapping[int, float]
    replicas: int  # least replicas in service for this capacity to hold
    need: tuple[int, ...] | None = None
    remain: tuple[int, ...] | None = None
    after_loss: Mapping[int, float] = field(default_factory=dict)

    @property
    def left_capacity(self) -> Mapping[int, float]:
        """Of each workload after a loss."""
        return self.after_loss or self.capacity

    @property
    def is_shared(self) -> bool:
        """Whether several workloads may meet here."""
        return len(self.workloads) > 1


@dataclass(frozen=True)
class ChosenPool:
    """One pool of a solution, by state: replicas by offer, traffic by workload; and waiting requests done, by work."""

    pool: Pool
    running: tuple[Mapping[int, int], ...]
    flows: tuple[Mapping[int, float], ...]
    waiting: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def replicas(self) -> Mapping[int, int]:
        """Of the only state."""
        (only,) = self.running
        return only

    @property
    def traffic(self) -> Mapping[int, float]:
        """Of the only state."""
        (only,) = self.flows
        return only

    @property
    def total(self) -> int:
        """All its replicas in the only state."""
        return sum(self.replicas.values())


@dataclass(frozen=True)
class Solution:
    """What the solver found: pools, and instances held and started of each offer, by state. ``cost``: of all states, starts included."""

    status: Status
    cost: float = inf
    bound: float = 0.0
    gap: float = 0.0
    pools: tuple[ChosenPool, ...] = ()
    holdings: tuple[Mapping[int, int], ...] = ()
    started: tuple[Mapping[int, int], ...] = ()
    slack: Mapping[str, float] = field(default_factory=dict)
    variables: int = 0
    constraints: int = 0

    @property
    def found(self) -> bool:
        """Whether there is a plan."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)

    @property
    def is_settled(self) -> bool:
        """Whether it is known which plan is the cheapest, or that there is none."""
        return self.status in (Status.OPTIMAL, Status.INFEASIBLE)

    @property
    def held(self) -> Mapping[int, int]:
        """Instances of the only state; nothing without a plan."""
        (only,) = self.holdings or ({},)
        return only
