"""Replica types as a structure of arrays: one engine instance = architecture x precision x GPU x engine x TP x PP, and how it is laid out.

Everything in this folder works on all replica types at once; tables hold each architecture and GPU only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import Architecture, Gpu
from planner.catalog.replica_type import ReplicaType

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRECISIONS: tuple[str, ...] = ("bf16", "fp8", "int8", "nvfp4", "mxfp4", "int4")
ENGINES: tuple[str, ...] = ("vllm", "sglang", "trtllm")


DP_ENGINES: tuple[str, ...] = tuple(f"{engine} dp" for engine in ENGINES)  # engines with attention data parallel, as measurements are kept
SIZES = ("tp", "pp", "dp", "ep", "kv_bytes", "draft", "prefill", "decode")  # those of a ReplicaType
COLUMNS = ("architecture", "gpu", "precision", "engine", *SIZES)
FP8_KV = ("fp8", "nvfp4")  # engines serve these checkpoints with a 1-byte KV cache; all others keep 2 bytes unless told otherwise
_ABSENT: Ints = np.zeros(0, dtype=np.int64)


def _sizes(t: ReplicaType) -> tuple[int, ...]:
    return t.tp, t.pp, t.dp, t.ep, 1 if t.fp8_kv else 2, int(t.draft), t.prefill, t.decode


@dataclass(frozen=True)
class Replicas:
    """P replica types. ``architecture`` and ``gpu`` index the tables, ``precision`` and ``engine`` the tuples above.

    The GPUs of a replica are tp x pp. With attention data parallel, dp of the tp GPUs' groups each hold the attention layers for
    their own share of the sequences (attention is split over tp/dp GPUs only). With expert parallel, whole experts are spread over
    ep GPUs; otherwise ep is 1 and every expert is split over tp. Left out, dp and ep are 1 and kv_bytes those of the precision.

    With draft 1 the layer that the checkpoint brings along proposes tokens (speculative decoding, MTP). A disaggregated unit is
    ``prefill`` + ``decode`` engines, each as the other columns say; both are 0 for an engine that does both. Left out, all are 0.
    """

    architectures: tuple[Architecture, ...]
    gpus: tuple[Gpu, ...]
    architecture: Ints
    gpu: Ints
    precision: Ints
    engine: Ints
    tp: Ints
    pp: Ints
    dp: Ints = field(default_factory=lambda: _ABSENT)
    ep: Ints = field(default_factory=lambda: _ABSENT)
    kv_bytes: Ints = field(default_factory=lambda: _ABSENT)  # bytes of one number in the KV cache
    draft: Ints = field(default_factory=lambda: _ABSENT)
    prefill: Ints = field(default_factory=lambda: _ABSENT)
    decode: Ints = field(default_factory=lambda: _ABSENT)

    def __post_init__(self) -> None:
        ones = np.ones(len(self.architecture), dtype=np.int64)
        kv_bytes = np.array([1 if p in FP8_KV else 2 for p in PRECISIONS])[self.precision]
        plain = {"dp": ones, "ep": ones, "kv_bytes": kv_bytes, "draft": 0 * ones, "prefill": 0 * ones, "decode": 0 * ones}
        for name, column in plain.items():
            if len(getattr(self, name)) != len(ones):
                object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.architecture)

    @property
    def scheme(self) -> Ints:
        """Index into ENGINES + DP_ENGINES: measurements with and without attention data parallel are not of the same thing."""
        return self.engine + len(ENGINES) * (self.dp > 1)

    @property
    def is_unit(self) -> NDArray[np.bool_]:
        """Whether a row is a disaggregated unit, [P]."""
        found: NDArray[np.bool_] = self.decode > 0
        return found

    @property
    def size(self) -> Ints:
        """GPUs of a replica, all engines of a unit together, [P]."""
        return self.tp * self.pp * np.where(self.is_unit, self.prefill + self.decode, 1)

    @property
    def linked(self) -> Ints:
        """GPUs of a replica that must stand in one node, linked with each other, [P]: those of a stage, or a whole unit."""
        return np.where(self.is_unit, self.size, self.tp)

    @classmethod
    def of(cls, architecture: Architecture, gpu: Gpu, precision: str, engine: str, types: Sequence[ReplicaType]) -> Replicas:
        """Replica types of one checkpoint's kind on one GPU."""
        numbers = [(0, 0, PRECISIONS.index(precision), ENGINES.index(engine), *_sizes(t)) for t in types]
        return cls((architecture,), (gpu,), *np.array(numbers, dtype=np.int64).reshape(-1, len(COLUMNS)).T)

    def at(self, row: int) -> ReplicaType:
        """The sizes of one row."""
        tp, pp, dp, ep, kv_bytes, draft, prefill, decode = (int(getattr(self, name)[row]) for name in SIZES)
        return ReplicaType(tp, pp, dp, ep, kv_bytes == 1, draft > 0, prefill, decode)

    def take(self, index: Ints | NDArray[np.bool_] | slice) -> Replicas:
        """The replica types chosen by an index array, a mask or a slice."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    def compact(self) -> Replicas:
        """The same replica types with tables of only the architectures and GPUs in use, so that no work is done for others."""
        (models, architecture), (gpus, gpu) = (np.unique(x, return_inverse=True) for x in (self.architecture, self.gpu))
        tables = tuple(self.architectures[i] for i in models), tuple(self.gpus[i] for i in gpus)
        return replace(self, architectures=tables[0], gpus=tables[1], architecture=architecture, gpu=gpu)

    def of_architecture(self, value: Callable[[Architecture], float]) -> Floats:
        """A number of each replica's architecture, [P]."""
        return np.array([value(a) for a in self.architectures], dtype=float)[self.architecture]

    def of_gpu(self, value: Callable[[Gpu], float]) -> Floats:
        """A number of each replica's GPU, [P]."""
        return np.array([value(g) for g in self.gpus], dtype=float)[self.gpu]
