"""Why an entity's features are what they are: of each the row that it comes from, or why there is none.

As the online store has them now, or as a training frame would see them at a time, by the one rule of visibility.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from modelmill import times
from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.errors import CorruptFeature
from modelmill.state.connections import Redis
from modelmill.state.online import status
from modelmill.storage import Storage
from modelmill.times import cutoff, iso, micros
from services.feature.frames.joins import NO_ROW, AsOf, Timeline
from services.feature.proof import receipts
from services.feature.proof.explain_aggregates import Explained, explain_aggregates
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME, microseconds
from services.feature.store import history, online
from services.feature.store.history import INGEST_TIME
from services.feature.store.online import OnlineEntity


@dataclass(frozen=True)
class SourceRow:
    """The row of a source that an entity's values come from."""

    event_time: str | None
    ingest_time: str | None
    file: str | None
    """The history file that holds it."""
    row: dict[str, Any] | None
    """Its columns, as they are in the history."""
    chosen: str
    """Why it, of all rows of the entity."""
    online_equals_history: bool | None
    """Whether the online store has the newest row of the history with the same values; null of a former time."""


@dataclass(frozen=True)
class Explanation:
    """All features of one entity."""

    entity: str
    key: str
    at: str
    as_of: str
    """`online`, or by which times rows are visible."""
    forgotten: str | None
    """When the entity was forgotten last."""
    features: dict[str, Explained]
    sources: dict[str, SourceRow]


@dataclass(frozen=True)
class Seen:
    """The values of one source that are seen, by field."""

    event: datetime
    ingest: datetime
    values: Mapping[str, Any]
    failed: Mapping[str, str]
    """Field to the error of its function."""


@dataclass(frozen=True)
class Subject:
    """What is explained: one entity, at a time."""

    entity: str
    key: str
    at: datetime
    as_of: AsOf | None
    """None for the online store."""

    def none_of(self, source: Source) -> str:
        """That no row of a source is seen."""
        if self.as_of is None:
            return f"no row of source {source.name!r} is online for {self.entity} {self.key!r}"
        known = " and ingested by then" if self.as_of == "known" else ""
        return (
            f"no row of source {source.name!r} for {self.entity} {self.key!r} with event time <= {iso(self.at)}{known}"
        )


def explain(
    redis: Redis,
    storage: Storage,
    definitions: Definitions,
    entity: str,
    key: str,
    at: datetime | None = None,
    as_of: AsOf = "event",
) -> Explanation:
    """Explain the features of one entity: online now, or at a time.

    Raises:
        UnknownName: for an undeclared entity.
        CorruptFeature: for a text in the online store that is no value of the feature's type.
    """
    definitions.entity(entity)
    subject = Subject(entity, key, at or datetime.now(UTC), None if at is None else as_of)
    served = online.read(redis, definitions, entity, [key], subject.at)[0] if at is None else None
    features: dict[str, Explained] = {}
    sources: dict[str, SourceRow] = {}
    for source in definitions.sources.values():
        if source.entity is None or source.entity.name != entity:
            continue
        refs = [r for r in definitions.features_of(entity).values() if r.source == source.name and not r.aggregate]
        rows = sightings(storage, definitions, source, key)
        if served is not None:
            seen = _online(served, source, refs)
            sources[source.name] = _online_row(rows, seen, _stored_values(served, source), subject, source)
        else:
            place = rows.visible(subject.at, as_of)
            row = None if place is None else rows.row(place)
            seen = None if row is None else Seen(row.event, row.ingest, row.values, row.failed)
            chosen = subject.none_of(source) if place is None else rows.chosen(place, subject.at, as_of)
            sources[source.name] = _source_row(row, chosen, None)
        features |= {ref.name: _explained(ref, seen, source, subject) for ref in refs}
    of_tiles = {} if served is None else served.features
    features |= explain_aggregates(storage, definitions, entity, key, subject.at, subject.as_of, of_tiles)
    receipt = receipts.read(redis, entity, receipts.digest_of(key))
    forgotten = None if receipt is None else receipt.ended or receipt.begun
    return Explanation(entity, key, iso(subject.at), subject.as_of or "online", forgotten, features, sources)


def _explained(ref: FeatureRef, seen: Seen | None, source: Source, subject: Subject) -> Explained:
    if seen is None:
        return Explained(None, "missing", subject.none_of(source), source.name, ref.field, None, None, None)
    value, status, why = _judged(ref, seen, source, subject)
    age = (subject.at - seen.event).total_seconds()
    return Explained(value, status, why, source.name, ref.field, iso(seen.event), iso(seen.ingest), age)


def _judged(ref: FeatureRef, seen: Seen, source: Source, subject: Subject) -> tuple[Any, str, str]:
    """A value, its status and why."""
    value, error = seen.values.get(ref.field), seen.failed.get(ref.field)
    match status(value, error, expired=iso(seen.event) < cutoff(subject.at, source.max_age)):
        case "expired":
            age = source.max_age or 0
            since = iso(seen.event + timedelta(seconds=age))
            return None, "expired", f"expired since {since}: source {source.name!r} allows {times.duration_text(age)}"
        case "failed":
            return None, "failed", f"its function failed with {error}"
        case "missing":
            return None, "missing", "the row has no value"
    if seen.event > subject.at:
        return value, "present", f"the newest row, though its event time {iso(seen.event)} is yet to come"
    return value, "present", "the newest row" if subject.as_of is None else "the newest row that was visible"


def _online(served: OnlineEntity, source: Source, refs: Sequence[FeatureRef]) -> Seen | None:
    """What a lookup tells of one source."""
    if source.name not in served.event_times:
        return None
    event, ingest = (datetime.fromisoformat(of[source.name]) for of in (served.event_times, served.ingest_times))
    failed = {ref.field: served.failed[ref.name] for ref in refs if ref.name in served.failed}
    return Seen(event, ingest, {ref.field: served.features[ref.name] for ref in refs}, failed)


def _stored_values(served: OnlineEntity, source: Source) -> dict[str, Any] | None:
    """The values of one source by field, be they expired; None where there is a text among them that is none."""
    features, stored = served.stored.reader.features, served.stored
    others = [number for number, feature in enumerate(features) if feature.source != source.name]
    try:
        values = stored.values(unread=others)
    except CorruptFeature:
        return None
    return {one.field: value for one, value in zip(features, values, strict=True) if one.source == source.name}


def _online_row(
    rows: Sightings, seen: Seen | None, stored: Mapping[str, Any] | None, subject: Subject, source: Source
) -> SourceRow:
    """The row of history that the online store shows, and whether it should; `stored` are the values there."""
    newest = rows.newest()
    if seen is None or newest is None:
        if seen is not None:
            return SourceRow(iso(seen.event), iso(seen.ingest), None, None, "the history has no row of it", False)
        if newest is None:
            return _source_row(None, subject.none_of(source), True)
        return _source_row(rows.row(newest), f"{subject.none_of(source)}, but this one is in the history", False)
    row = rows.row(newest)
    if (row.event, row.ingest) == (seen.event, seen.ingest):
        same = stored is not None and all(repr(row.values.get(field)) == repr(stored[field]) for field in stored)
        return _source_row(row, rows.chosen(newest, None, "event"), same)
    place = rows.place_of(seen.event, seen.ingest)
    newer = f"the history has a newer row, of {iso(row.event)} ingested at {iso(row.ingest)}"
    if place is None:
        return SourceRow(iso(seen.event), iso(seen.ingest), None, None, f"the history has no such row; {newer}", False)
    return _source_row(rows.row(place), newer, False)


def _source_row(row: StoredRow | None, chosen: str, equal: bool | None) -> SourceRow:
    if row is None:
        return SourceRow(None, None, None, None, chosen, equal)
    return SourceRow(iso(row.event), iso(row.ingest), row.file, dict(row.values), chosen, equal)


# --- all rows of one entity in the history of a source, and which of them a moment sees.


@dataclass(frozen=True)
class StoredRow:
    """One row of the history."""

    file: str
    event: datetime
    ingest: datetime
    values: Mapping[str, Any]
    """Its keys, columns and derived features, by field."""
    failed: Mapping[str, str]
    """Field to the error of its function."""


@dataclass(frozen=True)
class Sightings:
    """The rows of one entity, in the order of their ingest."""

    table: pa.Table
    """All columns of the history."""
    files: Sequence[str]
    """[n] the file of each row."""

    def newest(self) -> int | None:
        """The row that is seen when all of them are."""
        latest = pc.max(self.table[EVENT_TIME]).as_py()
        return None if latest is None else self.visible(latest, "event")

    def visible(self, at: datetime, as_of: AsOf) -> int | None:
        """The row that a moment sees, be it expired."""
        events, ingests = (microseconds(self.table[name].combine_chunks()) for name in (EVENT_TIME, INGEST_TIME))
        keys = pa.chunked_array([pa.array([""] * len(events), pa.string())])
        timeline = Timeline(keys, events, ingests, as_of=as_of)
        moment = np.array([micros(at)], np.int64)
        place = int(timeline.find(pa.array([""]), moment).rows[0])
        return None if place == NO_ROW else place

    def place_of(self, event: datetime, ingest: datetime) -> int | None:
        """The last row with these times."""
        found = [n for n in range(len(self.files)) if self._times(n) == (event, ingest)]
        return found[-1] if found else None

    def row(self, place: int) -> StoredRow:
        """A row."""
        [values] = self.table.slice(place, 1).to_pylist()
        event, ingest, failed = values.pop(EVENT_TIME), values.pop(INGEST_TIME), values.pop(FAILED)
        return StoredRow(self.files[place], event, ingest, values, orjson.loads(failed or "{}"))

    def chosen(self, place: int, at: datetime | None, as_of: AsOf) -> str:
        """Why this row is seen, and not another one."""
        event, ingest = self._times(place)
        others = [
            (other, ingested)
            for other, ingested in (self._times(n) for n in range(len(self.files)) if n != place)
            if at is None or (other <= at and (as_of == "event" or ingested <= at))
        ]
        reasons = [f"the newest of {len(others) + 1} rows" if others else "the only row"]
        if at is not None:
            reasons[0] += f" with event time <= {iso(at)}{' and ingested by then' if as_of == 'known' else ''}"
        if ties := [ingested for other, ingested in others if other == event]:
            same = ingest in ties
            how = "it was ingested last" if not same else "it stood last in what was ingested last"
            reasons.append(f"{len(ties) + 1} have this event time, of which {how}")
        return "; ".join(reasons)

    def _times(self, place: int) -> tuple[datetime, datetime]:
        return self.table[EVENT_TIME][place].as_py(), self.table[INGEST_TIME][place].as_py()


def sightings(storage: Storage, definitions: Definitions, source: Source, key: str) -> Sightings:
    """All rows of the entity of `source` that has this key; reads the key of every row of the history."""
    assert source.entity is not None
    schema, name_of_key = history.schema(definitions, source), source.entity.key

    def read(names: Sequence[str]) -> Sightings:
        tables, files = [schema.empty_table()], []
        for name in names:
            data = ds.dataset(storage.path(name), schema=schema, format="parquet", filesystem=storage.files)
            found = data.to_table(filter=pc.field(name_of_key) == key)
            tables.append(found)
            files += [name] * found.num_rows
        return Sightings(pa.concat_tables(tables), files)

    return history.reading(storage, source.name, read)
