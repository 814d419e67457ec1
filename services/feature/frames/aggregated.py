"""What a spine sees of windowed aggregates of one source by one entity: a value for each of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.declare.features import Aggregate
from modelmill.storage import Storage
from modelmill.windows import ROWS
from services.feature.frames import spines
from services.feature.frames.joins import STATUSES, AsOf, status_of
from services.feature.frames.spines import Spine
from services.feature.frames.windows import Rows, Windows, windows
from services.feature.frames.windows import Spine as Asked
from services.feature.rows.schema import ARROW, EVENT_TIME, microseconds
from services.feature.store import history
from services.feature.store.snapshots import Position, Snapshot

CHUNKS = 10
"""Chunks of a spine whose windows are looked up together."""


class Aggregated:
    """The aggregates `refs` of one source by one entity, as the rows of `spine` see them.

    Kept in memory are the source's rows about the spine's entities, and the values for `CHUNKS` chunks of the spine.
    """

    def __init__(
        self,
        storage: Storage,
        definitions: Definitions,
        refs: Sequence[FeatureRef],
        spine: Spine,
        *,
        as_of: AsOf = "event",
        detail: bool = False,
        at: Position | None = None,
    ) -> None:
        self._aggregates = {ref.name: ref.aggregate for ref in refs if ref.aggregate is not None}
        self._spine = spine
        self._as_of = as_of
        self._detail = detail
        first = next(iter(self._aggregates.values()))
        self._key = first.entity.key
        self._keys = _different(spine, self._key)
        snapshot = Snapshot.of(storage, definitions, first.source, at)
        schema = history.schema(definitions, first.source)
        self._rows, self._values = _rows(snapshot, schema, self._key, self._keys, self._columns())
        self._slab = -1
        self._found: dict[str, pa.Array] = {}

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that it adds to a frame."""
        found = []
        for name, aggregate in self._aggregates.items():
            found.append(pa.field(name, ARROW[aggregate.column.dtype]))
            if self._detail:
                found.append(pa.field(status_of(name), pa.string()))
        return found

    def columns(self, first: int, count: int) -> dict[str, pa.Array]:
        """Its columns for the spine's rows from number `first` on."""
        slab = CHUNKS * spines.ROWS_PER_CHUNK
        if first // slab != self._slab:
            self._slab = first // slab
            self._found = self._look_up(self._slab * CHUNKS)
        found: dict[str, pa.Array] = {}
        for name, values in self._found.items():
            found[name] = values.slice(first % slab, count)
            if self._detail:
                found[status_of(name)] = STATUSES.take(pc.if_else(found[name].is_valid(), 0, 1))
        return found

    def close(self) -> None:
        """It holds no file."""

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(a.reading.column for a in self._aggregates.values() if a.reading.column != ROWS))

    def _look_up(self, first: int) -> dict[str, pa.Array]:
        table = self._spine.table([self._spine.time, self._key], first, CHUNKS)
        asked = Asked(_codes(table[self._key], self._keys), microseconds(table[self._spine.time]))
        known: dict[Any, Windows] = {}
        found = {}
        for name, aggregate in self._aggregates.items():
            reading = aggregate.reading
            edges = (reading.window, reading.hop, reading.available_after)
            if edges not in known:
                known[edges] = windows(reading, self._rows, asked, self._as_of)
            values = known[edges].values(reading, self._values.get(reading.column))
            found[name] = _typed(values, aggregate)
        return found


def _typed(values: pa.Array, aggregate: Aggregate) -> pa.Array:
    return values.cast(ARROW[aggregate.column.dtype])


def _different(spine: Spine, key: str) -> pa.Array:
    """The different keys of a spine."""
    found = pa.array([], pa.string())
    for batch in spine.batches([key]):
        found = pc.unique(pa.concat_arrays([found, batch[key].cast(pa.string())]))
    return found.drop_null()


def _codes(keys: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """[n] position of each of n keys among those `known`; -1 for others and for null."""
    found = pc.index_in(keys.cast(pa.string()), known)
    codes: np.ndarray = pc.fill_null(pc.if_else(pc.is_null(keys), None, found), -1).to_numpy().astype(np.int64)
    return codes


def _rows(
    snapshot: Snapshot, schema: pa.Schema, key: str, keys: pa.Array, columns: list[str]
) -> tuple[Rows, dict[str, pa.Array]]:
    """The rows of a source about `keys`, and the values of their columns."""
    wanted = list(dict.fromkeys([key, EVENT_TIME, history.INGEST_TIME, *columns]))
    about = [batch.filter(pc.is_in(batch[key], keys)) for batch in snapshot.batches(wanted)]
    table = pa.Table.from_batches(about, pa.schema([schema.field(name) for name in wanted]))
    rows = Rows(_codes(table[key], keys), microseconds(table[EVENT_TIME]), microseconds(table[history.INGEST_TIME]))
    return rows, {name: table[name].combine_chunks() for name in columns}
