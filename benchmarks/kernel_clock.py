"""The clock of kernels.py: seconds per call of GPU work, inside CUDA graphs, and the record that families of measurements are written to.

Needs only PyTorch, so that it runs on a machine where the planner is not installed. On the CPU device, for trials, it times plainly.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Call = Callable[[], Any]
COLD_BYTES = 256 << 20  # copies of the operands are rotated over at least so many bytes: several times any L2 of today
GRAPH_S = 4e-4  # a graph repeats its calls until a replay lasts so long, against the granularity of events
MOST_NODES = 96
SPARE_BYTES = 8 << 30
REPLAYS = 9
REPLAYS_S = 0.04  # time given to the replays of one point, at least three of them


class OutOfTime(Exception):
    """A family's seconds are used up."""


class Record:
    """What is measured, written to a file after each family and whenever a family ends early."""

    def __init__(self, path: Path | None, seconds: float, header: Mapping[str, Any]) -> None:
        self.path, self.seconds, self.data = path, seconds, {**header, "families": {}}
        self.family: dict[str, Any] = {}
        self.started = 0.0

    def run(self, name: str, measure: Callable[[Record], None]) -> None:
        """Measures one family; whatever fails in it is written down, and the next one runs."""
        self.family = self.data["families"][name] = {"rows": [], "failed": [], "cut": False, "seconds": 0.0}
        self.started = time.perf_counter()
        try:
            measure(self)
        except OutOfTime:
            self.family["cut"] = True
        except Exception as error:
            self.failed(name, error)
        self.family["seconds"] = round(time.perf_counter() - self.started, 2)
        self.family["nvidia_smi"] = clocks()
        rows, failed, cut = (len(self.family["rows"]), len(self.family["failed"]), ", cut short" if self.family["cut"] else "")
        print(f"{name:12s} {rows:4d} rows, {failed:3d} failed, {self.family['seconds']:6.1f} s{cut}", flush=True)
        self.write()

    def add(self, **row: Any) -> None:
        """One measured row."""
        self.family["rows"].append(row)

    def failed(self, what: str, error: BaseException) -> None:
        """One thing that could not be measured, with its reason."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self.family["failed"].append({"what": what, "why": reason[:300]})

    def check_time(self) -> None:
        """Raises OutOfTime where the family has had its seconds."""
        if time.perf_counter() - self.started > self.seconds:
            raise OutOfTime

    def write(self) -> None:
        """The record as JSON; whole or not at all."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        spare = self.path.with_name(self.path.name + ".part")
        spare.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        spare.replace(self.path)


class Clock:
    """Times calls on one device."""

    def __init__(self, device: str, tiny: bool) -> None:
        import torch

        self.torch, self.device, self.tiny = torch, torch.device(device), tiny
        self.gpu = self.device.type == "cuda"
        self.stream = torch.cuda.Stream() if self.gpu else None  # one for all: memory is cached by stream
        self.precisions = ("bf16", "fp8") if not self.gpu or torch.cuda.get_device_capability() >= (8, 9) else ("bf16",)

    def copies(self, size: int) -> int:
        """How many copies of an operand of so many bytes no L2 holds."""
        return 2 if self.tiny else max(1, min(64, math.ceil(COLD_BYTES / max(size, 1))))

    def free_bytes(self) -> int:
        """Free memory of the device."""
        return int(self.torch.cuda.mem_get_info()[0]) if self.gpu else 1 << 30

    def tidy(self) -> None:
        """Gives cached memory back, so that the next family has all of it."""
        if self.gpu:
            self.torch.cuda.empty_cache()

    def seconds(self, calls: Sequence[Call]) -> float:
        """Median seconds of one call, called in turn: inside a CUDA graph on a GPU, so that no launch is timed with it."""
        if not self.gpu:
            return self._plain(calls)
        torch = self.torch
        stream = self.stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in (*calls[:2], *calls):
                call()
            rough = self._between(calls[0], 2)[-1]
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        rounds = math.ceil(GRAPH_S / max(rough * len(calls), 1e-7))
        nodes = [c for _ in range(max(1, min(rounds, MOST_NODES // len(calls)))) for c in calls]
        nodes = nodes[: max(2, math.ceil(REPLAYS_S / 3 / max(rough, 1e-7)))]  # of slow calls few, which no L2 serves anyway
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            graph.capture_begin()  # not torch.cuda.graph(), which empties the memory cache each time
            try:
                for call in nodes:
                    call()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        first = self._between(graph.replay, 1)[0]
        times = self._between(graph.replay, max(3, min(REPLAYS, int(REPLAYS_S / max(first, 1e-7)))))
        graph.reset()
        if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > SPARE_BYTES:
            self.tidy()  # each graph had memory of its own
        return statistics.median(times) / len(nodes)

    def best(self, ways: Mapping[str, Sequence[Call]], record: Record, what: str) -> tuple[str, float, dict[str, float]] | None:
        """The fastest of several ways to compute the same: its name, seconds, and the microseconds of all that worked."""
        found: dict[str, float] = {}
        for name, calls in ways.items():
            try:
                found[name] = self.seconds(calls)
            except Exception as error:
                record.failed(f"{what}: {name}", error)
                with suppress(Exception):
                    self.torch.cuda.synchronize()
        if not found:
            return None
        name = min(found, key=found.__getitem__)
        return name, found[name], {n: round(s * 1e6, 3) for n, s in found.items()}

    def _between(self, call: Call, times: int) -> list[float]:
        """Seconds of each of so many calls, queued behind one more, so that the GPU never waits for the launch of what is timed."""
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        self.torch.cuda.synchronize()
        call()
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        events[-1].synchronize()
        return [float(a.elapsed_time(b)) / 1e3 for a, b in itertools.pairwise(events)]

    def _plain(self, calls: Sequence[Call]) -> float:
        times = []
        for call in calls:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def header(clock: Clock) -> dict[str, Any]:
    """What the figures hold for: GPU, driver, software and date."""
    torch, found = clock.torch, {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "torch": clock.torch.__version__, "cuda": clock.torch.version.cuda}
    if not clock.gpu:
        return {"gpu": {"name": "cpu"}, **found}
    about = torch.cuda.get_device_properties(0)
    gpu = {
        "name": about.name,
        "memory_gib": round(about.total_memory / 2**30, 2),
        "multiprocessors": about.multi_processor_count,
        "capability": f"{about.major}.{about.minor}",
        "l2_bytes": getattr(about, "L2_cache_size", None),
    }
    return {"gpu": gpu, **found, "nvidia_smi": clocks()}


def clocks() -> dict[str, str]:
    """Driver, clocks and power as nvidia-smi shows them; empty where it does not answer."""
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,power.limit,temperature.gpu,clocks_event_reasons.active"
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()
        if answer:
            return dict(zip(fields.split(","), (v.strip() for v in answer[0].split(",")), strict=False))
    return {}
