"""The history of a source at one moment, to be read as often as needed, whatever is ingested or compacted meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from modelmill import times
from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import Definitions
from modelmill.errors import InvalidRequest
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from modelmill.times import iso
from services.feature.rows.derive import FAILED, derive, merged
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import history, journal
from services.feature.store.history import ATTEMPTS, INGEST_TIME, STAMP, FileSpan


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
    return times.micros(datetime.fromisoformat(stamp))


def _computed(rows: pa.RecordBatch, inputs: list[str], fields: Mapping[str, Feature]) -> pa.RecordBatch:
    """The rows with the values of `fields`, which their file lacks, and with what fails of them."""
    derived = derive(pa.Table.from_batches([rows.select(inputs)]), fields)
    columns = dict(zip(rows.schema.names, rows.columns, strict=True)) | derived.columns
    if FAILED in columns:
        columns[FAILED] = merged(pa.chunked_array([columns[FAILED]]), derived.failed).combine_chunks()
    return pa.record_batch([columns[name] for name in rows.schema.names], rows.schema)


# --- a position in the history of a source: which of its rows there were at a moment, told so that they are found
# again.
#
# That is the ingest time of the newest row, and those of the ingests before it that had not ended by then: their rows
# may come into the history later, before those of others.

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
    until = datetime.fromisoformat(last)
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
