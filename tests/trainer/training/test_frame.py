"""The training frame, over HTTP and as scikit-learn takes it."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelmill.columns.types import Column
from modelmill.errors import InvalidRequest, RequestFailed, Unavailable
from modelmill.packages.package import Input
from services.trainer.training import frame
from tests.trainer.conftest import parquet, users_table

INPUTS = [Input(name, "float", False) for name in ("feature_1", "feature_2", "feature_3")]
LABEL = Column("target", "int", False)
NOON = pa.array([datetime(2026, 1, 1, 12, minute, tzinfo=UTC) for minute in range(4)], pa.timestamp("us", "UTC"))


def client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "FIRST_PAUSE", 0.0)


def test_the_frame_is_asked_for_by_model_and_span() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url, request.read()))
        return httpx.Response(200, content=parquet(users_table(5)))

    with frame.fetch(client(answer), "http://feature", "m", "abc", start="2026-01-01T00:00:00Z", end=None) as file:
        assert pq.read_table(file).num_rows == 5
    assert asked == [
        (
            "http://feature/training-frames",
            b'{"model":"m","definitions":"abc","start":"2026-01-01T00:00:00Z","end":null}',
        )
    ]


def test_a_feature_service_that_comes_back_is_asked_again() -> None:
    answers = iter([httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, content=b"PAR1")])

    def answer(_: httpx.Request) -> httpx.Response:
        next_answer = next(answers)
        if isinstance(next_answer, Exception):
            raise next_answer
        return next_answer

    with frame.fetch(client(answer), "http://feature", "m", "abc", start=None, end=None) as file:
        assert file.read() == b"PAR1"


def test_a_feature_service_that_stays_away_is_given_up_on() -> None:
    tries = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match=r"no training frame from http://feature in 5 attempts: refused"):
        frame.fetch(client(answer), "http://feature", "m", "abc", start=None, end=None)
    assert len(tries) == frame.ATTEMPTS


def test_an_error_of_the_feature_service_is_passed_on_in_its_words() -> None:
    problem = {"detail": "source 'users' has no rows to train 'm' on; ingest some first"}
    with pytest.raises(RequestFailed, match="ingest some first") as caught:
        frame.fetch(
            client(lambda _: httpx.Response(409, json=problem)), "http://feature", "m", "abc", start=None, end=None
        )
    assert caught.value.http_status == 409


def test_columns_come_in_the_order_of_the_model_whatever_the_file_holds() -> None:
    table = users_table(20).select(["target", "feature_3", "_event_time", "feature_1", "feature_2"])
    read = frame.read(io.BytesIO(parquet(table)), INPUTS, [LABEL])
    assert list(read.inputs.columns) == ["feature_1", "feature_2", "feature_3"]
    assert read.label.tolist() == table["target"].to_pylist()
    assert read.span == ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:19:00.000000Z")


def test_numbers_become_float64_and_missing_ones_nan_and_missing_text_empty() -> None:
    table = pa.table(
        {
            "_event_time": NOON,
            "whole": pa.array([1, None, 3, 4], pa.int64()),
            "flag": pa.array([True, False, None, True]),
            "origin": pa.array(["JFK", None, "", "EWR"]),
            "y": [0.5, 1.5, 2.5, 3.5],
        }
    )
    inputs = [Input("whole", "int", True), Input("flag", "bool", True), Input("origin", "str", True)]
    read = frame.read(io.BytesIO(parquet(table)), inputs, [Column("y", "float", False)])
    np.testing.assert_array_equal(read.inputs["whole"], [1.0, np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(read.inputs["flag"], [1.0, 0.0, np.nan, 1.0])
    assert read.column("flag").tolist() == [True, False, pd.NA, True], "segments and groups are named by what it is"
    assert read.inputs["origin"].dtype == object
    assert read.inputs["origin"].tolist() == ["JFK", "", "", "EWR"]
    assert read.dropped == 0


def test_rows_without_label_or_without_a_value_that_must_be_there_are_dropped_and_counted() -> None:
    table = pa.table(
        {
            "_event_time": NOON,
            "x": pa.array([1.0, None, float("nan"), 4.0]),
            "origin": pa.array(["JFK", "EWR", "LGA", "JFK"]),
            "y": pa.array(["a", "b", "c", None]),
        }
    )
    inputs = [Input("x", "float", False), Input("origin", "str", False)]
    read = frame.read(io.BytesIO(parquet(table)), inputs, [Column("y", "str", True)])
    assert (read.label.tolist(), read.dropped) == (["a"], 3)
    assert read.times.tolist() == [datetime(2026, 1, 1, 12)]


def test_what_is_carried_beside_comes_with_the_rows_that_are_left() -> None:
    table = pa.table(
        {
            "_event_time": NOON,
            "x": pa.array([1.0, None, 3.0, 4.0]),
            "y": [0, 1, 0, 1],
            "shop": pa.array(["north", "south", None, "south"]).dictionary_encode(),
        }
    )
    read = frame.read(io.BytesIO(parquet(table)), [Input("x", "float", False)], [Column("y", "int", False)], ["shop"])
    assert read.extra["shop"].astype(object).where(read.extra["shop"].notna(), None).tolist() == [
        "north",
        None,
        "south",
    ]
    assert read.column("x").tolist() == [1.0, 3.0, 4.0]
    assert list(read.pandas(["y"]).columns) == ["_event_time", "x", "y", "shop"]
    assert read.pandas(["y"])["_event_time"].iloc[0] == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_what_is_carried_is_as_it_is_stored_where_some_of_it_is_missing() -> None:
    """So that a split by group does not put two customers into one group, whose numbers one float stands for."""
    customers, asked = [2**53, None, 2**53 + 1, 5], [True, None, False, True]
    table = pa.table({"_event_time": NOON, "x": [1.0] * 4, "y": [0, 1, 0, 1], "customer": customers, "asked": asked})
    read = frame.read(
        io.BytesIO(parquet(table)), [Input("x", "float", False)], [Column("y", "int", False)], ["customer", "asked"]
    )
    assert pa.Table.from_pandas(read.extra).to_pydict() == {"customer": customers, "asked": asked}


def test_a_frame_of_which_no_row_is_left_is_refused() -> None:
    table = pa.table({"_event_time": NOON, "x": [1.0] * 4, "y": pa.nulls(4, pa.int64())})
    with pytest.raises(InvalidRequest, match="all 4 rows lack the label 'y'"):
        frame.read(io.BytesIO(parquet(table)), [Input("x", "float", False)], [Column("y", "int", True)])


def test_a_column_that_is_missing_means_other_definitions() -> None:
    table = users_table(5).drop_columns(["feature_3"])
    with pytest.raises(InvalidRequest, match=r"lacks 'feature_3'.*modelmill apply"):
        frame.read(io.BytesIO(parquet(table)), INPUTS, [LABEL])


def test_a_column_of_another_type_is_refused() -> None:
    table = users_table(3).set_column(1, "feature_1", pa.array(["a", "b", "c"]))
    with pytest.raises(InvalidRequest, match="does not hold the declared types"):
        frame.read(io.BytesIO(parquet(table)), INPUTS, [LABEL])


def test_whole_numbers_that_a_float_cannot_hold_are_the_nearest_one() -> None:
    numbers = [2**53 + 1, -(2**53) - 3, 10**18 - 1, None]
    table = pa.table({"_event_time": NOON, "n": pa.array(numbers, pa.int64()), "y": pa.array([*numbers[:3], 1])})
    found = frame.read(io.BytesIO(parquet(table)), [Input("n", "int", True)], [Column("y", "int", False)])
    assert found.inputs["n"].tolist()[:3] == [float(number) for number in numbers[:3] if number]
    assert found.label.tolist() == [*numbers[:3], 1]


def test_a_truncated_file_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not Parquet"):
        frame.read(io.BytesIO(parquet(users_table(50))[:-100]), INPUTS, [LABEL])


def mixed_table() -> pa.Table:
    return pa.table(
        {
            "_event_time": NOON,
            "x": pa.array([1.0, None, 3.0, -0.5]),
            "s": pa.array(["a", "", None, "déjà"]),
            "b": pa.array([True, None, False, True]),
        }
    )


def test_the_fingerprint_is_that_of_the_values_not_of_their_encoding() -> None:
    table = mixed_table()
    encoded = pa.concat_tables([table[:1], table[1:]]).set_column(2, "s", table["s"].dictionary_encode())
    sliced = pa.concat_tables([table, table])[4:]
    assert frame.fingerprint(table) == frame.fingerprint(encoded) == frame.fingerprint(sliced)


@pytest.mark.parametrize(
    "column, values",
    [
        ("x", pa.array([1.0, None, 3.0, -0.25])),
        ("x", pa.array([1.0, 0.0, 3.0, -0.5])),
        ("s", pa.array(["a", "", "", "déjà"])),
        ("s", pa.array(["", "a", None, "déjà"])),
        ("b", pa.array([True, False, False, True])),
    ],
)
def test_the_fingerprint_changes_with_any_value(column: str, values: pa.Array) -> None:
    table = mixed_table()
    other = table.set_column(table.column_names.index(column), column, values)
    assert frame.fingerprint(table) != frame.fingerprint(other)
