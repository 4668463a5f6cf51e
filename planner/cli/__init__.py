"""The command line: one module per verb; parse, call, hand to report; no logic."""
