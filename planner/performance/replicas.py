"""Replica types as a structure of arrays: one engine instance = architecture x precision x GPU x engine x TP x PP.

Everything in this folder works on all replica types at once; tables hold each architecture and GPU only once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import Architecture, Gpu

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRECISIONS: tuple[str, ...] = ("bf16", "fp8", "int8", "nvfp4", "mxfp4", "int4")
ENGINES: tuple[str, ...] = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True)
class Replicas:
    """P replica types. ``architecture`` and ``gpu`` index the tables, ``precision`` and ``engine`` the tuples above."""

    architectures: tuple[Architecture, ...]
    gpus: tuple[Gpu, ...]
    architecture: Ints
    gpu: Ints
    precision: Ints
    engine: Ints
    tp: Ints
    pp: Ints

    def __len__(self) -> int:
        return len(self.architecture)

    def take(self, index: NDArray[Any] | slice) -> Replicas:
        """The replica types chosen by an index array, a mask or a slice."""
        fields = (self.architecture, self.gpu, self.precision, self.engine, self.tp, self.pp)
        return Replicas(self.architectures, self.gpus, *(f[index] for f in fields))

    def compact(self) -> Replicas:
        """The same replica types with tables of only the architectures in use, so that work per table entry is not repeated."""
        used, architecture = np.unique(self.architecture, return_inverse=True)
        return replace(self, architectures=tuple(self.architectures[i] for i in used), architecture=architecture)

    def of_architecture(self, value: Callable[[Architecture], float]) -> Floats:
        """A number of each replica's architecture, [P]."""
        return np.array([value(a) for a in self.architectures], dtype=float)[self.architecture]

    def of_gpu(self, value: Callable[[Gpu], float]) -> Floats:
        """A number of each replica's GPU, [P]."""
        return np.array([value(g) for g in self.gpus], dtype=float)[self.gpu]
