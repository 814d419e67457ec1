"""The calls about trainings."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from services.trainer.jobs.journal import Journal, log_entries
from services.trainer.jobs.queue import TrainingQueue
from tests.trainer.calls import problem


def test_a_training_is_accepted_with_its_job(http: FlaskClient) -> None:
    answer = http.post("/models/user_target/train", json={"by": "me", "start": "2026-01-01"})
    assert answer.status_code == 202
    job = answer.json
    assert job["url"] == answer.headers["Location"] == f"/jobs/{job['job']}"
    view = http.get(job["url"]).json
    assert (view["model"], view["status"], view["by"], view["position"]) == ("user_target", "queued", "me", 0)


def test_an_unknown_job_is_not_found_with_the_known_ones(http: FlaskClient) -> None:
    job = http.post("/models/user_target/train").json["job"]
    http.delete(f"/jobs/{job}")  # one that has ended is known too
    assert problem(http, "GET", "/jobs/nope", 404) == f"job 'nope' is not known; known: {job}"


def test_a_training_may_be_asked_for_without_a_body(http: FlaskClient) -> None:
    assert http.post("/models/user_target/train").status_code == 202
    assert [job["model"] for job in http.get("/jobs").json["jobs"]] == ["user_target"]


def test_an_unknown_model_is_not_found_with_the_nearest_name(http: FlaskClient) -> None:
    for method, url in (("POST", "/models/user_targt/train"), ("GET", "/models/user_targt")):
        assert "did you mean 'user_target'" in problem(http, method, url, 404)
    assert "did you mean 'user_target'" in problem(http, "GET", "/runs?model=user_targt", 404)


@pytest.mark.parametrize(
    "body, reason",
    [
        (b'{"strat": "2026-01-01"}', "field 'strat' is not known; did you mean 'start'"),
        (b'{"end": "soon"}', "expected a time such as"),
        (b'{"by": 7}', "field 'by' is 7; expected a text"),
    ],
)
def test_a_body_with_a_mistake_is_refused_by_field(http: FlaskClient, body: bytes, reason: str) -> None:
    assert reason in problem(http, "POST", "/models/user_target/train", 422, data=body)
    assert http.get("/jobs").json["jobs"] == []


def test_a_body_that_is_no_object_is_refused(http: FlaskClient) -> None:
    assert "expected an object" in problem(http, "POST", "/models/user_target/train", 400, data=b"[]")


def test_a_full_queue_says_when_to_come_back(http: FlaskClient) -> None:
    for day in range(1, 4):
        http.post("/models/user_target/train", json={"start": f"2026-01-0{day}"})
    answer = http.post("/models/user_target/train")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")


def test_a_waiting_job_can_be_canceled_once(http: FlaskClient) -> None:
    url = http.post("/models/user_target/train").json["url"]
    assert http.delete(f"{url}?by=me").json["status"] == "cancelled"
    assert "has ended already" in problem(http, "DELETE", url, 409)
    problem(http, "DELETE", "/jobs/unknown", 404)


def test_a_second_request_for_the_same_is_told_the_first_ones_job(http: FlaskClient) -> None:
    first = http.post("/models/user_target/train")
    again = http.post("/models/user_target/train", json={"by": "another"})
    assert (first.status_code, first.json["existing"]) == (202, False)
    assert (again.status_code, again.json["existing"]) == (200, True)
    assert again.json["job"] == first.json["job"]
    assert again.headers["Location"] == first.headers["Location"]


def test_the_log_of_a_run_is_plain_text(http: FlaskClient, registry: Registry, fake_queue: TrainingQueue) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now(), job="j1"))
    assert http.get("/runs/r1/log").text == ""
    Journal(fake_queue.redis, "j1").add(log_entries("r1", 1, ["said"]))
    answer = http.get("/runs/r1/log")
    assert (answer.content_type, answer.text.partition("  ")[2]) == ("text/plain; charset=utf-8", "said\n")
    problem(http, "GET", "/runs/r2/log", 404)
