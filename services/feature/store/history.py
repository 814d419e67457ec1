"""The append-only history of each source, as Parquet files that any Parquet reader understands.

    history/{source}/day=2026-11-23/20261123T234708.123456Z-3fa2c1d0.parquet                one ingest request
                                    20261123T000000.000000Z--20261123T234708.123456Z.parquet    many, compacted

One ingest request is one file, so that it is there whole or not at all; the day and the name are those of its ingest
time, which no other request of the source has, so that names in order are rows in the order of their ingest. Beside
keys, columns and derived features (as `name@version`) a row has `_event_time`, `_ingest_time` (UTC, microseconds) and
`_failed`, the features that failed on it with their errors, as JSON. A file whose rows were not computed with a
feature lacks its column.

A compacted file takes the place of all files whose ingest times lie in its own span; those left by a compaction that
was killed are therefore no part of the history any more.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from modelmill.columns.types import Column
from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict
from modelmill.storage import Storage
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import ARROW, EVENT_TIME, TIME

ROOT = "history"
"""The folder with a folder for each source."""
INGEST_TIME = "_ingest_time"
SUFFIX = ".parquet"
SPAN = "--"
STAMP = "%Y%m%dT%H%M%S.%fZ"
DIGITS = 8
"""Of a request's digest, in the name of its file."""
ATTEMPTS = 5
"""How often a reading is begun again because a file was compacted away meanwhile."""

ABOUT = b"modelmill"
"""In the metadata of a file: what its rows are about, as `about` says it."""

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class FileSpan:
    """What the name of a history file says: the first and the last ingest time in it, as in the name."""

    first: str
    last: str

    @classmethod
    def of(cls, name: str) -> FileSpan:
        """Read the name of a file."""
        stem = posixpath.basename(name).removesuffix(SUFFIX)
        first, compacted, last = stem.partition(SPAN)
        return cls(first, last) if compacted else cls(stem.partition("-")[0], stem.partition("-")[0])


def schema(definitions: Definitions, source: Source, derived: Iterable[tuple[str, Column]] | None = None) -> pa.Schema:
    """The columns of a source's history: join keys, declared columns, derived features, times, failures.

    `derived` are fields beside the declared columns; by default the derived features of `definitions`.
    """
    if derived is None:
        derived = [(field, feature.column) for field, feature in definitions.derived(source.name).items()]
    return pa.schema(
        [
            *schema_of_rows(source),
            *((field, ARROW[column.dtype]) for field, column in derived),
            (EVENT_TIME, TIME),
            (INGEST_TIME, TIME),
            (FAILED, pa.string()),
        ]
    )


def schema_of_rows(source: Source) -> pa.Schema:
    """What comes with a row, beside its time: join keys and declared columns."""
    return pa.schema(
        [
            *((entity.key, pa.string()) for entity in source.entities),
            *((name, ARROW[column.dtype]) for name, column in source.columns.items()),
        ]
    )


def about(source: Source) -> str:
    """What a source's rows are about and where their times come from: rows under another rule are other rows."""
    entities = " and ".join(f"{entity.name} by {entity.key}" for entity in source.entities)
    return f"{entities}, {f'at their {source.event_time}' if source.event_time else 'at their ingest'}"


def name_of(source: str, ingested: datetime, digest: str) -> str:
    """The name of the file of one ingest request."""
    return f"{folder(source)}/day={ingested:%Y-%m-%d}/{ingested:{STAMP}}-{digest[:DIGITS]}{SUFFIX}"


def write(storage: Storage, name: str, table: pa.Table, *, confirm: Callable[[], bool] = lambda: True) -> None:
    """Store `table` durably under `name`; replaces what was there, unless `confirm` says no just before.

    Of the metadata of its schema what it says under `ABOUT` is kept.

    Raises:
        Conflict: where it says no; nothing was changed.
    """
    kept = {name: text for name, text in (table.schema.metadata or {}).items() if name == ABOUT}
    with storage.writing(name) as file:
        pq.write_table(table.replace_schema_metadata(kept), file, compression="zstd")
        if not confirm():
            raise Conflict(f"others are rewriting {posixpath.dirname(name)} by now; nothing was changed")


def names(storage: Storage, source: str) -> list[str]:
    """All files of a source in the order of their ingest."""
    return current(storage.names(folder(source), SUFFIX))


def current(found: Iterable[str]) -> list[str]:
    """Those of the files that no compacted one among them has taken the place of, in the order of their ingest."""
    kept: list[str] = []
    until = ""  # the last ingest time of the compacted file that was met last
    for span, name in sorted(((FileSpan.of(name), name) for name in found), key=_from_the_widest):
        if span.last <= until:
            continue
        kept.append(name)
        if span.first != span.last:
            until = span.last
    return kept


def holding(storage: Storage, source: str, ingested: datetime) -> str | None:
    """The name of the file that holds the rows of the request with this ingest time, if there is one."""
    stamp = f"{ingested:{STAMP}}"
    for name in names(storage, source):
        span = FileSpan.of(name)
        if span.first <= stamp <= span.last:
            return name
    return None


def rows_of(storage: Storage, name: str, ingested: datetime, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one request in a file, which may be a compacted one; a column that it lacks is left out."""
    table = read_whole(storage, name, columns if columns is None else [*columns, INGEST_TIME])
    return table.filter(pc.equal(table[INGEST_TIME], pa.scalar(ingested, TIME)))


def of_ingest(storage: Storage, source: str, ingested: datetime, columns: Sequence[str]) -> pa.Table:
    """`columns` of the rows that are left of the request with this ingest time; of none where a column is not there."""

    def read_file(_: Sequence[str]) -> pa.Table:
        name = holding(storage, source, ingested)
        table = None if name is None else rows_of(storage, name, ingested, columns)
        if table is None or not set(columns) <= set(table.column_names):
            return pa.table({column: pa.array([], pa.string()) for column in columns})
        return table

    return reading(storage, source, read_file)


def stored_columns(storage: Storage, name: str) -> list[str]:
    """The columns of a file."""
    columns: list[str] = stored_schema(storage, name).names
    return columns


def stored_schema(storage: Storage, name: str) -> pa.Schema:
    """The columns of a file with their types, and what it is about."""
    with storage.files.open(storage.path(name)) as file:
        return pq.read_schema(file)


def all_columns(storage: Storage) -> set[str]:
    """The columns of all files of all sources, also of those that are not declared any more."""
    return {column for name in storage.names(ROOT, SUFFIX) for column in stored_columns(storage, name)}


def count_rows(storage: Storage, name: str) -> int:
    """The rows of a file."""
    with storage.files.open(storage.path(name)) as file:
        return int(pq.read_metadata(file).num_rows)


def read_whole(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a file, with all its columns or with some.

    Raises:
        FileNotFoundError: where it was compacted away meanwhile.
    """
    with storage.files.open(storage.path(name)) as file:
        return pq.read_table(file, columns=columns)


def read(
    storage: Storage,
    wanted: pa.Schema,
    source: str,
    columns: Sequence[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """`columns` of the rows of a source with start <= event time < end, as `wanted` types them, in the order of ingest.

    A column that a file lacks is null there.
    """

    def read_files(files: Sequence[str]) -> pa.Table:
        if not files:
            return wanted.empty_table().select(list(columns))
        paths = [storage.path(name) for name in files]
        dataset = ds.dataset(paths, schema=wanted, format="parquet", filesystem=storage.files)
        return dataset.to_table(columns=list(columns), filter=within(start, end))

    return reading(storage, source, read_files)


def within(start: datetime | int | None, end: datetime | int | None) -> pc.Expression:
    """That start <= event time < end; whole numbers are microseconds since 1970."""
    found = pc.scalar(True)
    if start is not None:
        found &= pc.field(EVENT_TIME) >= pa.scalar(start, TIME)
    if end is not None:
        found &= pc.field(EVENT_TIME) < pa.scalar(end, TIME)
    return found


def reading(storage: Storage, source: str, read_files: Callable[[Sequence[str]], T]) -> T:
    """What `read_files` reads from the files of a source; begun again where one was compacted away meanwhile.

    Raises:
        FileNotFoundError: where that happened at each of `ATTEMPTS` attempts.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return read_files(names(storage, source))
        except FileNotFoundError:
            continue
    return read_files(names(storage, source))


def folder(source: str) -> str:
    """Where the files of a source lie."""
    return f"{ROOT}/{source}"


def _from_the_widest(found: tuple[FileSpan, str]) -> tuple[str, list[int]]:
    """Order by first ingest time, of those with the same the longest span first."""
    span, _ = found
    return span.first, [-ord(letter) for letter in span.last]
