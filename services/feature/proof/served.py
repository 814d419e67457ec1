"""Predictions as they were served, read from the log a bounded number at a time, and what was known then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import Column
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionServed, RowsIngested, parse
from modelmill.storage import Storage
from modelmill.times import iso
from services.feature.frames.aggregated import Aggregated
from services.feature.frames.joins import AsOf, Join, status_of
from services.feature.frames.spines import Spine
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import journal
from services.feature.store.history import INGEST_TIME

ENTRIES_PER_PAGE = 100
"""Entries of the log that are in memory at once; each may hold many rows."""
ROWS_PER_PIECE = 5000
"""Rows of predictions that are put together at a time."""
LATE = timedelta(minutes=1)
"""How much later than its time a prediction may have been appended before the time looked from and still be found."""

ID, ROW, AT, SINCE, UNTIL = "_prediction", "_row", "_at", "_since", "_until"
"""Columns of a log as a table: id and row of a prediction, its time, and between which times its features were read."""
ROUNDING = timedelta(milliseconds=1)
"""By which the times are rounded, at most."""

Page = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Log:
    """What was appended to the log of predictions until now, of one model and from a time on."""

    redis: Redis
    model: str
    since: datetime
    last: str
    """The newest entry that belongs to it, so that it is the same whenever it is read."""

    @classmethod
    def until_now(cls, redis: Redis, model: str, since: datetime) -> Log:
        """The log as it is now."""
        newest = redis.xrevrange(keys.EVENTS_PREDICTIONS, count=1)
        return cls(redis, model, since, newest[0][0] if newest else "0-0")

    def versions(self) -> Counter[int]:
        """Version to its predictions."""
        return Counter(int(entry["version"]) for entry in self._entries())

    def of_version(self, version: int) -> Iterator[PredictionServed]:
        """The predictions of one version, oldest first."""
        for entry in self._entries():
            if entry["version"] == str(version) and isinstance(event := parse(entry), PredictionServed):
                yield event

    def _entries(self) -> Iterator[dict[str, str]]:
        since = self.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        wanted = {"type": PredictionServed.type, "model": self.model}
        for page in pages(self.redis, keys.EVENTS_PREDICTIONS, self.since - LATE, self.last):
            for _, entry in page:
                if entry["time"] >= since and wanted.items() <= entry.items():
                    yield entry


def pages(
    redis: Redis, stream: str, since: datetime | None = None, last: str = "+", size: int = ENTRIES_PER_PAGE
) -> Iterator[Page]:
    """The entries of a stream that were appended from `since` on, `size` at a time."""
    first = "-" if since is None else str(max(0, int(since.timestamp() * 1000)))
    while page := redis.xrange(stream, first, last, count=size):
        yield page
        milliseconds, _, number = page[-1][0].partition("-")
        first = f"{milliseconds}-{int(number) + 1}"


@dataclass
class Table:
    """Predictions of one version as batches: a row each, with join keys, times and, as JSON, the values served.

    A value is null where it is not to be compared: the caller gave it, or no key was looked up for it. `passed` counts
    the predictions that cannot be looked at, by reason.
    """

    definitions: Definitions
    refs: Sequence[FeatureRef]
    passed: Counter[str] = field(default_factory=Counter)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the batches."""
        return pa.schema(
            [
                (ID, pa.string()),
                (ROW, pa.int64()),
                *((name, TIME) for name in (AT, SINCE, UNTIL)),
                *((key, pa.string()) for key in self._keys.values()),
                *((column_of(ref), pa.string()) for ref in self.refs),
            ]
        )

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Entity to the name of its join key."""
        return {ref.entity: self.definitions.entity(ref.entity).key for ref in self.refs}

    def batches(self, events: Iterator[PredictionServed]) -> Iterator[pa.RecordBatch]:
        """The rows of the events that can be looked at, some thousand at a time."""
        columns: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for event in events:
            if (reason := self._unfit(event)) is not None:
                self.passed[reason] += 1
                continue
            self._add(event, columns)
            if len(columns[ROW]) >= ROWS_PER_PIECE:
                yield self._batch(columns)
        if columns[ROW]:
            yield self._batch(columns)

    def _batch(self, columns: dict[str, list[Any]]) -> pa.RecordBatch:
        """What was collected in `columns`, which are empty afterwards."""
        batch = pa.record_batch([pa.array(columns[field.name], field.type) for field in self.schema], self.schema)
        for values in columns.values():
            values.clear()
        return batch

    def _unfit(self, event: PredictionServed) -> str | None:
        if not event.keys and not event.given:
            return "the event does not say which keys were looked up"
        if any(ref.name not in event.features for ref in self.refs):
            return "the event lacks features of its version"
        columns: list[Sequence[Any]] = [*event.keys.values(), *event.features.values()]
        if any(len(column) != event.rows for column in [*columns, *([event.given] if event.given else [])]):
            return "the event's lists are not as long as it says"
        return None

    def _add(self, event: PredictionServed, columns: dict[str, list[Any]]) -> None:
        at = datetime.fromisoformat(event.time)
        around = timedelta(milliseconds=event.latency_ms) + ROUNDING
        for name, value in ((ID, event.id), (AT, at), (SINCE, at - around), (UNTIL, at + around)):
            columns[name] += [value] * event.rows
        columns[ROW] += range(event.rows)
        nothing = [None] * event.rows
        looked_up = {entity: event.keys.get(entity) or nothing for entity in self._keys}
        by_key: dict[str, list[str | None]] = {}
        for entity, key in self._keys.items():  # entities that share a join key were looked up by the same one
            by_key[key] = [a or b for a, b in zip(by_key.get(key, nothing), looked_up[entity], strict=True)]
        for key, values in by_key.items():
            columns[key] += values
        for ref in self.refs:
            columns[column_of(ref)] += [
                None if key is None or (event.given and ref.name in event.given[row]) else text_of(value)
                for row, (key, value) in enumerate(zip(looked_up[ref.entity], event.features[ref.name], strict=True))
            ]


def column_of(ref: FeatureRef) -> str:
    """The column with the served values of a feature."""
    return f"served.{ref.name}"


def text_of(value: Any) -> str:
    """A value as JSON: equal texts are equal values of one type, floats bit for bit."""
    return orjson.dumps(value).decode()


# --- rows that were being ingested while a prediction was served: it may have seen them or not, and both are right.

IN_FLIGHT_SLACK = timedelta(minutes=1)
"""How much earlier than the first prediction an ingest may have been told of and still be looked for."""
IN_FLIGHT_PAGE = 1000


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
    for page in pages(redis, keys.EVENTS_FEATURES, since - IN_FLIGHT_SLACK, size=IN_FLIGHT_PAGE):
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


# --- what was known of a model's features at the times of a spine, as JSON texts beside the row that each comes from.

KNOWN: AsOf = "known"
EMPTY = ("null", "0")
"""What an aggregate is where its window has no rows, for which a default may stand."""


@dataclass(frozen=True)
class Group:
    """Features that are read together: columns of one source, or aggregates of it by one entity."""

    source: str
    entity: str
    refs: Sequence[FeatureRef]
    windowed: bool

    def time(self, column: str) -> str:
        """What a time of the row that columns come from is called among the values."""
        return f"{self.source}:{column}"


def together(refs: Sequence[FeatureRef]) -> list[Group]:
    """The groups of features."""
    found: dict[tuple[str, str, bool], list[FeatureRef]] = {}
    for ref in refs:
        found.setdefault((ref.source, ref.entity, ref.aggregate is not None), []).append(ref)
    return [Group(source, entity, own, windowed) for (source, entity, windowed), own in found.items()]


class Known:
    """What the rows of a spine with the columns of `served.Table` should have been served; lives on `stack`."""

    def __init__(
        self,
        storage: Storage,
        definitions: Definitions,
        groups: Sequence[Group],
        defaults: Mapping[str, str],
        spine: Spine,
        stack: ExitStack,
    ) -> None:
        self._groups = groups
        self._defaults = defaults
        self._parts: list[Join | Aggregated] = []
        for group in groups:
            if group.windowed:
                part: Join | Aggregated = Aggregated(storage, definitions, group.refs, spine, as_of=KNOWN)
            else:
                wanted = [*group.refs, *_times(group)]
                part = Join(storage, definitions, wanted, spine, as_of=KNOWN, detail=True)
            self._parts.append(stack.enter_context(closing(part)))

    def of_rows(self, first: int, rows: pa.RecordBatch) -> Values:
        """Of the spine's rows from number `first` on."""
        columns: dict[str, pa.Array] = {}
        for part in self._parts:
            columns |= part.columns(first, rows.num_rows)
        there = {group.entity: np.zeros(rows.num_rows, np.bool_) for group in self._groups}
        for group in self._groups:
            if not group.windowed:
                there[group.entity] |= columns[group.time(EVENT_TIME)].is_valid().to_numpy(False)
                there[group.entity] |= pc.equal(columns[status_of(group.refs[0].name)], "expired").to_numpy(False)
        return Values(columns, self._defaults, there)


@dataclass(frozen=True)
class Values:
    """What n rows should have been served."""

    columns: Mapping[str, pa.Array]
    defaults: Mapping[str, str]
    there: Mapping[str, np.ndarray]
    """Entity to [n] whether any row of it was visible, be it expired: otherwise defaults stand for it."""

    def texts(self, ref: FeatureRef, served: pa.Array) -> list[str]:
        """[n] a feature's values, with the defaults where these stand for them; `served` are [n] those served."""
        texts = [text_of(value) for value in self.columns[ref.name].to_pylist()]
        default = self.defaults.get(ref.name)
        if default is None:
            return texts
        if ref.aggregate is not None:  # it stands where no tile is there, also none of aggregates with longer windows
            both = zip(texts, served.to_pylist(), strict=True)
            return [default if text in EMPTY and other == default else text for text, other in both]
        known = self.there[ref.entity].tolist()
        return [text if is_there else default for text, is_there in zip(texts, known, strict=True)]

    def times(self, group: Group, position: int) -> tuple[datetime | None, datetime | None]:
        """Event and ingest time of the row that a group's values come from, if it is one."""
        if group.windowed:
            return None, None
        event, ingest = (self.columns[group.time(name)][position].as_py() for name in (EVENT_TIME, INGEST_TIME))
        return event, ingest


def _times(group: Group) -> list[FeatureRef]:
    """The times of a group's row, as if they were features."""
    return [
        replace(group.refs[0], name=group.time(name), column=Column(name, "time", True), field=name)
        for name in (EVENT_TIME, INGEST_TIME)
    ]
