"""What the client asks the trainer about triggers, and the points in time as of which a model is trained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from modelmill import Client
from modelmill.client.training import MOST_POINTS, points, when
from modelmill.errors import InvalidRequest
from modelmill.settings import Settings

START = datetime(2013, 1, 31, 5, tzinfo=UTC)


def days(end: datetime, step: str) -> list[str]:
    return [f"{point:%m-%d}" for point in points(START, end, step)]


def test_triggers_are_listed() -> None:
    client = Client(Settings(trainer_url="http://trainer"))
    client.http = httpx.Client(
        transport=httpx.MockTransport(
            lambda request: httpx.Response(200, json={"schedules": [{"at": request.url.path}]})
        )
    )
    assert client.schedules() == [{"at": "/schedules"}]


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


def test_days_are_taken_at_midnight_in_utc_and_other_offsets_are_turned_into_it() -> None:
    assert [when(point) for point in points("2013-02-01", "2013-02-02", "1d")] == [
        "2013-02-01T00:00:00Z",
        "2013-02-02T00:00:00Z",
    ]
    assert [when(point) for point in points("2013-02-01T01:00+01:00", "2013-02-01", "1d")] == ["2013-02-01T00:00:00Z"]


@pytest.mark.parametrize(
    "start, end, step, sentence",
    [
        ("soon", START, "1d", "the start is 'soon'; expected a time such as"),
        (START, "now", "1d", "the end is 'now'; expected a time such as"),
        (START, START - timedelta(days=1), "1d", "expected the end to be later"),
        (START, "2999-01-01", "1d", "the end is 2999-01-01T00:00:00Z; expected a time that has passed"),
        (START, START + timedelta(days=9), "2 weeks", "step: '2 weeks' is no length of time; expected .* or 'month'"),
        (START, START + timedelta(hours=1), "1s", f"more than {MOST_POINTS} trainings; expected a longer step"),
    ],
)
def test_points_that_cannot_be_are_refused(
    start: datetime | str, end: datetime | str, step: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        points(start, end, step)
