"""Options that tell what a benchmark's file does not say of the engine that it measured, and the points of files read with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.help import MEASURED
from planner.errors import PlannerError, did_you_mean

if TYPE_CHECKING:
    from planner.bench.points import MeasuredPoint
    from planner.bench.setup import Setup

BenchFiles = Annotated[
    list[Path],
    typer.Argument(
        help="results of vLLM bench, SGLang, GuideLLM, AIPerf, InferenceX, trtllm-bench or llm-d; or measured points as CSV; - for standard input",
        metavar="FILE…",
    ),
]


def _size(flag: str, text: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(flag, help=text, metavar="N", min=1, show_default=False, rich_help_panel=MEASURED)
    return found


def _name(flag: str, text: str, metavar: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(flag, help=text, metavar=metavar, show_default=False, rich_help_panel=MEASURED)
    return found


@dataclass(frozen=True, kw_only=True)
class AskedSetup:
    """The options, as typed."""

    model: Annotated[str, _name("--model", "checkpoint, or a model of the catalogue", "NAME")] = ""
    gpu: Annotated[str, _name("--gpu", "GPU", "GPU")] = ""
    engine: Annotated[str, _name("--engine", "vllm, sglang or trtllm, with its version: vllm@0.33.0", "ENGINE")] = ""
    precision: Annotated[str, _name("--precision", "of the weights: bf16, fp8, nvfp4…; checkpoint: as published", "PRECISION")] = ""
    tp: Annotated[int | None, _size("--tp", "GPUs that share every layer, as the engine was started")] = None
    pp: Annotated[int | None, _size("--pp", "pipeline stages")] = None
    dp: Annotated[int | None, _size("--dp", "data parallel, as the engine was started")] = None
    ep: Annotated[int | None, _size("--ep", "GPUs that whole experts are spread over")] = None
    gpus: Annotated[int | None, _size("--gpus", "all GPUs behind the endpoint, where it has several replicas")] = None
    tuning: Annotated[str, _name("--tuning", "how the engine was set: default, recipe or record", "WAY")] = ""
    poll_steps: Annotated[int | None, _size("--poll-steps", "steps between two looks for new requests, where the engine does not look at every one")] = None
    at_concurrency: Annotated[float | None, _name("--concurrency", "requests that were kept in flight", "N")] = None
    at_rate: Annotated[float | None, _name("--request-rate", "requests/s that were sent", "RATE")] = None

    def setup(self) -> Setup:
        """As what they tell. Raises PlannerError."""
        from planner.bench.setup import Setup
        from planner.performance.tuning import TUNINGS

        if self.tuning and self.tuning not in TUNINGS:
            raise PlannerError(f"unknown tuning '{self.tuning}'", "--tuning", did_you_mean(self.tuning, TUNINGS) or f"one of {', '.join(TUNINGS)}")
        for flag, value in (("--concurrency", self.at_concurrency), ("--request-rate", self.at_rate)):
            if value is not None and not 0 < value < float("inf"):
                raise PlannerError("must be more than zero", flag)
        told = asdict(self) | {"concurrency": self.at_concurrency, "request_rate": self.at_rate, "tuning": self.tuning or None}
        return Setup.model_validate({name: value for name, value in told.items() if name in Setup.model_fields})


def measured_points(paths: Sequence[Path], asked: AskedSetup) -> list[MeasuredPoint]:
    """The points of all files, in their order. Raises PlannerError."""
    from dataclasses import replace

    from planner.bench.read import read_bench

    setup = asked.setup()
    several = len(paths) > 1
    return [replace(p, place=path.name) if several else p for path in paths for p in read_bench(path, setup)]
