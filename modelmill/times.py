"""Times and lengths of time: the one reading of what somebody wrote, in rows, spines, requests and on the command line
alike, and the one form that is stored.

ISO 8601, in UTC where no offset is given; or seconds since 1970, as a number or as text, of nine or ten digits before
the point. Of other lengths they are refused rather than guessed: 20130131 may be a date, 201301310500 a date and an
hour, 1359608400000 milliseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
EXPECTED = "a time such as 2013-01-31T05:00:00Z, or seconds since 1970 in 9 or 10 digits"
SECONDS = re.compile(r"([0-9]{9,10})(?:\.([0-9]+))?")
ISO = re.compile(r"[0-9]{4}(-[0-9]{2}-[0-9]{2}|-?W[0-9]{2}-?[0-9]|[0-9]{4}(?=T))([T ].+)?")
"""Its beginning: Python takes any letter, even a digit, between date and time."""


def read(value: Any) -> datetime:
    """The time that `value` is, with its offset, cut to the microsecond.

    Raises:
        ValueError: where it is none, or lies before the year 1 or after 9999 in UTC.
    """
    if type(value) is int and 10**8 <= value < 10**10:
        return datetime.fromtimestamp(value, UTC)
    text = repr(value) if type(value) is float else value
    if not isinstance(text, str):
        raise ValueError(f"{value!r} is not a time")
    if text[10:11] not in ("T", " "):  # which tells the usual case fast
        if found := SECONDS.fullmatch(text):
            time = datetime.fromtimestamp(int(found[1]), UTC)
            return time.replace(microsecond=int(found[2][:6].ljust(6, "0"))) if found[2] else time
        if not ISO.fullmatch(text):
            raise ValueError(f"{text!r} is not a time")
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    if time.year in (1, 9999):
        try:
            time.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{text!r} is out of range") from None
    return time


# --- times as Modelmill itself writes and counts them


def utc_now() -> str:
    """The time now as text of fixed width, so that times compare as text: `2026-11-23T23:47:08.123456Z`."""
    return iso(datetime.now(UTC))


def iso(moment: datetime) -> str:
    """`moment` (with a time zone) as text in UTC with microseconds, always 27 characters wide."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def micros(time: datetime) -> int:
    """A time that has a zone as microseconds since 1970."""
    return (time - EPOCH) // _MICROSECOND


def moment(t: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return EPOCH + timedelta(microseconds=t)


# --- lengths of time as text, such as "90s", "15m", "2h" or "30d"

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


def duration_text(length: int) -> str:
    """A positive number of seconds in the longest unit that fits it: 7200 is "2h"."""
    unit = next(unit for unit, size in UNITS.items() if length % size == 0)
    return f"{length // UNITS[unit]}{unit}"


# --- when a stored row is too old to be used: one rule for the feature service's online reads and for the predictor

NEVER = ""
"""A cut-off that no event time comes before."""
BEGINNING = datetime.min.replace(tzinfo=UTC)


def cutoff(now: datetime, max_age: int | None) -> str:
    """The earliest event time that is not expired at `now`, in the form of `iso`, so that both compare as text.

    A row whose age, `now` less its event time, is over `max_age` seconds is expired; with None none ever is.
    """
    if max_age is None or now - BEGINNING < timedelta(seconds=max_age):
        return NEVER
    return iso(now - timedelta(seconds=max_age))
