"""The fuzzer's inputs: sound ones of every kind, and how they are mutated. A run is determined by seed and number."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "data" / "tiny"
SMALL = ("--catalog", str(TINY), "--gpu", "GPU-80", "--model", "Small-8B", "--no-alternatives")  # what is quickly solved

NUMBERS = ("0", "-1", "1e308", "-1e308", "1e-308", "1e400", "nan", "inf", "-inf", "0.1", "1e7", "1e10", "3.5", "2147483648", "9223372036854775808", "1" * 400)
NASTY = (
    "", " ", "\x00", "\x1b[31m", "\u202eabc", "a\nb", "a\rb", "\ufeff", "é", "日本", "😀", "\U000e0001", "'", '"', "`", "|", "<img src=x>", "[bold]", "{0}",
    "%s", "=1+1", "../../etc/passwd", "/dev/zero", "/", ".", "-", "--", "none", "true", "null", "x" * 300, "x" * 5000, ",", "a=b", "=", "1s", "-1s", "1e9h",
    "100%", "ttft_p95=1s", "owned", "2026-13-45", "\ud800",
)  # fmt: skip
WORDS = (*NUMBERS, *NASTY)
SERVED = "@serve"  # in the place of a verb: a question to the service
ODD = (0, -1, 1, 2, 10**6, 10**30, -(10**30), 0.5, 1e308, math.inf, -math.inf, math.nan, True, False, "", "x", "\u202e", "1", [], [1], {}, {"x": 1}, None)


@dataclass(frozen=True)
class Case:
    """Words of the command, with the files they name in ``folder``."""

    kind: str
    words: list[str]
    folder: Path


# ---- mutations


def mutated_bytes(r: random.Random, raw: bytes) -> bytes:
    """Flips, cuts, splices, repeats."""
    data = bytearray(raw)
    for _ in range(r.choice((1, 1, 2, 5))):
        at, to = sorted((r.randrange(len(data) + 1), r.randrange(len(data) + 1)))
        way = r.randrange(7)
        if way == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << r.randrange(8)
        elif way == 1:
            del data[at:]
        elif way == 2:
            del data[at : at + r.randrange(1, 40)]
        elif way == 3:
            data[at:at] = r.choice(WORDS).encode("utf-8", "replace")
        elif way == 4:
            data[at:at] = data[at : min(to, at + 300)]
        elif way == 5:
            data[at:at] = bytes(r.randrange(256) for _ in range(r.randrange(1, 9)))
        else:
            data[at:at] = r.choice((b"[", b"{", b'"', b"\n", b"[[", b"{'a':")) * r.choice((1, 3, 500, 20_000))
    return bytes(data)


def mutated_text(r: random.Random, text: str) -> str:
    """A number or a quoted word exchanged for a nasty one, a line lost, doubled or moved."""
    for _ in range(r.choice((1, 1, 2, 4))):
        lines = text.split("\n")
        at = r.randrange(len(lines))
        places = list(re.finditer(r"-?\d+\.?\d*(?:e[+-]?\d+)?|(?<=\")[^\"\n]+(?=\")|(?<=[,=])[^,=\n\"]+", text))
        way = r.randrange(5)
        if way <= 2 and places:
            place = r.choice(places)
            word = r.choice(NUMBERS if place[0][:1].isdigit() and r.random() < 0.7 else WORDS)
            text = text[: place.start()] + word + text[place.end() :]
        elif way == 3:
            text = "\n".join(lines[:at] + lines[at + 1 :])
        else:
            text = "\n".join(lines[:at] + [lines[at]] * r.choice((2, 2, 3, 50)) + lines[at + 1 :])
    return text


def mutated_tree(r: random.Random, tree: Any) -> Any:
    """Plain data with a leaf exchanged, a key lost or new, a list doubled or emptied."""
    spots: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            spots.append((node, key))
            collect(node[key])

    for _ in range(r.choice((1, 1, 2, 3))):
        spots.clear()
        collect(tree)
        if not spots:
            return r.choice(ODD)
        node, key = r.choice(spots)
        way, old = r.randrange(6), node[key]
        if way == 0 and isinstance(node, dict):
            del node[key]
        elif way == 1 and isinstance(node, dict):
            node[r.choice(("x", "name", "note", "qps"))] = r.choice(ODD)
        elif way == 2 and isinstance(old, list):
            node[key] = r.choice(([], old * 2, old[:1], old[::-1]))
        elif way == 3 and isinstance(old, (int, float)) and not isinstance(old, bool):
            node[key] = r.choice((-old, old * 1e6, old / 1e6, old + 1, 0, int(old) if math.isfinite(old) else 1))
        elif way == 4 and isinstance(old, str):
            node[key] = r.choice(NASTY)
        else:
            node[key] = r.choice(ODD)
    return tree


def changed_tree(r: random.Random, tree: Any) -> Any:
    """Plain data with values exchanged for others of their own kind: numbers moved, names swapped, lists cut, doubled or reversed."""
    spots: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            spots.append((node, key))
            if key != "scenario" or r.random() < 0.1:
                collect(node[key])

    collect(tree)
    texts = [node[key] for node, key in spots if isinstance(node[key], str)]
    for node, key in r.sample(spots, min(len(spots), r.choice((1, 1, 2, 5)))):
        old = node[key]
        if isinstance(old, bool):
            node[key] = not old
        elif isinstance(old, int):
            node[key] = r.choice((0, 1, -1, -old, old + 1, old - 1, old * 1000, 10 ** r.randrange(12)))
        elif isinstance(old, float):
            node[key] = r.choice((0.0, -old, old * 1e6, old / 1e6, old * 1.1, 1e-300, 1e300))
        elif isinstance(old, str):
            node[key] = r.choice((*texts, ""))
        elif isinstance(old, list):
            node[key] = r.choice(([], old * 2, old[:1], old[1:], old[::-1]))
        elif isinstance(old, dict):
            node[key] = dict(list(old.items())[1:]) if r.random() < 0.2 else None
    return tree


def mutated(r: random.Random, text: str, parse: Callable[[str], Any] | None = None, write: Callable[[Any], str] | None = None) -> bytes:
    """One of the three ways."""
    way = r.random()
    if parse and write and way < 0.5:
        with contextlib.suppress(Exception):  # what cannot be written as such a file
            return write(mutated_tree(r, parse(text))).encode("utf-8", "replace")
    return mutated_text(r, text).encode("utf-8", "replace") if way < 0.8 else mutated_bytes(r, text.encode())


# ---- the kinds of input


class Inputs:
    """Sound inputs, from which the mutated ones are made."""

    def __init__(self) -> None:
        from planner import Plan, Scenario, load_catalog, simulate, solve
        from planner.planning.periods import autoscale
        from planner.scenario.records import Scenario as Asked

        tiny = load_catalog([TINY])
        chat: dict[str, object] = {"qps": 20, "min_quality": 0.5, "models": ["Small-8B"]}
        one = {"workload": [chat], "supply": {"gpus": ["GPU-80"]}, "catalog": [str(TINY)]}
        first, second = {**chat, "name": "a"}, {"name": "b", "concurrency": 30, "slo": {"e2e_p95": "60s"}}
        two = {**one, "workload": [first, second]}
        third = {"name": "c", "qps": 2, "min_quality": 0.5, "models": ["Small-8B"]}
        shared = {**two, "workload": [first, third]}
        loops = {**two, "workload": [second, {"name": "c", "concurrency": 8}]}
        tables = {"tables": {"capacities": str(ROOT / "examples" / "capacities.csv"), "demand": str(ROOT / "examples" / "demand.csv")}}
        day = {**one, "workload": [{**chat, "profile": "m-small"}]}
        self.plans = [solve(Scenario.model_validate(s), tiny, compare=s is one).to_json() for s in (one, two, shared, loops)] + [
            solve(Scenario.model_validate(tables), None).to_json()
        ]
        self.plans.append(autoscale(Asked.model_validate(day), tiny).to_json())
        real = {"workload": [{"qps": 20, "models": ["Qwen3-4B"]}], "supply": {"gpus": ["H100-SXM-80GB"], "providers": ["verda"]}}
        self.deployed = [solve(Scenario.model_validate(real), load_catalog(), compare=False).to_json(), *self.plans]
        simulate(Plan.model_validate_json(self.plans[0]), tiny, requests=100)  # once, for the compiler's time is no hang
        self.scenarios = [
            (ROOT / "examples" / f).read_text() for f in ("one-workload.toml", "three-products.toml", "day-and-night.toml", "budget-scenarios.toml")
        ]
        self.scenarios += [SCENARIO, SCENARIO, SCENARIO]
        self.points = [(ROOT / "tests" / "data" / "points" / "mixed.csv").read_text(), (ROOT / "examples" / "points.csv").read_text()]
        self.tables = [(ROOT / "examples" / f).read_text() for f in ("capacities.csv", "demand.csv")]
        self.owned = (ROOT / "examples" / "owned.toml").read_text()
        self.shape = (ROOT / "catalogs" / "lengths" / "azure-2023-conv.toml").read_text()


SCENARIO = f"""
catalog = ["{TINY}"]
[[workload]]
name = "chat"
qps = 20
min_quality = 0.5
slo = {{ ttft_p95 = "2s", tpot_p99 = "80ms" }}
burst_factor = 1.2
[[workload]]
name = "batch"
concurrency = 40
input_tokens = 2000
output_cv = 0.5
slo = {{ e2e_p95 = "60s" }}
[supply]
quota = {{ GPU-80 = 16 }}
kinds = ["neocloud", "hyperscaler"]
[policy]
budget = "500/h"
spare_replicas = 1
max_pools = 2
[solver]
time_limit = "5s"
"""
BUCKETS = (("10", 3), ("100", 9), ("+Inf", 12))
TRACES = {
    "csv": "arrival_s,input_tokens,output_tokens\n" + "".join(f"{i * 7},{i % 900 + 1},{i % 333 + 1}\n" for i in range(300)),
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"2023-11-16 18:{i // 60:02}:{i % 60:02}.5,{i * 7 + 1},{i + 1}\n" for i in range(200)),
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Log Type\n" + "".join(f"{i},GPT-4,{i + 9},{i % 50},API log\n" for i in range(100)),
    "mooncake": "".join(f'{{"timestamp": {i * 90}, "input_length": {i * 9 + 5}, "output_length": {i + 1}, "hash_ids": [{i % 5}, {i}]}}\n' for i in range(100)),
    "openai": "".join(
        f'{{"created": {1700000000 + i}, "model": "m{i % 3}", "status": "completed", "usage": {{"prompt_tokens": {i + 5}, "completion_tokens": {i + 1}, '
        f'"completion_tokens_details": {{"reasoning_tokens": {i // 2}}}}}}}\n' for i in range(60)
    ),
    "litellm": "startTime,model,prompt_tokens,completion_tokens,status,cache_hit\n"
    + "".join(f"2026-01-01T00:{i:02}:00Z,m,{i + 1},{i + 2},success,false\n" for i in range(60)),
    "histogram": "input_tokens,output_tokens,count\n100,50,7\n200,90,3\n4000,300,1\n",
    "buckets": "input_tokens_bucket,output_tokens_bucket,share\n[1;128),[1;64),0.5\n[128;256),[64;inf),0.5\n",
    "metrics": "# TYPE vllm:request_prompt_tokens histogram\n" + "".join(
        f'vllm:request_{side}_tokens_bucket{{model_name="m",le="{le}"}} {n}\n' for side in ("prompt", "generation") for le, n in BUCKETS
    ) + "vllm:request_prompt_tokens_sum 700\nvllm:request_prompt_tokens_count 12\n",
    "range": json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": f"vllm:request_{side}_tokens_bucket", "le": le}, "values": [[1700000000 + 60 * t, str(n * t)] for t in range(5)]}
        for side in ("prompt", "generation") for le, n in BUCKETS
    ]}}),
}  # fmt: skip
FLAG_TABLE = """
    --qps --concurrency --min-quality --mean-quality --quality-metric --isl --osl --isl-cv --osl-cv --slo --burst-factor --prefix-cache-hit
    --output-factor --model --lengths --route-by --boundary --demand-file --rate-rule --growth --users --think-time --turns --profile --requests-per-day
    --release --deadline --kind --purchase --provider --exclude-provider --region --geography --gpu --quota --max-gpus --owned --confidence
    --adapters --adapter-rank --escalate --escalate-quality
    --max-kw --max-kw-at --pue --max-carbon --carbon-intensity --carbon-price --offers --discount --exchange-rate
    --data-region --data-geography --network-latency
    --max-slo-load --spare-replicas --max-pools --max-models --max-gpu-types --max-locations --budget --engine --precision --exclude-model
    --gpu-memory-utilization --allow --chunked-prefill --router --startup-lead --min-up-periods --floor-replicas --maximize --gap --time-limit --seed
    --price-factor --draw --step-factor --capacities --demand --ttft --tpot --itl --e2e --percentile --tps-user --format -f --catalog
"""
FLAGS = FLAG_TABLE.split()
SOUND_TABLE = """
    --qps=7 --concurrency=9 --min-quality=0.55 --mean-quality=0.5 --quality-metric=mmlu-pro --isl=3000 --osl=20 --isl-cv=0 --osl-cv=2
    --slo=ttft_p99=3s --burst-factor=1.5 --prefix-cache-hit=0.4 --output-factor=3 --model=Small-8B --lengths=azure-2023-conv
    --demand-file=azure-2023-code --rate-rule=mean --growth=30% --users=80 --think-time=5s --turns=4 --profile=m-small --requests-per-day=1e5
    --release=20:00 --deadline=08:00 --kind=neocloud --purchase=on_demand --provider=neo --region=north --geography=eu --gpu=GPU-80 --quota=neo/GPU-80=6
    --max-kw=5.5 --pue=1.3 --max-carbon=9 --carbon-intensity=300 --carbon-price=80
    --discount=neo=0.2 --data-region=north --data-geography=eu --network-latency=30ms --exchange-rate=EUR=1.1
    --max-gpus=12 --confidence=0.5 --max-slo-load=0.7 --spare-replicas=1 --max-pools=2 --max-models=1 --max-gpu-types=1 --max-locations=2
    --budget=30/h --engine=sglang --precision=fp8 --gpu-memory-utilization=0.8 --allow=fp8_kv --chunked-prefill=false --router=random
    --startup-lead=0s --min-up-periods=3 --floor-replicas=2 --maximize=qps --gap=0.05 --seed=3 --price-factor=all=2 --draw=4 --step-factor=1.4
    --ttft=900ms --tpot=30ms --itl=90ms --e2e=30s --percentile=99 --tps-user=25 --format=json
"""
SOUND = dict(pair.split("=", 1) for pair in SOUND_TABLE.split()) | {"--owned": str(ROOT / "examples" / "owned.toml")}


def flags(r: random.Random, _: Inputs, folder: Path) -> list[str]:
    """A question in flags, some of them odd."""
    verb = (
        r.choice(([], [], [], ["frontier", "--fresh"], ["sweep", "--fresh", "--points", "3", "--over"], ["explain"], ["autoscale"]))
        if r.random() < 0.98
        else ["sensitivity", "--fresh"]
    )
    if verb[-1:] == ["--over"]:
        verb = [*verb, r.choice(("qps=5:50", "ttft=0.5s,1s", "min_quality=0.3:0.6", "budget=10:100", f"qps={r.choice(WORDS)}", r.choice(WORDS)))]
    words = [
        *verb,
        "--catalog",
        str(TINY),
        "--gpu",
        "GPU-80",
        "--time-limit",
        "3s",
        *r.choice((["--qps", "20"], ["--concurrency", "40"], ["--users", "50", "--think-time", "10s"], [])),
    ]
    for _ in range(r.randrange(1, 4)):
        flag = r.choice(FLAGS)
        words += [flag, SOUND[flag] if flag in SOUND and r.random() < 0.75 else r.choice(WORDS if r.random() < 0.7 else NUMBERS)]
    if r.random() < 0.05:
        words.insert(r.randrange(len(words)), r.choice(NASTY))
    return words if r.random() < 0.5 or verb else [*words, "--no-alternatives"]


def tools(r: random.Random, _: Inputs, folder: Path) -> list[str]:
    """The verbs that take no scenario."""

    def some(*sound: str) -> str:
        return r.choice(sound if r.random() < 0.6 else WORDS)

    verb = r.randrange(5)
    here = ["--catalog", str(TINY)]
    if verb == 0:
        asked = {"--isl": some("1000", "9999999"), "--osl": some("300", "1"), "--concurrency": some("1,8,64", "100000"), "--tp": some("1", "2", "64")}
        asked |= {"--dp": some("1", "2"), "--engine": some("vllm"), "--confidence": some("0.9")}
        return ["predict", some("Small-8B", "example/small-8b"), some("GPU-80", "GPU-24"), *(w for pair in asked.items() for w in pair), *here]
    if verb == 1:
        return [
            "cost",
            "gpu",
            some("GPU-80"),
            "--price",
            some("30000"),
            "--years",
            some("4"),
            "--electricity",
            some("0.1"),
            "--utilization",
            some("0.8"),
            *here,
        ]
    if verb == 2:
        return ["cost", "job", "--gpus", some("8"), "--seconds", some("3600"), "--usd-per-gpu-hour", some("2.5"), "--requests", some("1000")]
    if verb == 3:
        return [
            "catalog",
            some("models", "gpus", "prices", "quality", "doctor"),
            *([some("gpu")] if r.random() < 0.5 else []),
            "--format",
            some("csv", "json"),
            *here,
        ]
    return ["curve", some("Small-8B"), some("GPU-80"), "--isl", some("500"), "--osl", some("200"), "--points", some("5"), *here]


def scenario(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """A scenario file."""
    import rtoml

    (folder / "a.toml").write_bytes(mutated(r, r.choice(inputs.scenarios), rtoml.loads, rtoml.dumps))
    small = ["--catalog", str(TINY), "--gpu", "GPU-80", "--time-limit", "3s", *(["--no-alternatives"] if r.random() < 0.6 else [])]
    return [*r.choice(([*small, "-f"], [*small, "-f"], ["compare", "--fresh"], ["autoscale", *small[:6], "-f"])), str(folder / "a.toml")]


def catalogue(r: random.Random, _: Inputs, folder: Path) -> list[str]:
    """A user's folder with one file mutated; sometimes the fitted ones."""
    import rtoml

    shutil.copytree(TINY, folder / "c")
    fitted = [ROOT / "catalogs" / n for n in ("coefficients.json", "residuals.json", "disaggregated.json", "speculation.csv", "profiles.csv")]
    file = r.choice([p for p in sorted((folder / "c").rglob("*")) if p.is_file()] * 3 + fitted)
    ways = {".toml": (rtoml.loads, rtoml.dumps), ".json": (json.loads, json.dumps)}.get(file.suffix, (None, None))
    target = file if file.is_relative_to(folder) else folder / "c" / file.name
    if file in fitted and file.name != "coefficients.json":
        shutil.copy(ROOT / "catalogs" / "coefficients.json", folder / "c")
    target.write_bytes(mutated(r, file.read_text(), *ways))
    asked = ["--qps", "20", "--min-quality", "0.4", "--no-alternatives", "--time-limit", "3s", "--gpu", "GPU-80", "--model", "Small-8B"]
    asked += r.choice(([], [], ["--allow", "speculative"], ["--allow", "disaggregated"]))
    return [*r.choice((asked, asked, asked, ["catalog", "models"], ["catalog", "doctor"])), "--catalog", str(folder / "c")]


def tables(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Capacities and demand of one's own."""
    which = r.randrange(3)
    for i, name in enumerate(("capacities", "demand")):
        (folder / f"{name}.csv").write_bytes(mutated(r, inputs.tables[i]) if which in (i, 2) else inputs.tables[i].encode())
    rules = r.choice(([], ["--single-candidate-per-class"], ["--max-slo-load", "0.8"], ["--spare-replicas", "2"], ["--max-pools", "1"], ["--budget", "5/h"]))
    return ["--capacities", str(folder / "capacities.csv"), "--demand", str(folder / "demand.csv"), "--time-limit", "3s", *rules]


def trace(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Traces, logs, metrics, histograms, demand files and profiles."""
    import rtoml

    name = r.choice((*TRACES, "demand", "owned", "profile"))
    if name == "demand":
        (folder / "d.toml").write_bytes(mutated(r, inputs.shape, rtoml.loads, rtoml.dumps))
        return ["--demand-file" if r.random() < 0.5 else "--lengths", str(folder / "d.toml"), "--qps", "5", *SMALL]
    if name == "owned":
        (folder / "o.toml").write_bytes(mutated(r, inputs.owned, rtoml.loads, rtoml.dumps))
        return ["--qps", "20", "--min-quality", "0.5", "--owned", str(folder / "o.toml"), "--no-alternatives", "--model", "Llama-3.1-8B"]
    if name == "profile":
        (folder / "p.csv").write_bytes(mutated(r, "factor\n" + "".join(f"{0.5 + h / 24}\n" for h in range(24))))
        return ["autoscale", "--qps", "20", "--profile", str(folder / "p.csv"), *SMALL[:-1]]
    raw = mutated(r, TRACES[name], json.loads if name == "range" else None, json.dumps)
    zipped = r.random() < 0.3
    raw = (mutated_bytes(r, gzip.compress(raw)) if r.random() < 0.5 else gzip.compress(raw)) if zipped else raw
    file = folder / ("t.json" if name == "range" else "t.csv")
    file.write_bytes(raw)
    verb = r.choice((["demand", "show"], ["import", "demand"], ["--qps", "5", *SMALL, "--lengths"]))
    given = r.choice(
        (
            [],
            [],
            ["--as", r.choice((*TRACES, "normal", "prometheus"))],
            ["--map", r.choice(("isl=input_tokens,osl=output_tokens", "ts=x:ms,isl=1,osl=2", r.choice(WORDS)))],
        )
    )
    return [*verb, str(file), *(given if verb[0] in ("demand", "import") else [])]


def points(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Measured points."""
    (folder / "p.csv").write_bytes(mutated(r, r.choice(inputs.points)))
    return ["validate", str(folder / "p.csv")]


BENCHES = {p.name: p.read_text() for p in sorted((ROOT / "tests" / "data" / "bench").iterdir()) if p.stat().st_size < 40_000}
TOLD = ["--gpu", "H100-SXM-80GB", "--tp", "4", "--engine", "vllm", "--precision", "fp8", "--model", "Llama-3.1-8B"]


def bench(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Files of benchmark tools, half of them still JSON; and metrics held against a plan."""
    verb = r.choice(("validate", "validate", "calibrate", "import", "drift"))
    text = (ROOT / "examples" / "metrics.json").read_text() if verb == "drift" else BENCHES[name := r.choice(list(BENCHES))]
    as_json = (verb == "drift" or name.endswith(".json")) and r.random() < 0.6
    file = folder / ("m.json" if verb == "drift" else f"b-{name}")
    file.write_bytes(json.dumps(changed_tree(r, json.loads(text))).encode() if as_json else mutated(r, text))
    if verb == "drift":
        (folder / "p.json").write_text(r.choice(inputs.plans))
        return ["drift", str(folder / "p.json"), "--prometheus", str(file)]
    given = r.choice(([], TOLD[:2], TOLD, [*TOLD, "--concurrency", "8"]))
    into = [] if verb == "validate" else ["-o", str(folder / "mine")]
    return [*(["import", "bench"] if verb == "import" else [verb]), str(file), *into, *given]


def plan(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Saved plans, by the hour too; half of them still read as plans."""
    (folder / "p.json").write_bytes(changed_plan(r, r.choice(inputs.plans)))
    verb = r.choice(
        (["show"], ["show"], ["check"], ["check"], ["check"], ["simulate", "--requests", "2000"], ["compare", str(folder / "p.json")], ["explain", "--plan"])
    )
    return [*verb, str(folder / "p.json")]


def changed_plan(r: random.Random, text: str) -> bytes:
    """A saved plan, mutated; half of them still read as plans."""
    return json.dumps(changed_tree(r, json.loads(text))).encode() if r.random() < 0.5 else mutated(r, text, json.loads, json.dumps)


FORMS = ("html", "md", "xlsx", "csv", "focus.csv")
SLOW = ("prudent", "frontier", "curve", "staircase", "failure", "sensitivity", "what-if")  # parts of a review


def review(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Reviews of saved plans and of scenarios."""
    (folder / "p.json").write_bytes(changed_plan(r, r.choice(inputs.plans)))
    made = [w for form in r.sample(FORMS, r.choice((1, 1, 2))) for w in ("-o", str(folder / "made" / f"o.{form}"))]
    (folder / "made").mkdir()
    left = r.sample(SLOW, r.choice((7, 7, 7, 7, 6)))
    odd = r.choice(([],) * 4 + (["--start", r.choice(WORDS)], ["--what-if", r.choice(("2x1x1", *WORDS))], ["--months", r.choice(NUMBERS)], ["--of", "p"]))
    return ["report", str(folder / "p.json"), *made, *(w for part in left for w in ("--without", part)), *odd]


def deploy(r: random.Random, inputs: Inputs, folder: Path) -> list[str]:
    """Manifests and benchmarks of saved plans."""
    (folder / "p.json").write_bytes(changed_plan(r, r.choice(inputs.deployed)))
    here = ["--catalog", str(TINY)] if r.random() < 0.3 else []
    if r.random() < 0.3:
        tool = r.choice(("vllm", "guidellm", "aiperf", "inference-perf", r.choice(WORDS)))
        (folder / "made").mkdir()
        return ["bench-script", str(folder / "p.json"), "--tool", tool, *here, *r.choice(([], ["-o", str(folder / "made" / "b.sh")]))]
    target = r.choice(("kubernetes", "kserve", "llm-d", "dynamo", "compose", "ray", "skypilot", "vllm", "sglang", "trtllm", r.choice(WORDS)))
    image = ["--image", r.choice(("a/b:1", "a/b:1", r.choice(WORDS)))] if r.random() < 0.8 else []
    zone = ["--timezone", r.choice(("Europe/Berlin", r.choice(WORDS)))] if r.random() < 0.2 else []
    return ["emit", target, str(folder / "p.json"), *image, *zone, *here, *r.choice(([], ["-o", str(folder / "made")]))]


def served(r: random.Random, _: Inputs, folder: Path) -> list[str]:
    """Questions over HTTP, as JSON; half of them are scenarios that may be asked."""
    import rtoml

    asked = {key: part for key, part in rtoml.loads(SCENARIO).items() if key != "catalog"}
    asked["workload"][0]["models"] = ["Small-8B"]
    text = json.dumps({**asked, "supply": {"gpus": ["GPU-80"]}, "solver": {"time_limit": "3s"}})
    raw = json.dumps(changed_tree(r, json.loads(text))).encode() if r.random() < 0.5 else mutated(r, text, json.loads, json.dumps)
    (folder / "q.json").write_bytes(raw)
    return [SERVED, str(folder / "q.json")]


KINDS: dict[str, Callable[[random.Random, Inputs, Path], list[str]]] = {
    f.__name__: f for f in (flags, tools, scenario, catalogue, tables, trace, points, bench, plan, review, deploy, served)
}  # fmt: skip
FORMATS = ([], [], ["--format", "json"], ["--format", "csv"], ["--format", "markdown"])
FORMATTED = re.compile(r"^(-.*|show|simulate|compare|validate|frontier|sweep|autoscale|predict|curve|demand|drift)$")


def case_of(seed: int, number: int, kind: str, inputs: Inputs, folder: Path) -> Case:
    """The input of one run."""
    r = random.Random(f"{seed}:{number}")
    chosen = kind or r.choice(list(KINDS))
    words = KINDS[chosen](r, inputs, folder)
    if "--format" not in words and words[:1] != ["check"] and FORMATTED.match(words[0]):
        words += r.choice(FORMATS)
    if words[0] not in ("check", "explain", "report", "emit", "bench-script", SERVED) and "-o" not in words and r.random() < 0.3:
        (folder / "out").mkdir()
        words += ["-o", str(folder / "out" / "o")]
    return Case(chosen, words, folder)
