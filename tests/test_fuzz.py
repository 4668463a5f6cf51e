"""A short run of the fuzzer (tests/fuzz.py), the same inputs every time; FUZZ_RUNS=10000 makes it a long one."""

from __future__ import annotations

import os

import fuzz


def test_no_mutated_input_breaks_the_command() -> None:
    runs = int(os.environ.get("FUZZ_RUNS", "0"))
    found = list(fuzz.campaign(runs or 1000, seed=4, seconds=float("inf") if runs else 4.0))
    assert len(found) > 5
    assert [f"{o.number} {o.kind}: {o.problem}" for o in found if o.problem] == []
