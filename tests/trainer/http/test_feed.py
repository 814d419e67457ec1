"""A job's journal as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from modelmill.errors import InvalidRequest, UnknownName
from modelmill.http import sse
from modelmill.state.registry import Registry
from services.trainer.http import jobs
from services.trainer.jobs.journal import Journal, log_entries
from services.trainer.jobs.queue import TrainingQueue
from tests.trainer.calls import problem
from tests.trainer.conftest import began


def heard(events: Iterator[str]) -> list[tuple[str, dict[str, Any], str]]:
    """Kind, content and id of each event."""
    found = []
    for event in events:
        fields = dict(line.split(": ", 1) for line in event.strip().splitlines())
        if "data" in fields:
            found.append((fields["event"], orjson.loads(fields["data"]), fields.get("id", "")))
    return found


@pytest.fixture
def ended(fake_queue: TrainingQueue, registry: Registry) -> str:
    """A job that was begun, said three things, and was cancelled."""
    job = fake_queue.enqueue("m")
    began(fake_queue, job)
    stage = {"kind": "stage", "run": "r1", "stage": "fit", "progress": "0.2", "rows": "300"}
    Journal(fake_queue.redis, job).add([stage, *log_entries("r1", 1, ["one", "two"])])
    fake_queue.cancel(job, registry)
    Journal(fake_queue.redis, job).add([{"kind": "closed"}])
    return job


def test_all_that_has_happened_comes_first_and_the_end_last(fake_queue: TrainingQueue, ended: str) -> None:
    events = heard(jobs.follow(fake_queue, ended, None, wait=0.01))
    assert [kind for kind, _, _ in events] == ["state", "stage", "log", "log", "end"]
    assert events[1][1] == {"run": "r1", "stage": "fit", "progress": "0.2", "rows": "300"}
    assert [content["text"] for kind, content, _ in events if kind == "log"] == ["one", "two"]
    assert events[-1][1]["status"] == "cancelled"


@pytest.mark.parametrize("after", [[{"kind": "closed"}], []], ids=["its worker lives", "its worker was killed"])
def test_that_an_attempt_failed_comes_after_its_last_lines(
    fake_queue: TrainingQueue, registry: Registry, after: list[dict[str, str]]
) -> None:
    job = fake_queue.enqueue("m")
    again = {"kind": "again", "attempt": "1", "error": "away", "at": "2026-11-25T18:53:14Z"}
    Journal(fake_queue.redis, job).add([again, *log_entries("r1", 1, ["the last line"]), *after])
    events = jobs.follow(fake_queue, job, None, wait=0.01)
    kinds = [next(event for event in events if not event.startswith(":")).split("event: ")[1] for _ in range(3)]
    assert [kind.partition("\n")[0] for kind in kinds] == ["state", "log", "again"]
    fake_queue.cancel(job, registry)
    assert heard(events)[-1][0] == "end"


def test_a_listener_goes_on_after_the_event_that_it_heard_last(fake_queue: TrainingQueue, ended: str) -> None:
    position = heard(jobs.follow(fake_queue, ended, None, wait=0.01))[2][2]
    events = heard(jobs.follow(fake_queue, ended, position, wait=0.01))
    assert [content["text"] for kind, content, _ in events if kind == "log"] == ["two"]


def test_what_changes_is_told_as_it_comes_and_silence_is_broken(
    fake_queue: TrainingQueue, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.0)
    job = fake_queue.enqueue("m")
    events = jobs.follow(fake_queue, job, None, wait=0.01)
    assert next(events) == ": following\n\n"
    assert '"status":"queued"' in next(events)
    assert next(events) == ": still here\n\n"
    fake_queue.cancel(job, registry)
    rest = heard(events)
    assert [kind for kind, _, _ in rest] == ["end"]


def test_a_listener_is_asked_to_connect_again_in_the_end(
    fake_queue: TrainingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "LIFETIME_SECONDS", 0.0)
    assert heard(jobs.follow(fake_queue, fake_queue.enqueue("m"), None, wait=0.01)) == []


def test_what_is_no_position_and_no_job_is_refused(fake_queue: TrainingQueue) -> None:
    job = fake_queue.enqueue("m")
    with pytest.raises(InvalidRequest, match="expected the id of an event"):
        jobs.follow(fake_queue, job, "yesterday", wait=0.01)
    with pytest.raises(UnknownName):
        jobs.follow(fake_queue, "nope", None, wait=0.01)


def test_there_are_places_for_two_listeners_fewer_than_threads(http: FlaskClient, ended: str) -> None:
    taken = [http.get(f"/jobs/{ended}/events", buffered=False) for _ in range(2)]
    assert "all 2 places for listeners are taken" in problem(http, "GET", f"/jobs/{ended}/events", 503)
    for answer in taken:
        answer.close()
    answer = http.get(f"/jobs/{ended}/events")
    assert answer.content_type == "text/event-stream"
    assert answer.text.endswith("\n\n")
    problem(http, "GET", "/jobs/nope/events", 404)
    problem(http, "GET", "/jobs/nope/events", 404)
    problem(http, "GET", "/jobs/nope/events", 404)
