"""The trainer's calls about triggers, and about a training as of a past time."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.state.connections import Redis
from services.trainer.jobs.queue import TrainingQueue
from tests.trainer.calls import problem
from tests.trainer.triggers.test_scheduler import MINUTE, START, scheduling

TRAIN = "/models/user_target/train"


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


def test_a_training_as_of_a_past_time_says_so_and_keeps_no_trigger_from_firing(
    http: FlaskClient, fake_queue: TrainingQueue
) -> None:
    answer = http.post(TRAIN, json={"as_of": "2013-02-01", "by": "ann"})
    assert answer.status_code == 202
    (job,) = fake_queue.rq.get_jobs()
    assert job.kwargs == {
        "model": "user_target", "trigger": "backfill", "by": "ann", "start": None, "end": "2013-02-01T00:00:00Z",
    }  # fmt: skip
    assert http.post(TRAIN, json={"as_of": "2013-02-01T01:00+01:00"}).json["job"] == job.id, "the same time"


@pytest.mark.parametrize(
    "body, sentence",
    [
        ({"as_of": "soon"}, "field 'as_of' is 'soon'; expected a time"),
        ({"as_of": "2999-01-01"}, "field 'as_of' is 2999-01-01T00:00:00+00:00; expected a time that has passed"),
        ({"as_of": "2013-02-01", "end": "2013-02-01"}, "expected no 'start' and no 'end' beside it"),
        ({"as_of": "2013-02-01", "start": "2013-01-01"}, "expected no 'start' and no 'end' beside it"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(http: FlaskClient, body: dict[str, Any], sentence: str) -> None:
    assert sentence in problem(http, "POST", TRAIN, 422, json=body)
