from __future__ import annotations

import inspect
import re
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill import errors
from modelmill.errors import (
    DefinitionsError,
    InvalidRows,
    ModelmillError,
    NotFound,
    Rejection,
    RequestFailed,
    TooLarge,
    Unavailable,
    UnknownName,
    UnsupportedContent,
    did_you_mean,
    printable,
    sentence,
    traced,
)

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ModelmillError)]


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Odd(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("\n\n  one"), "ValueError: one"),
        (ValueError("a\ud800b"), r"ValueError: a\ud800b"),
        (Mute(), "Mute: (Mute that cannot be shown: its text raised SystemExit)"),
        (Odd(), "Odd: (Odd that cannot be shown: its text raised TypeError)"),
        (UnknownName("job", "a\ud800", []), "job 'a\\ud800' is not known; none is known yet"),
    ],
)
def test_any_error_has_one_sentence_that_can_be_stored(error: BaseException, said: str) -> None:
    assert sentence(error) == said
    sentence(error).encode()
    traced(error).encode()


@given(st.text(st.characters()), st.integers(0, 50))
def test_printable_text_is_the_text_where_that_can_be_stored(text: str, longest: int) -> None:
    shown = printable(text, longest)
    shown.encode()
    assert len(shown) <= 6 * longest + 3
    if text.isascii() and len(text) <= longest:
        assert shown == text


def test_a_long_error_is_cut_and_of_its_traceback_the_end_stays() -> None:
    error = ValueError("x" * 1_000_000)
    assert len(sentence(error)) < 2_100
    assert len(traced(error)) < 50_100


@pytest.mark.parametrize(
    "name, known, sentence",
    [
        ("fature_1", ["feature_1", "target"], "; did you mean 'feature_1'?"),
        ("x", [], "; none is known yet"),
        ("x", ["beta", "alpha"], "; known: alpha, beta"),
        ("x", [f"name_{number}" for number in range(11)], ""),
    ],
)
def test_an_unknown_name_is_helped_along(name: str, known: list[str], sentence: str) -> None:
    assert did_you_mean(name, known) == sentence


def test_at_most_three_near_names_are_offered() -> None:
    assert did_you_mean("cty", ["city", "city"]) == "; did you mean 'city'?"
    assert did_you_mean("feature_0", [f"feature_{n}" for n in range(1, 9)]).count("'") == 6


def test_a_problem_has_what_rfc_9457_asks_and_the_fields() -> None:
    assert UnknownName("model", "a", ["b"]).problem() == {
        "type": "urn:modelmill:unknown-name",
        "title": "Unknown name",
        "status": 404,
        "detail": "model 'a' is not known; known: b",
        "model": "a",
    }


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_is_in_the_tree_at_the_top_of_the_file(kind: type[ModelmillError]) -> None:
    assert re.search(rf"^[│├└─ ]*{kind.__name__}\b", errors.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_says_what_it_is_for(kind: type[ModelmillError]) -> None:
    assert kind.__doc__


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_has_a_status_that_http_knows(kind: type[ModelmillError]) -> None:
    assert kind.status in set(HTTPStatus)
    assert kind.status >= 400


def test_a_name_that_is_not_known_is_not_found() -> None:
    assert issubclass(UnknownName, NotFound)


def test_what_may_pass_says_when_to_try_again() -> None:
    assert Unavailable("away").retry_after


def test_a_definitions_error_reads_as_a_compiler_s() -> None:
    assert str(DefinitionsError("mill.py", 7, "no such name")) == "mill.py:7: no such name"


def test_a_definitions_error_of_the_whole_file_has_no_line() -> None:
    assert str(DefinitionsError("mill.py", 0, "cannot be read")) == "mill.py: cannot be read"


def test_a_rejection_names_row_column_value_and_reason() -> None:
    assert str(Rejection(3, "a", "x", "expected a number")) == "row 3, column 'a', value 'x': expected a number"


def test_rejected_rows_are_counted_and_the_first_listed() -> None:
    error = InvalidRows("users", 5, 9, [Rejection(3, "a", "x", "expected a number")])
    assert "5 of 9 rows of source 'users' were rejected and nothing was stored" in str(error)
    assert "row 3, column 'a', value 'x': expected a number" in str(error)
    assert "?on_error=skip" in str(error)
    assert error.problem()["reasons"] == [{"row": 3, "column": "a", "value": "x", "reason": "expected a number"}]


@pytest.mark.parametrize(
    "error, sentence",
    [
        (TooLarge("rows", 5, 3, "A_SETTING"), "rows: 5 is over the limit of 3; send smaller parts or raise A_SETTING"),
        (TooLarge("rows", 5, 3), "rows: 5 is over the limit of 3; send smaller parts"),
        (TooLarge("body", None, 3), "body: over the limit of 3; send smaller parts"),
        (UnsupportedContent("text/x", ["text/csv", "application/json"]),
         "content type 'text/x' is not taken here; expected one of text/csv, application/json"),
        (RequestFailed(404, {"detail": "model 'a' is not known"}), "model 'a' is not known"),
        (RequestFailed(502, {}), "HTTP status 502"),
    ],
)  # fmt: skip
def test_an_error_says_what_was_wrong_and_the_cure(error: ModelmillError, sentence: str) -> None:
    assert str(error) == sentence
