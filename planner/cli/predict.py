"""`plan predict` says how fast one replica runs at given loads, how sure that is, and where its time and memory go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from planner.cli.options import CatalogOption, DpOption, EpOption, KvCacheOption, PpOption, Printed, TpOption, deliver
from planner.cli.validate import ConfidenceOption, known_confidence
from planner.errors import PlannerError

MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AskedPrediction:
    """The options of the verb, as typed."""

    checkpoint: Annotated[str, typer.Option("--checkpoint", help="checkpoint, or a model's name", metavar="ID")]
    gpu: Annotated[str, typer.Option("--gpu", help="GPU", metavar="GPU")]
    isl: Annotated[int, typer.Option("--isl", help="prompt tokens per request", metavar="N", min=1)]
    osl: Annotated[int, typer.Option("--osl", help="tokens written per request, reasoning included", metavar="N", min=1)]
    concurrency: Annotated[str, typer.Option("--concurrency", help="requests in flight, several by commas", metavar="N,…")] = "1,8,64"
    tp: TpOption = 1
    pp: PpOption = 1
    dp: DpOption = 1
    ep: EpOption = 1
    kv_cache: KvCacheOption = "auto"
    engine: Annotated[str, typer.Option("--engine", help="vllm, sglang or trtllm", metavar="ENGINE")] = "vllm"
    speculative: Annotated[str, typer.Option("--speculative", help="mtp: the checkpoint's own layer drafts tokens", metavar="WAY", show_default=False)] = ""
    confidence: ConfidenceOption = 0.9
    printed: Printed
    catalog: CatalogOption = None


def predict(asked_of: AskedPrediction) -> None:
    """Predict latency and throughput of one replica at given loads."""
    q = asked_of
    q.printed.check()
    loads = loads_of(q.concurrency)
    known_confidence(q.confidence)
    from planner.catalog.load import load_catalog
    from planner.report.predict import formatted
    from planner.validation.single import AskedConfiguration, forecast

    question = AskedConfiguration(
        q.checkpoint, q.gpu, q.tp, q.pp, max(q.dp, 1), max(q.ep, q.dp), q.kv_cache, q.engine, q.isl, q.osl, loads, q.confidence, q.speculative
    )  # fmt: skip
    deliver(formatted(forecast(question, load_catalog(q.catalog or ())), q.printed.form), q.printed.output)


def loads_of(text: str) -> tuple[int, ...]:
    """The concurrencies of a list by commas, rising, each once. Raises PlannerError."""
    found = set()
    for word in text.split(","):
        if not word.strip().isdigit() or not 1 <= int(word) <= MOST:
            raise PlannerError(f"not a number of requests: '{word.strip()}'", "--concurrency", "give whole numbers from 1 by commas, such as 1,8,64")
        found.add(int(word))
    return tuple(sorted(found))
