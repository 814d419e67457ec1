"""Request bodies in, columns out: CSV, JSON, NDJSON and Parquet, not yet checked against any source."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelmill.errors import InvalidRequest, MalformedBody, Rejection, TooLarge, UnsupportedContent
from modelmill.http.bodies import may_repeat_names, names_of_objects
from services.feature.intake.csv_table import CsvRows, CsvTable
from services.feature.rows.schema import YEARS

MAX_ROWS, MAX_COLUMNS = 1_000_000, 1_000
"""Of one body, however small it was packed."""
MAX_SECONDS = 2**63 // 1_000_000
"""Since 1970, or before, that microseconds of 64 bits can count."""
PANDAS_INDEX = "__index_level_0__"
"""What pandas calls an unnamed index when it writes Parquet; left out."""


@dataclass(frozen=True)
class RawRows:
    """Columns as they came: Arrow arrays from CSV (text) and Parquet (typed), lists of Python values from JSON."""

    columns: dict[str, pa.ChunkedArray | list[Any]]
    numbers: list[int] | range
    """The number of each row in the body, counted from 1."""
    is_text: bool = False
    """All values are text that still has to be parsed, as in CSV."""
    broken: list[Rejection] = field(default_factory=list)
    """Rows that could not even be split into columns."""
    broken_texts: dict[int, str] = field(default_factory=dict)
    """Number of a broken row to its text, cut where it is long."""

    @property
    def total(self) -> int:
        """Rows in the body, broken ones included."""
        return len(self.numbers) + len(self.broken)


def decode(body: bytes, content_type: str) -> RawRows:
    """Read `body` in the format that `content_type` names.

    Raises:
        UnsupportedContent: for a content type that is none of `DECODERS`.
        MalformedBody: where the body is not what its content type says, or is cut off.
        InvalidRequest: where a column is named twice.
        TooLarge: for more than `MAX_ROWS` rows or `MAX_COLUMNS` columns.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in DECODERS:
        raise UnsupportedContent(content_type, DECODERS)
    if not body:
        raise MalformedBody("the body is empty; expected rows")
    return DECODERS[kind](body)


def _csv(body: bytes) -> RawRows:
    csv = CsvTable(body)
    check_names(csv.header)
    parts: list[CsvRows] = []
    total = 0
    for rows in csv.rows():
        parts.append(rows)
        total += len(rows.numbers) + len(rows.broken)
        _check_size(total)
    table = pa.concat_tables([csv.schema.empty_table(), *(rows.table for rows in parts)])
    broken = [rejection for rows in parts for rejection in rows.broken]
    numbers = range(1, total + 1) if not broken else np.concatenate([rows.numbers for rows in parts]).tolist()
    texts = {number: text for rows in parts for number, text in rows.broken_texts.items()}
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return RawRows(columns, numbers, is_text=True, broken=broken, broken_texts=texts)


def _parquet(body: bytes) -> RawRows:
    try:
        file = open_parquet(io.BytesIO(body))
        _check_size(file.metadata.num_rows)
        check_names(file.schema_arrow.names)
        table = file.read()
        check_content(table.columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None
    return RawRows(_columns(table), range(1, table.num_rows + 1))


def _json(body: bytes) -> RawRows:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if may_repeat_names(body, content):
        names_of_objects([body], check_names)
    if isinstance(content, dict):
        content = content["rows"] if set(content) == {"rows"} else [content]
    return _objects(content)


def _ndjson(body: bytes) -> RawRows:
    rows, lines = [], body.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise MalformedBody(f"line {number} is not JSON: {error}") from None
    if may_repeat_names(body, rows):
        names_of_objects(filter(bytes.strip, lines), check_names)
    return _objects(rows)


def _objects(rows: Any) -> RawRows:
    """Objects as columns."""
    if not isinstance(rows, list):
        raise MalformedBody(f"the body is a JSON {type(rows).__name__}; expected an object or a list of objects")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise MalformedBody(f"row {number} is a JSON {type(row).__name__}; expected an object")
    _check_size(len(rows))
    names = dict.fromkeys(chain.from_iterable(rows))
    if len(names) > MAX_COLUMNS:
        raise TooLarge("columns", len(names), MAX_COLUMNS)
    return RawRows({name: [row.get(name) for row in rows] for name in names}, range(1, len(rows) + 1))


def open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    """A Parquet file whose INT96 times are read in microseconds: in Arrow's nanoseconds the year 2263 becomes 1678.

    Raises:
        InvalidRequest: for such a time that even microseconds cannot count, by its row and column.
        pyarrow.ArrowException, OSError: where it is none.
    """
    parquet = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
    leaves = map(parquet.schema.column, range(len(parquet.schema)))
    names = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    if not names:
        return parquet
    first = 1
    for batch in pq.ParquetFile(file, coerce_int96_timestamp_unit="s").iter_batches(columns=names):  # it holds them all
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_timestamp(values.type):
                seconds = pc.fill_null(values.view(pa.int64()), 0).to_numpy()
                if len(far := np.flatnonzero(np.abs(seconds) > MAX_SECONDS)):
                    row = first + int(far[0])
                    raise InvalidRequest(f"row {row}, column {name!r}: expected {YEARS}", row=row, column=name)
        first += batch.num_rows
    return parquet


def check_content(columns: Iterable[pa.Array | pa.ChunkedArray]) -> None:
    """Raise pyarrow.ArrowInvalid for text that is not UTF-8."""
    for values in columns:
        if not pa.types.is_time(values.type):  # of which Arrow calls 24:00 invalid, which others write
            values.validate(full=True)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What values of a type are as such: categories are their values, UUIDs text."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if isinstance(kind, pa.UuidType) or pa.types.is_string_view(kind) else kind


def plain(values: pa.Array) -> pa.Array:
    """The values as their `plain_type`."""
    if isinstance(values.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    kind = plain_type(values.type)
    return values if kind == values.type else values.cast(kind)


def _columns(table: pa.Table) -> dict[str, Any]:
    return {
        name: pa.chunked_array(map(plain, table[name].chunks), plain_type(table[name].type))
        for name in table.column_names
        if name != PANDAS_INDEX
    }


def _check_size(rows: int) -> None:
    if rows > MAX_ROWS:
        raise TooLarge("rows", rows, MAX_ROWS)


def check_names(names: Sequence[str | None]) -> None:
    """Refuse more than `MAX_COLUMNS` columns, and two of one name; those of which it is None have none."""
    if len(names) > MAX_COLUMNS:
        raise TooLarge("columns", len(names), MAX_COLUMNS)
    if twice := [name for name, count in Counter(names).items() if count > 1 and name is not None]:
        raise InvalidRequest(f"column {twice[0]!r} is there {names.count(twice[0])} times; expected once")


DECODERS: dict[str, Callable[[bytes], RawRows]] = {
    "text/csv": _csv,
    "application/json": _json,
    "application/x-ndjson": _ndjson,
    "application/vnd.apache.parquet": _parquet,
}
"""Content type to the function that reads it."""
