"""Prices read anew from live sources, in the catalogue's names: what can be said of them exactly, what cannot and why, and what has changed."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar

from planner.catalog.catalog import Catalog
from planner.catalog.hardware import gpus_meant
from planner.catalog.records import ApiPrice, Offer, Record
from planner.clean import cell

R = TypeVar("R", bound=Record)
PROVIDERS = {"lambdalabs": "lambda", "jarvislabs": "jarvis-labs", "vastai": "vast-ai", "amazon": "aws"}  # as sources call them
ZONE = re.compile(r"-[a-z]$")  # us-central1-a is in us-central1


@dataclass(frozen=True)
class LiveGpu:
    """One price of a live source, in its own words: an instance of ``count`` GPUs in USD per hour."""

    provider: str
    instance_type: str
    location: str
    gpu: str
    memory_gb: float | None
    count: int
    spot: bool
    usd_per_hour: float


@dataclass(frozen=True)
class LiveApi:
    """One hosted model of a live source, in USD per million tokens; None where it states none, or several by size."""

    provider: str
    model: str
    input: float | None
    output: float | None
    cached: float | None


@dataclass(frozen=True)
class Refreshed(Generic[R]):
    """What a source says now in the catalogue's names; ``unmapped``: how many rows it could not be said of, by reason."""

    rows: tuple[R, ...]
    unmapped: Mapping[str, int]


@dataclass(frozen=True)
class Change:
    """One price that moved, came or went: before and after in USD; None where it is not there."""

    what: str
    before: float | None
    after: float | None

    @property
    def kind(self) -> str:
        """new, gone, dearer, cheaper or same."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        return "same" if abs(self.after / self.before - 1) < 1e-6 else "dearer" if self.after > self.before else "cheaper"

    @property
    def move(self) -> float:
        """By which share it moved; 0 for what came or went."""
        return self.after / self.before - 1 if self.before and self.after else 0.0


def offers_of(live: Iterable[LiveGpu], catalog: Catalog, day: date, source: str, licence: str) -> Refreshed[Offer]:
    """Offers of providers that the catalogue knows. What it has of an instance type (GPU, node, links) it keeps; of a new one every GPU is linked."""
    found: dict[Hashable, Offer] = {}
    unmapped: Counter[str] = Counter()
    known = {(o.provider, o.instance_type): o for o in catalog.offers}
    kinds = {o.provider: o for o in catalog.offers}
    for row in live:
        provider = PROVIDERS.get(row.provider, row.provider)
        shape = known.get((provider, row.instance_type))
        gpu = shape.gpu if shape else _gpu(row, provider, catalog)
        why = _unusable(row, kinds.get(provider), shape, gpu)
        if why:
            unmapped[why] += 1
            continue
        region = ZONE.sub("", row.location) or "any"
        geography = next((o.geography for o in catalog.offers if o.region == region), "any")
        like = shape or kinds[provider].model_copy(
            update={"basis": "instance", "gpu": gpu, "gpus_per_instance": row.count, "gpus_per_node": row.count, "max_tp": row.count}
        )
        offer = like.model_copy(
            update={
                "instance_type": row.instance_type, "region": region, "geography": geography, "purchase": "spot" if row.spot else "on_demand",
                "usd_per_hour": row.usd_per_hour, "as_of": day, "dated_by": "row", "source": source, "licence": licence, "note": "",
            }
        )  # fmt: skip
        if _key(offer) not in found or offer.usd_per_hour < found[_key(offer)].usd_per_hour:  # of the zones of a region the cheapest
            found[_key(offer)] = offer
    return Refreshed(tuple(found.values()), unmapped)


def _gpu(row: LiveGpu, provider: str, catalog: Catalog) -> str:
    """The one GPU that a source's name and memory mean, if need be of those that the provider sells; "" where several, or none."""
    size = f" {row.memory_gb:g}GB" if row.memory_gb else ""
    meant = set(gpus_meant(row.gpu + size, catalog.gpus) or gpus_meant(row.gpu, catalog.gpus))
    here = meant & {o.gpu for o in catalog.offers if o.provider == provider}
    found = meant if len(meant) == 1 else here
    return found.pop() if len(found) == 1 else ""


def _unusable(row: LiveGpu, provider: Offer | None, shape: Offer | None, gpu: str) -> str:
    """Why a live price cannot be an offer, or ""."""
    if row.count < 1 or not row.gpu:
        return "no whole GPU"
    if not row.usd_per_hour > 0:
        return "no price"
    if provider is None:
        return "provider that the catalogue has no kind of"
    if not gpu:
        return "GPU that the catalogue does not know, or that may be several"
    return "instance type of another number of GPUs than known" if shape and shape.basis == "instance" and shape.gpus_per_instance != row.count else ""


def apis_of(live: Iterable[LiveApi], catalog: Catalog, day: date, source: str, licence: str) -> Refreshed[ApiPrice]:
    """Hosted prices of models that the catalogue knows by the API's name for them, or that are called as a checkpoint is."""
    found: dict[Hashable, ApiPrice] = {}
    unmapped: Counter[str] = Counter()
    known = {(a.provider, a.api_name.removeprefix(f"{a.provider}/").lower()): a for a in catalog.api_prices}
    checkpoints = {c.id.lower(): (card.name, c.id) for card in catalog.cards for c in card.checkpoint}
    for row in live:
        before, names = known.get((row.provider, row.model.lower())), checkpoints.get(row.model.lower())
        if not row.input or not row.output:
            unmapped["no single price of input and output"] += 1
        elif not before and not names:
            unmapped["model that the catalogue does not know by this name"] += 1
        else:
            model, checkpoint = (before.model, before.checkpoint) if before else names or ("", "")
            api_name = before.api_name if before else row.model
            found[row.provider, checkpoint, api_name] = ApiPrice(
                provider=row.provider, model=model, checkpoint=checkpoint, api_name=api_name, usd_per_million_input=row.input,
                usd_per_million_output=row.output, usd_per_million_cached_input=row.cached, max_context=before.max_context if before else None,
                as_of=day, source=source, licence=licence,
            )  # fmt: skip
    return Refreshed(tuple(found.values()), unmapped)


def offer_changes(now: Sequence[Offer], catalog: Catalog) -> list[Change]:
    """How the prices of the providers read anew differ from the catalogue's, USD per instance hour."""
    return _changes(now, catalog.offers, _key, lambda o: o.usd_per_hour)


def api_changes(now: Sequence[ApiPrice], catalog: Catalog) -> list[Change]:
    """The same of hosted prices, USD per million tokens of input and output together."""

    def key(a: ApiPrice) -> tuple[str, ...]:
        return a.provider, a.checkpoint, a.api_name

    return _changes(now, catalog.api_prices, key, lambda a: a.usd_per_million_input + a.usd_per_million_output)


def _changes(now: Sequence[R], before: Sequence[R], key: Callable[[R], tuple[str, ...]], price: Callable[[R], float]) -> list[Change]:
    """By key, the largest moves first; of providers that were read."""
    read = {key(r)[0] for r in now}
    old, new = ({key(r): price(r) for r in rows if key(r)[0] in read} for rows in (before, now))
    found = [Change(" ".join(k), old.get(k), new.get(k)) for k in sorted({*old, *new})]
    return sorted(found, key=lambda c: -abs(c.move))


def _key(offer: Offer) -> tuple[str, ...]:
    return offer.provider, offer.region, offer.instance_type, offer.gpu, offer.purchase


def as_csv(rows: Sequence[Record], kind: type[Record]) -> str:
    """Rows as a table of an overlay catalogue, with every column that says more than what is taken without it."""
    data = [r.model_dump(mode="json") for r in rows]
    names = [n for n, f in kind.model_fields.items() if f.is_required() or any(getattr(r, n) != f.default for r in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *(["" if d[n] is None else cell(d[n]) for n in names] for d in data)])
    return text.getvalue()
