"""What a CSV file says, held against Python's own `csv`: strict, dialect excel, newline=''."""

from __future__ import annotations

import csv
import io
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelmill.errors import MalformedBody
from services.feature.intake import csv_table as module
from services.feature.intake.csv_table import CsvTable


@dataclass
class Read:
    """A whole table: the number of each row to its values, or to why it is broken."""

    names: list[str]
    rows: dict[int, list[str]]
    broken: dict[int, str]
    texts: dict[int, str]


def read(text: str | bytes, block: int = module.BLOCK) -> Read:
    found = Read([], {}, {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        table = CsvTable(text.encode() if isinstance(text, str) else text)
        found.names = table.schema.names
        for part in table.rows():
            values = zip(*(column.to_pylist() for column in part.table.columns), strict=True)
            new = dict(zip(part.numbers.tolist(), map(list, values), strict=True))
            bad = {rejection.row: rejection.reason for rejection in part.broken}
            assert not (found.rows.keys() | found.broken.keys()) & (new.keys() | bad.keys()), "a number given twice"
            found.rows |= new
            found.broken |= bad
            found.texts |= part.broken_texts
    assert sorted([*found.rows, *found.broken]) == list(range(1, len(found.rows) + len(found.broken) + 1))
    return found


def python_reads(text: str) -> tuple[list[list[str]], bool]:
    """The rows after the header until the end or the first that is no CSV, and whether that was the end."""
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8-sig", newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        rows += (line for line in lines if line)
    except csv.Error:
        return rows[1:], False
    return rows[1:], True


def assert_as_python(text: str, columns: int, found: Read) -> None:
    rows, whole = python_reads(text)
    for number, row in enumerate(rows, start=1):
        if len(row) == columns:
            assert found.rows.get(number) == row
        else:
            assert found.broken[number].startswith(f"has {len(row)} columns; expected {columns}")
    if whole:
        assert len(found.rows) + len(found.broken) == len(rows)
    else:
        assert "quote" in found.broken[len(rows) + 1]


PIECES = [
    "a", "b7", ",", "\n", "\r", "\r\n", '"', '""', '\\"', '"q"', '"l\r\nm"', '"x,""y"""', '5" disk', "\0", "ü", "\ufeff",
    "\u2028", " ", ";", 'a"a"a', '"q"a"a"', ',"', '",',
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(text=TEXTS, columns=st.integers(1, 3), block=st.integers(1, 40))
@example(text='"a\r\nb",c\r\n', columns=2, block=4)
@example(text="\ufeff,\ufeff\n\ufeff,b\n", columns=2, block=3)
@example(text='"x",a"a""a"\n"x",a",a"\n"a"a","\nb"\n', columns=2, block=40)
def test_any_text_reads_as_in_python_or_its_row_is_refused_by_number(text: str, columns: int, block: int) -> None:
    whole = ",".join("hij"[:columns]) + "\n" + text
    assert_as_python(whole, columns, read(whole, block))


CELLS = st.text(st.sampled_from('ab",\r\n \0ü;'), max_size=6)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_what_python_writes_is_read_wherever_a_block_ends(
    rows: list[tuple[str, ...]], quoting: int, end: str, mark: str
) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink, quoting=quoting, lineterminator=end).writerows([("h", "i", "j"), *rows])  # type: ignore[arg-type]
    text = mark + sink.getvalue()
    size = len(text.encode())
    for block in range(size // 2, size + 2):
        found = read(text, block)
        assert found.names == ["h", "i", "j"]
        assert_as_python(text, 3, found)  # it leaves some line ends without quotes, and reads these as row ends


@settings(max_examples=40)
@given(text=TEXTS)
def test_the_same_rows_are_refused_wherever_a_block_ends(text: str) -> None:
    body = ("h,i\n" + text).encode().replace(b"b7", b"\xff")
    whole = read(body)
    assert all(read(body, block) == whole for block in range(1, len(body)))


def test_a_large_file_keeps_each_quoted_line_end() -> None:
    value = "x" * 100 + "\r\n" * 20
    text = "h,i\r\n" + f'1,"{value}"\r\n' * 20_000
    assert {tuple(row) for row in read(text).rows.values()} == {("1", value)}


def test_a_file_mapped_into_memory_reads_the_same() -> None:
    body = b'h,i\n1,"a\r\nb"\n2,"c"d\n3,e\n'
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert [part.numbers.tolist() for part in CsvTable(mapped).rows()] == [[1, 3]]


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "text after a closing quote": (
        '"abc"def', "goes on with 'def' after a closing quote; expected a comma, and within quotes two quotes for one"
    ),
    "a backslash before a quote": (r'"say \"hi\""', "goes on with 'hi\\\\\"\"' after a closing quote"),
    "bytes that are not UTF-8": (b"a\xff,", "is not UTF-8: byte 2 of it is 0xff"),
    "too few columns": ("a", "has 1 columns; expected 2"),
    "too many columns": ("a,b,c", "has 3 columns; expected 2"),
    "semicolons for commas": ("a;b", "has 1 columns; expected 2, with ',' between them and not ';'"),
    "tabs for commas": ("a\tb", "has 1 columns; expected 2, with ',' between them and not '\\t'"),
    "a row of many megabytes": ("a," + "b" * 5_000_000, "has 5000003 bytes; expected at most 4194304"),
    "a quoted row of many megabytes": ('a,"' + "1,2\n" * 1_250_000 + '"', "has 5000005 bytes; expected at most"),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, module.BLOCK])
@pytest.mark.parametrize(("row", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_refused_by_number_and_the_others_are_kept(row: str | bytes, reason: str, block: int) -> None:
    text = row.encode() if isinstance(row, str) else row
    found = read(b"h,i\n1,2\n" + text + b"\n3,4\n", block if len(text) < 100 else module.BLOCK)
    assert found.rows == {1: ["1", "2"], 3: ["3", "4"]}
    assert found.broken[2].startswith(reason)
    assert found.texts[2] == text.decode(errors="replace")[: module.MAX_BROKEN_TEXT]


def test_a_quote_that_does_not_end_takes_the_rest_of_the_file_into_its_row() -> None:
    found = read('h,i\n1,2\n3,"4\n5,6\n')
    assert found.rows == {1: ["1", "2"]}
    assert found.broken == {
        2: "has a quoted value that does not end; all that follows in the file counts as part of this row"
    }


def test_a_row_of_some_megabytes_is_kept() -> None:
    value = "1,2\n" * 750_000
    assert read(f'h,i\n1,2\n3,"{value}"\n5,6\n').rows == {1: ["1", "2"], 2: ["3", value], 3: ["5", "6"]}


def test_a_value_in_a_column_without_a_name_is_refused_by_row() -> None:
    found = read('h,,i,\n1,,2,\n3,x,4,\n5,,6,"y, z"\n')
    assert (found.names, found.rows) == (["h", "i"], {1: ["1", "2"]})
    assert found.broken == {2: "has 'x' in column 2, which has no name", 3: "has 'y, z' in column 4, which has no name"}
    assert found.texts == {2: "3,x,4,", 3: '5,,6,"y, z"'}


def test_a_first_column_without_a_name_is_the_index_of_pandas_or_refused() -> None:
    found = read(",h\n0,a\n-1,b\n,c\n2026-01-01,d\n")
    assert (found.names, found.rows) == (["h"], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert found.broken == {4: "has '2026-01-01' in column 1, which has no name"}


@pytest.mark.parametrize("text", ["h,i", "h,i\n", '\ufeff"h","i"\r\n', "\n\r\n\rh,i\n\n"])
def test_a_header_alone_is_a_table_without_rows(text: str) -> None:
    assert read(text) == Read(["h", "i"], {}, {}, {})


@pytest.mark.parametrize("text", ["1,2\n3,4", "1,2\r\r\n3,4\r", "\n1,2\n\n\n3,4\n\n"])
def test_blank_lines_are_no_rows(text: str) -> None:
    assert read(f"h,i\n{text}").rows == {1: ["1", "2"], 2: ["3", "4"]}


def test_empty_values_are_empty_texts_quoted_or_not() -> None:
    assert read('h,i\n,""\n').rows == {1: ["", ""]}
    assert read('h\n""\n').rows == {1: [""]}


HEADERS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "the body is empty; expected rows"),
    "a mark alone": ("\ufeff", "the body is empty; expected rows"),
    "blank lines": ("\n\r\n", "the body is empty; expected rows"),
    "semicolons": ("h;i;j\n1;2;3\n", "the columns 'h;i;j' have ';' between them; expected ','"),
    "tabs": ("h\ti\n1\t2\n", "the columns 'h\\ti' have '\\t' between them; expected ','"),
    "bars": ("h|i\n1|2\n", "the columns 'h|i' have '|' between them; expected ','"),
    "UTF-16": ("h,i\n".encode("utf-16"), "not CSV in UTF-8: its header is not UTF-8: byte 1 of it is 0xff"),
    "an open quote": ('h,"i\n1,2\n', "its header has a quoted value that does not end"),
    "text after a quote": ('"h"i,j\n', "its header goes on with 'i,j' after a closing quote"),
    "too many bytes": ("h" * 200_000 + "\n1\n", "its header is longer than 131072 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_cannot_be_read_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        read(text)
    assert reason in caught.value.detail


@pytest.mark.parametrize("row", ["1", '"1"2,3', "1,2,x"])
@pytest.mark.parametrize("block", [8, 1000])
def test_a_file_of_broken_rows_is_not_taken_for_csv(row: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BROKEN", 10)
    columns: Sequence[str] = ["h", "i", ""] if row == "1,2,x" else ["h", "i"]
    read(",".join(columns) + "\n" + f"{row}\n" * 10, block)
    with pytest.raises(MalformedBody, match="not CSV: more than 10 of its rows are not; the last one"):
        read(",".join(columns) + "\n" + f"{row}\n" * 11, block)
