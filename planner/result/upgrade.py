"""Plans as earlier versions wrote them, read as the present one: plain JSON data in, plain JSON data out."""

from __future__ import annotations

from planner.raw import Raw
from planner.scenario.units import HOURS_PER_MONTH, parse_duration_s

OFFER = ("provider", "region", "instance_type", "gpu", "purchase")  # that name an offer
SAME = ("provider", "region", "instance_type", "basis", "purchase", "gpu", "gpus_per_instance", "source", "as_of")


def upgraded(data: object) -> object:
    """The data of a plan as schema version 2 has it. What is no plan of version 1 stays as it is, for the reader to say what is wrong with it."""
    if not isinstance(data, dict) or data.get("schema_version") != 1 or not isinstance(data.get("scenario"), dict):
        return data
    asked = dict(data["scenario"])
    now = {**data, "schema_version": 2, "origins": asked.pop("origins", {}), "scenario": asked}
    if "periods" in data:
        try:
            return _by_the_hour(now)
        except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
            return data
    tables = asked.get("tables")
    if not (isinstance(tables, dict) and tables.get("capacities")):
        return {**now, "kind": "flat"}
    bought = now.get("purchases")
    owned = {"kind": "owned", "purchase": "owned", "dated_by": "scenario"}
    return {**now, "kind": "own", "purchases": [p | owned if isinstance(p, dict) else p for p in bought] if isinstance(bought, list) else bought}


def _by_the_hour(old: Raw) -> Raw:
    """Version 1 had a record of its own, with a plan of each deployment alone in its busiest hour."""
    hours, periods, alone = old["hours"], old["periods"], old["plans"]
    known = {tuple(p[k] for k in OFFER): p for plan in alone for p in plan["purchases"]}
    each = [_gpus(plan["deployments"][0]) for plan in alone]
    prices = [o["usd_per_hour"] / o["gpus_per_instance"] for o in old["offers"]]
    used = [[_used(p, o, each) for p in periods] for o in range(len(prices))]
    purchases = [_purchase(o, known.get(tuple(o[k] for k in OFFER), {}), periods, i, used[i]) for i, o in enumerate(old["offers"])]
    usd, busy = old["usd"] / hours, sum(sum(n) * c for n, c in zip(used, prices, strict=True))
    names = [w["name"] for w in old["workloads"] if w["is_waiting"]]
    done = {name: [[p["deployments"][i]["waiting_requests"][k] / 3600 for p in periods] for i in range(len(alone))] for k, name in enumerate(names)}
    asked = {w["name"]: w for w in old["scenario"]["workload"]}
    workloads = [_waiting(w, asked[w["name"]], done[w["name"]]) if w["is_waiting"] else _steady(w, asked[w["name"]], alone) for w in old["workloads"]]
    first = alone[0]
    return {
        **{k: old[k] for k in ("schema_version", "planner_version", "catalog_hash", "scenario", "origins", "status", "gap", "periods")},
        **{k: old[k] for k in ("defaults", "assumptions", "warnings", "notes")},
        "kind": "hourly",
        "bound_usd_per_hour": old["bound_usd"] / hours,
        "objective": first["objective"],
        "supply": first["supply"],
        "cost": _cost(usd, usd - (busy + old["startup_usd"]) / hours, workloads),
        "startup_usd_per_hour": old["startup_usd"] / hours,
        "gpus_used": max(sum(d["replicas"] * n for d, n in zip(p["deployments"], each, strict=True)) for p in periods),
        "gpus_held": max(p["gpus_held"] for p in periods),
        "purchases": purchases,
        "deployments": [_deployment(i, plan, periods, prices, old["workloads"]) for i, plan in enumerate(alone)],
        "workloads": workloads,
        "flat": {"words": old["flat"], "usd_per_hour": old["flat_usd_per_hour"], "saving": old["saving"]},
        "excluded": first["excluded"],
        "solver": {**first["solver"], "variables": None, "constraints": None, "structures": old["structures"]},
    }


def _gpus(d: Raw) -> int:
    return int(d["tp"] * d["pp"] * max(d["prefill_engines"] + d["decode_engines"], 1))


def _used(period: Raw, purchase: int, each: list[int]) -> int:
    return sum(h["replicas"] * n for d, n in zip(period["deployments"], each, strict=True) for h in d["hosts"] if h["purchase"] == purchase)


def _purchase(offer: Raw, known: Raw, periods: list[Raw], i: int, used: list[int]) -> Raw:
    most = offer["most_instances"]
    at = next((t for t, p in enumerate(periods) if p["instances"][i] == most), 0)
    held = most * offer["gpus_per_instance"]
    rest = {"kind": known.get("kind", ""), "dated_by": known.get("dated_by", ""), "note": known.get("note", "")}
    counts = {"instances": most, "gpus_held": held, "gpus_idle": held - used[at], "usd_per_hour": most * offer["usd_per_hour"]}
    return {k: offer[k] for k in SAME} | rest | counts


def _cost(usd: float, idle: float, workloads: list[Raw]) -> Raw:
    cost = {"usd_per_hour": usd, "usd_per_month": usd * HOURS_PER_MONTH, "usd_per_year": usd * 12 * HOURS_PER_MONTH, "idle_usd_per_hour": idle}
    if any(w["demand"]["kind"] == "concurrency" for w in workloads):
        return cost
    requests = [3600 * sum(w["rates"]) / len(w["rates"]) for w in workloads]
    output = sum(n * w["output_tokens"] for n, w in zip(requests, workloads, strict=True))
    total = sum(n * (w["input_tokens"] + w["output_tokens"]) for n, w in zip(requests, workloads, strict=True))
    unit = {"usd_per_million_output_tokens": usd / output * 1e6, "usd_per_million_total_tokens": usd / total * 1e6}
    return cost | unit | {"usd_per_thousand_requests": usd / sum(requests) * 1e3}


def _deployment(i: int, plan: Raw, periods: list[Raw], prices: list[float], workloads: list[Raw]) -> Raw:
    """Its busiest hour is the one whose rates the plan of it alone was asked."""
    d: Raw
    (d,), own = plan["deployments"], {w["name"]: w for w in plan["workloads"]}
    steady = [w for w in workloads if w["name"] in own and not w["is_waiting"]]
    if steady:
        gaps = [sum(abs(w["rates"][t] - own[w["name"]]["demand"]["value"]) for w in steady) for t in range(len(periods))]
    else:
        gaps = [-sum(p["deployments"][i]["waiting_requests"]) for p in periods]
    t = gaps.index(min(gaps))
    hosts = periods[t]["deployments"][i]["hosts"]
    usd = sum(prices[h["purchase"]] * _gpus(d) * h["replicas"] for h in hosts)
    return d | {"busiest": t, "hosts": hosts, "usd_per_hour": usd, "in_flight_per_replica": d["in_flight_per_replica"] if steady else None}


def _steady(old: Raw, asked: Raw, alone: list[Raw]) -> Raw:
    i = old["deployments"][0]
    mine: Raw = next(w for w in alone[i]["workloads"] if w["name"] == old["name"])
    told = {"demand": {"kind": old["unit"], "value": asked[old["unit"]]}, "rates": old["rates"], "min_quality": asked["min_quality"]}
    return mine | told | {"unit_costs": None, "routing": [mine["routing"][0] | {"deployment": i}]}


def _waiting(old: Raw, asked: Raw, done: list[list[float]]) -> Raw:
    """``done``: requests/s by deployment and hour."""
    limits = [
        {"metric": k.split("_p")[0], "limit_ms": 1e3 * parse_duration_s(v), "percentile": float(k.split("_p")[1])}
        for k, v in asked["slo"].items()
        if v != "none"
    ]
    total = sum(map(sum, done))
    routing = [{"deployment": i, "share": sum(d) / total, "qps": max(d)} for i, d in enumerate(done) if any(d)]
    return {
        "name": old["name"], "demand": {"kind": "requests_per_day", "value": asked["requests_per_day"]}, "qps": max(old["rates"]), "concurrency": None,
        "burst_factor": old["burst_factor"], "input_tokens": asked["input_tokens"], "output_tokens": asked["output_tokens"], "slo": limits,
        "min_quality": asked["min_quality"], "routing": routing, "is_waiting": True, "rates": old["rates"],
    }  # fmt: skip
