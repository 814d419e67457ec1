from __future__ import annotations

import re
from typing import Any

import pytest

from modelmill import Entity, Expect, Model, Source, column, feature
from modelmill.columns.types import Constraints
from modelmill.declare.declarations import About

USER = Entity("user", key="user_id")


def source(**given: Any) -> Source:
    return Source("users", entity=USER, **{"columns": {"x": float, "name": str | None}} | given)


# --- columns


def test_a_plain_type_has_no_constraints() -> None:
    assert not source().columns["x"].constraints


def test_a_column_keeps_its_type_constraints_and_description() -> None:
    kept = source(columns={"x": column(float | None, min=0, max=10, description="how far")}).columns["x"]
    assert (kept.name, kept.dtype, kept.nullable, kept.description) == ("x", "float", True, "how far")
    assert kept.constraints == Constraints(min=0, max=10)


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"min": 0}, "at least 0"),
        ({"max": 1.5}, "at most 1.5"),
        ({"min": -1, "max": 1}, "from -1 to 1"),
        ({"choices": ("a", "b")}, "one of 'a', 'b'"),
        ({"choices": tuple(range(12))}, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 or 2 others"),
        ({"pattern": "[A-Z]{3}"}, "text matching '[A-Z]{3}'"),
        ({"min": 0, "choices": (1, 2)}, "at least 0; one of 1, 2"),
    ],
)
def test_constraints_read_as_a_sentence(given: dict[str, Any], sentence: str) -> None:
    assert str(Constraints(**given)) == sentence


CONTRADICTIONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "limits": (float, {"min": 2, "max": 1}, "min=2 is greater than max=1"),
    "limit of text": (str, {"min": 1}, "min=1 is a limit of numbers, and the column is str"),
    "limit of bool": (bool, {"max": True}, "max=True is a limit of numbers, and the column is bool"),
    "fraction for int": (int, {"min": 0.5}, "min 0.5 is not of the column's type int"),
    "nan": (float, {"max": float("nan")}, "max nan is not of the column's type float"),
    "huge": (int, {"max": 10**18}, "max 1000000000000000000 is not of the column's type int"),
    "text for float": (float, {"min": "0"}, "min '0' is not of the column's type float"),
    "choice of another type": (int, {"choices": [1, "2"]}, "choice '2' is not of the column's type int"),
    "True among numbers": (int, {"choices": [True]}, "choice True is not of the column's type int"),
    "None among choices": (str | None, {"choices": ["a", None]}, "choice None is not of the column's type str"),
    "choice outside limits": (int, {"min": 1, "choices": [0]}, "choice 0 is not at least 1"),
    "choice twice": (str, {"choices": ["a", "a"]}, "a choice is named twice"),
    "choice against pattern": (str, {"choices": ["ab", "abc"], "pattern": ".."}, "choice 'abc' is not text matching '..'"),
    "pattern of numbers": (int, {"pattern": "1+"}, "pattern='1+' is for text, and the column is int"),
    "pattern that is no text": (str, {"pattern": 3}, "pattern=3; expected a regular expression as text"),
    "bad pattern": (str, {"pattern": "["}, "pattern='[' is no regular expression that RE2 takes"),
    "two halves": (str, {"pattern": "a)|(b"}, "pattern='a)|(b' is no regular expression that RE2 takes"),
    "look-ahead": (str, {"pattern": "(?=a)"}, "it has no look-around and no references to groups"),
    "back reference": (str, {"pattern": r"(a)\1"}, "it has no look-around and no references to groups"),
}  # fmt: skip


@pytest.mark.parametrize("annotation, given, reason", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_column_and_reason(annotation: Any, given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^column 'x': .*{re.escape(reason)}"):
        source(columns={"x": column(annotation, **given)})


def test_choices_are_a_list() -> None:
    with pytest.raises(ValueError, match="choices='ab'; expected a list of values"):
        column(str, choices="ab")


def test_the_type_of_a_column_with_constraints_is_checked_as_any() -> None:
    with pytest.raises(ValueError, match=r"column 'x' has type .*expected float, int, bool or str"):
        source(columns={"x": column(list, min=0)})


def test_only_columns_of_a_source_have_constraints() -> None:
    expected = r"column\(\.\.\.\) is for the columns of a source; expected its type alone"
    with pytest.raises(ValueError, match=expected):
        Model("m", entities=[USER], features=["x"], label="y", estimator=None, inputs={"hour": column(int, min=0)})
    with pytest.raises(ValueError, match=expected):
        feature(USER, dtype=column(float))(lambda row: 1.0)


# --- what a source expects beside columns


def test_a_source_takes_times_of_five_minutes_ahead_unless_it_says_otherwise() -> None:
    assert source(event_time="at").max_future == 300
    assert source(event_time="at", max_future="1h").max_future == 3600


def test_what_a_source_is_and_whose() -> None:
    described = source(description="people", owner="ann", tags=["core", "gdpr"])
    assert described.about == About("people", "ann", ("core", "gdpr"))


@pytest.mark.parametrize(
    "given, reason",
    [
        (
            {"event_time": "at", "max_future": "soon"},
            "max_future: 'soon' is no length of time; expected a whole number of s, m, h or d",
        ),
        ({"max_future": "1h"}, "max_future='1h' bounds event times; name their column too"),
        ({"tags": "core"}, r"description, owner and tags are .*; expected texts, and for tags a list of texts"),
        ({"expect": {"min_rows": 1}}, r"expect=\{'min_rows': 1\}; expected Expect\(min_rows=..., unique=\[...\]\)"),
        ({"expect": Expect(min_rows=-1)}, "expect: min_rows=-1; expected a whole number of rows"),
        ({"expect": Expect(min_rows=3, max_rows=2)}, "expect: min_rows=3 is greater than max_rows=2"),
        ({"expect": Expect(null_share={"y": 0.1})}, "expect: 'y' is none of its columns: user_id, x, name"),
        ({"expect": Expect(null_share={"x": 10})}, "expect: null_share of 'x' is 10; expected a share from 0 to 1"),
        ({"expect": Expect(unique=["at"])}, "expect: 'at' is none of its columns"),
        ({"expect": Expect(unique="user_id")}, "expect: unique='user_id'; expected a list of columns"),
    ],
)
def test_what_a_source_cannot_mean_is_refused_with_the_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"source 'users': {reason}"):
        source(**given)
