"""How numbers are written for people, wherever they are shown."""

from __future__ import annotations


def digits(value: float) -> str:
    """A number to four digits: 0.1234, 12.34, 1,234, and whole from ten thousand on (20,000, not 2e+04)."""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"
