"""Durations as people write them: `90s`, `15m`, `2h`, `30d`."""

from __future__ import annotations

import re

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Letter to its seconds."""


def seconds(text: str) -> int:
    """The seconds in a text such as `2h`.

    Raises:
        ValueError: for anything but a whole number above 0 and one of the letters s, m, h and d.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r}; expected a duration such as 90s, 15m, 2h or 30d")
    return int(found[1]) * UNITS[found[2]]
