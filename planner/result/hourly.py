"""The answer over hours: one typed, immutable HourlyPlan. Its JSON is a contract like that of Plan; fields are added, never renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from planner.result.plan import SCHEMA_VERSION, Deployment, HostedOn, Plan, PlanPart
from planner.result.upgrade import upgraded
from planner.scenario.records import Scenario

if TYPE_CHECKING:
    import pandas as pd


class HourlyOffer(PlanPart):
    """What is bought by the hour: $/h of one instance, and the most held at once."""

    provider: str
    region: str
    instance_type: str
    basis: str
    purchase: str
    gpu: str
    gpus_per_instance: int
    usd_per_hour: float
    most_instances: int
    source: str
    as_of: str


class HourlyWorkload(PlanPart):
    """One workload over the hours; ``is_waiting``: its requests may wait, and ``rates`` are what is done of them, in requests/s."""

    name: str
    unit: Literal["qps", "concurrency"]
    is_waiting: bool
    mean: float
    peak: float
    burst_factor: float
    deployments: tuple[int, ...]  # that serve it
    rates: tuple[float, ...]  # mean demand in each hour


class HourlyCount(PlanPart):
    """One deployment in one hour. ``slo_load``: peak traffic of its workloads over capacity of the replicas in service."""

    replicas: int
    hosts: tuple[HostedOn, ...]  # ``purchase`` is an index of HourlyPlan.offers
    slo_load: float
    waiting_requests: tuple[float, ...]  # done in this hour, in the order of the waiting workloads


class Hour(PlanPart):
    """One hour: replicas of each deployment, instances held of each offer, and how many of them were started for it."""

    hour: int
    deployments: tuple[HourlyCount, ...]
    instances: tuple[int, ...]
    started: tuple[int, ...]
    gpus_held: int
    usd: float  # of the hour, start-ups for it included


class HourlyPlan(PlanPart):
    """Replicas by the hour, the same candidates all day. ``plans[i]``: deployment i alone, in its busiest hour."""

    schema_version: int = SCHEMA_VERSION
    planner_version: str
    catalog_hash: str
    scenario: Scenario
    origins: dict[str, str]
    status: Literal["optimal", "feasible"]
    gap: float
    bound_usd: float  # no plan with one deployment per workload costs less over all hours
    hours: int
    usd: float  # over all hours
    startup_usd: float  # of that, what instances cost before they serve
    usd_per_day: float
    usd_per_week: float
    flat_usd_per_hour: float | None  # the cheapest plan that holds the peaks all day; None where nothing does
    flat: str
    saving: float | None  # share of the flat plan's cost
    offers: tuple[HourlyOffer, ...]
    workloads: tuple[HourlyWorkload, ...]
    periods: tuple[Hour, ...]
    plans: tuple[Plan, ...]
    structures: int  # solved over all hours; the rest was known to be dearer
    defaults: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, data: Any) -> Any:
        return upgraded(data)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """What serves, with the replicas of its busiest hour."""
        return tuple(p.deployments[0] for p in self.plans)

    def to_json(self) -> str:
        """The plan as JSON text; read back by ``HourlyPlan.model_validate_json``."""
        return self.model_dump_json(indent=1) + "\n"

    def to_frame(self) -> pd.DataFrame:
        """One row per hour (pandas)."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per hour."""
        return [
            {"hour": h.hour}
            | {f"rate_{w.name}": w.rates[h.hour] for w in self.workloads}
            | {f"replicas_{i}_{d.checkpoint.split('/')[-1]}": c.replicas for i, (d, c) in enumerate(zip(self.deployments, h.deployments, strict=True))}
            | {"instances": sum(h.instances), "gpus_held": h.gpus_held, "usd": h.usd}
            for h in self.periods
        ]
