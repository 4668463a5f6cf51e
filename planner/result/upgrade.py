"""Plans as earlier versions wrote them, read as the present one: plain JSON data in, plain JSON data out."""

from __future__ import annotations

from typing import Any


def upgraded(data: Any) -> Any:
    """The data of a plan as schema version 2 has it. What is no plan of version 1 stays as it is."""
    if not isinstance(data, dict) or data.get("schema_version") != 1 or not isinstance(data.get("scenario"), dict):
        return data
    asked = dict(data["scenario"])
    origins, tables = asked.pop("origins", {}), asked.get("tables")
    is_own = isinstance(tables, dict) and bool(tables.get("capacities"))
    kind = {} if "periods" in data else {"kind": "own" if is_own else "flat"}
    return {**data, "schema_version": 2, **kind, "scenario": asked, "origins": origins}
