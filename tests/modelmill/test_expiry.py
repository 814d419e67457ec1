from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modelmill.state import events
from modelmill.state.events import iso

NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("microseconds, expired", [(0, False), (1, True), (-1, False)])
def test_a_row_is_expired_once_its_age_is_over_the_limit(microseconds: int, expired: bool) -> None:
    time = iso(NOON - timedelta(days=30, microseconds=microseconds))
    assert (time < events.cutoff(NOON, 30 * 86_400)) is expired


@pytest.mark.parametrize("max_age", [None, 999_999 * 86_400])
def test_without_a_limit_or_with_one_beyond_the_calendar_nothing_expires(max_age: int | None) -> None:
    assert not iso(datetime.min.replace(tzinfo=UTC)) < events.cutoff(NOON, max_age)
