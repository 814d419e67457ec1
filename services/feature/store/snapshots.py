"""The history of a source at one moment, to be read as often as needed, whatever is ingested or compacted meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import Definitions
from modelmill.storage import Storage
from services.feature.intake.derive import FAILED, derive, merged
from services.feature.intake.validate import EVENT_TIME
from services.feature.store import history
from services.feature.store.history import ATTEMPTS, INGEST_TIME, STAMP, FileSpan
from services.feature.store.positions import Position


class Snapshot:
    """The rows that were in a source's history when this was made, or at a former position.

    Rows are told by their ingest times: where files were compacted since, the same rows are found in the file that
    took their place, and in the same order.

    Args:
        schema: the columns, and how they are typed.
        at: leaves out what is not part of this position.
        fields: what is computed where a file lacks its column, as of definitions that are no longer in force.
    """

    def __init__(
        self,
        storage: Storage,
        schema: pa.Schema,
        source: str,
        *,
        at: Position | None = None,
        fields: Mapping[str, Feature] | None = None,
    ) -> None:
        self._storage = storage
        self._schema = schema
        self._source = source
        self._at = at
        self._fields = fields or {}
        spans = (FileSpan.of(name) for name in history.names(storage, source))
        self._spans = [span for span in spans if at is None or at.reaches(span)]

    @classmethod
    def of(cls, storage: Storage, definitions: Definitions, source: Source, at: Position | None = None) -> Snapshot:
        """That of a source as these definitions declare it."""
        schema = history.schema(definitions, source)
        return cls(storage, schema, source.name, at=at, fields=definitions.derived(source.name))

    def count(self) -> int:
        """The number of all rows; whole files tell theirs without being read."""
        found, parts = 0, False
        for name, span in self._files(after=""):
            if span in self._spans and self._whole(span):
                found += history.count_rows(self._storage, name)
            else:
                parts = True
        return sum(batch.num_rows for batch in self.batches([INGEST_TIME])) if parts else found

    def batches(
        self, columns: Sequence[str], within: pc.Expression | None = None, *, after: str = ""
    ) -> Iterator[pa.RecordBatch]:
        """`columns` of all rows, or of those `within`: the same rows in the same order at every call.

        `after` is an ingest time as names of files tell it (`STAMP`): what came in until then is not even looked for.

        A column that a file lacks is null there.

        Raises:
            FileNotFoundError: where files were compacted away while they were looked for, `ATTEMPTS` times in a row.
        """
        done, attempt = after, 0
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

    def _whole(self, span: FileSpan) -> bool:
        return self._at is None or self._at.holds_all(span)

    def _read(
        self, file: object, span: FileSpan, after: str, columns: Sequence[str], within: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        own = span in self._spans and after < span.first
        if self._at is not None and not self._whole(span):
            within = self._at.rows if within is None else within & self._at.rows
        fragment = ds.ParquetFileFormat().make_fragment(file)
        lacking = {name: self._fields[name] for name in columns if name in self._fields}
        lacking = {name: feature for name, feature in lacking.items() if name not in fragment.physical_schema.names}
        wanted = list(dict.fromkeys([*columns, *([] if own else [INGEST_TIME]), *self._inputs(lacking)]))
        for batch in fragment.to_batches(schema=self._schema, columns=wanted, filter=within, batch_readahead=2):
            rows = batch if own else batch.filter(pa.array(self._mine(batch[INGEST_TIME], after)))
            if rows.num_rows:
                yield (_computed(rows, self._inputs(lacking), lacking) if lacking else rows).select(list(columns))

    def _inputs(self, lacking: Mapping[str, Feature]) -> list[str]:
        """What functions see: join keys and columns."""
        beside = {EVENT_TIME, INGEST_TIME, FAILED, *self._fields}
        return [name for name in self._schema.names if name not in beside] if lacking else []

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


def _computed(rows: pa.RecordBatch, inputs: list[str], fields: Mapping[str, Feature]) -> pa.RecordBatch:
    """The rows with the values of `fields`, which their file lacks, and with what fails of them."""
    derived = derive(pa.Table.from_batches([rows.select(inputs)]), fields)
    columns = dict(zip(rows.schema.names, rows.columns, strict=True)) | derived.columns
    if FAILED in columns:
        columns[FAILED] = merged(pa.chunked_array([columns[FAILED]]), derived.failed).combine_chunks()
    return pa.record_batch([columns[name] for name in rows.schema.names], rows.schema)
