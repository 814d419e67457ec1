"""Bodies and parameters are checked strictly."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill.errors import InvalidRequest
from services.trainer import requests


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="field 'strat' is not known; did you mean 'start'"):
        requests.require_fields({"strat": None}, ("start", "end", "by"))


def test_times_are_taken_in_utc_where_they_name_no_zone() -> None:
    assert requests.span({"start": "2026-01-01", "end": "2026-01-02T00:00:00+02:00"}) == (
        "2026-01-01T00:00:00+00:00",
        "2026-01-02T00:00:00+02:00",
    )
    assert requests.span({}) == (None, None)


@pytest.mark.parametrize("value", ["yesterday", 7, True, [], ""])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected a time such as"):
        requests.moment({"start": value}, "start")


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected the start to be earlier"):
        requests.span({"start": "2026-01-02", "end": "2026-01-01"})


@pytest.mark.parametrize("value", [None, "3", 3.0, True, 0, -1])
def test_what_is_no_version_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected a version number"):
        requests.version({"version": value})


@pytest.mark.parametrize("value", [7, None, "x" * 501])
def test_what_is_no_short_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected a text"):
        requests.text({"by": value}, "by")


@pytest.mark.parametrize("given", ["0", "-1", "ten", "1001", "1.5", "\u00b2"])
def test_a_limit_outside_its_range_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a number from 1 to 1000"):
        requests.limit(given)


def test_an_alias_is_a_plain_name() -> None:
    assert requests.alias("challenger") == "challenger"
    with pytest.raises(InvalidRequest, match="alias 'a b'"):
        requests.alias("a b")
