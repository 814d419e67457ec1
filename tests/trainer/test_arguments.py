"""Bodies and parameters are checked strictly."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.errors import InvalidRequest
from modelmill.http.bodies import checked
from services.trainer.http.jobs import Training
from services.trainer.http.models import History, Promotion, Rollback
from tests.trainer.calls import problem


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="field 'strat' is not known; did you mean 'start'"):
        checked(Training, {"strat": None})


def test_times_are_taken_in_utc_where_they_name_no_zone() -> None:
    assert checked(Training, {"start": "2026-01-01", "end": "2026-01-02T00:00:00+02:00"}).span() == (
        "2026-01-01T00:00:00+00:00",
        "2026-01-02T00:00:00+02:00",
        "manual",
    )
    assert checked(Training, {}).span() == (None, None, "manual")


@pytest.mark.parametrize("value", ["yesterday", 7, True, [], ""])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"field 'start' is .*; expected a time such as"):
        checked(Training, {"start": value})


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected the start to be earlier"):
        checked(Training, {"start": "2026-01-02", "end": "2026-01-01"})


@pytest.mark.parametrize("value", [None, "3", 3.0, True, 0, -1])
def test_what_is_no_version_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"field 'version' is .*; expected a version number"):
        checked(Promotion, {"version": value})


@pytest.mark.parametrize("value", [7, None, "x" * 501])
def test_what_is_no_short_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"field 'by' is .*; expected a text"):
        checked(Training, {"by": value})


@pytest.mark.parametrize("given", ["0", "-1", "ten", "1001", "1.5", "\u00b2"])
def test_a_limit_outside_its_range_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match=f"limit='{given}'; expected a number from 1 to 1000"):
        checked(History, {"limit": given})


@pytest.mark.parametrize("given", [-1, "-1", 1.5, True, "none"])
def test_what_no_alias_can_name_by_now_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"field 'expected' is .*; expected a version number, or 0 for none"):
        checked(Promotion, {"version": 1, "expected": given})


def test_an_alias_is_a_plain_name(http: FlaskClient) -> None:
    assert checked(Rollback, {"alias": "challenger"}).alias == "challenger"
    with pytest.raises(InvalidRequest, match="alias' is 'a b'; expected letters, digits and _"):
        checked(Rollback, {"alias": "a b"})
    sentence = problem(http, "PUT", "/models/user_target/aliases/a%20b", 422, json={"version": 1})
    assert sentence == "alias 'a b': expected letters, digits and _, not starting with a digit"
