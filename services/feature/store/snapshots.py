"""The history of a source at one moment, to be read as often as needed, whatever is ingested or compacted meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from modelmill.storage import Storage
from services.feature.store import history
from services.feature.store.history import ATTEMPTS, INGEST_TIME, STAMP, FileSpan


class Snapshot:
    """The rows that were in a source's history when this was made.

    Rows are told by their ingest times: where files were compacted since, the same rows are found in the file that
    took their place, and in the same order.
    """

    def __init__(self, storage: Storage, schema: pa.Schema, source: str) -> None:
        self._storage = storage
        self._schema = schema
        self._source = source
        self._spans = [FileSpan.of(name) for name in history.names(storage, source)]

    def batches(self, columns: Sequence[str], within: pc.Expression | None = None) -> Iterator[pa.RecordBatch]:
        """`columns` of all rows, or of those `within`: the same rows in the same order at every call.

        A column that a file lacks is null there.

        Raises:
            FileNotFoundError: where files were compacted away while they were looked for, `ATTEMPTS` times in a row.
        """
        done, attempt = "", 0
        while True:
            try:
                for name, span in self._files(after=done):
                    with self._storage.files.open(self._storage.path(name)) as file:  # readable though it be removed
                        yield from self._read(file, span, done, columns, within)
                    done, attempt = span.last, 0
                return
            except FileNotFoundError:
                attempt += 1
                if attempt == ATTEMPTS:
                    raise

    def table(self, columns: Sequence[str], within: pc.Expression | None = None) -> pa.Table:
        """What `batches` yields, as one table."""
        schema = pa.schema([self._schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(columns, within), schema)

    def _files(self, after: str) -> list[tuple[str, FileSpan]]:
        """The files that hold rows of this snapshot from behind the ingest time `after` on."""
        if not self._spans:
            return []
        found = ((name, FileSpan.of(name)) for name in history.names(self._storage, self._source))
        last = self._spans[-1].last
        return [(name, span) for name, span in found if after < span.last and span.first <= last]

    def _read(
        self, file: object, span: FileSpan, after: str, columns: Sequence[str], within: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        own = span in self._spans and after < span.first
        wanted = list(columns) if own or INGEST_TIME in columns else [*columns, INGEST_TIME]
        fragment = ds.ParquetFileFormat().make_fragment(file)
        for batch in fragment.to_batches(schema=self._schema, columns=wanted, filter=within, batch_readahead=2):
            rows = batch if own else batch.filter(pa.array(self._mine(batch[INGEST_TIME], after)))
            if rows.num_rows:
                yield rows.select(list(columns))

    def _mine(self, ingested: pa.Array, after: str) -> np.ndarray:
        """[n] which of n ingest times are of this snapshot and come after `after`."""
        firsts = np.array([_microseconds(span.first) for span in self._spans])
        lasts = np.array([_microseconds(span.last) for span in self._spans])
        times = ingested.cast(pa.int64()).to_numpy()
        at = np.searchsorted(firsts, times, "right") - 1
        mine: np.ndarray = (at >= 0) & (times <= lasts[at]) & (times > (_microseconds(after) if after else -1))
        return mine


def _microseconds(stamp: str) -> int:
    moment = datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
