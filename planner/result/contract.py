"""A contract: what is committed to now, what is bought beside it in every hour of the months and futures ahead, and what that is worth."""

from __future__ import annotations

from typing import Literal

from planner.result.plan import Plan, PlanPart
from planner.scenario.outlook import Outlook
from planner.scenario.records import Scenario


class ContractLine(PlanPart):
    """What may be held: an offer as it is bought, for the hour or for a term. Prices of one instance."""

    provider: str
    kind: str
    region: str
    instance_type: str
    basis: str
    gpu: str
    gpus_per_instance: int
    purchase: str
    term: Literal["", "1y", "3y"]  # "": by the hour
    usd_per_hour: float  # of a term what an even payment would be: discount, upfront share and cost of capital counted
    by_the_hour_usd: float | None  # the same without a commitment; of what is for a term alone its GPUs' least price in other lines, None: there is none
    carbon_usd_per_hour: float = 0.0  # of either price, what carbon is charged for: no term takes anything off that
    source: str
    as_of: str


class Commitment(PlanPart):
    """What is signed now of one line, and how it is used over its term within the horizon, in expectation."""

    line: int
    instances: int
    months: int  # within the horizon
    usd_per_hour: float  # of all of them
    used: float  # share of its GPU-hours on which replicas stand
    idle_usd_per_month: float
    break_even: float | None  # share of the hours in which a GPU must be needed for the commitment to pay; None: its GPUs are not to be had by the hour
    obliged_after_usd: float  # what is still to be paid when the horizon ends


class ContractState(PlanPart):
    """One hour of a day in one month of one future: replicas of each deployment by line, instances of each line, and those started for it."""

    replicas: tuple[dict[int, int], ...]
    instances: dict[int, int]
    started: dict[int, int]


class FutureOutcome(PlanPart):
    """What one future costs under the contract: its mean, and what it would cost had one known; GPUs held at most."""

    name: str
    probability: float
    factor: float
    usd_per_hour: float
    known_usd_per_hour: float | None = None
    most_gpus: int


class Stress(PlanPart):
    """What the contract costs if all traffic is so many times as much; None: not to be had within the limits."""

    factor: float
    usd_per_hour: float | None


class Measuring(PlanPart):
    """What it is worth to know a deployment's capacity before signing."""

    deployment: int
    worth_usd: float  # over the horizon
    low_factor: float  # of the load that it is planned for: as capacity may turn out
    high_factor: float


class Robust(PlanPart):
    """What would be signed (instances by line) if capacities were as uncertain as their evidence, and what either costs then, expected."""

    signed: dict[int, int]
    usd_per_hour: float
    as_signed_usd_per_hour: float  # of what the contract signs


class Contract(PlanPart):
    """The answer to ``plan contract``. Money is expected over the futures; $/h are means over the horizon."""

    kind: Literal["contract"] = "contract"
    planner_version: str
    catalog_hash: str
    scenario: Scenario
    outlook: Outlook
    status: Literal["optimal", "feasible"]
    gap: float
    bound_usd_per_hour: float
    usd_per_hour: float
    usd: float  # over the horizon
    hours: float  # of the horizon
    hours_per_cycle: int  # of a day or week, that each month repeats
    lines: tuple[ContractLine, ...]
    commitments: tuple[Commitment, ...]
    coverage: float  # share of the GPU-hours used that stand on what is committed
    parts: tuple[Plan, ...]  # each deployment in its busiest state, as a plan of its own
    states: tuple[ContractState, ...]  # in the order future, month, hour
    futures: tuple[FutureOutcome, ...]
    by_the_hour_usd_per_hour: float | None = None  # the cheapest without any commitment; None: not searched to the end in time
    perfect_information_usd: float | None = None  # what knowing the future before signing is worth, over the horizon
    stochastic_usd: float | None = None  # what signing for the mean of all futures costs more
    risk_premium_usd: float | None = None  # what the limit on the dearest futures costs
    dearest_usd_per_hour: float  # mean of the dearest futures at the limit's level, or of the dearest one
    stress: tuple[Stress, ...] = ()
    measuring: tuple[Measuring, ...] = ()
    robust: Robust | None = None
    structures: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
