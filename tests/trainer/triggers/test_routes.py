"""The trainer's calls about triggers, and about training as of past days."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.state.connections import Redis
from services.trainer.jobs.queue import TrainingQueue
from tests.trainer.http import problem
from tests.trainer.triggers.test_scheduler import MINUTE, START, scheduling

BACKFILL = "/models/user_target/backfill"


def test_triggers_tell_when_they_fire_next_and_what_became_of_them(
    http: FlaskClient, fake_redis: Redis, fake_queue: TrainingQueue
) -> None:
    (fresh,) = http.get("/schedules").json["schedules"]
    assert (fresh["model"], fresh["trigger"], fresh["kind"]) == ("user_target", "every 60 s", "every")
    assert (fresh["fired"], fresh["outcome"], fresh["fired_today"], fresh["today"]) == (None, None, 0, {})
    assert fresh["next"].endswith(":00.000000Z")
    scheduler = scheduling(fake_redis, fake_queue)
    for minute in range(3):
        scheduler.look(START + minute * MINUTE)
    (seen,) = http.get("/schedules").json["schedules"]
    assert seen["fired"] == "2026-05-04T12:01:00.000000Z"
    assert (seen["outcome"], seen["outcome_at"]) == ("skipped_busy", "2026-05-04T12:02:00.500000Z")
    assert seen["today"] == {}, "that was on another day"


def test_a_model_is_trained_as_of_past_days(http: FlaskClient) -> None:
    body = {"from": "2013-02-01T05:00:00Z", "to": "2013-05-01T05:00:00Z", "step": "month", "by": "ann"}
    answer = http.post(BACKFILL, json=body)
    assert (answer.status_code, answer.headers["Location"]) == (202, BACKFILL)
    assert http.get(BACKFILL).json == answer.json
    assert (answer.json["status"], answer.json["total"], answer.json["counts"]) == ("running", 4, {"waiting": 4})
    assert [point["as_of"][:10] for point in answer.json["points"]] == [f"2013-0{month}-01" for month in range(2, 6)]
    assert http.delete(BACKFILL).json["status"] == "cancelled"


def test_days_are_taken_at_midnight_and_the_step_is_a_day(http: FlaskClient) -> None:
    answer = http.post(BACKFILL, json={"from": "2013-02-01", "to": "2013-02-03"})
    assert [point["as_of"] for point in answer.json["points"]] == [f"2013-02-0{day}T00:00:00Z" for day in (1, 2, 3)]


@pytest.mark.parametrize(
    "body, status, sentence",
    [
        ({"to": "2013-02-01"}, 422, "field 'from' is missing; expected a time"),
        ({"from": "2013-02-01"}, 422, "field 'to' is missing; expected a time"),
        ({"from": "soon", "to": "2013-02-01"}, 422, "field 'from' is 'soon'; expected a time"),
        ({"from": "2013-02-01", "to": "2013-01-01"}, 422, "expected the end to be later"),
        ({"from": "2013-02-01", "to": "2999-01-01"}, 422, "expected a time that has passed"),
        ({"from": "2013-02-01", "to": "2013-02-09", "step": "week"}, 422, "field 'step': 'week' is no length of time"),
        ({"from": "2013-02-01", "to": "2013-02-09", "again": 1}, 422, "field 'again' is 1; expected true or false"),
        ({"since": "2013-02-01"}, 422, "field 'since' is not known"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    http: FlaskClient, body: dict[str, Any], status: int, sentence: str
) -> None:
    assert sentence in problem(http, "POST", BACKFILL, status, json=body)


def test_of_an_unknown_model_nothing_is_told(http: FlaskClient) -> None:
    body = {"from": "2013-02-01", "to": "2013-02-03"}
    assert "'user_targe' is not known" in problem(http, "POST", "/models/user_targe/backfill", 404, json=body)
    assert "was never trained as of past days" in problem(http, "GET", BACKFILL, 404)
