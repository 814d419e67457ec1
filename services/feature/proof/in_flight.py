"""Rows that were being ingested while a prediction was served: it may have seen them or not, and both are right."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import RowsIngested, iso, parse
from services.feature.intake import journal
from services.feature.proof.served import pages

SLACK = timedelta(minutes=1)
"""How much earlier than the first prediction an ingest may have been told of and still be looked for."""
PAGE = 1000


@dataclass(frozen=True)
class Ingests:
    """When the ingests of one source went on. Times are ISO texts of fixed width."""

    ended: dict[str, str]
    """Ingest time to when its rows were online."""
    opened: frozenset[str]
    """Ingest times of those that have not ended."""

    def around(self, ingested: str, since: str, until: str) -> bool:
        """Whether rows with this ingest time came online at some time between `since` and `until`, or may have."""
        return ingested <= until and (ingested in self.opened or self.ended.get(ingested, "") >= since)


def ingests(redis: Redis, sources: Collection[str], since: datetime) -> tuple[dict[str, Ingests], str]:
    """The ingests of each source that ended after `since` or are open, and from when on they are all known.

    That is later than `since` where events of ingests have been trimmed already.
    """
    # Open ones first: what ends meanwhile is found as both.
    opened = {
        source: frozenset(iso(entry.ingested) for entry in journal.open_entries(redis, source, older_than=-1))
        for source in sources
    }
    ended: dict[str, dict[str, str]] = {source: {} for source in sources}
    for page in pages(redis, keys.EVENTS_FEATURES, since - SLACK, size=PAGE):
        for _, entry in page:
            if entry.get("type") == RowsIngested.type and entry.get("table") in ended:
                event = parse(entry)
                assert isinstance(event, RowsIngested)
                ended[event.table][event.ingest_time] = event.time
    return {source: Ingests(ended[source], opened[source]) for source in sources}, _known_since(redis)


def _known_since(redis: Redis) -> str:
    """The time of the oldest event of the features' stream if it has been trimmed, otherwise the beginning."""
    if redis.xlen(keys.EVENTS_FEATURES) < bus.MAX_LENGTH:
        return ""
    [(_, entry)] = redis.xrange(keys.EVENTS_FEATURES, count=1)
    return str(entry["time"])


@dataclass(frozen=True, order=True)
class Sighting:
    """A row that a prediction may have seen. In the order of these, the greatest is what is seen."""

    event: str
    ingested: str
    position: int
    """Among rows of one ingest."""


def candidates(rows: Iterable[Sighting], going_on: Ingests, since: str, until: str) -> list[Sighting | None]:
    """The rows of one entity that a reading at some time between `since` and `until` may have seen.

    The first is the newest of those that had come online before, or None where there was none; after it come those
    of ingests that were going on, if they are newer.
    """
    settled: Sighting | None = None
    coming: list[Sighting] = []
    for row in rows:
        if row.ingested > until or row.event > until:
            continue
        if going_on.around(row.ingested, since, until):
            coming.append(row)
        elif settled is None or row > settled:
            settled = row
    return [settled, *(row for row in coming if settled is None or row > settled)]
