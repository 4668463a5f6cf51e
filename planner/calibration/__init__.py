"""Fitting what the planner knows to measurements; nobody needs it to plan."""
