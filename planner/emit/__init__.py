"""Turns deployments into what engines are started with."""
