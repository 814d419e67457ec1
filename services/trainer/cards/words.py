"""Numbers, shares, times and durations as a card writes them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits, whole ones with all of theirs: `0.7492`, `70 120`."""
    if value is None or isinstance(value, str):
        return value or NONE
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}".replace(",", THIN)
    elif abs(value) >= 10**digits:
        text = f"{value:,.0f}".replace(",", THIN)
    elif 0.01 <= abs(value) < 1:
        text = f"{value:.{digits}f}"  # as many decimals each, so that a column is aligned
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def tick(value: float) -> str:
    """A round number on an axis, as short as it can be: `0.2`, `1 500`."""
    text = f"{value:,.0f}".replace(",", THIN) if abs(value) >= 1000 else f"{value:g}"
    return text.replace("-", MINUS)


def share(value: float) -> str:
    """A share in percent: `0 %`, `0.3 %`, `41 %`; what is not all and not nothing never looks so."""
    if value in (0, 1):
        return f"{value * 100:.0f}{THIN}%"
    percent = min(max(value * 100, 0.01), 99.9)
    return f"{percent:.2g}{THIN}%" if percent < 10 else f"{percent:.3g}{THIN}%"


def moment(text: str) -> str:
    """An ISO time to the second, `2013-03-31 21:05:00 UTC`, without a time of day that is midnight."""
    if not text:
        return NONE
    at = datetime.fromisoformat(text)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def seconds(value: float) -> str:
    """A duration: `0.3 ms`, `12 ms`, `4.2 s`, `3 min 20 s`."""
    if value < 1:
        return f"{value * 1000:.2g}{THIN}ms"
    if value < 60:
        return f"{value:.3g}{THIN}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{THIN}min {rest}{THIN}s"
