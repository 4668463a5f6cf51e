"""Demand over the hours of a day or week: named shapes, lists and CSV files around each workload's mean rate; and the flat question that holds the peak."""

from __future__ import annotations

from math import lcm
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.catalog.files import csv_dicts, is_file
from planner.catalog.load import shipped_folders
from planner.errors import ScenarioError, did_you_mean
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

Floats = NDArray[np.float64]
COLUMNS = ("factor", "rate", "qps")
FILE = "profiles.csv"  # of a catalogue: name, hour, factor
DAY = 24
MOST_HOURS = 2 * 7 * DAY
HELD = "requests that may wait are priced as a fleet held around the clock; plan and plan autoscale start it for the hours in which it works"


def named_profiles(scenario: Scenario) -> dict[str, Floats]:
    """[hour] rate over its mean, by name: the shipped shapes and those in the scenario's own catalogue folders, which win."""
    found: dict[str, dict[int, float]] = {}
    for folder in (shipped_folders()[1], *(Path(f) for f in scenario.catalog)):
        if is_file(folder / FILE):
            rows = _rows(folder / FILE)
            found |= {name: {} for name in {r["name"] for r in rows}}
            for r in rows:
                found[r["name"]][int(r["hour"])] = float(r["factor"])
    return {name: np.array([hours[h] for h in sorted(hours)]) for name, hours in found.items()}


def factors(workload: Workload, named: dict[str, Floats]) -> Floats:
    """[hour] rate over its mean (so their mean is 1), from hour 0:00 on. Raises ScenarioError, and CatalogError for a file that cannot be read."""
    text, where = workload.profile, f"profile of workload '{workload.name}'"
    if not text:
        return np.ones(1)
    try:
        if text in named:
            shape = named[text]
        elif Path(text).suffix == ".csv":
            shape = _read(text)
        elif Path(text).suffix == ".toml":
            shape = _of_demand(text)
        else:
            shape = np.array([float(v) for v in text.split(",")])
    except ValueError:
        hint = did_you_mean(text, named) or f"one of {', '.join(named)}, a list such as 0.5,1,1.5, a CSV with a column factor, or a demand file"
        raise ScenarioError(f"'{text}' is no profile", where, hint) from None
    if not np.all(np.isfinite(shape)) or shape.min() < 0 or shape.max() <= 0:
        raise ScenarioError("factors are numbers from 0 on, not all 0", where)
    return np.asarray(shape / shape.mean(), dtype=np.float64)


def _of_demand(path: str) -> Floats:
    """[hour] of a demand file that lasts a day or more, by the clock of its source (UTC)."""
    from planner.demand.source import read_demand

    arrivals = read_demand(path).arrivals
    if arrivals is None or not arrivals.profile:
        raise ScenarioError("has no profile", path, "a trace of a day or more has one; import it with plan import demand")
    return np.array(arrivals.profile)


def _read(path: str) -> Floats:
    """[hour] of a CSV: one row per hour from 0:00 on (factor, rate or qps), or a trace with arrival_s, whose whole hours are counted."""
    rows = _rows(Path(path))
    column = next((c for c in (*COLUMNS, "arrival_s") if rows and c in rows[0]), None)
    if column is None:
        raise ScenarioError(f"has no column {', '.join(COLUMNS)} or arrival_s", path, "one row for each hour from 0:00 on, or one for each request")
    values = np.array([float(r[column]) for r in rows])
    if column in COLUMNS:
        return values
    hours = int((values.max() - values.min()) // 3600)
    if hours < 2:
        raise ScenarioError("is too short for a profile", path, "a trace of a day or more has one")
    return np.bincount(((values - values.min()) // 3600).astype(int))[:hours].astype(float)


def hourly_rates(scenario: Scenario) -> Floats:
    """[workload, hour] mean demand of each hour in the workload's own unit; 0 for requests that may wait.

    Shapes of different length repeat until they end together (a day beside a week makes a week). Raises ScenarioError.
    """
    named = named_profiles(scenario)
    shapes = [factors(w, named) for w in scenario.workload]
    hours = lcm(*(len(s) for s in shapes), DAY if scenario.has_waiting else 1)
    if hours > MOST_HOURS:
        raise ScenarioError(f"profiles end together only after {hours} hours", "profile", f"use lengths that fit into one week, at most {MOST_HOURS} hours")
    return np.stack([(0.0 if w.is_waiting else w.rate) * np.tile(s, hours // len(s)) for w, s in zip(scenario.workload, shapes, strict=True)])


def flat(scenario: Scenario) -> Scenario:
    """The question without hours: every workload at its busiest hour all day (mean rate kept, so unit costs are of real traffic);
    requests that may wait as a constant rate over the hours they have, within the strictest limits on TPOT and ITL of any workload,
    whose replicas they may share. What has neither is the same object."""
    if not scenario.has_waiting and not any(w.profile for w in scenario.workload):
        return scenario
    named = named_profiles(scenario)
    pace = strictest_pace(scenario)
    return with_workloads(scenario, (_flat(w, named, pace) for w in scenario.workload))


def strictest_pace(scenario: Scenario) -> dict[str, float]:
    """The limits on the pace of answers (TPOT, ITL) under which nothing disturbs any workload with a rate."""
    found: dict[str, float] = {}
    for w in scenario.workload:
        for limit in w.limits if not w.is_waiting else ():
            if limit.is_pace:
                found[limit.name] = min(limit.seconds, found.get(limit.name, limit.seconds))
    return found


def _flat(workload: Workload, named: dict[str, Floats], pace: dict[str, float]) -> Workload:
    if workload.is_waiting:
        busy = DAY / len(workload.hours)  # of the mean over the day, in the hours it has
        own = {"qps": workload.rate / busy, "burst_factor": workload.burst_factor * busy, "requests_per_day": None, "release": "", "deadline": "00:00"}
        slo = {n: min(pace.get(n, s), workload.slo.get(n, s)) for n, s in (pace | workload.slo).items()}
        return workload.model_copy(update=own | {"slo": slo, "max_waiting_share": 1.0})
    return workload.model_copy(update={"burst_factor": workload.burst_factor * float(factors(workload, named).max()), "profile": ""})


def _rows(path: Path) -> list[dict[str, str]]:
    return [row for _, row in csv_dicts(path)]
