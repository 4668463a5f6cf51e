"""A prediction as tables, a chart of bars in text, CSV (one row per concurrency) and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from planner.figures import digits
from planner.report.sections import PARTS_OF_TTFT, Grid, Section
from planner.validation.single import Forecast, Load

BAR = 32  # characters of the longest bar
PARTS = {"weights": "weights", "kv": "KV cache", "compute": "compute", "all_reduce": "all-reduce", "overhead": "overhead", "prefill": "prompts of others"}
EIGHTHS = " ▏▎▍▌▋▊▉█"


def formatted(forecast: Forecast, form: str) -> str:
    """The prediction as text in one of the formats."""
    if form == "json":
        return json.dumps(forecast.to_dict(), indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        rows = [_flat(p) for p in forecast.points]
        return render.csv_text(list(rows[0]), [list(r.values()) for r in rows])
    sections = forecast_sections(forecast)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def _flat(p: Load) -> dict[str, object]:
    row = {k: v for k, v in vars(p).items() if not isinstance(v, dict)}
    return row | {f"step_{name}_ms": value for name, value in p.step_ms.items()} | {f"ttft_{name}_ms": value for name, value in p.ttft_parts_ms.items()}


def forecast_sections(f: Forecast) -> list[Section]:
    """Latency and throughput first, then why, then how sure."""
    return [_service(f), _chart(f), _first_token(f), _step(f), _memory(f), _evidence(f)]


def _service(f: Forecast) -> Section:
    q = f.question
    shape = q.replica.words + (", FP8 KV cache" if q.kv_cache == "fp8" else "")
    what = f"{f.found.checkpoint.id} ({f.found.checkpoint.precision}) on {q.replica.gpus} x {f.found.gpu.name}, {shape}, {f.found.engine}"
    lengths = f"Closed loop, {q.isl:,} tokens in and {q.osl:,} out per request; means. Each end of a band holds {q.confidence:.0%} of measurements."
    rows = tuple(
        (
            f"{p.concurrency:,}", ms(p.ttft_ms), band(p.ttft_low_ms, p.ttft_high_ms), ms(p.tpot_ms), band(p.tpot_low_ms, p.tpot_high_ms),
            digits(p.tps_per_user), f"{p.tps_per_gpu:,.0f}", f"{p.tps:,.0f}", f"{p.in_flight_decoding:,.3g}",
        )
        for p in f.points
    )  # fmt: skip
    header = ("requests", "TTFT", "TTFT band", "TPOT", "TPOT band", "tokens/s/user", "tokens/s/GPU", "tokens/s", "decoding")
    return Section("Prediction", (f"{what}.", lengths, *f.notes), Grid(header, rows, header))


def _chart(f: Forecast) -> Section:
    """Throughput against speed for each user."""
    per_gpu, per_user = bars([p.tps_per_gpu for p in f.points]), bars([p.tps_per_user for p in f.points])
    rows = tuple((f"{p.concurrency:,}", f"{g} {p.tps_per_gpu:,.0f}", f"{u} {p.tps_per_user:,.0f}") for p, g, u in zip(f.points, per_gpu, per_user, strict=True))
    return Section("Throughput against speed", grid=Grid(("requests", "tokens/s per GPU", "tokens/s per user"), rows, ("requests",)))


def bars(values: Sequence[float], width: int = BAR) -> list[str]:
    """Bars of text in proportion to the values, to an eighth of a character."""
    most = max(max(values), 1e-12)
    found = []
    for value in values:
        whole, rest = divmod(round(8 * width * value / most), 8)
        found.append("█" * whole + (EIGHTHS[rest] if rest else ""))
    return found


def _first_token(f: Forecast) -> Section:
    """Where the time to the first token goes."""
    shown = [name for name in PARTS_OF_TTFT if any(p.ttft_parts_ms[name] for p in f.points)]
    rows = tuple((f"{p.concurrency:,}", ms(p.ttft_ms), *(ms(p.ttft_parts_ms[name]) for name in shown)) for p in f.points)
    line = "Parts of the mean TTFT, by the fitted physics in proportion; schedule and queue hold the start-up of a benchmark. No network to the user."
    header = ("requests", "TTFT", *(PARTS_OF_TTFT[name] for name in shown))
    return Section("Until the first token", (line,), Grid(header, rows, header))


def _step(f: Forecast) -> Section:
    rows = tuple((f"{p.concurrency:,}", *(f"{p.step_ms[name]:.2f}" for name in PARTS), PARTS[p.bottleneck]) for p in f.points)
    header = ("requests", *PARTS.values())
    lines = ("Milliseconds per token of each user, of the fitted physics; weights and compute overlap. What the measurements correct is in TPOT only.",)
    return Section("Where the time goes", lines, Grid((*header, "bottleneck"), rows, header))


def _memory(f: Forecast) -> Section:
    m = f.memory_gib
    line = (
        f"GiB per GPU: {m['weights']:.1f} weights + {m['activations']:.1f} activations + {m['reserve']:.1f} reserve + {m['kv_cache']:.1f} for KV cache"
        f" = {m['limit']:.1f} usable of {f.found.gpu.memory_gib:.1f}."
    )
    room = f"Room for {f.slots:,} requests of these lengths at once ({f.kv_gib_per_request:.3g} GiB each per GPU)."
    return Section("Memory", (line, room))


def _evidence(f: Forecast) -> Section:
    meaning = {
        "measured": "this model, precision, GPU, engine and TP were measured",
        "calibrated": "your own measurements are of this model on this GPU and engine",
        "anchored": "this model was measured on this GPU, with another engine, precision or TP",
        "transferred": "this GPU was measured with other models",
        "modelled": "nothing near was measured",
    }[f.tier]
    return Section("Evidence", (f"{f.tier}: {meaning}.", f"{f.source}, {f.as_of}."))


def ms(value: float) -> str:
    """Milliseconds in words, three digits."""
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def band(low: float, high: float) -> str:
    """A band in the unit of its upper end."""
    return f"{low / 1000:.3g}-{high / 1000:.3g} s" if high >= 1000 else f"{low:.3g}-{high:.3g} ms"
