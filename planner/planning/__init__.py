"""Drives the stages: scenario to candidates to program to plan to check. Nothing else ever solves."""
