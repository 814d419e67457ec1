"""A CSV table: what Python's own `csv` reads in it, dialect excel and strict, at the speed of Arrow.

Arrow splits rows into values as Python does, but for three things: at the edges of its blocks it loses the line feed
of a quoted CRLF, it takes silently what follows a closing quote, and one row that is too long is the end of all. So
blocks are cut here, between rows, and rows that are no CSV are left out before Arrow sees them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from mmap import mmap
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from modelmill.errors import MalformedBody, Rejection

Text = bytes | memoryview

BLOCK = 1024 * 1024
"""Bytes that are parsed at a time."""
MAX_ROW_BYTES = 4 * 1024 * 1024
"""The longest row that is taken."""
MAX_HEADER_BYTES = 128 * 1024
MAX_BROKEN = 10_000
"""Broken rows, above which a file is not taken for CSV at all."""
MAX_BROKEN_TEXT = 4096
"""Characters of a broken row that are remembered."""
UTF8_MARK = b"\xef\xbb\xbf"
OTHER_DELIMITERS = ";\t|"
BEFORE_VALUE = np.isin(np.arange(256), list(b",\r\n"))
BESIDE_QUOTES = np.isin(np.arange(256), list(b',\r\n"'))
"""Which bytes may be before a quote that opens, and after one that closes."""
# It repeats single bytes, or what does not backtrack: of other patterns Python before 3.11.5 loses matches.
QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+')
"""A quoted value without the quote that closes it."""
ROW_END_OR_QUOTED = re.compile(rb'[\r\n]|,(?=")')
"""What ends values that are not quoted, and text after a closing quote, in which quotes are letters like others."""
LINE_ENDS = b"\r\n"


@dataclass(frozen=True)
class CsvRows:
    """Some rows of a table, in their order."""

    table: pa.Table
    """The good ones: text, never null."""
    numbers: np.ndarray
    """The number of each of them in the file, counted from 1."""
    broken: list[Rejection]
    """The others."""
    broken_texts: dict[int, str]
    """The number of each of these to its text, cut where it is long."""


@dataclass(frozen=True)
class _Row:
    """One row of `content`, however long, with its line end."""

    content: bytes | mmap
    start: int
    end: int
    after: int | None
    """Where text begins that follows a closing quote."""
    is_open: bool
    """Whether a quoted value in it does not end."""

    @property
    def text(self) -> bytes:
        return self.content[self.start : self.end]


@dataclass(frozen=True)
class _Broken:
    """A row that is no CSV: its text, cut where it is long, and why."""

    text: str
    reason: str


class CsvTable:
    """The table in `content`, which may be a file mapped into memory; only a block of it is worked on at a time.

    Columns without a name are left out where they are empty, and the first one also where it holds whole numbers: the
    index that pandas writes. A row with anything else there is broken.

    Raises:
        MalformedBody: where `content` has no header that can be read.
    """

    def __init__(self, content: bytes | mmap) -> None:
        self._content = content
        self.header, self._start = _header(content)
        """The name of each column; None where it has none."""
        self.schema = pa.schema([(name, pa.string()) for name in self.header if name])
        """The columns that have one."""

    def rows(self) -> Iterator[CsvRows]:
        """All rows, block by block.

        Raises:
            MalformedBody: for more than `MAX_BROKEN` broken rows.
        """
        options = pa_csv.ConvertOptions(
            column_types={str(position): pa.string() for position in range(len(self.header))},
            check_utf8=False,  # `_next_block` did
        )
        first, broken, start = 1, 0, self._start
        while start < len(self._content):
            text, bad, start = _next_block(self._content, start)
            found = self._parsed(text, first, bad, options)
            broken += len(found.broken)
            _check_broken(broken, found.broken[-1] if found.broken else "")
            yield found
            first += len(found.numbers) + len(found.broken)

    def _parsed(self, text: Text, first: int, bad: dict[int, _Broken], options: pa_csv.ConvertOptions) -> CsvRows:
        """The rows in `text`, of which the `bad` ones were left out, by position; `first` is the first one's number."""
        ragged: dict[int, _Broken] = {}

        def on_ragged(row: Any) -> str:
            ragged[row.number - 1] = _Broken(row.text[:MAX_BROKEN_TEXT], self._why_ragged(row))
            return "skip" if len(ragged) <= MAX_BROKEN else "error"

        if text[: len(UTF8_MARK)] == UTF8_MARK or not text:  # which is no mark here, and Arrow takes it for one
            text = b"\n" + text
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                # With threads, ragged rows would have no number.
                pa_csv.ReadOptions(use_threads=False, column_names=[*options.column_types], block_size=len(text) + 2),
                pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_ragged),
                options,
            )
        except pa.ArrowInvalid:
            _check_broken(len(ragged), next(reversed(ragged.values())).reason)
            raise
        numbers = np.delete(np.arange(first, first + len(bad) + len(ragged) + table.num_rows), [*bad])
        broken = {int(numbers[position]): row for position, row in ragged.items()}
        broken |= {first + position: row for position, row in bad.items()}
        return self._named(table, np.delete(numbers, [*ragged]), broken)

    def _why_ragged(self, row: Any) -> str:
        reason = f"has {row.actual_columns} columns; expected {row.expected_columns}"
        others = [mark for mark in OTHER_DELIMITERS if row.text.count(mark) == row.expected_columns - 1 > 0]
        return f"{reason}, with ',' between them and not {others[0]!r}" if others else reason

    def _named(self, table: pa.Table, numbers: np.ndarray, broken: dict[int, _Broken]) -> CsvRows:
        """The columns that have a name, of the rows in which the others are empty."""
        for position in [position for position, name in enumerate(self.header) if name is None]:
            empty = pc.match_substring_regex(table[position], r"\A(-?\d+)?\z" if position == 0 else r"\A\z")
            for index in islice(pc.indices_nonzero(pc.invert(empty)).to_pylist(), MAX_BROKEN + 1):
                values = [column[index].as_py() for column in table.columns]
                reason = f"has {values[position][:80]!r} in column {position + 1}, which has no name"
                broken[int(numbers[index])] = _Broken(_written(values)[:MAX_BROKEN_TEXT], reason)
            table, numbers = table.filter(empty), numbers[empty.to_numpy()]
        named = table.select([position for position, name in enumerate(self.header) if name])
        ordered = sorted(broken.items())
        return CsvRows(
            named.rename_columns(self.schema.names),
            numbers,
            [Rejection(number, "", row.text[:80], row.reason) for number, row in ordered],
            {number: row.text for number, row in ordered},
        )


def _header(content: bytes | mmap) -> tuple[list[str | None], int]:
    """The name of each column, None where it has none; and where the first row begins."""
    start = len(UTF8_MARK) if content[: len(UTF8_MARK)] == UTF8_MARK else 0
    while start < len(content) and content[start : start + 1] in (b"\r", b"\n"):
        start += 1
    if start == len(content):
        raise MalformedBody("the body is empty; expected rows")
    line = b"\n" + content[start : start + MAX_HEADER_BYTES]
    row = _row(line, 1)
    if row.end == len(line) and start + MAX_HEADER_BYTES < len(content):
        raise MalformedBody(f"the body is not CSV: its header is longer than {MAX_HEADER_BYTES} bytes")
    if reason := _why_broken(row):
        raise MalformedBody(f"the body is not CSV in UTF-8: its header {reason}")
    [names] = csv.reader([row.text.decode()], strict=True)
    other = next((mark for mark in OTHER_DELIMITERS if len(names) == 1 and mark in names[0]), None)
    if other:
        raise MalformedBody(f"the columns {names[0][:80]!r} have {other!r} between them; expected ','")
    return [name or None for name in names], start + row.end - 1


def _next_block(content: bytes | mmap, start: int) -> tuple[Text, dict[int, _Broken], int]:
    """The text of whole rows from `start` on, of about `BLOCK` bytes; the broken ones, which it leaves out, by their
    position among them; and where the rows end.
    """
    text = content[start : start + BLOCK]
    if start + BLOCK >= len(content):
        text += b"\n"
    end = _end_of_rows(text)
    if end and _is_utf8(text, end):
        return memoryview(text)[:end], {}, start + end
    good: list[bytes] = []
    broken: dict[int, _Broken] = {}
    at = start
    while at < min(start + BLOCK, len(content)):
        row = _row(content, at)
        at = row.end
        if content[row.start] in LINE_ENDS:
            continue
        if reason := _why_broken(row):
            piece = content[row.start : min(at, row.start + 4 * MAX_BROKEN_TEXT)].rstrip(b"\r\n")
            broken[len(good) + len(broken)] = _Broken(piece.decode(errors="replace")[:MAX_BROKEN_TEXT], reason)
            _check_broken(len(broken), reason)
        else:
            good.append(row.text)
    return b"".join(good), broken, at


def _end_of_rows(text: bytes) -> int:
    """Where the last whole row in `text` ends; 0 where there is none, or this is not plain to see.

    It is where no quote begins a value; and where each quote that opens follows a comma, a line end or the quote before
    it, and each that closes is followed by one: then quotes open and close in turn.
    """
    last = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    if b'"' not in text:
        return last
    codes = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(codes == ord('"'))
    end = last
    if np.searchsorted(quotes, last) % 2:  # a line end in a value
        ends = np.flatnonzero((codes == ord("\n")) | (codes == ord("\r"))) + 1
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        end = int(ends[-1]) if len(ends) else 0
    rows = codes[:end]  # the byte before its first is its last, a line end
    opening, closing = quotes[: np.searchsorted(quotes, end)].reshape(-1, 2).T
    if BESIDE_QUOTES[rows[opening - 1]].all() and BESIDE_QUOTES[rows[closing + 1]].all():
        return end
    begins_a_value = quotes[0] == 0 or BEFORE_VALUE[codes[quotes - 1]].any()
    return 0 if begins_a_value else last


def _row(content: bytes | mmap, start: int) -> _Row:
    """The row that begins at `start`; the byte before ends another one."""
    at, after = start, None
    while True:
        if content[at : at + 1] == b'"':
            closing = QUOTED.match(content, at)
            assert closing is not None
            at = closing.end() + 1
            if at > len(content):
                return _Row(content, start, len(content), after, True)
            if after is None and content[at : at + 1] not in (b"", b",", b"\r", b"\n"):
                after = at
        found = ROW_END_OR_QUOTED.search(content, at)
        if found is None:
            return _Row(content, start, len(content), after, False)
        at = found.end()
        if found[0] != b",":
            return _Row(content, start, at + (content[at - 1 : at + 1] == LINE_ENDS), after, False)


def _why_broken(row: _Row) -> str:
    """Why a row is no CSV; empty where it is."""
    length = row.end - row.start
    if row.is_open:
        return "has a quoted value that does not end; all that follows in the file counts as part of this row"
    if length > MAX_ROW_BYTES:
        return f"has {length} bytes; expected at most {MAX_ROW_BYTES}"
    if row.after is not None:
        rest = row.content[row.after : min(row.end, row.after + 40)].decode(errors="replace")[:20].rstrip("\r\n")
        return f"goes on with {rest!r} after a closing quote; expected a comma, and within quotes two quotes for one"
    try:
        row.text.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte {error.start + 1} of it is 0x{error.object[error.start]:02x}"
    return ""


def _is_utf8(text: bytes, end: int) -> bool:
    try:
        return text.isascii() or bool(str(memoryview(text)[:end], "utf-8"))
    except UnicodeDecodeError:
        return False


def _written(values: list[str]) -> str:
    """The values as a line of CSV."""
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().rstrip("\r\n")


def _check_broken(count: int, last: object) -> None:
    if count > MAX_BROKEN:
        raise MalformedBody(f"the body is not CSV: more than {MAX_BROKEN} of its rows are not; the last one {last}")
