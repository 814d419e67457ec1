"""The one reading of a time that somebody wrote: the same in rows, spines, requests and on the command line.

ISO 8601, in UTC where no offset is given; or seconds since 1970, as a number or as text, of nine or ten digits before
the point. Of other lengths they are refused rather than guessed: 20130131 may be a date, 201301310500 a date and an
hour, 1359608400000 milliseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

EXPECTED = "a time such as 2013-01-31T05:00:00Z, or seconds since 1970 in 9 or 10 digits"
SECONDS = re.compile(r"([0-9]{9,10})(?:\.([0-9]+))?")
ISO = re.compile(r"[0-9]{4}(-[0-9]{2}-[0-9]{2}|-?W[0-9]{2}-?[0-9]|[0-9]{4}(?=T))([T ].+)?")
"""The beginning that is asked for: Python takes any letter, even a digit, between date and time."""


def read(value: Any) -> datetime:
    """The time that `value` is, with its offset, cut to the microsecond.

    Raises:
        ValueError: where it is none, or lies before the year 1 or after 9999 in UTC.
    """
    text = repr(value) if type(value) in (int, float) else value
    if not isinstance(text, str):
        raise ValueError(f"{value!r} is not a time")
    if found := SECONDS.fullmatch(text):
        microsecond = int((found[2] or "0")[:6].ljust(6, "0"))
        return datetime.fromtimestamp(int(found[1]), UTC).replace(microsecond=microsecond)
    if not ISO.fullmatch(text):
        raise ValueError(f"{text!r} is not a time")
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is out of range") from None
    return time
