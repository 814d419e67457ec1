"""Request bodies in, columns out: CSV, JSON, NDJSON and Parquet, not yet checked against any source."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from modelmill.errors import InvalidRequest, MalformedBody, Rejection, TooLarge, UnsupportedContent

MAX_ROWS, MAX_COLUMNS = 1_000_000, 1_000
"""Of one body, however small it was packed."""
MAX_BROKEN_TEXT = 4096
"""Characters of a broken line that are remembered."""
MAX_BROKEN = 10_000
"""Lines with a wrong number of columns, above which a body is not taken for CSV at all."""
INDEX_COLUMNS = ("", "__index_level_0__")
"""What pandas calls an unnamed index when it writes CSV or Parquet; left out."""


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
    broken: list[Rejection] = []
    texts: dict[int, str] = {}

    def on_broken(row: Any) -> str:
        reason = f"has {row.actual_columns} columns; expected {row.expected_columns}"
        broken.append(Rejection(row.number - 1, "", row.text[:80], reason))
        texts[row.number - 1] = row.text[:MAX_BROKEN_TEXT]
        return "skip" if len(broken) < MAX_BROKEN else "error"

    if body.count(b'"') % 2:
        raise MalformedBody("the body is not complete CSV: a quoted value in it does not end")
    try:
        body.decode()  # Arrow checks values alone, and not those of broken lines
        lines = csv.reader(io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline=""))
        names = next((line for line in lines if line), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedBody(f"the body is not CSV in UTF-8: {error}") from None
    check_names(names)
    try:
        table = pa_csv.read_csv(
            io.BytesIO(body),
            read_options=pa_csv.ReadOptions(use_threads=False),  # with threads Arrow does not number broken rows
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_broken),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise MalformedBody(f"the body is not complete CSV: {error}") from None
    skipped = {row.row for row in broken}
    total = table.num_rows + len(broken)
    _check_size(total)
    numbers = [n for n in range(1, total + 1) if n not in skipped] if skipped else range(1, total + 1)
    return RawRows(_columns(table), numbers, is_text=True, broken=broken, broken_texts=texts)


def _parquet(body: bytes) -> RawRows:
    try:
        file = pq.ParquetFile(io.BytesIO(body))
        _check_size(file.metadata.num_rows)
        check_names(file.schema_arrow.names)
        table = file.read()
        table.validate(full=True)  # text that is not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None
    return RawRows(_columns(table), range(1, table.num_rows + 1))


def _json(body: bytes) -> RawRows:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if isinstance(content, dict):
        content = content["rows"] if set(content) == {"rows"} else [content]
    return _objects(content, body, [body])


def _ndjson(body: bytes) -> RawRows:
    rows, lines = [], body.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise MalformedBody(f"line {number} is not JSON: {error}") from None
    return _objects(rows, body, filter(bytes.strip, lines))


def _objects(rows: Any, body: bytes, documents: Iterable[bytes]) -> RawRows:
    """Objects as columns; `documents` are the JSON texts in `body` that they were read from."""
    if not isinstance(rows, list):
        raise MalformedBody(f"the body is a JSON {type(rows).__name__}; expected an object or a list of objects")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise MalformedBody(f"row {number} is a JSON {type(row).__name__}; expected an object")
    _check_size(len(rows))
    names = Counter(chain.from_iterable(rows))
    if len(names) > MAX_COLUMNS:
        raise TooLarge("columns", len(names), MAX_COLUMNS)
    if any(body.count(orjson.dumps(name)) > count for name, count in names.items()):  # as names, or as values
        _refuse_repeated_names(documents)
    return RawRows({name: [row.get(name) for row in rows] for name in names}, range(1, len(rows) + 1))


def _columns(table: pa.Table) -> dict[str, Any]:
    columns = {name: table[name] for name in table.column_names if name not in INDEX_COLUMNS}
    return {name: c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for name, c in columns.items()}


def _refuse_repeated_names(documents: Iterable[bytes]) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        check_names([name for name, _ in pairs])

    try:
        for document in documents:
            json.loads(document, object_pairs_hook=check, parse_int=str)  # str: whatever their length
    except RecursionError:
        raise MalformedBody("the body is not a list of flat objects: it is nested too deeply") from None


def _check_size(rows: int) -> None:
    if rows > MAX_ROWS:
        raise TooLarge("rows", rows, MAX_ROWS)


def check_names(names: list[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise TooLarge("columns", len(names), MAX_COLUMNS)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidRequest(f"column {twice[0]!r} is there {names.count(twice[0])} times; expected once")


DECODERS: dict[str, Callable[[bytes], RawRows]] = {
    "text/csv": _csv,
    "application/json": _json,
    "application/x-ndjson": _ndjson,
    "application/vnd.apache.parquet": _parquet,
}
"""Content type to the function that reads it."""
