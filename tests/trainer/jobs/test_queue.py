"""Jobs as people see them: enqueued, listed, canceled."""

from __future__ import annotations

import json

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from modelmill.connections import Redis
from modelmill.errors import Conflict, QueueFull, UnknownName
from modelmill.events import utc_now
from modelmill.registry import Registry
from modelmill.runs import Run
from services.trainer.jobs.queue import TRAIN, TrainingQueue
from services.trainer.jobs.recovery import requeue_abandoned
from tests.trainer.conftest import began


def start_run(registry: Registry, job: str) -> str:
    registry.runs.start(Run(id="r1", model="m", started=utc_now(), job=job))
    return "r1"


def test_a_job_is_json_and_expires(fake_queue: TrainingQueue) -> None:
    job = fake_queue.rq.fetch_job(fake_queue.enqueue("m", trigger="every", by="every 60 s"))
    assert job is not None
    assert json.loads(job.data) == [
        TRAIN,
        None,
        [],
        {"model": "m", "trigger": "every", "by": "every 60 s", "start": None, "end": None},
    ]
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (3600, 86400, 86400)


def test_a_waiting_job_says_how_many_wait_before_it(fake_queue: TrainingQueue) -> None:
    fake_queue.enqueue("a")
    view = fake_queue.job(fake_queue.enqueue("b", by="me"))
    assert (view.status, view.stage, view.position, view.model, view.by) == ("queued", "queued", 1, "b", "me")
    assert view.url == f"/jobs/{view.job}"


def test_a_queue_that_is_full_takes_no_more(fake_queue: TrainingQueue) -> None:
    for _ in range(3):
        fake_queue.enqueue("m")
    with pytest.raises(QueueFull, match="3 trainings wait already, of 3") as caught:
        fake_queue.enqueue("m")
    assert (caught.value.status, caught.value.retry_after) == (429, 30)


def test_a_running_job_shows_stage_progress_and_run(fake_queue: TrainingQueue) -> None:
    job = fake_queue.enqueue("m")
    began(fake_queue, job, run="r1")
    view = fake_queue.job(job)
    assert (view.status, view.stage, view.progress, view.run) == ("started", "fit", 0.2, "r1")
    assert view.started is not None
    assert view.position is None


def test_a_job_that_waits_again_shows_nothing_of_its_last_attempt(fake_queue: TrainingQueue) -> None:
    job = fake_queue.enqueue("m")
    fake_queue.redis.delete(began(fake_queue, job, run="r1"))
    requeue_abandoned(fake_queue.rq)
    view = fake_queue.job(job)
    assert (view.status, view.stage, view.run, view.started) == ("queued", "queued", None, None)


def test_a_job_from_the_shell_is_understood(fake_queue: TrainingQueue) -> None:
    job = fake_queue.rq.enqueue(TRAIN, "m", "manual", "me")
    view = fake_queue.job(job.id)
    assert (view.model, view.trigger, view.by) == ("m", "manual", "me")


@pytest.mark.parametrize("serializer", [None, JSONSerializer], ids=["pickle", "json"])
def test_what_is_no_training_can_be_listed(fake_queue: TrainingQueue, serializer: object) -> None:
    Queue("train", connection=fake_queue.redis, serializer=serializer).enqueue("os.system", "true")
    assert [(view.model, view.status) for view in fake_queue.jobs()] == [(None, "queued")]


def test_jobs_that_wait_or_run_come_first_and_ended_ones_after(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    canceled, running, waiting = (fake_queue.enqueue(name) for name in "abc")
    fake_queue.cancel(canceled, Registry(fake_redis))
    began(fake_queue, running)
    assert [view.job for view in fake_queue.jobs()] == [waiting, running, canceled]


def test_a_model_is_pending_while_a_training_waits_or_runs(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    job = fake_queue.enqueue("m")
    assert fake_queue.is_pending("m")
    began(fake_queue, job)
    assert fake_queue.is_pending("m")
    fake_queue.cancel(job, Registry(fake_redis))
    assert not fake_queue.is_pending("m")
    assert not fake_queue.is_pending("other")


def test_a_canceled_job_leaves_the_queue_and_expires(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    job = fake_queue.enqueue("m")
    assert fake_queue.cancel(job, Registry(fake_redis)).status == "canceled"
    assert fake_queue.rq.job_ids == []
    assert 0 < fake_queue.redis.ttl(f"rq:job:{job}") <= 86400


def test_canceling_a_running_job_closes_its_run(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    registry, job = Registry(fake_redis), fake_queue.enqueue("m")
    began(fake_queue, job, run=start_run(registry, job))
    assert fake_queue.cancel(job, registry, by="me").status == "canceled"
    assert (registry.runs.get("r1").status, registry.runs.get("r1").error) == ("failed", "canceled by me")


def test_a_job_that_has_only_just_begun_can_be_canceled(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    job = fake_queue.enqueue("m")
    began(fake_queue, job, run="not recorded yet")
    assert fake_queue.cancel(job, Registry(fake_redis)).status == "canceled"


def test_a_job_whose_version_is_registered_is_not_canceled_any_more(
    fake_queue: TrainingQueue, fake_redis: Redis
) -> None:
    registry, job = Registry(fake_redis), fake_queue.enqueue("m")
    began(fake_queue, job, run=start_run(registry, job))
    registry.register(registry.runs.get("r1"), "packages/m/r1", promote=True, champion=None)
    with pytest.raises(Conflict, match="has ended already"):
        fake_queue.cancel(job, registry)


def test_a_job_that_has_ended_cannot_be_canceled(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    job = fake_queue.enqueue("m")
    fake_queue.cancel(job, Registry(fake_redis))
    with pytest.raises(Conflict, match="has ended already: canceled"):
        fake_queue.cancel(job, Registry(fake_redis))


def test_an_unknown_job_is_not_found(fake_queue: TrainingQueue) -> None:
    with pytest.raises(UnknownName, match="job 'nope' is not known"):
        fake_queue.job("nope")
