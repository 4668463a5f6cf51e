"""Plain data as TOML and JSON have it, read and not yet checked, or about to be written: a table whose values may be anything.

What is only looked at is an ``object`` instead, and what has a known shape a record.
"""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]  # values by key
