"""What a benchmark's file does not say of the engine that it measured: told by flags or a sidecar, else asked for, never guessed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from planner.bench.labels import ENGINES, IN_LABEL, PRECISIONS, engine_of
from planner.bench.points import MeasuredPoint
from planner.catalog.files import is_file, read_toml
from planner.catalog.records import Name, Positive, PositiveCount, Record
from planner.errors import PlannerError, did_you_mean
from planner.scenario.records import Tuning

SIDECAR = "bench.meta.toml"
CHECKPOINT = "checkpoint"  # of a precision: that which the checkpoint was published in
ITS_OWN = ("compressed-tensors", "modelopt", "auto", "none")  # words of engines for a checkpoint run as it is
NATIVE = ("gpt-oss",)  # models that exist in one precision, whatever a row calls it
TIMES_DP = ("vllm",)  # engines whose TP is that of one of their data parallel groups; others spread the groups over the GPUs of TP
EXAMPLES = {
    "model": "meta-llama/Llama-3.3-70B-Instruct", "gpu": "H100-SXM-80GB", "tp": "4", "engine": "vllm@0.33.0", "precision": "fp8", "concurrency": "64",
}  # fmt: skip
SIZES = ("tp", "pp", "dp", "ep", "gpus")


class Setup(Record):
    """What was measured, as far as it is told: "" and None where it is not. ``engine`` may carry its version (vllm@0.33.0); ``dp``: as the engine was
    started; ``gpus``: all behind the endpoint."""

    model: Name = ""
    gpu: Name = ""
    engine: Name = ""
    engine_version: Name = ""
    precision: Name = ""
    tp: PositiveCount | None = None
    pp: PositiveCount | None = None
    dp: PositiveCount | None = None
    ep: PositiveCount | None = None
    gpus: PositiveCount | None = None
    tuning: Tuning | None = None
    poll_steps: PositiveCount | None = None
    workload: Name = ""
    concurrency: Positive | None = None
    request_rate: Positive | None = None


class Sidecar(Setup):
    """A file beside the results that tells of all of them, and of single ones by their names."""

    file: dict[str, Setup] = Field(default_factory=dict)


def beside(path: Path) -> Setup:
    """What the sidecar beside a file tells of it. Raises CatalogError for one that cannot be read."""
    place = path.parent / SIDECAR
    if not is_file(place):
        return Setup()
    found = read_toml(place, Sidecar)
    own = found.file.get(path.name, Setup()).model_dump(exclude_defaults=True)
    return Setup.model_validate(found.model_dump(exclude={"file"}, exclude_defaults=True) | own)


def completed(points: Sequence[MeasuredPoint], path: Path, flags: Setup) -> list[MeasuredPoint]:
    """The points of a file with what flags and sidecar tell. Raises PlannerError with the flags to add where that is not enough."""
    side = beside(path)
    for where, told in (("--precision", flags.precision), (SIDECAR, side.precision)):
        if told and not precision_word(told):
            raise PlannerError(
                f"unknown precision '{told}'", where, did_you_mean(told, PRECISIONS) or f"one of {', '.join(dict.fromkeys(PRECISIONS.values()))}"
            )
    found = [p if p.unread else _told(p, path, flags, side) for p in points]
    missing = dict.fromkeys(name for p in found if not p.unread for name in _missing(p))
    if missing:
        flag = " ".join(f"--{name} {EXAMPLES[name]}" for name in missing)
        or_rate = " or --request-rate" if "concurrency" in missing else ""
        what = ", ".join(f"--{name}" for name in missing)
        raise PlannerError(f"does not say {what}{or_rate}", str(path), f"add what it was, such as {flag}; or tell it in {SIDECAR} beside the file")
    return [_without_lengths(p) for p in found]


def _told(point: MeasuredPoint, path: Path, flags: Setup, side: Setup) -> MeasuredPoint:
    """One point with all that is told of it. A flag or sidecar may name a model or GPU anew, and a flag contradicts nothing else."""
    _agreed(point, path, flags)
    engine, version = _engine(flags.engine or point.engine or side.engine)
    sizes = {name: getattr(flags, name) or _own_size(point, name) or getattr(side, name) or (None if name in ("tp", "gpus") else 1) for name in SIZES}
    found = replace(
        point,
        model=flags.model or side.model or point.model,
        gpu=flags.gpu or side.gpu or point.gpu,
        engine=engine,
        engine_version=flags.engine_version or version or point.engine_version or side.engine_version,
        precision=next((w for told in (flags, point, side) if (w := precision_word(told.precision))), ""),
        workload=point.workload or flags.workload or side.workload,
        tuning=flags.tuning or side.tuning or point.tuning,
        poll_steps=flags.poll_steps or side.poll_steps or point.poll_steps,
    )
    found = _sized(found, sizes)
    return found if point.load else _loaded(found, flags, side)


def _agreed(point: MeasuredPoint, path: Path, flags: Setup) -> None:
    """Raises PlannerError where a flag contradicts the file."""
    told_and_own: list[tuple[str, str | int | None, str | int | None]] = [
        ("engine", _engine(flags.engine)[0], engine_of(point.engine)),
        ("precision", precision_word(flags.precision).replace(CHECKPOINT, ""), precision_word(point.precision)),
        *((name, getattr(flags, name), _own_size(point, name)) for name in SIZES),
    ]
    for name, told, own in told_and_own:
        if told and own and told != own and own != CHECKPOINT:  # a flag may say which precision that is
            raise PlannerError(f"the file says {name} {own}", f"{path}: --{name} {getattr(flags, name)}", "leave the flag out, or name the file that it is of")


def _loaded(point: MeasuredPoint, flags: Setup, side: Setup) -> MeasuredPoint:
    """The load, where the file tells none."""
    rate, concurrency = flags.request_rate or side.request_rate, flags.concurrency or side.concurrency
    return replace(point, load="open_loop" if rate else "closed_loop" if concurrency else "", concurrency=concurrency, request_rate=rate)


def _own_size(point: MeasuredPoint, name: str) -> int | None:
    """What the file says of a size; 1 of the others than TP and GPUs says nothing."""
    value: int | None = getattr(point, name)
    return value if name in ("tp", "gpus") or value != 1 else None


def _sized(point: MeasuredPoint, sizes: dict[str, int | None]) -> MeasuredPoint:
    """With its sizes, and those that follow: one GPU is TP 1, and one replica has tp x pp GPUs, each times its data parallel where the engine counts so."""
    tp, gpus, pp, dp = sizes["tp"], sizes["gpus"], sizes["pp"] or 1, sizes["dp"] or 1
    tp = tp or (1 if gpus == 1 else None)
    each = pp * (dp if engine_of(point.engine) in TIMES_DP else 1)
    gpus = gpus or (tp * each if tp and point.mode != "disagg" else None)
    return replace(point, tp=tp, gpus=gpus, pp=pp, ep=sizes["ep"] or 1, dp=min(dp, point.dp) if dp == 1 else dp)  # 0: on, its size not told


def _engine(told: str) -> tuple[str, str]:
    """(engine, version) of vllm@0.33.0. Raises PlannerError for a word that looks like a misspelt engine."""
    name, _, version = told.partition("@")
    near = "" if engine_of(name) or not name else did_you_mean(name, ENGINES)
    if near and "-" not in name:
        raise PlannerError(f"unknown engine '{name}'", "--engine", near)
    return engine_of(name) or name, version


def precision_word(told: str) -> str:
    """A precision in the words of points: of PRECISIONS, "checkpoint", fp4 (which depends on the GPU), or "" for what is not known."""
    word = told.lower()
    if word in (*ITS_OWN, CHECKPOINT):
        return CHECKPOINT
    return PRECISIONS.get(word, "") or (word if word == "fp4" else next((precision for part, precision in IN_LABEL if part in word), ""))


def _missing(point: MeasuredPoint) -> list[str]:
    """What has to be told."""
    apart = point.mode == "disagg"  # units say the TP of their engines, and what routes between them
    by_name = any(part in point.model.lower() for part, _ in (*IN_LABEL, *((n, n) for n in NATIVE)))
    engine = engine_of(point.engine.split("-")[-1] if apart else point.engine)
    known = {
        "model": point.model, "gpu": point.gpu, "tp": point.tp or point.dp != 1 or apart, "engine": engine, "precision": point.precision or by_name,
        "concurrency": point.load,
    }  # fmt: skip
    return [name for name, value in known.items() if not value]


def _without_lengths(point: MeasuredPoint) -> MeasuredPoint:
    """A run whose lengths are not told says nothing."""
    told = point.unread or (math.isfinite(point.isl) and math.isfinite(point.osl) and point.isl >= 1 and point.osl >= 1)
    own = replace(point, precision="" if point.precision == CHECKPOINT else point.precision)
    return own if told else replace(own, unread="the file does not say its lengths", measured={})
