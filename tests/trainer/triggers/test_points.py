"""As of which points in time a model is trained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modelmill.errors import InvalidRequest
from services.trainer.triggers.backfill import MOST_POINTS, Point, points, when

START = datetime(2013, 1, 31, 5, tzinfo=UTC)


def days(end: datetime, step: str) -> list[str]:
    return [f"{point:%m-%d}" for point in points(START, end, step)]


def test_points_go_from_the_first_time_by_the_step_up_to_and_including_the_last() -> None:
    assert days(START + timedelta(days=4), "2d") == ["01-31", "02-02", "02-04"]
    assert days(START + timedelta(days=3), "2d") == ["01-31", "02-02"]
    assert days(START, "1d") == ["01-31"]


def test_a_month_later_is_the_same_day_or_the_last_one() -> None:
    year = points(START, datetime(2014, 3, 1, tzinfo=UTC), "month")
    assert [f"{point:%m-%d}" for point in year] == [
        "01-31", "02-28", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30", "10-31", "11-30", "12-31", "01-31", "02-28",
    ]  # fmt: skip
    assert all(point.hour == 5 for point in year)


@pytest.mark.parametrize(
    "end, step, sentence",
    [
        (START - timedelta(days=1), "1d", "expected the end to be later"),
        (START + timedelta(days=9), "2 weeks", "'2 weeks' is no length of time; expected .* or 'month'"),
        (START + timedelta(hours=1), "1s", f"more than {MOST_POINTS} trainings; expected a longer step"),
    ],
)
def test_points_that_cannot_be_are_refused(end: datetime, step: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        points(START, end, step)


def test_a_point_is_text_and_back() -> None:
    point = Point(as_of=when(START), status="succeeded", job="j", run="r", version=3)
    assert Point.read(point.as_of, str(point)) == point
    assert point.as_of == "2013-01-31T05:00:00Z"
