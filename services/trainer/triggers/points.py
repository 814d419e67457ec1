"""The points in time as of which a model is to be trained, and what became of each."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import orjson

from modelmill import times
from modelmill.errors import InvalidRequest

MONTH = "month"
STEP = "1d"
MOST_POINTS = 1000


def points(start: datetime, end: datetime, step: str) -> list[datetime]:
    """`start` and every `step` later, up to and including `end`; a month later is the same day of the next month.

    Raises:
        InvalidRequest: for a step that is no length of time, an end before the start, or more than `MOST_POINTS`.
    """
    if end < start:
        raise InvalidRequest(f"field 'from' is {when(start)} and 'to' is {when(end)}; expected the end to be later")
    found: list[datetime] = []
    for point in _from(start, step):
        if point > end:
            return found
        if len(found) == MOST_POINTS:
            raise InvalidRequest(
                f"from {when(start)} to {when(end)} in steps of {step} is more than {MOST_POINTS} trainings; expected"
                " a longer step"
            )
        found.append(point)
    return found


def _from(start: datetime, step: str) -> Iterator[datetime]:
    if step == MONTH:
        for month in range(start.month - 1, 12 * MOST_POINTS):
            year, number = start.year + month // 12, month % 12 + 1
            yield start.replace(year=year, month=number, day=min(start.day, monthrange(year, number)[1]))
    try:
        length = timedelta(seconds=times.seconds(step))
    except ValueError as error:
        raise InvalidRequest(f"field 'step': {error}, or {MONTH!r}", field="step") from None
    point = start
    while True:
        yield point
        point += length


def when(moment: datetime) -> str:
    """A point as text: `2013-02-01T05:00:00Z`, by which points sort."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training as of a past time."""

    as_of: str
    """Its rows' event times lie before this."""
    status: str = "waiting"
    """waiting, active, succeeded, or else as its job ended: failed or cancelled."""
    job: str = ""
    run: str = ""
    version: int | None = None
    error: str = ""

    @classmethod
    def read(cls, as_of: str, text: str) -> Point:
        """The point that `str` wrote."""
        return cls(as_of=as_of, **orjson.loads(text))

    def __str__(self) -> str:
        known = {name: value for name, value in asdict(self).items() if value and name != "as_of"}
        return orjson.dumps(known).decode()
