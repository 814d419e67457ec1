from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmill import Entity
from modelmill.columns.types import ERROR_LENGTH, Column
from modelmill.declare.declarations import About, Batch, Feature
from services.feature.rows.derive import Derived, derive, failed
from services.feature.rows.schema import ARROW
from tests.feature.brute_force import VALUES

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
        ("str", np.str_("a"), "a"),
        ("int", pa.scalar(3), 3),
        ("float", pa.scalar(0.5, pa.float32()), 0.5),
    ],
)
def test_values_of_the_declared_type_are_stored(dtype: str, value: object, stored: object) -> None:
    assert derived(dtype, f=lambda row: value).columns["f"].to_pylist() == [stored] * 3


@pytest.mark.parametrize(
    "value",
    [None, math.nan, np.float64("nan"), pd.NA, pd.NaT, pa.scalar(None, pa.float64()), np.array(np.nan)],
    ids=lambda value: f"{type(value).__name__} {value}",
)
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
        ("int", math.inf, "ValueError: returned inf; expected a whole number of at most 18 digits"),
        ("str", ["long"] * 1000, f"TypeError: returned {repr(['long'] * 1000)[:77]}...; expected str"),
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


class WithoutText(Exception):
    def __str__(self) -> str:
        raise SystemExit


def deep(row: dict[str, Any]) -> float:
    return deep(row)


def ends(error: BaseException) -> Callable[[Any], Any]:
    """A function that raises `error` for the second of `ROWS`, and for what it is in."""

    def f(row: Any) -> Any:
        ids = [row["user_id"]] if isinstance(row, dict) else list(row["user_id"])
        if "v" in ids:
            raise error
        return 1.0 if isinstance(row, dict) else [1.0] * len(ids)

    return f


@pytest.mark.parametrize("batch", [None, "pandas"])
@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (BaseExceptionGroup("several", [SystemExit(), ValueError()]), "BaseExceptionGroup: several (2 sub-exceptions)"),
        (WithoutText(), "WithoutText: (WithoutText that cannot be shown: its text raised SystemExit)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_a_function_raises_is_a_failed_value(batch: Batch | None, raised: BaseException, error: str) -> None:
    made: list[Derived] = []
    thread = Thread(
        target=lambda: made.append(derived(batch=batch, f=ends(raised), other=lambda rows: [1.0] * len(rows)))
    )
    thread.start()  # requests are answered in threads
    thread.join()
    assert made[0].columns["f"].to_pylist() == [1.0, None, 1.0]
    assert made[0].examples["f"] == error


def test_a_function_that_calls_itself_for_ever_is_a_failed_value() -> None:
    assert derived(f=deep).examples["f"].startswith("RecursionError: maximum recursion depth exceeded")


def test_a_value_that_cannot_be_shown_is_a_failed_value() -> None:
    class Value:
        def __repr__(self) -> str:
            raise SystemExit

    assert derived(f=lambda row: Value()).failures == {"f": 3}


def test_ctrl_c_stops_what_runs_in_the_main_thread() -> None:
    with pytest.raises(KeyboardInterrupt):
        derived(f=ends(KeyboardInterrupt()))


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


@pytest.mark.parametrize(
    "value", ["abc", b"abc", {"u": 1, "v": 2, "w": 3}, {1, 2, 3}, 1.5, None, pd.DataFrame({"a": [1.0], "b": 2, "c": 3})]
)
def test_a_batch_function_that_returns_no_column_fails(value: object) -> None:
    made = derived("str", batch="pandas", f=lambda rows: value)
    assert made.failures == {"f": 3}
    assert "; expected a column of values: a Series, an array or a list" in made.examples["f"]


def test_a_batch_function_that_changes_its_rows_disturbs_no_other() -> None:
    def thief(rows: pd.DataFrame) -> Any:
        rows["x"] *= 2
        rows.loc[0, "x"] = 7.0
        return rows.pop("x")

    made = derived(nullable=True, batch="pandas", thief=thief, honest=lambda rows: rows["x"])
    assert made.columns["honest"].to_pylist() == [1.0, 2.0, None]
    assert ROWS["x"].to_pylist() == [1.0, 2.0, None]


def test_the_rows_that_a_batch_fails_on_are_found_in_few_calls() -> None:
    calls: list[int] = []

    def whole(rows: Any) -> Any:
        calls.append(len(rows))
        return [1 // x for x in rows["x"].to_pylist()]

    feature = Feature(USER, whole, Column("f", "int", False), batch="arrow", max_failed=0, about=About())
    made = derive(pa.table({"x": [1] * 500 + [0] + [1] * 523}), {"f": feature})
    assert (made.failures, len(calls)) == ({"f": 1}, 21)


# --- a batch, single rows, and a function of one row say the same

KINDS = {"n": "int", "m": "int", "x": "float", "b": "bool", "s": "str"}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Rows of every type; of some columns values are missing."""
    rows = draw(st.integers(1, 8))
    values = {name: st.one_of(st.none(), VALUES[kind]) for name, kind in KINDS.items()}
    return pa.table(
        {
            name: pa.array(draw(st.lists(values[name], min_size=rows, max_size=rows)), ARROW[kind])
            for name, kind in KINDS.items()
        }
    )


def known(compute: Callable[..., Any], *names: str) -> Callable[[dict[str, Any]], Any]:
    """A function of one row, None where it lacks one of the values."""
    return lambda row: None if any(row[name] is None for name in names) else compute(*(row[name] for name in names))


PAIRS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any] | None]] = {
    # dtype, what is done to a DataFrame, and what to a row, or None where that has no such function
    "plus": ("int", lambda rows: rows["n"] + 1, known(lambda n: n + 1, "n")),
    "modulo": ("int", lambda rows: rows["n"] % 1000, known(lambda n: n % 1000, "n")),
    "two columns": ("int", lambda rows: rows["n"] + rows["m"], known(operator.add, "n", "m")),
    "halved": ("float", lambda rows: rows["n"] / 2, known(lambda n: n / 2, "n")),
    "whole and broken": ("float", lambda rows: rows["n"] + rows["x"], known(operator.add, "n", "x")),
    "compared": ("bool", lambda rows: rows["n"] > rows["m"], known(operator.gt, "n", "m")),
    "filled": ("int", lambda rows: rows["n"].fillna(0) % 1000, lambda row: (row["n"] or 0) % 1000),
    "missing": ("bool", lambda rows: rows["n"].isna() | rows["s"].isna(), lambda row: None in (row["n"], row["s"])),
    "negated": ("bool", lambda rows: ~rows["b"], known(lambda b: not b, "b")),
    "truth filled": ("bool", lambda rows: rows["b"].fillna(False), lambda row: bool(row["b"])),
    "as number": ("int", lambda rows: rows["b"].astype("Int64"), known(int, "b")),
    "mapped": (
        "str",
        lambda rows: rows["b"].map({True: "yes", False: "no"}),
        known({True: "yes", False: "no"}.get, "b"),
    ),
    "text of a number": ("str", lambda rows: rows["n"].astype(str).where(rows["n"].notna()), known(str, "n")),
    "joined": ("str", lambda rows: rows["s"] + "!", known(lambda s: s + "!", "s")),
    "same text": ("bool", lambda rows: rows["s"] == "a", lambda row: row["s"] == "a"),
    "length": ("int", lambda rows: rows["s"].str.len(), known(len, "s")),
    "category": ("str", lambda rows: rows["s"].astype("category"), lambda row: row["s"]),
    "object": ("str", lambda rows: rows["s"].astype(object), lambda row: row["s"]),
    "list": ("int", lambda rows: list(rows["n"]), lambda row: row["n"]),
    "Int64": ("int", lambda rows: rows["n"].astype("Int64"), lambda row: row["n"]),
    "Arrow's": ("int", lambda rows: rows["n"].astype("int64[pyarrow]"), lambda row: row["n"]),
    "Float64": ("float", lambda rows: rows["x"].astype("Float64"), lambda row: row["x"]),
    "string": ("str", lambda rows: rows["s"].astype("string"), lambda row: row["s"]),
    "negative as missing": (
        "int",
        lambda rows: rows["n"].where(rows["n"] > 0) % 1000,
        known(lambda n: n % 1000 if n > 0 else None, "n"),
    ),
    "NumPy": ("float", lambda rows: np.abs(rows["x"]), known(abs, "x")),
    "NumPy of whole numbers": ("float", lambda rows: np.sqrt(rows["n"].abs()), known(lambda n: math.sqrt(abs(n)), "n")),
    "an array": ("float", lambda rows: rows["n"].to_numpy() % 1000, None),
    "an array's choice": ("int", lambda rows: np.where(rows["n"] > 5, rows["n"] % 1000, 0), None),
    "each": ("int", lambda rows: rows["n"].apply(lambda n: n % 1000), None),
    "each as text": ("str", lambda rows: rows["n"].map(str), None),
    "each row": ("int", lambda rows: rows.apply(lambda row: row["n"] % 1000, axis=1), None),
    "divided": ("int", lambda rows: rows["n"] // rows["m"], None),
    "inverse": ("float", lambda rows: 1 / rows["x"], None),
}


def outcomes(rows: pa.Table, dtype: str, batch: Batch | None, function: Callable[[Any], Any]) -> list[str]:
    """The value for each row, or that the function fails."""
    feature = Feature(USER, function, Column("f", dtype, True), batch=batch, max_failed=0, about=About())
    made = derive(rows, {"f": feature})
    failures = made.failed.to_pylist()
    return ["failed" if failures[i] else repr(value) for i, value in enumerate(made.columns["f"].to_pylist())]


@pytest.mark.filterwarnings("ignore")  # division by zero, in NumPy
@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=10)
@given(rows=tables())
def test_a_row_has_the_same_value_in_a_batch_and_alone(name: str, rows: pa.Table) -> None:
    dtype, together, single = PAIRS[name]
    batch = outcomes(rows, dtype, "pandas", together)
    alone = [outcomes(rows.slice(i, 1), dtype, "pandas", together)[0] for i in range(rows.num_rows)]
    assert batch == alone
    if single is not None:
        assert batch == outcomes(rows, dtype, None, single)


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
@settings(max_examples=10)
@given(rows=tables())
def test_a_batch_function_gets_each_value_as_it_is_and_gives_it_back(kind: Batch, rows: pa.Table) -> None:
    for name, dtype in KINDS.items():
        assert outcomes(rows, dtype, kind, lambda given, name=name: given[name]) == [
            repr(value) for value in rows[name].to_pylist()
        ]


def test_an_arrow_function_gets_whole_numbers_that_are_all_missing_or_none() -> None:
    rows = pa.table({"n": [2**53 + 1, None, 5]})
    assert outcomes(rows, "float", "arrow", lambda given: given["n"].to_numpy() % 1000) == ["993.0", "None", "5.0"]
    assert outcomes(rows, "int", "arrow", lambda given: pc.add(given["n"], 1)) == [str(2**53 + 2), "None", "6"]
