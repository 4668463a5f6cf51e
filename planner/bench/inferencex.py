"""InferenceX (InferenceMAX) aggregates: one object or a list of them, seconds, token rates per GPU; hardware by runner, all boards of NVIDIA SXM or NVL72.

`output_tput_per_gpu` is per decode GPU where prefill and decode are apart, `tput_per_gpu` per any. Percentiles of `intvty` are of the slow
tail: p99_intvty is 1 / p99_tpot. Lengths are nominal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from planner.bench.fields import SECONDS, SHARES, at, latencies, number, some, text, whole_number
from planner.bench.points import MeasuredPoint, Provenance
from planner.raw import Raw

TOOL = "InferenceX"
TPOT = "to completion"
RUNNERS = {
    "h100": "H100-SXM-80GB", "h200": "H200-SXM-141GB", "b200": "B200-SXM", "gb200": "GB200", "b300": "B300-SXM", "gb300": "GB300",
    "mi300x": "MI300X", "mi325x": "MI325X", "mi355x": "MI355X",
}  # fmt: skip


def is_inferencex(raw: Raw) -> bool:
    """Whether it is an aggregate of the campaign."""
    return "hw" in raw and "conc" in raw and "tput_per_gpu" in raw


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The rows."""
    return [_point(raw, i) for i, raw in enumerate(raws, 1)]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    pools = _pools(raw) if raw.get("disagg") is True else None
    tp, pp, ep = whole_number(raw, "tp"), whole_number(raw, "pp") or 1, whole_number(raw, "ep") or 1
    gpus = pools[0] * pools[1] + pools[2] * pools[3] if pools else tp * pp if tp else None
    writing = pools[2] * pools[3] if pools else gpus
    per_gpu = number(raw, "output_tput_per_gpu")
    found = {k: v for metric in ("ttft", "tpot") for k, v in latencies(metric, _given(raw, metric), SECONDS).items()}
    found |= latencies("e2e", _given(raw, "e2el"), SECONDS) | some(
        output_tps_total=per_gpu * writing if per_gpu is not None and writing else None, total_tps_per_gpu=number(raw, "tput_per_gpu")
    )
    version = re.search(r":v?(\d[\w.]*)", text(raw, "image"))
    spread = str(at(raw, "dp_attention")).lower() == "true"  # a text there
    drafted = text(raw, "spec_decoding").lower()
    return MeasuredPoint(
        line, TOOL, model=text(raw, "model"), precision=text(raw, "precision").lower(), gpu=_gpu(text(raw, "hw")), engine=text(raw, "framework").lower(),
        gpus=gpus, tp=tp, pp=pp, ep=ep, dp=0 if spread else 1, mode="disagg" if raw.get("disagg") is True else "agg", spec_decode=drafted or "none",
        isl=number(raw, "isl") or float("nan"), osl=number(raw, "osl") or float("nan"), workload="InferenceX", load="closed_loop",
        concurrency=number(raw, "conc"), measured=found, engine_version=version[1] if version else "",
        notes="prefill {}w tp{}, decode {}w tp{}".format(*pools) if pools else "",
        provenance=Provenance(TOOL, run=f"entry {line}", tpot_def=TPOT, token_source="nominal"),
    )  # fmt: skip


def _given(raw: Raw, key: str) -> dict[str, float | None]:
    """Seconds; TPOT out of its reciprocal where that alone is there."""
    given = {part: number(raw, f"{'median' if part == 'p50' else part}_{key}") for part in ("mean", *SHARES)}
    if key == "tpot":
        users = {part: number(raw, f"{'median' if part == 'p50' else part}_intvty") for part in SHARES}  # the mean of reciprocals is no reciprocal of a mean
        given |= {part: 1 / u for part, u in users.items() if u and given[part] is None}
    return given


def _pools(raw: Raw) -> tuple[int, int, int, int] | None:
    """(prefill engines, TP of each, decode engines, TP of each)."""
    sizes = [whole_number(raw, f"{kind}_{what}") for kind in ("prefill", "decode") for what in ("tp", "pp")]
    gpus = [whole_number(raw, f"num_{kind}_gpu") for kind in ("prefill", "decode")]
    prefill, decode = sizes[0], sizes[2]
    if not prefill or not decode or not gpus[0] or not gpus[1]:
        return None
    return gpus[0] // prefill, prefill, gpus[1] // decode, decode


def _gpu(runner: str) -> str:
    """h200-nb_1 -> H200-SXM-141GB; a name not known stays as it is."""
    return RUNNERS.get(re.split(r"[-_]", runner.lower())[0], runner)
