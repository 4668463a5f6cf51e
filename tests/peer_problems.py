"""The peers' problems (tests/data/peers) as the two tables that `plan --capacities … --demand …` reads."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from planner.scenario.records import Policy, Scenario, Supply, Tables

DATA = Path(__file__).parent / "data" / "peers"
OUTPUTS, INPUTS = (4, 8, 16, 32, 64, 128, 256, 512), (128, 256, 512, 1024, 2048)  # buckets of the AIBrix grid
# Recorded 1.30, optimum 1.00: see tests/data/peers/README.md.
NOT_OPTIMAL = {("aibrix_e2e10_p99_doc", 4.0), ("aibrix_e2e5_p99_uniform_feasible", 4.0), ("aibrix_e2e5_p99_doc", 4.0)}


@dataclass(frozen=True)
class PeerProblem:
    """Candidates (gpu, gpus, price), their rates by class, and the demand."""

    candidates: dict[str, tuple[str, int, float]]
    rates: dict[str, dict[str, float]]
    demand: dict[str, float]
    quota: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """capacities.csv and demand.csv."""
        with (folder / "capacities.csv").open("w", newline="") as f:
            out = csv.writer(f)
            out.writerow(["candidate", "gpu", "gpus", "usd_per_hour", "class", "max_qps"])
            out.writerows([c, *self.candidates[c], k, qps] for c, row in self.rates.items() for k, qps in row.items())
        with (folder / "demand.csv").open("w", newline="") as f:
            csv.writer(f).writerows([("class", "qps"), *self.demand.items()])

    def scenario(self, folder: Path, single: bool) -> Scenario:
        """The question over both tables, which it writes to a folder."""
        self.write(folder)
        return self.question(folder, single)

    def question(self, folder: Path, single: bool) -> Scenario:
        """The question over the two tables in a folder."""
        tables = Tables(capacities=str(folder / "capacities.csv"), demand=str(folder / "demand.csv"), single_candidate_per_class=single)
        return Scenario(tables=tables, supply=Supply(quota=self.quota), policy=Policy())


def results() -> list[dict[str, str]]:
    """The recorded answers of Mélange's program and of the splitting one."""
    return list(csv.DictReader((DATA / "melange_results.csv").open()))


def of_row(row: dict[str, str]) -> PeerProblem:
    """The problem a recorded answer is about."""
    rate, cut = float(row["rate_rps"]), int(row["slice_factor"])
    return example(rate, cut) if row["problem"] == "example" else aibrix(row["problem"], rate, cut)


def recorded(row: dict[str, str], single: bool) -> float:
    """The optimum of a row."""
    if single and (row["problem"], float(row["rate_rps"])) in NOT_OPTIMAL:
        return 1.0
    return float(row["melange_cost" if single else "split_cost"])


def example(rate: float = 30.0, cut: int = 1) -> PeerProblem:
    """Mélange's example, each bucket cut into equal classes."""
    data = json.loads((DATA / "example_problem.json").read_text())
    gpus = data["gpu_info"]
    buckets = {(i, j): share for i, row in enumerate(data["workload_distribution"]) for j, share in enumerate(row)}
    rates = {g: {(i, j): info["tputs"][i][j] for i, j in buckets} for g, info in gpus.items()}
    return _sliced({g: info["cost"] for g, info in gpus.items()}, rates, buckets, rate, cut)


def aibrix(name: str, rate: float, cut: int) -> PeerProblem:
    """`aibrix_<slo>_<mix>` of the results; buckets without traffic are left out, as are pairs that cannot serve."""
    _, slo, percentile, mix = name.split("_", 3)
    shares = json.loads((DATA / "aibrix_workloads.json").read_text())["shares"][f"{slo}_{percentile}/{mix}"]
    buckets = {(o, i): s for o, row in zip(OUTPUTS, shares, strict=True) for i, s in zip(INPUTS, row, strict=True) if s > 0}
    prices: dict[str, float] = {}
    rates: dict[str, dict[tuple[int, int], float]] = {}
    for row in csv.DictReader((DATA / "aibrix_llama2_7b_profiles.csv").open()):
        bucket, qps = (int(row["output_tokens"]), int(row["input_tokens"])), float(row["max_rps_under_slo"])
        if (row["slo"], row["percentile"]) == (f"E2E<{slo[3:]}.0s", percentile[1:]):
            prices[row["gpu"]] = float(row["cost_per_h"])
            rates.setdefault(row["gpu"], {}).update({bucket: qps} if qps > 0 and bucket in buckets else {})
    return _sliced(prices, rates, buckets, rate, cut)


def inferno() -> PeerProblem:
    """One candidate per server × accelerator, caps per GPU type; prices in cents/h."""
    data = json.loads((DATA / "inferno_small_problem.json").read_text())
    candidates, rates = {}, {}
    for server, asked in data["servers"].items():
        for name, option in asked["options"].items():
            accelerator, units = data["accelerators"][name], option["instances_per_replica"]
            candidate = f"{server} on {name}"
            candidates[candidate] = (accelerator["type"], units * accelerator["multiplicity"], units * accelerator["cost"])
            rates[candidate] = {server: option["rate_per_replica_rps"]}
    return PeerProblem(candidates, rates, {s: asked["rate_rps"] for s, asked in data["servers"].items()}, data["capacity"])


def _sliced(
    prices: dict[str, float], rates: dict[str, dict[tuple[int, int], float]], shares: dict[tuple[int, int], float], rate: float, cut: int
) -> PeerProblem:
    """Buckets cut into equal classes; one GPU is one replica."""
    slices = {f"{a}-{b}-{k}": (a, b) for a, b in shares for k in range(cut)}
    by_class = {g: {name: row[bucket] for name, bucket in slices.items() if bucket in row} for g, row in rates.items()}
    return PeerProblem({g: (g, 1, p) for g, p in prices.items()}, by_class, {name: rate * shares[b] / cut for name, b in slices.items()})
