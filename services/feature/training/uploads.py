"""A spine that is uploaded as CSV or Parquet: checked batch by batch, never in memory as a whole.

It has a time column, the join keys of the entities whose features are asked for, and any other columns, which are
carried through: as text where they came in CSV, an empty one being null; with their types where they came in Parquet.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.errors import InvalidRequest, MalformedBody, Rejection, TooLarge, did_you_mean
from services.feature.intake.checks import future_breaches
from services.feature.intake.csv_table import CsvTable
from services.feature.intake.decode import PANDAS_INDEX, check_content, check_names, open_parquet, plain, plain_type
from services.feature.intake.validate import EXPECTED, PARQUET_TYPES, TIME, event_times, is_key, shown
from services.feature.training.spines import CHUNK, Spine

MAX_SPINE_ROWS = 100_000_000
"""Of one upload, however small it was packed."""
FORMS = {
    "seconds since 1970": rf"^({times.SECONDS.pattern})$",
    "a time with an offset": r"[T ].*([zZ]|[+-]\d\d(:?\d\d)?)$",
}
NO_OFFSET = "a time without an offset"
"""Any other text that can be read as a time."""


def uploaded(
    file: IO[bytes], content_type: str, *, keys: Sequence[str], time: str, last: datetime | None = None
) -> Spine:
    """The spine in `file`, whose kind is one of `READERS`.

    Args:
        keys: the columns with join keys.
        time: the column with the times; times without an offset are UTC.
        last: the latest time that is taken.

    Raises:
        MalformedBody: where the file is not what its content type says.
        InvalidRequest: for a column that is missing or named twice, and for a row that cannot be used, by its number,
            column and value, and what was expected.
        TooLarge: for more than `MAX_SPINE_ROWS` rows or too many columns.
    """
    schema, batches = READERS[content_type](file)
    for name in (time, *keys):
        if name not in schema.names:
            raise InvalidRequest(
                f"the spine has no column {name!r}{did_you_mean(name, schema.names)}; expected"
                f" {', '.join(map(repr, dict.fromkeys([time, *keys])))}",
                column=name,
            )
    if time in keys:
        raise InvalidRequest(f"column {time!r} holds join keys; name the one with the times by time=...", column=time)
    for name in keys:
        kind = schema.field(name).type
        if not (is_key(kind) or pa.types.is_null(kind)):
            raise InvalidRequest(
                f"column {name!r} has type {kind}; expected join keys that are text or whole numbers", column=name
            )
    fields = [pa.field(name, TIME) if name == time else schema.field(name) for name in schema.names]
    return Spine(pa.schema(fields), time, _Checker(time, last).checked(batches))


class _Checker:
    """Reads the times of one batch after the other, all of which have the form of the first."""

    def __init__(self, time: str, last: datetime | None) -> None:
        self._time = time
        self._last = last
        self._rows = 0
        self._form: str | None = None

    def checked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches with their times as `TIME`."""
        for batch in batches:
            if not batch.num_rows:
                continue
            values = pa.chunked_array([batch[self._time]])
            found = event_times(values)
            late = {} if self._last is None else future_breaches(found.values, self._last)
            bad = self._of_another_form(values) | late | found.bad
            if bad:
                raise self._refusal(values, min(bad), bad[min(bad)])
            yield batch.set_column(batch.schema.get_field_index(self._time), self._time, found.values)
            self._rows += batch.num_rows
            if self._rows > MAX_SPINE_ROWS:
                raise TooLarge("rows", None, MAX_SPINE_ROWS)

    def _of_another_form(self, values: pa.ChunkedArray) -> dict[int, str]:
        """The position of the first text of another form than the rows before, and why it is bad."""
        if not PARQUET_TYPES["str"](values.type):
            return {}
        forms = np.full(len(values), len(FORMS))
        for number, pattern in enumerate(FORMS.values()):
            forms[pc.fill_null(pc.match_substring_regex(values, pattern), False).to_numpy()] = number
        names = [*FORMS, NO_OFFSET]
        self._form = self._form or names[forms[0]]
        other = forms != names.index(self._form)
        return {int(other.argmax()): f"expected {self._form}, as in the rows before"} if other.any() else {}

    def _refusal(self, values: pa.ChunkedArray, position: int, reason: str) -> InvalidRequest:
        if values[position].is_valid:
            return refused(Rejection(self._rows + position + 1, self._time, shown(values, position), reason))
        return refused(Rejection(self._rows + position + 1, self._time, "", f"is missing; expected {EXPECTED['time']}"))


def refused(rejection: Rejection) -> InvalidRequest:
    """The error for a row that cannot be used."""
    return InvalidRequest(f"the spine cannot be used: {rejection}", **asdict(rejection))


def _csv(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if not file.seek(0, io.SEEK_END):
        raise MalformedBody("the body is empty; expected rows")
    table = CsvTable(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    check_names(table.header)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in table.rows():
            if rows.broken:
                raise refused(rows.broken[0])
            columns = [pc.if_else(pc.equal(column, ""), None, column) for column in rows.table.columns]
            yield from pa.table(columns, schema=table.schema).to_batches()

    return table.schema, batches()


def _parquet(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    try:
        parquet = open_parquet(file)
    except (pa.ArrowException, OSError) as error:
        raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None
    if parquet.metadata.num_rows > MAX_SPINE_ROWS:
        raise TooLarge("rows", parquet.metadata.num_rows, MAX_SPINE_ROWS)
    check_names(parquet.schema_arrow.names)
    wanted = [field for field in parquet.schema_arrow if field.name != PANDAS_INDEX]
    schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in wanted])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in parquet.iter_batches(CHUNK, columns=schema.names):
                columns = [plain(batch[field.name]) for field in schema]
                check_content(columns)
                yield pa.record_batch(columns, schema=schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None

    return schema, batches()


READERS: dict[str, Callable[[IO[bytes]], tuple[pa.Schema, Iterator[pa.RecordBatch]]]] = {
    "text/csv": _csv,
    "application/vnd.apache.parquet": _parquet,
}
"""Content type to what reads a file of it: its columns, and its rows in batches."""
