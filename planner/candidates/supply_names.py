"""Names in rules on supply in the catalogue's spelling: what a quota counts, whose prices a discount is of, what an own offer is made of."""

from __future__ import annotations

from collections.abc import Sequence

from planner.catalog.catalog import Catalog
from planner.catalog.hardware import gpus_meant, known_gpu, several, which
from planner.catalog.load import known_name
from planner.catalog.records import Offer
from planner.errors import CatalogError
from planner.scenario.caps import parts_of
from planner.scenario.own_offers import OwnOffer

FLAG = "--quota"
KINDS = ("provider", "region", "zone", "GPU")  # in the order in which a key names them


def quota_key(key: str, offers: Sequence[Offer], catalog: Catalog) -> str:
    """The key of a quota as caps read it: its parts spelled as in the catalogue, provider, region, zone and GPU in this order.

    Raises CatalogError with did-you-mean for unknown parts, for two parts of one kind, and for a place where nothing is on offer, which
    a quota would limit in vain.
    """
    found: dict[str, str] = {}
    for part in sorted(parts_of(key), key=lambda p: bool(gpus_meant(p, catalog.gpus))):  # the GPU last: places tell which of several is meant
        kind, name = _part(part, key, _of(offers, found), offers, catalog)
        if kind in found:
            raise CatalogError(f"'{found[kind]}' and '{name}' are each a {kind}: nothing is both", FLAG, "state them as two quotas")
        found[kind] = name
    if len(found) > 1 and not _of(offers, found):
        *_, last = (k for k in KINDS if k in found)
        rest = {k: v for k, v in found.items() if k != last}
        there = sorted({_named(o)[last] for o in _of(offers, rest)})
        raise CatalogError(f"nothing is on offer at '{key}', so its quota would limit nothing", FLAG, f"{'/'.join(rest.values())} has {', '.join(there)}")
    return "/".join(found[k] for k in KINDS if k in found)


def _part(part: str, key: str, here: Sequence[Offer], offers: Sequence[Offer], catalog: Catalog) -> tuple[str, str]:
    """What one part of a key names, and its spelling."""
    meant = gpus_meant(part, catalog.gpus)
    if meant:
        on_offer = {o.gpu for o in here} & set(meant) if len(parts_of(key)) > 1 else set(meant)
        if len(on_offer) > 1:
            raise CatalogError(several(part), FLAG, which(tuple(on_offer)))
        return "GPU", on_offer.pop() if on_offer else known_gpu(part, catalog.gpus, FLAG)
    known = {kind: {_named(o)[kind] for o in offers} - {""} for kind in KINDS[:3]}
    is_one = [kind for kind in known if part.lower() in {n.lower() for n in known[kind]}]
    if len(is_one) > 1:
        raise CatalogError(f"'{part}' is a {' and a '.join(is_one)}", FLAG, "give one of them another name in the file of offers")
    names = known[is_one[0]] if is_one else {*catalog.gpus}.union(*known.values())
    return (is_one or [""])[0], known_name(part, names, "GPU, provider, region or zone", FLAG, "see plan catalog prices")


def _named(offer: Offer) -> dict[str, str]:
    """What an offer is, by kind of name; GPUs of one's own are in no region."""
    return dict(zip(KINDS, (offer.provider, *(("", "") if offer.is_owned else (offer.region, offer.zone)), offer.gpu), strict=True))


def _of(offers: Sequence[Offer], found: dict[str, str]) -> list[Offer]:
    return [o for o in offers if all(_named(o)[k] == v for k, v in found.items())]


def own_offer_known(offer: OwnOffer, catalog: Catalog) -> OwnOffer:
    """An offer of one's own with GPU, provider and region as the catalogue spells them, and its kind and geography as there; what it does not know stays.

    Raises CatalogError for an unknown GPU.
    """
    try:
        gpu = known_gpu(offer.gpu, catalog.gpus, "--offers")
    except CatalogError as error:
        raise CatalogError(f"offer '{offer.key}': {error.what}", "--offers", error.hint) from None
    spelled = {o.provider.lower(): o.provider for o in catalog.offers} | {o.region.lower(): o.region for o in catalog.offers}
    provider, region = (spelled.get(n.lower(), n) for n in (offer.provider, offer.region))
    kinds = (o.kind for o in catalog.offers if o.provider == provider)
    places = (o.geography for o in catalog.offers if o.region == region != "any")
    known = {"kind": offer.kind or next(kinds, "contract"), "geography": offer.geography or next(places, "any"), "id": offer.key}
    return offer.model_copy(update={"gpu": gpu, "provider": provider, "region": region, **known})


def discounted(key: str, catalog: Catalog) -> str:
    """The provider, or provider:purchase, that a discount is of. Raises CatalogError with did-you-mean, also for a way to buy that it does not sell."""
    provider, colon, purchase = key.partition(":")
    name = known_name(provider.strip(), {o.provider for o in catalog.offers}, "provider", "--discount", "see plan catalog prices")
    ways = sorted({str(o.purchase) for o in catalog.offers if o.provider == name})
    hint = f"{name} sells {', '.join(ways)}"
    return f"{name}:{known_name(purchase.strip(), ways, 'way to buy', '--discount', hint)}" if colon else name
