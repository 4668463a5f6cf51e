"""How much of anything the planner takes in: beyond these it refuses in one line, instead of running out of memory or time. docs/limits.md says why."""

from __future__ import annotations

MIB = 2**20
TOML_BYTES = 4 * MIB  # of a scenario, a card, a demand TOML, GPUs of one's own
PLAN_BYTES = 8 * MIB  # of a saved plan, which takes a hundred times as much memory while it is read
FILE_BYTES = 16 * MIB  # of any other file that is read whole: CSV, JSON, metrics
BENCH_BYTES = 64 * MIB  # of a benchmark's JSON, which may hold every request
YAML_BYTES = 2 * MIB  # of a YAML file, which is read at a hundredth of the speed
LINE_BYTES = 64 * MIB  # of one line of a trace, and of what a gzip may hold whatever its size
TABLE_ROWS = 100_000  # of a CSV that is read whole; traces are read in chunks and have no limit
UNZIPPED_RATIO = 200  # of what a gzip file holds to its own size, beyond LINE_BYTES
NAME_CHARACTERS = 200  # of anything that has a name
WORKLOADS = 100  # of a scenario; each is surveyed over the whole catalogue
