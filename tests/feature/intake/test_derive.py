from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelmill import Entity
from modelmill.about import About
from modelmill.columns import Column
from modelmill.declarations import Batch, Feature
from modelmill.values import ERROR_LENGTH
from services.feature.intake.derive import Derived, derive, failed

USER = Entity("user", key="user_id")
ROWS = pa.table({"user_id": ["u", "v", "w"], "x": [1.0, 2.0, None]})


def derived(
    dtype: str = "float", nullable: bool = False, batch: Batch | None = None, **functions: Callable[[Any], Any]
) -> Derived:
    """One feature a function, for `ROWS`."""
    features = {
        name: Feature(USER, function, Column(name, dtype, nullable), batch=batch, max_failed=0, about=About())
        for name, function in functions.items()
    }
    return derive(ROWS, features)


def test_a_feature_is_computed_for_each_row() -> None:
    made = derived(nullable=True, double=lambda row: row["x"] and row["x"] * 2)
    assert made.columns["double"].to_pylist() == [2.0, 4.0, None]
    assert made.failures == {"double": 0}


def test_a_function_sees_the_columns_of_its_row() -> None:
    seen: list[dict[str, Any]] = []
    derived(note=lambda row: float(len(seen.append(row) or seen)))  # type: ignore[func-returns-value]
    assert seen == [{"user_id": "u", "x": 1.0}, {"user_id": "v", "x": 2.0}, {"user_id": "w", "x": None}]


def test_without_features_nothing_failed() -> None:
    made = derived()
    assert (made.columns, made.failed.null_count, made.failures) == ({}, 3, {})


def test_a_function_that_raises_marks_its_feature_on_that_row_alone() -> None:
    made = derived(double=lambda row: row["x"] * 2, one=lambda row: 1.0)
    assert made.columns["double"].to_pylist() == [2.0, 4.0, None]
    assert made.columns["one"].to_pylist() == [1.0, 1.0, 1.0]
    assert made.failures == {"double": 1, "one": 0}
    assert made.failed.to_pylist() == [
        None,
        None,
        "{\"double\":\"TypeError: unsupported operand type(s) for *: 'NoneType' and 'int'\"}",
    ]
    assert made.examples == {"double": "TypeError: unsupported operand type(s) for *: 'NoneType' and 'int'"}


def test_several_failures_of_a_row_are_all_named() -> None:
    made = derived(a=lambda row: 1 / 0, b=lambda row: row["no such column"])
    failed = '{"a":"ZeroDivisionError: division by zero","b":"KeyError: \'no such column\'"}'
    assert made.failed.to_pylist() == [failed] * 3


def test_the_failures_of_a_feature_are_found_among_those_of_others() -> None:
    made = derived(f=lambda row: 1 / 0, ff=lambda row: row["x"] * 2)
    errors = pa.chunked_array([made.failed])
    assert failed(errors, "f").to_pylist() == [True, True, True]
    assert failed(errors, "ff").to_pylist() == [False, False, True]


def test_a_function_that_changes_its_row_disturbs_no_other() -> None:
    made = derived(nullable=True, thief=lambda row: row.pop("x"), honest=lambda row: row["x"])
    assert made.columns["honest"].to_pylist() == [1.0, 2.0, None]


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        ("float", 2, 2.0),
        ("float", np.float32(0.5), 0.5),
        ("float", np.int64(3), 3.0),
        ("int", np.int64(3), 3),
        ("int", np.array(3), 3),
        ("int", Level.HIGH, 3),
        ("bool", np.bool_(True), True),
        ("str", "ü\0", "ü\0"),
    ],
)
def test_values_of_the_declared_type_are_stored(dtype: str, value: object, stored: object) -> None:
    assert derived(dtype, f=lambda row: value).columns["f"].to_pylist() == [stored] * 3


@pytest.mark.parametrize("value", [None, math.nan, np.float64("nan")])
def test_a_missing_value_is_stored_where_it_is_allowed(value: object) -> None:
    made = derived(nullable=True, f=lambda row: value)
    assert (made.columns["f"].null_count, made.failures) == (3, {"f": 0})


@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [
        ("float", "1.5", "TypeError: returned '1.5'; expected float"),
        ("float", True, "TypeError: returned True; expected float"),
        ("float", None, "ValueError: returned None; expected float (declare dtype=float | None to allow it)"),
        ("float", math.nan, "ValueError: returned nan; expected float (declare dtype=float | None to allow it)"),
        ("float", math.inf, "ValueError: returned inf; expected a finite number"),
        ("float", 10**400, "OverflowError: int too large to convert to float"),
        ("float", 1j, "TypeError: returned 1j; expected float"),
        ("float", np.array([1.0, 2.0]), "ValueError: can only convert an array of size 1 to a Python scalar"),
        ("int", 1.0, "TypeError: returned 1.0; expected int"),
        ("int", 10**18, f"ValueError: returned {10**18}; expected a whole number of at most 18 digits"),
        ("bool", 1, "TypeError: returned 1; expected bool"),
        ("str", 1, "TypeError: returned 1; expected str"),
        ("str", b"bytes", "TypeError: returned b'bytes'; expected str"),
        ("str", "\ud800", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
    ],
)
def test_a_value_of_another_kind_is_a_failure(dtype: str, value: object, error: str) -> None:
    made = derived(dtype, f=lambda row: value)
    assert made.failures == {"f": 3}
    assert made.columns["f"].null_count == 3
    assert made.examples["f"].startswith(error)


@pytest.mark.parametrize("message", ["long " * 1000, "\ud800"])
def test_any_message_of_an_error_can_be_stored(message: str) -> None:
    def fails(row: dict[str, Any]) -> float:
        raise ValueError(message)

    made = derived(f=fails)
    assert len(made.examples["f"]) <= ERROR_LENGTH
    assert made.failed[0].as_py()


# --- a batch at once


def test_a_batch_function_gets_all_rows_at_once() -> None:
    seen: list[int] = []

    def double(rows: Any) -> Any:
        seen.append(len(rows))
        return rows["x"] * 2

    made = derived(nullable=True, batch="pandas", double=double)
    assert (made.columns["double"].to_pylist(), seen) == ([2.0, 4.0, None], [3])


def test_an_arrow_batch_function_gets_a_table() -> None:
    made = derived(nullable=True, batch="arrow", same=lambda table: table["x"])
    assert made.columns["same"].to_pylist() == [1.0, 2.0, None]


def test_a_batch_that_fails_is_computed_row_by_row() -> None:
    made = derived(batch="arrow", halved=lambda table: [x / 2 for x in table["x"].to_pylist()])
    assert made.columns["halved"].to_pylist() == [0.5, 1.0, None]
    assert made.failures == {"halved": 1}


def test_a_batch_with_another_number_of_values_fails() -> None:
    made = derived(batch="arrow", short=lambda table: [1.0] * (len(table) + 1))
    assert made.examples == {"short": "ValueError: returned 2 values for 1 rows"}
