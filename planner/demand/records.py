"""The demand TOML: what is known of a stream of requests, as imports write it and scenarios read it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from planner.clean import toml_text
from planner.demand.arrivals import Arrivals, Known, Positive, arrivals, since_monday
from planner.demand.given import Length
from planner.demand.lengths import Histogram
from planner.demand.tally import BIN_S, Ints, Tally, percentile

SCHEMA_VERSION = 1


class Spread(BaseModel):
    """Tokens of one side of the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Known
    p50: Known
    p90: Known
    p99: Known
    max: Known


class Demand(BaseModel):
    """A stream of requests. What is not known is absent, never zero.

    cells: (input tokens, output tokens, requests) at the mean of each cell; of a source without answer lengths there are none.
    prefix_cache_hit: share of prompt tokens found in a cache; ``prefix_from`` says whose. output_factor: tokens written per answer token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = SCHEMA_VERSION
    source: str
    format: str
    licence: str = ""
    requests: Positive
    arrivals: Arrivals | None = None
    input: Spread
    output: Spread | None = None
    prefix_cache_hit: Annotated[float, Field(ge=0, le=1)] | None = None
    prefix_from: str = ""
    output_factor: Annotated[float, Field(ge=1, le=1e6)] | None = None
    dropped: dict[str, int] = {}
    models: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    cells: tuple[tuple[Length, Length, Positive], ...] = ()

    @property
    def histogram(self) -> Histogram | None:
        """The joint lengths."""
        return Histogram(*np.array(self.cells).T) if self.cells else None


class DemandFile(BaseModel):
    """What a demand TOML holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demand: Demand


def spread_of(counts: Ints) -> Spread:
    """Exact mean and percentiles of token counts (by value)."""
    values = np.arange(len(counts))
    p50, p90, p99 = (percentile(counts, q) for q in (0.5, 0.9, 0.99))
    return Spread(mean=float(values @ counts / counts.sum()), p50=p50, p90=p90, p99=p99, max=float(np.flatnonzero(counts)[-1]))


def spread_in(histogram: Histogram, side: str) -> Spread:
    """The same of a histogram, to a cell's width."""
    values = getattr(histogram, side)
    p50, p90, p99 = (histogram.percentile(values, q) for q in (0.5, 0.9, 0.99))
    return Spread(mean=histogram.mean(values), p50=p50, p90=p90, p99=p99, max=float(values.max()))


def cells_of(histogram: Histogram) -> tuple[tuple[float, float, float], ...]:
    """Cells as they are written: five digits are enough for lengths."""
    rounded = (np.vectorize(lambda v: float(f"{v:.5g}"), otypes=[float])(v) for v in (histogram.inputs, histogram.outputs, histogram.weights))
    return tuple(zip(*(v.tolist() for v in rounded), strict=True))


def demand_of(tally: Tally, source: str, form: str, notes: tuple[str, ...] = (), prefix_from: str = "") -> Demand:
    """The demand that a tally holds; it has at least one request."""
    stream = None
    if len(tally.counts):
        begins = since_monday(tally.origin + BIN_S * float(tally.bins[0]))
        stream = arrivals(tally.bins, tally.counts, BIN_S, tally.last - tally.first, tally.interarrival_cv, begins)
    return Demand(
        source=source, format=form, requests=tally.requests, arrivals=stream, input=spread_of(tally.input_counts), output=spread_of(tally.output_counts),
        prefix_cache_hit=tally.cached / tally.cached_of if tally.cached_of else None, prefix_from=prefix_from if tally.cached_of else "",
        output_factor=(tally.reasoning + tally.reasoned) / tally.reasoned if tally.reasoning else None,
        dropped=dict(sorted(tally.dropped.items())), models=dict(tally.models.most_common()), notes=notes, cells=cells_of(tally.histogram()),
    )  # fmt: skip


def to_toml(demand: Demand) -> str:
    """The demand TOML; cells stand one a line."""
    import rtoml

    head = toml_text(rtoml.dumps({"demand": demand.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"cells"})}))
    if not demand.cells:
        return head
    lines = "".join(f"  [{i:.5g}, {o:.5g}, {n:.6g}],\n" for i, o, n in demand.cells)
    top, bracket, rest = head.partition("\n[demand.")  # keys of [demand] itself stand before its tables
    return f"{top.rstrip()}\ncells = [ # input tokens, output tokens, requests\n{lines}]\n{bracket}{rest}"
