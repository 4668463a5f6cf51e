"""Reads live prices through the libraries that keep them: gpuhunt for GPUs, genai-prices for APIs. The one place that asks the network for prices."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from typing import Any

from planner.catalog.refresh import LiveApi, LiveGpu
from planner.errors import PlannerError

LICENCES = {"gpuhunt": "MPL-2.0", "genai-prices": "MIT"}
INSTALL = "pip install inference-planner[refresh]"


def live_gpus() -> list[LiveGpu]:
    """What gpuhunt collects of all providers. Raises PlannerError where it is not installed, or nothing can be read."""
    gpuhunt: Any = _library("gpuhunt", "gpuhunt")
    logging.getLogger("gpuhunt").setLevel(logging.CRITICAL)  # a trace for each provider that it cannot read; which ones were read is said
    try:
        items = gpuhunt.query()
    except Exception as error:
        raise _unread("gpuhunt", error) from None
    if not items:
        raise _unread("gpuhunt", "it found none")
    some = (i for i in items if i.gpu_count)
    return [LiveGpu(i.provider, i.instance_name, i.location, i.gpu_name or "", i.gpu_memory, i.gpu_count, bool(i.spot), float(i.price)) for i in some]


def live_apis() -> list[LiveApi]:
    """What genai-prices has of all providers now. Raises PlannerError as ``live_gpus`` does."""
    from datetime import UTC, datetime

    library: Any = _library("genai_prices.update_prices", "genai-prices")
    try:
        snapshot = library.UpdatePrices().fetch()
    except Exception as error:
        raise _unread("genai-prices", error) from None
    found, now = [], datetime.now(UTC)
    for provider in snapshot.providers:
        for model in provider.models:
            price = model.get_prices(now)
            values = (getattr(price, name, None) for name in ("input_mtok", "output_mtok", "cache_read_mtok"))
            first, last, cached = (None if value is None or hasattr(value, "tiers") else float(value) for value in values)
            found.append(LiveApi(provider.id, model.id, first, last, cached))
    return found


def source_of(library: str) -> str:
    """The library with its version, as rows state their source."""
    return f"PyPI {library} {version(library)}, live"


def _library(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise PlannerError(f"live prices are read with {name}, which is not installed", "plan catalog refresh", INSTALL) from None


def _unread(library: str, why: object) -> PlannerError:
    what = " ".join(str(why).split()) or type(why).__name__
    return PlannerError(f"{library} could not read live prices: {what}", "plan catalog refresh", "is there a network? nothing was written")
