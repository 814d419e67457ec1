"""The order of the queue."""

from __future__ import annotations

import pytest

from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import Priority
from tests.trainer.conftest import began


@pytest.fixture
def queue(fake_queue: TrainingQueue) -> TrainingQueue:
    fake_queue.limit = 100
    return fake_queue


def order(queue: TrainingQueue) -> list[str | None]:
    return [queue.job(job).model for job in queue.rq.job_ids]


def test_a_job_goes_before_those_of_lower_priority_and_after_its_equals(queue: TrainingQueue) -> None:
    asked: list[tuple[str, Priority]] = [
        ("low1", "low"), ("a", "normal"), ("high1", "high"), ("b", "normal"), ("low2", "low"), ("high2", "high"),
    ]  # fmt: skip
    for model, priority in asked:
        queue.enqueue(model, priority=priority)
    assert order(queue) == ["high1", "high2", "a", "b", "low1", "low2"]


def test_a_job_that_names_no_priority_is_normal(queue: TrainingQueue) -> None:
    queue.enqueue("low", priority="low")
    job = queue.rq.enqueue("services.trainer.job.train", "shell")
    assert order(queue) == ["shell", "low"]
    assert queue.job(job.id).priority == "normal"


def test_a_job_that_is_tried_again_keeps_its_place(queue: TrainingQueue) -> None:
    first = queue.enqueue("high", priority="high")
    queue.enqueue("normal")
    job = queue.rq.fetch_job(first)
    assert job is not None
    queue.rq.remove(job)
    queue.rq._enqueue_job(job)
    assert order(queue) == ["high", "normal"]
    assert queue.job(first).priority == "high"


def test_a_job_that_a_request_joins_has_the_higher_priority_of_the_two(queue: TrainingQueue) -> None:
    joined = queue.request("joined", "data", priority="low").job
    queue.enqueue("normal")
    assert queue.request("joined", "data", priority="high").existing
    assert (order(queue), queue.job(joined).priority) == (["joined", "normal"], "high")
    assert queue.request("joined", "data", priority="low").existing
    assert (order(queue), queue.job(joined).priority) == (["joined", "normal"], "high")


def test_a_job_that_runs_already_is_not_enqueued_again_by_a_higher_priority(queue: TrainingQueue) -> None:
    job = queue.request("joined", "data").job
    began(queue, job)
    assert queue.request("joined", "data", priority="high").existing
    assert order(queue) == []
