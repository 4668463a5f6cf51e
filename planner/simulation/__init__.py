"""The simulator: iteration-level continuous batching of every replica of a plan, to see whether limits hold that formulas promised.

It shares step times and memory of an engine with ``performance``; no capacity and no prediction of a plan enters it.
"""
