"""All rows of one entity in the history of a source, and which of them a moment sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions
from modelmill.state.events import iso
from modelmill.storage import Storage
from services.feature.intake.derive import FAILED
from services.feature.intake.journal import EPOCH
from services.feature.intake.validate import EVENT_TIME
from services.feature.store import history
from services.feature.store.history import INGEST_TIME
from services.feature.training.spines import microseconds
from services.feature.training.visibility import NOTHING, AsOf, Timeline


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
        moment = np.array([(at - EPOCH) // timedelta(microseconds=1)], np.int64)
        place = int(timeline.find(pa.array([""]), moment).rows[0])
        return None if place == NOTHING else place

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
