"""`plan curve` says what a request and a token cost on one replica at each load, and where it pays to run; or the frontier of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.options import CatalogOption, DpOption, EpOption, KvCacheOption, PpOption, TpOption, deliver
from planner.cli.validate import ConfidenceOption, known_confidence
from planner.errors import PlannerError, did_you_mean

AXES = ("throughput", "cost")


@dataclass(frozen=True, kw_only=True)
class AskedCurve:
    """The options of the verb, as typed."""

    checkpoint: Annotated[str, typer.Argument(help="checkpoint, or a model's name", metavar="MODEL")]
    gpu: Annotated[str, typer.Option("--gpu", help="GPU; left out: the frontier over all GPUs", metavar="GPU", show_default=False)] = ""
    frontier: Annotated[bool, typer.Option("--frontier", help="tokens/s per user against tokens/s per GPU, over GPUs, TP, engines", show_default=False)] = False
    by: Annotated[str, typer.Option("--by", help="of the frontier: throughput (of a GPU) or cost (of a token)", metavar="AXIS")] = "throughput"
    isl: Annotated[int, typer.Option("--isl", help="prompt tokens per request", metavar="N", min=1)] = 1000
    osl: Annotated[int, typer.Option("--osl", help="tokens written per request, reasoning included", metavar="N", min=1)] = 300
    usd_per_hour: Annotated[
        float | None,
        typer.Option("--usd-per-hour", help="price of one GPU; left out: the cheapest offer that plans admit by default", metavar="USD", show_default=False),
    ] = None
    min_tokens_per_user: Annotated[str, typer.Option("--min-tokens-per-user", help="least tokens/s of one user", metavar="RATE")] = "20"
    max_ttft: Annotated[str, typer.Option("--max-ttft", help="longest time to first token", metavar="TIME")] = "1s"
    tp: TpOption = 1
    pp: PpOption = 1
    dp: DpOption = 1
    ep: EpOption = 1
    kv_cache: KvCacheOption = "auto"
    engine: Annotated[str, typer.Option("--engine", help="vllm (usual), sglang or trtllm; of the frontier: all", metavar="ENGINE", show_default=False)] = ""
    confidence: ConfidenceOption = 0.9
    printed: Charted
    catalog: CatalogOption = None


def curve(q: AskedCurve) -> None:
    """Cost per request and token against load, and the zone worth running in.

    plan curve Llama-3.1-8B --gpu H100-SXM-80GB
    """
    q.printed.check()
    known_confidence(q.confidence)
    if q.by not in AXES:
        raise PlannerError(f"no frontier by '{q.by}'", "--by", did_you_mean(q.by, AXES) or f"one of {', '.join(AXES)}")
    if q.usd_per_hour is not None and not 0 < q.usd_per_hour < float("inf"):
        raise PlannerError("must be more than zero", "--usd-per-hour")
    from planner.catalog.load import load_catalog
    from planner.economics.curve import CostCurve, UserLimits, cost_curve
    from planner.economics.speed import Axis, SpeedFrontier, speed_frontier
    from planner.report.charts import cost_chart, speed_chart
    from planner.report.curve import formatted
    from planner.scenario.units import parse_duration_s, parse_rate
    from planner.validation.single import AskedConfiguration

    limits = UserLimits(_parsed(parse_rate, q.min_tokens_per_user, "--min-tokens-per-user"), _parsed(parse_duration_s, q.max_ttft, "--max-ttft"))
    known = load_catalog(q.catalog or ())
    if q.frontier or not q.gpu:
        _refuse(q)
        asked: Axis = "cost" if q.by == "cost" else "throughput"  # checked above
        found: CostCurve | SpeedFrontier = speed_frontier(
            q.checkpoint, known, isl=q.isl, osl=q.osl, by=asked, gpu=q.gpu, engine=q.engine, max_ttft_s=limits.max_ttft_s
        )
    else:
        question = AskedConfiguration(
            q.checkpoint, q.gpu, q.tp, q.pp, max(q.dp, 1), max(q.ep, q.dp), q.kv_cache, q.engine or "vllm", q.isl, q.osl, (1,), q.confidence
        )
        try:
            found = cost_curve(question, known, usd_per_gpu_hour=q.usd_per_hour, limits=limits)
        except PlannerError as error:
            if error.where != "--checkpoint":
                raise
            raise PlannerError(error.what, "MODEL", error.hint) from None
    draw(q.printed.chart, lambda: cost_chart(found) if isinstance(found, CostCurve) else speed_chart(found))
    deliver(formatted(found, q.printed.form), q.printed.output)


def _refuse(q: AskedCurve) -> None:
    """A frontier chooses these itself: what was asked must not be lost. Raises PlannerError."""
    named = {
        "--usd-per-hour": q.usd_per_hour is not None,
        "--tp": q.tp != 1,
        "--pp": q.pp != 1,
        "--dp": q.dp != 1,
        "--ep": q.ep != 1,
        "--kv-cache-dtype": q.kv_cache != "auto",
    }
    for flag, is_given in named.items():
        if is_given:
            raise PlannerError("means nothing to a frontier, which goes over all of them", flag, "give --gpu, and no --frontier, for one replica's curve")


def _parsed(parse: Callable[[str], float], text: str, flag: str) -> float:
    try:
        found: float = parse(text)
    except ValueError as error:
        raise PlannerError(f"'{text}' {error}" if "'" not in str(error) else str(error), flag) from None
    return found
