"""A position in the history of a source: which of its rows there were at a moment, told so that they are found again.

That is the ingest time of the newest row, and those of the ingests before it that had not ended by then: their rows
may come into the history later, before those of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.errors import InvalidRequest
from modelmill.state.connections import Redis
from modelmill.state.events import iso
from modelmill.storage import Storage
from services.feature.intake import journal
from services.feature.intake.validate import TIME
from services.feature.store import history
from services.feature.store.history import INGEST_TIME, STAMP, FileSpan

WITHOUT = " without "
EXPECTED = "expected a time such as 2026-11-23T23:47:08.123456Z, or source to its position as a frame tells it"


@dataclass(frozen=True)
class Position:
    """The rows that were ingested until a time, those of some ingests left out."""

    until: datetime | None
    """The last ingest time; None before the first."""
    without: tuple[datetime, ...] = ()

    def __str__(self) -> str:
        if self.until is None:
            return ""
        left_out = f"{WITHOUT}{' '.join(map(iso, self.without))}" if self.without else ""
        return iso(self.until) + left_out

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote.

        Raises:
            ValueError: for anything else.
        """
        until, _, left_out = text.partition(WITHOUT)
        return cls(_moment(until) if until else None, tuple(map(_moment, left_out.split())))

    def reaches(self, span: FileSpan) -> bool:
        """Whether any row of a file may be among them."""
        return self.until is not None and span.first <= self.until.strftime(STAMP)

    def holds_all(self, span: FileSpan) -> bool:
        """Whether every row of a file is among them."""
        if self.until is None or span.last > self.until.strftime(STAMP):
            return False
        return not any(span.first <= moment.strftime(STAMP) <= span.last for moment in self.without)

    @property
    def rows(self) -> pc.Expression:
        """That a row is among them."""
        if self.until is None:
            return pc.scalar(False)
        among = pc.field(INGEST_TIME) <= pa.scalar(self.until, TIME)
        return among & ~pc.field(INGEST_TIME).isin(pa.array(self.without, TIME)) if self.without else among


def newest(redis: Redis, storage: Storage, sources: Iterable[str]) -> dict[str, Position]:
    """The position of each source now: all rows that have been acknowledged are there."""
    return {source: _newest(redis, storage, source) for source in sources}


def _newest(redis: Redis, storage: Storage, source: str) -> Position:
    """The history is looked at before the ingests that go on: what has ended in between is there when it is read."""
    names = history.names(storage, source)
    if not names:
        return Position(None)
    last = max(FileSpan.of(name).last for name in names)
    until = datetime.strptime(last, STAMP).replace(tzinfo=UTC)
    going_on = (entry.ingested for entry in journal.open_entries(redis, source, older_than=-1))
    return Position(until, tuple(sorted(moment for moment in going_on if moment <= until)))


def asked(value: Any, sources: Iterable[str]) -> dict[str, Position] | None:
    """The field `known_until` of a request: a time, or source to position; None where there is none.

    Raises:
        InvalidRequest: for anything else, and where it lacks one of `sources`.
    """
    if value is None:
        return None
    wanted = list(sources)
    found: Mapping[str, Any] = value if isinstance(value, Mapping) else dict.fromkeys(wanted, value)
    if lacking := [source for source in wanted if source not in found]:
        raise InvalidRequest(f"known_until lacks source {lacking[0]!r}; {EXPECTED}", source=lacking[0])
    try:
        return {source: Position.parse(found[source]) for source in wanted}
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequest(f"known_until is {value!r}; {EXPECTED}") from None


def _moment(text: str) -> datetime:
    return times.read(text).astimezone(UTC)
