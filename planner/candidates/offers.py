"""Which offers a scenario may buy, where they are, and which replicas they can host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any, TypeVar, get_args

from planner.candidates.eligibility import begins
from planner.candidates.supply_names import discounted, own_offer_known, quota_key
from planner.catalog.catalog import Catalog
from planner.catalog.hardware import gpus_meant, known_gpu, known_gpus
from planner.catalog.load import known_name
from planner.catalog.records import Kind, Offer, Purchase
from planner.errors import CatalogError
from planner.program.problem import Purchasable
from planner.scenario.apply import ALL, catalog_for
from planner.scenario.caps import parts_of
from planner.scenario.fields import askables
from planner.scenario.records import KINDS, Scenario, Supply
from planner.scenario.workload import Workload

T = TypeVar("T")
Hosting = Callable[[str, int, int], tuple[int, ...]]  # GPU type, GPUs that must be linked, groups of so many -> indices of offers


def location(offer: Offer) -> str:
    """Provider and region; "" for one's own GPUs, and for what is contracted today: they stand beside any rented ones."""
    return "" if offer.is_owned or offer.until else f"{offer.provider} {offer.region}"


def labels(offer: Offer) -> frozenset[str]:
    """What caps may name an offer by."""
    return purchasable(offer).labels


def allowed(offers: Iterable[Offer], supply: Supply, newest: date = date.max) -> tuple[Offer, ...]:
    """The offers that the supply rules admit, and all that is held today. Those on what may be rented (kinds, providers, places, age) do not concern
    owned GPUs.

    newest: the date of the newest price in the catalogue, from which ages count.
    """
    may = admission(supply, newest)
    return tuple(found for o in offers if (found := may(o) or (o if o.now else None)))


def admission(supply: Supply, newest: date = date.max) -> Callable[[Offer], Offer | None]:
    """What supply lets be bought of an offer; None: nothing. Of what is held today and would not be looked at otherwise (its kind, way to buy or age was
    not asked for), no more than is held."""
    oldest = date.min if supply.max_price_age is None else newest - timedelta(days=supply.max_price_age)
    nothing = [frozenset(parts_of(key)) for key, most in supply.quota.items() if not most]

    def may(o: Offer) -> Offer | None:
        if o.provider in supply.exclude_providers or (supply.gpus and o.gpu not in supply.gpus) or o.gpu in supply.exclude_gpus:
            return None
        if any(none <= labels(o) for none in nothing) or not (o.is_owned or _is_where_asked(o, supply)):
            return None
        if o.is_owned or (_is_looked_at(o, supply) and o.as_of >= oldest):
            return o
        return o.model_copy(update={"available": o.now}) if o.now and (supply.kinds == KINDS or o.kind in supply.kinds) else None

    return may


def in_the_way(catalog: Catalog, supply: Supply) -> list[str]:
    """Rules on supply of which one alone leaves nothing to buy, in the words they are asked in."""
    free = {"kinds": get_args(Kind), "purchase": get_args(Purchase), "max_price_age": None}
    names = ("kinds", "purchase", "providers", "exclude_providers", "regions", "geographies", "gpus", "exclude_gpus", "max_price_age")
    rules: list[tuple[str, Any, Any]] = [(name, getattr(supply, name), free.get(name, ())) for name in names]
    rules += [("quota", f"{key}=0", {k: n for k, n in supply.quota.items() if k != key}) for key, most in supply.quota.items() if not most]
    found = [(name, asked) for name, asked, loose in rules if asked and allowed(catalog.offers, supply.model_copy(update={name: loose}), catalog.newest_price)]
    flags = {a.path[-1]: a.flag.name for a in askables() if a.path[0] == "supply"}
    return [f"{flags[name]} {', '.join(map(str, asked)) if isinstance(asked, tuple) else asked}" for name, asked in found]


def _is_looked_at(offer: Offer, supply: Supply) -> bool:
    return (
        (offer.kind in supply.kinds or (bool(offer.id) and supply.kinds == KINDS))  # own offers are of any kind unless kinds are asked for
        and (offer.purchase in supply.purchase or bool(offer.id))  # and bought in the way that they state
    )


def _is_where_asked(offer: Offer, supply: Supply) -> bool:
    return (
        (not supply.providers or offer.provider in supply.providers)
        and (not supply.regions or offer.region in supply.regions)
        and (not supply.geographies or offer.geography in supply.geographies)
    )


def cheapest_by_shape(offers: Sequence[Offer], by_way: bool = False) -> tuple[Offer, ...]:
    """One offer per location, zone, GPU, size and widest TP: the cheapest (first by name among equals). Those of which not any number may be
    held, and those held today, all stay.

    by_way: ways to buy apart, where only some may be spot, or some are for a term.
    """
    best: dict[tuple[object, ...], Offer] = {}
    for i, o in enumerate(sorted(offers, key=lambda o: (o.usd_per_hour, o.provider, o.region, o.instance_type))):
        way = o.purchase if by_way else None
        alone = i if o.available is not None or o.minimum > 1 or o.now else None
        best.setdefault((location(o), o.zone, way, o.gpu, o.gpus_per_instance, o.basis, o.max_tp, alone), o)
    return tuple(best.values())


def hosts(offer: Offer, gpu: str, tp: int, pp: int) -> bool:
    """Whether a replica fits: its TP group inside one node, and whole instances where it spans several.

    Only hyperscalers and neoclouds connect their nodes, so nothing spans the hosts of others.
    """
    if offer.gpu != gpu or tp > offer.max_tp:
        return False
    gpus = tp * pp
    if offer.available is not None and gpus > offer.available * offer.gpus_per_instance:
        return False
    if gpus > offer.gpus_per_node and offer.kind not in ("hyperscaler", "neocloud"):
        return False
    if offer.basis == "gpu":
        return gpus <= offer.gpus_per_node or pp > 1
    return gpus <= offer.gpus_per_instance or (pp > 1 and gpus % offer.gpus_per_instance == 0 and tp <= offer.gpus_per_instance)


def hosting(offers: Sequence[Offer]) -> Hosting:
    """Which of the offers host replicas of a GPU type and size, by their indices; each asked once."""
    of_gpu: dict[str, list[tuple[int, Offer]]] = {}
    for i, offer in enumerate(offers):
        of_gpu.setdefault(offer.gpu, []).append((i, offer))

    @cache
    def found(gpu: str, linked: int, groups: int) -> tuple[int, ...]:
        return tuple(i for i, o in of_gpu.get(gpu, ()) if hosts(o, gpu, linked, groups))

    return found


def purchasable(offer: Offer, kw: float | None = None, kg: float | None = None) -> Purchasable:
    """The offer as the program sees it."""
    where = [offer.region, *([f"{offer.provider} {offer.region}"] if offer.until else [])]  # the latter is else its location
    place, whole = (offer.provider, *(() if offer.is_owned else where)), offer.basis == "instance"
    zone, fails = offer.provider if offer.is_owned else offer.zone, 0 if whole else offer.gpus_per_node  # each site of one's own is a zone
    each = (location(offer), offer.gpu, offer.gpus_per_instance, offer.usd_per_hour, whole, offer.available, kw, zone, fails)
    spot, unpaid = offer.purchase == "spot", offer.carbon_usd_per_hour
    return Purchasable(*each, spot=spot, place=place, kg=kg, unpaid=unpaid, now=offer.now, least=offer.least, minimum=offer.minimum, owned=offer.is_owned)


def with_known_names(scenario: Scenario, catalog: Catalog) -> Scenario:
    """The scenario with GPU, provider, region and model names in the catalogue's spelling. Raises CatalogError with did-you-mean."""
    gpus, s = catalog.gpus, scenario.supply
    known = s.model_copy(
        update={
            "owned": tuple(o.model_copy(update={"gpu": known_gpu(o.gpu, gpus, "--owned")}) for o in s.owned),
            "offers": tuple(own_offer_known(o, catalog) for o in s.offers),
            "current": tuple(h.model_copy(update={"gpu": known_gpu(h.gpu, gpus, "--current")}) if h.gpu else h for h in s.current),
        }
    )
    offers = catalog_for(catalog, scenario.model_copy(update={"supply": known})).offers if s.owned or s.offers or s.current else catalog.offers
    providers, sold = {o.provider for o in offers}, {a.provider for a in catalog.api_prices}
    places = {f"{o.provider} {o.region}" for o in offers if not o.is_owned}
    regions, geographies = {o.region for o in offers if not o.is_owned}, {o.geography for o in offers}
    models = {n for card in catalog.cards for n in (card.name, card.family, *(c.id for c in card.checkpoint))}
    benchmarks = {q.benchmark for card in catalog.cards for q in card.quality}

    def families(words: Iterable[str], flag: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(g for w in words for g in known_gpus(w, gpus, flag)))

    reachable = {*regions, *(o.name for o in s.owned)}

    def all_of(words: Iterable[str], known: Iterable[str], what: str, flag: str, hint: str) -> tuple[str, ...]:
        return tuple(known_name(w, known, what, flag, hint) for w in words)

    p = scenario.policy
    supply = known.model_copy(
        update={
            "gpus": families(s.gpus, "--gpu"),
            "exclude_gpus": families(s.exclude_gpus, "--exclude-gpu"),
            "providers": all_of(s.providers, providers, "provider", "--provider", "see plan catalog prices"),
            "exclude_providers": all_of(s.exclude_providers, providers, "provider", "--exclude-provider", "see plan catalog prices"),
            "regions": all_of(s.regions, regions, "region", "--region", "see plan catalog prices"),
            "geographies": all_of(s.geographies, geographies, "geography", "--geography", f"one of {', '.join(sorted(geographies))}"),
            "api_providers": all_of(s.api_providers, sold, "API provider", "--api-provider", f"one of {', '.join(sorted(sold))}"),
            "api_limit": _by_name(
                ((known_name(n, sold, "API provider", "--api-limit", f"one of {', '.join(sorted(sold))}"), x) for n, x in s.api_limit.items()), "--api-limit"
            ),
            "quota": _by_name(((quota_key(key, offers, catalog), n) for key, n in s.quota.items()), "--quota"),
            "max_kw_at": {
                known_name(at, places, "location", "--max-kw-at", "a provider and its region, such as 'aws us-east-1'"): x for at, x in s.max_kw_at.items()
            },
            "discount": _by_name(((discounted(key, catalog), x) for key, x in s.discount.items()), "--discount"),
        }
    )
    what_if = scenario.what_if.model_copy(
        update={"price_factor": _by_name(((_priced(g, providers, catalog), x) for g, x in scenario.what_if.price_factor.items()), "--price-factor")}
    )
    policy = p.model_copy(update={"exclude_models": all_of(p.exclude_models, models, "model", "--exclude-model", "see plan catalog models")})
    workloads = tuple(
        w.model_copy(
            update={
                "models": tuple(_model(m, models, catalog) for m in w.models),
                "regions": all_of(w.regions, reachable, "region", "--data-region", "see plan catalog prices"),
                "network_at": _by_name(
                    ((known_name(n, reachable, "region", "--network-at", "see plan catalog prices"), x) for n, x in w.network_at.items()), "--network-at"
                ),
                "geographies": all_of(w.geographies, geographies, "geography", "--data-geography", f"one of {', '.join(sorted(geographies))}"),
                "quality_metric": known_name(w.quality_metric, benchmarks, "benchmark", "--quality-metric", f"one of {', '.join(sorted(benchmarks))}"),
                **counted_in(w, catalog),
            }
        )
        for w in scenario.workload
    )
    return scenario.model_copy(update={"supply": supply, "policy": policy, "workload": workloads, "what_if": what_if})


def _by_name(pairs: Iterable[tuple[str, T]], flag: str) -> dict[str, T]:
    """Values by known name. Raises CatalogError where two spellings mean one: neither may be lost."""
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise CatalogError(f"'{name}' stands twice, as {found[name]} and {value}", flag, "name it once")
        found[name] = value
    return found


def _priced(name: str, providers: Iterable[str], catalog: Catalog) -> str:
    """The GPU or provider, or all, whose prices a factor is of. Raises CatalogError with did-you-mean."""
    if gpus_meant(name, catalog.gpus):
        return known_gpu(name, catalog.gpus, "--price-factor")
    return known_name(name, {*catalog.gpus, *providers, ALL}, "GPU or provider", "--price-factor", "see plan catalog prices")


def counted_in(workload: Workload, catalog: Catalog) -> dict[str, str]:
    """The language and tokenizer that lengths are stated in, in the catalogue's spelling. Raises CatalogError for those without counts."""
    if not workload.language:
        return {}
    hint = "left out, the tokens of all models are taken as equal; see plan catalog tokenizers"
    language = known_name(workload.language, {language for _, language in catalog.tokens}, "language", "--language", hint)
    named = {tokenizer for tokenizer, counted in catalog.tokens if counted == language}
    tokenizer = workload.tokenizer and known_name(workload.tokenizer, named, "tokenizer", "--tokenizer", f"one of {', '.join(sorted(named))}")
    return {"language": language, "tokenizer": tokenizer}


def _model(word: str, models: set[str], catalog: Catalog) -> str:
    """A model asked for: any words that a checkpoint's name begins with will do. Raises CatalogError with did-you-mean."""
    if any(begins(c.id, word) for card in catalog.cards for c in card.checkpoint):
        return word
    return known_name(word, models, "model", "--model", "see plan catalog models")
