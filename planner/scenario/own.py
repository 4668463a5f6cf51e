"""Numbers of one's own as they were read: kept with the plan, so that it can be checked from anywhere."""

from __future__ import annotations

import hashlib
from datetime import date

from planner.catalog.records import Offer
from planner.scenario.part import Part


class OwnCandidate(Part):
    """One candidate of the user's table of capacities; price and rates are per replica, rates by class."""

    name: str
    gpu: str
    gpus: int
    usd_per_hour: float
    max_qps: dict[str, float]


class OwnTables(Part):
    """What the user's two tables say of the classes asked for (``demand``: requests/s by class): all that a check of the plan needs."""

    candidates: tuple[OwnCandidate, ...]
    demand: dict[str, float]

    @property
    def hash(self) -> str:
        """Names what the tables say, as a catalogue's hash names the catalogue."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def offered(own: OwnCandidate) -> Offer:
    """A replica as something to buy: a node of its own size at the table's price, as many as one likes. Not validated: a row may come from a plan."""
    return Offer.model_construct(
        provider="own", kind="owned", region="own", geography="own", instance_type=own.name, basis="instance", gpu=own.gpu, gpus_per_instance=own.gpus,
        gpus_per_node=own.gpus, max_tp=own.gpus, purchase="owned", usd_per_hour=own.usd_per_hour, as_of=date.min, dated_by="scenario",
        source="own table", licence="", note="", available=None,
    )  # fmt: skip
