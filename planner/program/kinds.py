"""What the program is made of: Pyomo's own objects, which have no types, and the indices of its sets."""

from __future__ import annotations

from typing import Any, NewType

Model = Any  # a Pyomo ConcreteModel, with the variables and key sets of variables.py
Term = Any  # a Pyomo expression, variable or row

ColumnIndex = NewType("ColumnIndex", int)  # c, of a problem's columns
OfferIndex = NewType("OfferIndex", int)  # o, of its offers
PoolIndex = NewType("PoolIndex", int)  # p, of its pools; d, the first pool of a deployment
StateIndex = NewType("StateIndex", int)  # i, of its states
WorkIndex = NewType("WorkIndex", int)  # k, of work that may wait
WorkloadIndex = NewType("WorkloadIndex", int)  # w, of its demands
