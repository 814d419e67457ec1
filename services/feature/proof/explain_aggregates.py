"""Why an entity's windowed aggregates are what they are: of each the window, and how many rows lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.declare.features import Aggregate
from modelmill.storage import Storage
from modelmill.times import iso, micros, moment
from modelmill.windows import ROWS, SECOND
from services.feature.frames.frames import Wanted, spine_frame
from services.feature.frames.joins import AsOf
from services.feature.frames.spines import Spine
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import history
from services.feature.store.snapshots import Snapshot


@dataclass(frozen=True)
class Explained:
    """One value and why it is so."""

    value: Any
    status: str
    """present, missing, expired or failed."""
    why: str
    source: str
    field: str
    """Under which it is stored; of a derived feature with its version, of an aggregate the group of its tiles."""
    event_time: str | None
    ingest_time: str | None
    age_seconds: float | None
    """Of the row that it comes from; of an aggregate, of the newest row in its window."""


def explain_aggregates(
    storage: Storage,
    definitions: Definitions,
    entity: str,
    key: str,
    at: datetime,
    as_of: AsOf | None,
    served: Mapping[str, Any],
) -> dict[str, Explained]:
    """The aggregates of one entity at a time; where `as_of` is None those that are `served` now, with what the history
    says of them."""
    refs = [ref for ref in definitions.features_of(entity).values() if ref.aggregate is not None]
    if not refs:
        return {}
    offline = _values(storage, definitions, refs, key, at, as_of or "event")
    return {
        ref.name: _explained(storage, definitions, ref, ref.aggregate, key, at, as_of, offline[ref.name], served)
        for ref in refs
        if ref.aggregate is not None
    }


def _values(
    storage: Storage, definitions: Definitions, refs: Sequence[FeatureRef], key: str, at: datetime, as_of: AsOf
) -> dict[str, Any]:
    """What a training frame says."""
    join_key = definitions.entity(refs[0].entity).key
    table = pa.table({join_key: [key], EVENT_TIME: pa.array([at], TIME)})
    with spine_frame(
        storage, definitions, Spine(table.schema, EVENT_TIME, table.to_batches()), Wanted(refs, as_of)
    ) as frame:
        [row] = frame.table().to_pylist()
    return {ref.name: row[ref.name] for ref in refs}


def _explained(
    storage: Storage,
    definitions: Definitions,
    ref: FeatureRef,
    aggregate: Aggregate,
    key: str,
    at: datetime,
    as_of: AsOf | None,
    offline: Any,
    served: Mapping[str, Any],
) -> Explained:
    reading = aggregate.reading
    end = reading.end(micros(at))
    rows = _rows(storage, definitions, aggregate, key, end - reading.window * SECOND, end, at, as_of)
    newest = max(rows.to_pylist(), key=lambda row: (row[EVENT_TIME], row[history.INGEST_TIME]), default=None)
    value = served.get(ref.name) if as_of is None else offline
    why = (
        f"{reading.function} of {len(rows)} rows of source {ref.source!r} with"
        f" {iso(moment(end - reading.window * SECOND))} <= event time < {iso(moment(end))}, edges at whole"
        f" {times.duration_text(reading.hop)}"
    )
    if reading.available_after:
        why += f", {times.duration_text(reading.available_after)} before now"
    if as_of is None and repr(value) != repr(offline):
        why += f"; but the history says {offline!r}"
    return Explained(
        value,
        "missing" if value is None else "present",
        why,
        ref.source,
        definitions.tile_group(aggregate).name,
        iso(newest[EVENT_TIME]) if newest else None,
        iso(newest[history.INGEST_TIME]) if newest else None,
        (at - newest[EVENT_TIME]).total_seconds() if newest else None,
    )


def _rows(
    storage: Storage,
    definitions: Definitions,
    aggregate: Aggregate,
    key: str,
    start: int,
    end: int,
    at: datetime,
    as_of: AsOf | None,
) -> pa.Table:
    """The rows in a window that have a value, with their times."""
    source, column = aggregate.source, aggregate.reading.column
    within = history.within(start, end) & (pc.field(aggregate.entity.key) == key)
    if column != ROWS:
        within &= pc.field(column).is_valid()
    if as_of == "known":
        within &= pc.field(history.INGEST_TIME) <= pa.scalar(at, TIME)
    snapshot = Snapshot(storage, history.schema(definitions, source), source.name)
    return snapshot.table([EVENT_TIME, history.INGEST_TIME], within)
