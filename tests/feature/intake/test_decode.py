from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.errors import InvalidRequest, MalformedBody, ModelmillError, TooLarge, UnsupportedContent
from services.feature.intake import decode as module
from services.feature.intake.decode import DECODERS, RawRows, decode
from tests.feature.conftest import FORMATS, csv_rows, json_rows, ndjson_rows, parquet_rows

ROWS = [{"a": 1.5, "b": 2, "name": "x"}, {"a": -0.25, "b": 3, "name": 'ü, "y"'}]


def values(raw: RawRows) -> dict[str, list[Any]]:
    """The columns as lists."""
    return {name: c if isinstance(c, list) else c.to_pylist() for name, c in raw.columns.items()}


def frame_csv(frame: pd.DataFrame, **options: Any) -> bytes:
    return frame.to_csv(**options).encode()


@pytest.mark.parametrize("kind", ["json", "ndjson", "parquet"])
def test_typed_formats_keep_the_types(kind: str) -> None:
    content_type, write = FORMATS[kind]
    raw = decode(write(*ROWS), content_type)
    assert values(raw) == {"a": [1.5, -0.25], "b": [2, 3], "name": ["x", 'ü, "y"']}
    assert (list(raw.numbers), raw.is_text, raw.total) == ([1, 2], False, 2)


def test_csv_is_text_whatever_it_looks_like() -> None:
    raw = decode(frame_csv(pd.DataFrame(ROWS), index=False), "text/csv")
    assert values(raw) == {"a": ["1.5", "-0.25"], "b": ["2", "3"], "name": ["x", 'ü, "y"']}
    assert raw.is_text


def test_the_article_s_file_is_taken_as_it_is(users_csv: bytes) -> None:
    raw = decode(users_csv, "text/csv")
    assert list(raw.columns) == ["feature_1", "feature_2", "target", "user_id"]
    assert raw.total == 100


@pytest.mark.parametrize("kind", ["text/csv; charset=utf-8", "Text/CSV", "text/csv ;header=present"])
def test_parameters_and_case_of_a_content_type_do_not_matter(kind: str) -> None:
    assert decode(b"a\n1\n", kind).total == 1


def test_pandas_unnamed_index_is_left_out_of_csv() -> None:
    assert list(decode(frame_csv(pd.DataFrame(ROWS)), "text/csv").columns) == ["a", "b", "name"]


def test_pandas_unnamed_index_is_left_out_of_parquet() -> None:
    body = io.BytesIO()
    pd.DataFrame(ROWS, index=[7, 9]).to_parquet(body)
    assert list(decode(body.getvalue(), "application/vnd.apache.parquet").columns) == ["a", "b", "name"]


def test_uuids_in_parquet_are_their_texts() -> None:
    ids = [UUID(int=7), None, UUID(int=2**128 - 1)]
    table = pa.table({"id": pa.array([one and one.bytes for one in ids], pa.uuid())})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    found = decode(sink.getvalue(), "application/vnd.apache.parquet").columns["id"]
    assert found.to_pylist() == [one and str(one) for one in ids]


def test_categories_in_parquet_are_their_values() -> None:
    body = io.BytesIO()
    pd.DataFrame({"name": pd.Categorical(["x", "y", None, "x"])}).to_parquet(body)
    assert values(decode(body.getvalue(), "application/vnd.apache.parquet")) == {"name": ["x", "y", None, "x"]}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xef\xbb\xbfa,b\n1,2\n", id="byte order mark"),
        pytest.param(b"a,b\r\n1,2\r\n", id="Windows line ends"),
        pytest.param(b"a,b\n1,2", id="no line end at the end"),
        pytest.param(b"\n\na,b\n\n1,2\n\n", id="blank lines"),
        pytest.param(b'"a","b"\n"1","2"\n', id="quotes"),
    ],
)
def test_csv_as_different_programs_write_it(body: bytes) -> None:
    assert values(decode(body, "text/csv")) == {"a": ["1"], "b": ["2"]}


def test_values_in_csv_may_hold_line_ends() -> None:
    raw = decode(b'a,b\n"one\ntwo",2\n3,4\n', "text/csv")
    assert values(raw) == {"a": ["one\ntwo", "3"], "b": ["2", "4"]}


def test_a_csv_line_with_other_columns_is_broken_and_the_others_keep_their_numbers() -> None:
    raw = decode(b"a,b\n1,2\n\n3\n5,6\n7,8,9\n", "text/csv")
    assert values(raw) == {"a": ["1", "5"], "b": ["2", "6"]}
    assert list(raw.numbers) == [1, 3]
    assert [(r.row, r.value, r.reason) for r in raw.broken] == [
        (2, "3", "has 1 columns; expected 2"),
        (4, "7,8,9", "has 3 columns; expected 2"),
    ]
    assert raw.total == 4


def test_rows_keep_their_numbers_over_the_blocks_of_a_large_file() -> None:
    raw = decode(b"a,b\n" + b"1,2\n" * 600_000 + b"3\n4,5\n", "text/csv")
    assert raw.broken[0].row == 600_001
    assert raw.numbers[-1] == 600_002


@pytest.mark.parametrize(
    ("row", "reason"),
    [(b"1,\xff", "is not UTF-8"), (b"1,\xff,3", "is not UTF-8"), (b'3,"4', "has a quoted value that does not end")],
)
def test_a_csv_row_that_is_none_is_broken_far_below_in_a_file(row: bytes, reason: str) -> None:
    raw = decode(b"a,b\n" + b"1,2\n" * 600_000 + row, "text/csv")
    assert (len(raw.numbers), raw.total, raw.broken[0].row) == (600_000, 600_001, 600_001)
    assert raw.broken[0].reason.startswith(reason)
    assert raw.broken_texts[600_001] == row.decode(errors="replace")


def test_json_is_a_list_of_objects() -> None:
    assert values(decode(b'[{"a": 1}, {"b": 2}]', "application/json")) == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize("body", [b'{"a": 1, "b": null}', b'{"rows": [{"a": 1, "b": null}]}'])
def test_json_is_also_one_object_or_its_rows(body: bytes) -> None:
    assert values(decode(body, "application/json")) == {"a": [1], "b": [None]}


def test_blank_lines_in_ndjson_are_no_rows() -> None:
    raw = decode(b'{"a": 1}\r\n\n{"a": 2}\n', "application/x-ndjson")
    assert (values(raw), list(raw.numbers)) == ({"a": [1, 2]}, [1, 2])


@pytest.mark.parametrize("kind", ["text/plain", "none", "", "application/octet-stream"])
def test_another_content_type_is_named_with_those_that_are_taken(kind: str) -> None:
    with pytest.raises(UnsupportedContent, match=f"content type '{kind}' is not taken here; expected one of text/csv"):
        decode(b"a\n1\n", kind)


@pytest.mark.parametrize("kind", DECODERS)
def test_an_empty_body_is_malformed(kind: str) -> None:
    with pytest.raises(MalformedBody, match="the body is empty; expected rows"):
        decode(b"", kind)


MALFORMED = {
    "csv with a header not in UTF-8": ("text/csv", b"a,\xff\n", "not CSV in UTF-8"),
    "csv of blanks": ("text/csv", b"\n\n", "the body is empty; expected rows"),
    "json cut off": ("application/json", b'[{"a": 1}, {"a"', "the body is not JSON: "),
    "json NaN": ("application/json", b'[{"a": NaN}]', "the body is not JSON: "),
    "json Infinity": ("application/json", b'[{"a": Infinity}]', "the body is not JSON: "),
    "json of numbers": ("application/json", b'[{"a": 1}, 2]', "row 2 is a JSON int; expected an object"),
    "json text": ("application/json", b'"a"', "the body is a JSON str; expected an object or a list of objects"),
    "ndjson cut off": ("application/x-ndjson", b'{"a": 1}\n{"a"\n', "line 2 is not JSON: "),
    "ndjson of lists": ("application/x-ndjson", b'{"a": 1}\n[1]\n', "row 2 is a JSON list; expected an object"),
    "parquet of nothing": ("application/vnd.apache.parquet", b"PAR1PAR1", "not a complete Parquet file"),
    "parquet that is csv": ("application/vnd.apache.parquet", b"a,b\n1,2\n", "not a complete Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("kind, body, reason", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_what_it_claims_is_malformed(kind: str, body: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason):
        decode(body, kind)


@pytest.mark.parametrize("length", [4, 100, -1, -8, -100])
def test_parquet_that_is_cut_off_is_malformed(length: int) -> None:
    with pytest.raises(MalformedBody, match="not a complete Parquet file"):
        decode(parquet_rows(*ROWS)[:length], "application/vnd.apache.parquet")


def test_text_in_parquet_that_is_not_utf_8_is_malformed() -> None:
    column = pa.array([b"fine", b"\xff"]).view(pa.string())
    with pytest.raises(MalformedBody, match="UTF8"):
        decode(table_parquet(pa.table({"name": column})), "application/vnd.apache.parquet")


def table_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue()


TWICE = {
    "csv": ("text/csv", b"a,b,a\n1,2,3\n"),
    "json": ("application/json", b'[{"a": 1}, {"a": 2, "b": 3, "a": 4}]'),
    "ndjson": ("application/x-ndjson", b'{"a": 1}\n\n{"a": 2, "b": 3, "a": 4}\n'),
    "json, one through an escape": ("application/json", rb'[{"a": 1, "b": 3, "\u0061": 4}]'),
    "json of one row": ("application/json", rb'{"a": 1, "\u0061": 4}'),
    "json under rows": ("application/json", b'{"rows": [{"a": 1, "a": 4}]}'),
    "ndjson, one through an escape": ("application/x-ndjson", b'{"a": 1}\n' + rb'{"a": 2, "\u0061": 4}'),
    "json, hidden by an escaped colon": ("application/json", rb'[{"a": 1, "a": "\u003A"}]'),
    "parquet": ("application/vnd.apache.parquet", table_parquet(pa.table([[1], [2], [3]], names=["a", "b", "a"]))),
}


@pytest.mark.parametrize("kind, body", TWICE.values(), ids=TWICE)
def test_a_column_that_is_there_twice_is_refused_by_name(kind: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="column 'a' is there 2 times; expected once"):
        decode(body, kind)


@pytest.mark.parametrize("kind", ["json", "ndjson"])
def test_a_value_that_reads_as_a_name_is_no_column(kind: str) -> None:
    content_type, write = FORMATS[kind]
    rows = [{"a": "b", "b": '"a"'}, {"a": "a", "b": "a"}]
    assert values(decode(write(*rows), content_type)) == {"a": ["b", "a"], "b": ['"a"', "a"]}


NAMES = st.text(st.sampled_from('ab:"\\/ü\n'), max_size=3)
OBJECTS = st.lists(
    st.lists(st.tuples(NAMES, NAMES | st.integers(-(2**63), 2**64 - 1) | st.none()), max_size=4), max_size=3
)


def spelled(text: str, draw: Callable[..., Any]) -> str:
    """A JSON string of `text`, each character as it is, or as one of the escapes that mean it."""
    plain = [[json.dumps(c, ensure_ascii=False)[1:-1], f"\\u{ord(c):04x}", f"\\u{ord(c):04X}"] for c in text]
    return '"' + "".join(draw(st.sampled_from(ways)) for ways in plain) + '"'


@given(rows=OBJECTS, data=st.data())
def test_a_name_is_refused_just_where_it_is_repeated_however_it_is_spelled(
    rows: list[list[tuple[str, Any]]], data: st.DataObject
) -> None:
    def written(value: Any) -> str:
        return spelled(value, data.draw) if isinstance(value, str) else json.dumps(value)

    objects = ["{" + ", ".join(f"{written(name)}: {written(value)}" for name, value in row) + "}" for row in rows]
    repeated = any(len(dict(row)) < len(row) for row in rows)
    for kind, body in (
        ("application/json", f"[{', '.join(objects)}]"),
        ("application/json", f'{{"rows": [{", ".join(objects)}]}}'),
        ("application/x-ndjson", "\n".join(objects)),
    ):
        if body and repeated:
            with pytest.raises(InvalidRequest, match="times; expected once"):
                decode(body.encode(), kind)
        elif body:
            names = {name for row in rows for name, _ in row}
            expected = {name: [dict(row).get(name) for row in rows] for name in names}
            assert values(decode(body.encode(), kind)) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_more_rows_than_allowed_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    content_type, write = FORMATS[kind]
    assert decode(write(*[{"a": 1}] * 3), content_type).total == 3
    with pytest.raises(TooLarge, match="rows: 4 is over the limit of 3; send smaller parts"):
        decode(write(*[{"a": 1}] * 4), content_type)


@pytest.mark.parametrize("kind", FORMATS)
def test_more_columns_than_allowed_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COLUMNS", 3)
    content_type, write = FORMATS[kind]
    with pytest.raises(TooLarge, match="columns: 4 is over the limit of 3"):
        decode(write(dict.fromkeys("abcd", 1)), content_type)


def test_objects_whose_columns_all_differ_are_refused() -> None:
    rows = [{f"column_{number}": 1} for number in range(2000)]
    with pytest.raises(TooLarge, match="columns: 2000 is over"):
        decode(json_rows(*rows), "application/json")


VALID = {"text/csv": csv_rows, "application/json": json_rows, "application/x-ndjson": ndjson_rows,
         "application/vnd.apache.parquet": parquet_rows}  # fmt: skip


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.data())
def test_whatever_comes_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    valid = VALID[kind](*({"a": 1.5, "b": row, "name": "x"} for row in range(3)))
    damaged = bytearray(valid)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    body = data.draw(st.sampled_from([bytes(damaged), bytes(damaged[: data.draw(st.integers(1, len(valid)))])]))
    try:
        raw = decode(body, kind)
    except ModelmillError:
        return
    assert all(len(column) == len(raw.numbers) for column in raw.columns.values())
