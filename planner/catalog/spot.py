"""How often spot instances are taken back, where their provider publishes it. Read only for plans that hold some."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from planner.catalog.catalog import Catalog
from planner.catalog.files import read_csv
from planner.catalog.records import SpotRate


def spot_rate(catalog: Catalog, provider: str, region: str, instance_type: str) -> SpotRate | None:
    """The published range of an instance type at a place; None where there is none. Raises CatalogError for a file that cannot be read."""
    return _rates(catalog.spot_files).get((provider, region, instance_type))


@lru_cache(maxsize=4)
def _rates(files: tuple[Path, ...]) -> dict[tuple[str, str, str], SpotRate]:
    return {(r.provider, r.region, r.instance_type): r for file in files for r in read_csv(file, SpotRate)}
