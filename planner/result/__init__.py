"""The plan: what it says, and how it is written down from a solution."""
