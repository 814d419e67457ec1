"""The spine of a training frame: keys and times, with what else came with them, kept in a file instead of in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import IO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions, extra_columns
from modelmill.errors import Conflict
from modelmill.storage import Storage
from services.feature.rows.schema import EVENT_TIME, microseconds, of_size
from services.feature.store import history
from services.feature.store.snapshots import Position, Snapshot

ROWS_PER_CHUNK = 100_000
"""Rows of a spine, and of the frame, that are in memory at a time."""
SORTED = 1_000_000
"""Rows that are sorted at a time."""


class Spine:
    """`rows` rows with a column `time` (microseconds, UTC, never null) and any others, in a file without a name."""

    def __init__(self, schema: pa.Schema, time: str, batches: Iterable[pa.RecordBatch]) -> None:
        self.schema = schema
        self.time = time
        self.rows = 0
        self.last: int | None = None
        """The latest time, microseconds since 1970; None where there are no rows."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it
        try:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(self._file, schema, options=options) as writer:
                for batch in of_size(batches, ROWS_PER_CHUNK):
                    latest = pc.max(batch[time]).cast(pa.int64()).as_py()
                    self.last = latest if self.last is None else max(self.last, latest)
                    self.rows += batch.num_rows
                    writer.write_batch(batch)
        except BaseException:
            self.close()
            raise

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in their order, `ROWS_PER_CHUNK` at a time; of all columns or only these."""
        reader = self._reader(columns)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    def table(self, columns: Sequence[str], first: int, chunks: int) -> pa.Table:
        """`columns` of `chunks` chunks from number `first` on, or of those that there are."""
        reader = self._reader(columns)
        last = min(first + chunks, reader.num_record_batches)
        return pa.Table.from_batches([reader.get_batch(number) for number in range(first, last)])

    def _reader(self, columns: Sequence[str] | None) -> pa.ipc.RecordBatchFileReader:
        self._file.seek(0)
        fields = None if columns is None else [self.schema.get_field_index(name) for name in columns]
        return pa.ipc.open_file(self._file, options=pa.ipc.IpcReadOptions(included_fields=fields or []))

    def close(self) -> None:
        """Drop the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def labelled(
    storage: Storage,
    definitions: Definitions,
    model: Model,
    *,
    start: datetime | None,
    end: datetime | None,
    at: Position | None = None,
) -> Spine:
    """The rows of the label's source with start <= event time < end, by event time; ties stay in the order of ingest.

    With `at`, only those of this position. Columns: `_event_time`, the join keys, the model's inputs, its labels, what
    its frame carries.

    Raises:
        Conflict: where there are no such rows.
    """
    source = definitions.label_source(model)
    wanted = history.schema(definitions, source)
    snapshot = Snapshot.of(storage, definitions, source, at)
    keys = [entity.key for entity in model.entities]
    columns = list(dict.fromkeys([EVENT_TIME, *keys, *model.inputs, *model.labels, *extra_columns(definitions, model)]))
    within = history.within(start, end)
    times = [microseconds(batch[0]) for batch in snapshot.batches([EVENT_TIME], within)]
    ordered = np.sort(np.concatenate([np.empty(0, np.int64), *times]))
    if not len(ordered):
        raise Conflict(
            f"source {source.name!r} has no rows to train {model.name!r} on"
            f"{f' from {start}' if start else ''}{f' until {end}' if end else ''}; ingest some first"
        )
    edges = [*np.unique(ordered[::SORTED]).tolist(), int(ordered[-1]) + 1]

    def batches() -> Iterator[pa.RecordBatch]:
        for first, after in pairwise(edges):
            table = snapshot.table(columns, history.within(first, after))
            yield from table.take(pc.sort_indices(table[EVENT_TIME])).to_batches()  # a stable sort

    return Spine(pa.schema([wanted.field(name) for name in columns]), EVENT_TIME, batches())
