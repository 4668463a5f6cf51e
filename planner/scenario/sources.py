"""Brings flags, environment and scenario file together into one Scenario, remembering where each value came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from planner.catalog.files import is_file, message_of, numbered_csv, numbered_toml, parse_toml, read_text, read_toml, toml_line
from planner.errors import CatalogError, ScenarioError, did_you_mean
from planner.raw import Raw
from planner.scenario.fields import PREFIX, askables, by_path
from planner.scenario.fleet import fleet_in
from planner.scenario.own_offers import OffersFile, OwnOffer
from planner.scenario.records import Owned, OwnedFile, Scenario
from planner.scenario.slo import DEFAULT_SLO, METRICS, canonical_limits, metric_of
from planner.scenario.units import format_duration, parse_duration_s

Origins = dict[str, str]  # "workload.0.qps" -> "flag" | "environment" | "file"; what is absent is a default


def inherited(origins: Origins, parents: Sequence[int]) -> Origins:
    """Where the values came from once workloads are made of others: those of each from where its parent's did. parents: by new workload the old one."""
    found = {k: v for k, v in origins.items() if not k.startswith("workload.")}
    for new, old in enumerate(parents):
        found |= {k.replace(f"workload.{old}.", f"workload.{new}.", 1): v for k, v in origins.items() if k.startswith(f"workload.{old}.")}
    return found


@dataclass(frozen=True)
class Question:
    """A scenario and the origin of each value that is not a default."""

    scenario: Scenario
    origins: Origins = field(default_factory=dict)


def ask(flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None, file: Path | None = None) -> Question:
    """The question of flags over environment over file over defaults.

    flags: parameter name -> value as typed (`fields.Askable.parameter`, and ttft, tpot, e2e, percentile).
    Raises ScenarioError naming flag, variable or file and line.
    """
    raw: Raw = {}
    text = ""
    if file is not None:
        raw, text = _read(file)
        _find_demand(raw, file.parent)
    return _together(raw, flags or {}, environment or {}, _Text(file, text))


def ask_of(content: Raw, flags: Mapping[str, object] | None = None) -> Question:
    """The question of a scenario file's content that came another way, under flags. Raises ScenarioError naming the key."""
    return _together(dict(content), flags or {}, {}, _Text())


@dataclass(frozen=True)
class _Text:
    """The scenario file, if there is one, and what it says."""

    file: Path | None = None
    text: str = ""


def _together(raw: Raw, flags: Mapping[str, object], environment: Mapping[str, str], read: _Text) -> Question:
    origins: Origins = {}
    _note(raw, (), "file", origins)
    for origin, values in (("environment", _from_environment(environment)), ("flag", _expand_slo(dict(flags)))):
        _apply(raw, origins, origin, values)
    try:
        return Question(Scenario.model_validate(raw), origins)
    except ValidationError as error:
        raise _describe(error, origins, read.file, read.text) from None


def _read(file: Path) -> tuple[Raw, str]:
    try:
        text = read_text(file)
        return parse_toml(text, file), text
    except CatalogError as error:
        raise ScenarioError(error.what, error.where, error.hint) from None


def _find_demand(raw: Raw, folder: Path) -> None:
    """Files of demand named in a scenario file stand beside it."""
    workloads = raw.get("workload")
    for workload in workloads if isinstance(workloads, list) else []:
        for key in ("lengths", "demand"):
            name = workload.get(key) if isinstance(workload, dict) else None
            if isinstance(name, str) and is_file(folder / name):
                workload[key] = str(folder / name)


def _note(value: object, path: tuple[str, ...], origin: str, origins: Origins) -> None:
    """Records the origin of every leaf below a value."""
    if isinstance(value, dict) and (len(path) < 2 or path[-1].isdigit()):
        for key, inner in value.items():
            _note(inner, (*path, key), origin, origins)
    elif isinstance(value, list) and path == ("workload",):
        for i, inner in enumerate(value):
            _note(inner, (*path, str(i)), origin, origins)
    elif path:
        origins[".".join(path)] = origin


def _from_environment(environment: Mapping[str, str]) -> Raw:
    found: Raw = {}
    variables = [a.variable for a in askables()]
    for name in environment:
        if name.startswith(PREFIX) and name not in variables:
            raise ScenarioError(f"unknown environment variable '{name}'", hint=did_you_mean(name, variables))
    for a in askables():
        text = environment.get(a.variable, "")  # an empty variable is an unset one
        if text:
            found[a.parameter] = _pairs(text.split(","), a.variable) if a.path[-1] == "slo" else text.split(",") if a.is_many else text
    return found


def _expand_slo(flags: Raw) -> Raw:
    """--ttft 2s --percentile 95 is --slo ttft_p95=2s; --tps-user 20 is --tpot 50ms."""
    if flags.get("tps_user") is not None:
        if flags.get("tpot") is not None:
            raise ScenarioError("tokens/s per user and TPOT are one limit; give either", "--tps-user")
        try:
            flags["tpot"] = next(iter(canonical_limits({"tps_user_p95": flags.pop("tps_user")}).values()))
        except ValueError as error:
            raise ScenarioError(str(error), "--tps-user") from None
    flags.pop("tps_user", None)
    percentile = flags.pop("percentile", None)
    limits = _pairs(flags.get("slo") or (), "--slo")
    given = {m: flags.pop(m, None) for m in METRICS}
    for metric, limit in given.items():
        if limit is not None:
            _check_limit(metric, str(limit), str(percentile or "95"))
            limits[f"{metric}_p{percentile or 95}"] = limit
    if percentile is not None and not any(given.values()):
        _check_percentile(str(percentile))
        limits = {**{f"{metric_of(name)}_p{percentile}": format_duration(value) for name, value in DEFAULT_SLO.items()}, **limits}
    if limits:
        flags["slo"] = limits
    return flags


def _check_limit(metric: str, limit: str, percentile: str) -> None:
    """Names the flag that was typed, which the table of limits would not."""
    try:
        parse_duration_s(limit if limit != "none" else "1s")
    except ValueError as error:
        raise ScenarioError(f"'{limit}' {error}", f"--{metric}") from None
    _check_percentile(percentile)


def _pairs(texts: object, where: str) -> Raw:
    """NAME=VALUE texts as a mapping. Raises ScenarioError."""
    try:
        return dict(canonical_limits(texts))
    except ValueError as error:
        raise ScenarioError(str(error), where, "such as ttft_p99=2s") from None


def _check_percentile(percentile: str) -> None:
    if not re.fullmatch(r"\d{2}(\.\d+)?", percentile) or not 50 <= float(percentile) <= 99.9:
        raise ScenarioError(f"'{percentile}' is not a percentile from 50 to 99.9", "--percentile")


def _apply(raw: Raw, origins: Origins, origin: str, values: Raw) -> None:
    known = {a.parameter: a for a in askables()}
    if values.get("qps") and values.get("concurrency"):
        raise ScenarioError("give either qps or concurrency, not both", "--concurrency" if origin == "flag" else "PLANNER_CONCURRENCY")
    for parameter, value in values.items():
        askable = known.get(parameter)
        if askable is None:
            raise ScenarioError(f"unknown setting '{parameter}'", hint=did_you_mean(parameter, known))
        if value is None or value in ((), []) or (askable.is_switch and value is False):
            continue
        where, path = _place(raw, askable.path, askable.flag.name)
        name = askable.path[-1]
        if name == "owned":
            value = tuple(o for path in value for o in _owned(Path(str(path))))
        elif name == "offers":
            value = _offers([Path(str(path)) for path in value])
        elif name == "current":
            value = tuple(h for path in value for h in fleet_in(Path(str(path))))
        elif name == "slo":
            value = {**_without(where.get("slo", {}), value), **value}
        elif name in ("qps", "concurrency"):
            where.pop("concurrency" if name == "qps" else "qps", None)
        where[name] = value
        origins[".".join((*path, name))] = origin


def _owned(file: Path) -> tuple[Owned, ...]:
    """The [[owned]] tables of a file. Raises ScenarioError with file and line."""
    try:
        return read_toml(file, OwnedFile).owned
    except CatalogError as error:
        hint = error.hint or ("write [[owned]] tables" if error.what.startswith("unknown key") else "")
        raise ScenarioError(error.what, error.where, hint) from None


def _offers(files: Sequence[Path]) -> tuple[OwnOffer, ...]:
    """The rows of CSV files, the [[offers]] of TOML files. Raises ScenarioError with file and line, and where two have one id."""
    found: dict[str, tuple[OwnOffer, str]] = {}
    try:
        for file in files:
            is_toml = file.suffix.lower() == ".toml"
            rows = numbered_toml(file, OffersFile, "offers") if is_toml else numbered_csv(file, OwnOffer)
            for line, offer in rows:
                if offer.key in found:
                    hint = f"the first stands at {found[offer.key][1]}; give each an id of its own"
                    raise ScenarioError(f"a second offer '{offer.key}'", f"{file}:{line}", hint)
                found[offer.key] = offer, f"{file}:{line}"
    except CatalogError as error:
        hint = error.hint or ("write [[offers]] tables" if error.what.startswith("unknown key") else "")
        raise ScenarioError(error.what, error.where, hint) from None
    return tuple(offer for offer, _ in found.values())


def _without(limits: Raw, given: Raw) -> Raw:
    """Limits of other metrics than those given now."""
    metrics = {metric_of(k) for k in given}
    return {k: v for k, v in limits.items() if metric_of(k) not in metrics}


def _place(raw: Raw, path: tuple[str, ...], flag: str) -> tuple[Raw, tuple[str, ...]]:
    """The table a value goes to, made if absent."""
    if path[0] == "workload":
        workloads = raw.get("workload") or [{}]
        if not isinstance(workloads, list) or not isinstance(workloads[0], dict):
            raise ScenarioError("the file's workload is not a list of tables", flag, "write [[workload]]")
        if len(workloads) > 1:
            raise ScenarioError("which workload? the file has several", flag, "change the file, or give flags for supply and policy only")
        raw["workload"] = workloads
        return workloads[0], ("workload", "0")
    where = raw
    for key in path[:-1]:
        where = where.setdefault(key, {})
        if not isinstance(where, dict):
            raise ScenarioError(f"the file's {key} is not a table", flag, f"write [{key}]")
    return where, path[:-1]


def _describe(error: ValidationError, origins: Origins, file: Path | None, text: str) -> ScenarioError:
    """The first problem as one line, at the flag, variable or file line that caused it."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a misspelt key explains a missing one
    loc = tuple(p for p in (*first["loc"], *first.get("ctx", {}).get("at", ())) if p not in ("[key]",))
    names = tuple(str(p) for p in loc if not isinstance(p, int))
    askable = by_path(names) or by_path(names[:2]) or by_path(names[:1])
    origin = next((o for k, o in origins.items() if ".".join(str(p) for p in loc).startswith(k)), "file" if file else "")
    where = ""
    if origin == "flag" and askable:
        where = askable.flag.name
    elif origin == "environment" and askable:
        where = askable.variable
    elif file is not None:
        where = f"{file}:{toml_line(text, loc) if loc else 1}"
    elif origin == "file":
        where = ".".join(str(p) for p in loc)
    name = names[-1] if names else ""
    if first["type"] == "extra_forbidden":
        siblings = [a.path[-1] for a in askables() if len(names) > 1 and a.path[:-1] == names[:-1]] or list(Scenario.model_fields)
        siblings = list(Owned.model_fields) if names[:2] == ("supply", "owned") else siblings
        siblings = list(OwnOffer.model_fields) if names[:2] == ("supply", "offers") else siblings
        return ScenarioError(f"unknown key '{name}'", where, did_you_mean(name, siblings))
    if first["type"] == "missing":
        return ScenarioError(f"'{name}' is missing", where)
    message = message_of(first).replace("Input should be", "must be")
    value = first.get("input")
    shown = f"{value!r} " if isinstance(value, (str, int, float)) else ""
    if first["type"] == "tuple_type" and names == ("workload",):
        return ScenarioError("workload is not a list of tables", where, "write [[workload]]")
    if first["type"] in ("literal_error",) and isinstance(value, str):
        options = [o.strip("' ") for o in str(first.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(",")]
        hint = did_you_mean(value, options) or f"one of {', '.join(o for o in options if o)}"
        return ScenarioError(f"unknown value '{value}'", where, hint)
    return ScenarioError(f"{shown}{message[0].lower()}{message[1:]}", where, _demand_hint(message))


def _demand_hint(message: str) -> str:
    if "no demand" in message or "needs either qps" in message:
        return "plan --qps 200 --min-quality 0.8, or plan -f scenario.toml"
    return ""
