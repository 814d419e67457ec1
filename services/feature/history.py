"""The append-only history of each source, as Parquet files that any Parquet reader understands.

    history/{source}/day=2026-11-23/20261123T234708.123456Z-{random}.parquet

One ingest request is one file, so that it is there whole or not at all; the day and the name are those of the ingest,
so that names in order are rows in the order of their ingest. Beside the source's columns and derived features a row
has `_event_time`, `_ingest_time` (UTC, microseconds) and `_failed`. The file's schema metadata holds, under
`modelmill.features`, the version of each derived feature as JSON.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from modelmill.declarations import Column, Source
from modelmill.definitions import Definitions
from modelmill.storage import Storage
from services.feature.derive import FAILED
from services.feature.validate import ARROW, EVENT_TIME, TIME

INGEST_TIME = "_ingest_time"
VERSIONS = b"modelmill.features"


def schema(definitions: Definitions, source: Source) -> pa.Schema:
    """The columns of a source's history: join keys, declared columns, derived features, times, failures."""
    columns: dict[str, Column] = definitions.columns(source)
    return pa.schema(
        [
            *((entity.key, pa.string()) for entity in source.entities),
            *((name, ARROW[column.dtype]) for name, column in columns.items()),
            (EVENT_TIME, TIME),
            (INGEST_TIME, TIME),
            (FAILED, pa.string()),
        ]
    )


def versions(definitions: Definitions, source: Source) -> dict[str, str]:
    """The version of each derived feature of a source."""
    return {name: feature.version for name, feature in definitions.features[source.name].items()}


def append(storage: Storage, source: str, table: pa.Table, features: dict[str, str], now: datetime) -> str:
    """Store `table` durably as one file and return its name."""
    name = f"{_folder(source)}/day={now:%Y-%m-%d}/{now:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}.parquet"
    write(storage, name, table, features)
    return name


def write(storage: Storage, name: str, table: pa.Table, features: dict[str, str]) -> None:
    """Store `table` under `name`, whose features were computed by these versions; replaces what was there."""
    with storage.writing(name) as file:
        pq.write_table(table.replace_schema_metadata({VERSIONS: orjson.dumps(features)}), file, compression="zstd")


def names(storage: Storage, source: str) -> list[str]:
    """All files of a source in the order of their ingest."""
    return storage.names(_folder(source), ".parquet")


def stored_versions(storage: Storage, name: str) -> dict[str, str]:
    """The feature versions that a file's features were computed by."""
    with storage.files.open(storage.path(name)) as file:
        metadata = pq.read_schema(file).metadata or {}
    versions: dict[str, str] = orjson.loads(metadata.get(VERSIONS, b"{}"))
    return versions


def undeclared(storage: Storage, wanted: pa.Schema, name: str) -> pa.Table:
    """The columns of a file that are neither in `wanted` nor computed: their source declared them once."""
    computed = stored_versions(storage, name)
    with storage.files.open(storage.path(name)) as file:
        stored = pq.ParquetFile(file)
        names = [column for column in stored.schema_arrow.names if column not in wanted.names]
        return stored.read(columns=[column for column in names if column not in computed])


def read(
    storage: Storage,
    definitions: Definitions,
    source: Source,
    columns: Sequence[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """The rows of a source with start <= event time < end, in the order of their ingest.

    A column that was added after a row was ingested is null there.
    """
    files = names(storage, source.name)
    return read_files(storage, schema(definitions, source), files, columns, within(start, end))


def within(start: datetime | int | None, end: datetime | int | None) -> pc.Expression:
    """That start <= event time < end; whole numbers are microseconds since 1970."""
    found = pc.scalar(True)
    if start is not None:
        found &= pc.field(EVENT_TIME) >= pa.scalar(start, TIME)
    if end is not None:
        found &= pc.field(EVENT_TIME) < pa.scalar(end, TIME)
    return found


def stored_column(definitions: Definitions, source: str, feature: str) -> str:
    """The column of a source's history that holds a feature."""
    return definitions.columns(definitions.source(source))[feature].name


def read_files(
    storage: Storage, wanted: pa.Schema, files: Sequence[str], columns: Sequence[str], within: pc.Expression = None
) -> pa.Table:
    """`columns` of some history files, as `wanted` types them; a column that a file lacks is null there."""
    if not files:
        return wanted.empty_table().select(list(columns))
    return _dataset(storage, wanted, files).to_table(columns=list(columns), filter=within)


def batches(
    storage: Storage, wanted: pa.Schema, files: Sequence[str], columns: Sequence[str], within: pc.Expression = None
) -> Iterator[pa.RecordBatch]:
    """What `read_files` reads, piece by piece: the same rows in the same order at every call."""
    if files:
        found = _dataset(storage, wanted, files)
        yield from found.to_batches(columns=list(columns), filter=within, batch_readahead=2, fragment_readahead=1)


def _dataset(storage: Storage, wanted: pa.Schema, files: Sequence[str]) -> ds.Dataset:
    paths = [storage.path(name) for name in files]
    return ds.dataset(paths, schema=wanted, format="parquet", filesystem=storage.files)


def _folder(source: str) -> str:
    return f"history/{source}"
