"""How much of anything the planner takes in: beyond these it refuses in one line, instead of running out of memory or time. docs/limits.md says why."""

from __future__ import annotations

MIB = 2**20
TOML_BYTES = 4 * MIB  # of a scenario, a card, a demand TOML, GPUs of one's own
FILE_BYTES = 64 * MIB  # of any other file that is read whole, and of one line of a trace
TABLE_ROWS = 100_000  # of a CSV that is read whole; traces are read in chunks and have no limit
UNZIPPED_RATIO = 200  # of what a gzip file holds to its own size, beyond FILE_BYTES
NAME_CHARACTERS = 200  # of anything that has a name
WORKLOADS = 100  # of a scenario; each is surveyed over the whole catalogue
