"""What studies vary of a workload: its traffic as it was stated, and the checkpoints of one model."""

from __future__ import annotations

from planner.catalog.catalog import Catalog
from planner.scenario.workload import Workload


def traffic_of(workload: Workload) -> tuple[str, str, float]:
    """(field, unit, amount) of a workload's traffic as it was stated: users, requests/s or requests in flight."""
    if workload.demand and workload.demand.users is not None:
        return "users", "users", workload.demand.users
    return workload.rate_field, workload.unit, workload.rate


def checkpoints_of(name: str, catalog: Catalog) -> tuple[str, ...]:
    """The checkpoints of one card: names of models may begin alike (Phi-4, Phi-4-mini), these do not."""
    return tuple(c.id for card in catalog.cards if card.name == name for c in card.checkpoint)
