"""Lengths of time as text, such as "90s", "15m", "2h" or "30d"."""

from __future__ import annotations

import re

UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Letter to seconds, the longest first."""
DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")


def seconds(text: str) -> int:
    """The length of time that `text` names, in seconds.

    Raises:
        ValueError: saying what was expected.
    """
    match = DURATION.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"{text!r} is no length of time; expected a whole number of s, m, h or d, such as 90s or 30d")
    return int(match[1]) * UNITS[match[2]]


def text(length: int) -> str:
    """A positive number of seconds in the longest unit that fits it: 7200 is "2h"."""
    unit = next(unit for unit, size in UNITS.items() if length % size == 0)
    return f"{length // UNITS[unit]}{unit}"
