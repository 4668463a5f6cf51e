"""A demand as tables with histograms in text, as one CSV row, and as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import floor, log2
from pathlib import Path

import numpy as np

from planner.demand.lengths import Floats
from planner.demand.records import Demand, Spread
from planner.figures import digits
from planner.report import render
from planner.report.sections import Grid, Section
from planner.report.studies import bar
from planner.scenario.asked import advice

MOST_ROWS = 24  # of a histogram; below, its smallest buckets stand together


def formatted(demand: Demand, form: str) -> str:
    """The demand as table, markdown, json or csv."""
    if form == "json":
        facts = demand.model_dump(mode="json")
        arrivals = demand.arrivals
        extra = {"peak_to_mean": _peak_to_mean(demand), "is_bursty": bool(arrivals and arrivals.is_bursty), "advice": advice(demand)}
        return json.dumps(facts | extra, indent=1) + "\n"
    if form == "csv":
        row = flat(demand)
        return render.csv_text(list(row), [["" if v is None else v for v in row.values()]])
    sections = demand_sections(demand)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def listed(shapes: Mapping[str, Path], form: str) -> str:
    """The shipped shapes with their mean lengths."""
    from planner.demand.source import read_demand

    found = [(name, read_demand(name)) for name in shapes]
    header = ("name", "requests", "mean in", "mean out", "req/s", "source", "licence")
    rows = tuple(
        (
            n, f"{d.requests:,.0f}", f"{d.input.mean:,.0f}", f"{d.output.mean:,.0f}" if d.output else "-",
            f"{d.arrivals.mean:.3g}" if d.arrivals else "-", d.source, d.licence,
        )
        for n, d in found
    )  # fmt: skip
    if form == "json":
        return json.dumps([dict(zip(header, r, strict=True)) for r in rows], indent=1) + "\n"
    if form == "csv":
        return render.csv_text(header, rows)
    sections = [Section("Shipped shapes", (), Grid(header, rows, header[1:5]))]
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def flat(demand: Demand) -> dict[str, object]:
    """One row: requests, duration, lengths, rates, burstiness; what is not known is None."""
    a = demand.arrivals
    row: dict[str, object] = {"source": demand.source, "format": demand.format, "requests": demand.requests, "duration_s": a.duration_s if a else None}
    for short, side in (("in", demand.input), ("out", demand.output)):
        row |= {f"{short}_{k}": getattr(side, k) if side else None for k in Spread.model_fields}
    row |= {"rate_mean_rps": a.mean if a else None, "rate_p95_minute_rps": a.minute_p95 if a else None, "rate_p99_minute_rps": a.minute_p99 if a else None}
    row |= {
        "rate_peak_minute_rps": a.peak_minute if a else None,
        "peak_to_mean_minute": _peak_to_mean(demand),
        "interarrival_cv": a.interarrival_cv if a else None,
    }
    row |= {f"rate_weighted_p{q}_rps": a.at(q) if a else None for q in (50, 90, 95, 99)}
    return row | {"prefix_cache_hit": demand.prefix_cache_hit, "dropped": sum(demand.dropped.values())}


def summary(demand: Demand) -> str:
    """One line: what was read, and what was not."""
    a = demand.arrivals
    rate = f", {digits(a.mean)} req/s over {_time(a.duration_s)}" if a else ""
    out = f" / {demand.output.mean:,.0f} out" if demand.output else ""
    lost = "; ".join(f"{n:,} dropped: {why}" for why, n in demand.dropped.items())
    return f"{demand.format}: {demand.requests:,.0f} requests{rate}, mean tokens {demand.input.mean:,.0f} in{out}" + (
        f"; {lost}" if lost else "; nothing dropped"
    )


def demand_sections(demand: Demand) -> list[Section]:
    """Facts, rates, lengths, both histograms, and what to know."""
    facts = [f"{demand.requests:,.0f} requests, read as {demand.format}" + (f", {demand.licence}" if demand.licence else "")]
    facts += [f"dropped {n:,} rows: {why}" for why, n in demand.dropped.items()] or ["no row dropped"]
    if demand.prefix_cache_hit is not None:
        facts.append(f"prefix-cache hits {demand.prefix_cache_hit:.1%} of prompt tokens, from {demand.prefix_from}")
    if demand.output_factor is not None:
        facts.append(f"{demand.output_factor:.3g} tokens written per answer token (reasoning)")
    facts += list(demand.notes)
    sections = [Section(f"Demand of {demand.source}", tuple(facts)), *_rates(demand), _lengths(demand)]
    histogram = demand.histogram
    if histogram is not None:
        sections += [_bars("Prompts", histogram.inputs, histogram.weights), _bars("Answers", histogram.outputs, histogram.weights)]
    told = advice(demand)
    return sections + ([Section("Warnings", (told,), is_caution=True)] if told else [])


def _rates(demand: Demand) -> list[Section]:
    a = demand.arrivals
    if a is None:
        return []
    rows = [("mean", a.mean), ("p95 minute", a.minute_p95), ("p99 minute", a.minute_p99), ("peak minute", a.peak_minute)]
    rows += [(f"p{q} over requests, per {a.bin_s:g} s", a.at(q)) for q in (50, 90, 95, 99)] + [(f"peak of {a.bin_s:g} s", a.peak)]
    cells = tuple((name, digits(v), f"{v / a.mean:.3g}") for name, v in rows if v is not None)
    lines = [f"over {_time(a.duration_s)}; peak minute to mean {p:.3g}" if (p := _peak_to_mean(demand)) else f"over {_time(a.duration_s)}"]
    lines += [f"gaps between requests vary by {a.interarrival_cv:.3g} of their mean (Poisson: 1)"] if a.interarrival_cv is not None else []
    chance = a.by_chance(95)
    if chance > 1.25 * a.mean:
        lines.append(f"so few requests per {a.bin_s:g} s scatter: with Poisson arrivals, too, p95 over requests would be {chance / a.mean:.3g} times the mean")
    return [Section("Rates", tuple(lines), Grid(("rate", "req/s", "x mean"), cells, ("req/s", "x mean")))]


def _lengths(demand: Demand) -> Section:
    names = tuple(Spread.model_fields)
    sides = [(n, s) for n, s in (("prompt", demand.input), ("answer", demand.output)) if s]
    return Section("Lengths in tokens", (), Grid(("", *names), tuple((n, *(f"{getattr(s, k):,.5g}" for k in names)) for n, s in sides), names))


def _bars(title: str, tokens: Floats, weights: Floats) -> Section:
    """Requests by doubling of tokens."""
    octave = np.array([floor(log2(v)) for v in tokens])
    octave = np.maximum(octave, octave.max() - MOST_ROWS + 1)
    share = np.bincount(octave - octave.min(), weights) / weights.sum()
    rows = tuple((f"{2 ** (k + octave.min()):,} to {2 ** (k + octave.min() + 1) - 1:,}", f"{s:.1%}", bar(s, share.max())) for k, s in enumerate(share))
    return Section(title, (), Grid(("tokens", "requests", ""), rows, ("tokens", "requests")))


def _peak_to_mean(demand: Demand) -> float | None:
    a = demand.arrivals
    return a.peak_minute / a.mean if a and a.peak_minute is not None else None


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 7200 else f"{seconds / 3600:,.1f} h" if seconds < 172800 else f"{seconds / 86400:,.1f} days"
