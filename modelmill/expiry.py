"""When a stored row is too old to be used: one rule for the feature service's online reads and for the predictor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from modelmill.events import iso

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
