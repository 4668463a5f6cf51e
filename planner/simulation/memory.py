"""What the compiled core is made with: one function compiled once per machine and user, and memory reached by address.

Addresses instead of arrays: an array is seven values that numba hands to every function and whose references it counts, which made the
core slow and took most of the time to compile it. Whoever passes an address keeps the array alive. Only this folder loads numba.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import from_dtype, njit, types
from numba.core.caching import FunctionCache, NullCache, _CacheLocator
from numba.extending import intrinsic

from planner.files import cache_folder
from planner.simulation.records import FLOW, REPLICA, REQUEST, RETURN, STATE

Numba = Any  # what numba's compiler hands about; it states no types
Sim = Any  # a record of STATE as compiled code sees it: fields by name, changed in place
Function = TypeVar("Function", bound=Callable[..., Any])


def part(function: Function) -> Function:
    """A function of the core."""
    compiled: Function = njit(error_model="numpy", nogil=True)(function)
    return compiled


def records(dtype: np.dtype[np.void]) -> Numba:
    """``at(address, i)``: record i, to read and to change, of those at an address."""
    record = from_dtype(dtype)

    @intrinsic
    def at(_typing: Numba, _address: Numba, _i: Numba) -> Numba:
        def code(context: Numba, builder: Numba, _signature: Numba, given: Numba) -> Numba:
            place = builder.add(given[0], builder.mul(given[1], given[1].type(dtype.itemsize)))
            return builder.inttoptr(place, context.get_value_type(record))

        return record(types.int64, types.int64), code

    return at


def numbers(kind: Numba) -> Numba:
    """``at(address)``: the numbers from an address on, to read and to change by index."""
    pointer = types.CPointer(kind)

    @intrinsic
    def at(_typing: Numba, _address: Numba) -> Numba:
        def code(context: Numba, builder: Numba, _signature: Numba, given: Numba) -> Numba:
            return builder.inttoptr(given[0], context.get_value_type(pointer))

        return pointer(types.int64), code

    return at


floats, ints = numbers(types.float64), numbers(types.int64)
request, replica, flow_of, session, state = (records(kind) for kind in (REQUEST, REPLICA, FLOW, RETURN, STATE))


def kept(*sources: str) -> Callable[[Function], Function]:
    """Compiles a function and keeps the outcome in the user's cache folder, for all environments with the same ``sources`` (paths of
    all files it is made of) and numba; where nothing can be kept it is compiled in every process."""

    def decorate(function: Function) -> Function:
        dispatcher: Numba = part(function)
        dispatcher._cache = _cache(function, sources)
        return cast("Function", dispatcher)

    return decorate


def _cache(function: Callable[..., Any], sources: tuple[str, ...]) -> Numba:
    base = cache_folder()
    if base is None:
        return NullCache()
    with suppress(OSError, RuntimeError):
        digest = sha256(b"\0".join([numba.__version__.encode(), np.__version__.encode(), *(Path(s).read_bytes() for s in sources)])).hexdigest()
        return _kept_in(base / "compiled" / digest[:16], digest)(function)
    return NullCache()


def _kept_in(folder: Path, digest: str) -> Numba:
    """numba's cache in a place that depends on what is compiled, not on where it is installed."""

    class Place(_CacheLocator):
        def get_cache_path(self) -> str:
            return str(folder)

        def get_source_stamp(self) -> str:
            return digest

        def get_disambiguator(self) -> str:
            return ""

        @classmethod
        def from_function(cls, _py_func: Numba, _py_file: str) -> Numba:
            return cls()

    class Kept(FunctionCache):
        class _impl_class(FunctionCache._impl_class):
            _locator_classes = (Place,)

        def load_overload(self, sig: Numba, target_context: Numba) -> Numba:
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # whatever is wrong with the file: compiled again
                return None

        def save_overload(self, sig: Numba, data: Numba) -> None:
            with suppress(Exception):  # nothing that is wrong with the folder stops a run
                super().save_overload(sig, data)

    return Kept
