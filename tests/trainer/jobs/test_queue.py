"""Jobs as people see them: enqueued, listed, canceled."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from modelmill.errors import Conflict, QueueFull, RunEnded, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.jobs.queue import Requested, TrainingQueue
from services.trainer.jobs.recovery import recover, requeue_abandoned
from services.trainer.jobs.view import TRAIN
from tests.conftest import RedisServer
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
    view = fake_queue.cancel(job, Registry(fake_redis), by="me")
    assert (view.status, view.error) == ("cancelled", "cancelled by me")
    assert view.ended is not None
    assert fake_queue.rq.job_ids == []
    assert 0 < fake_queue.redis.ttl(f"rq:job:{job}") <= 86400


def test_canceling_a_running_job_closes_its_run(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    registry, job = Registry(fake_redis), fake_queue.enqueue("m")
    began(fake_queue, job, run=start_run(registry, job))
    assert fake_queue.cancel(job, registry, by="me").status == "cancelled"
    assert (registry.runs.get("r1").status, registry.runs.get("r1").error) == ("cancelled", "cancelled by me")


def test_a_job_that_has_only_just_begun_can_be_canceled(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    job = fake_queue.enqueue("m")
    began(fake_queue, job, run="not recorded yet")
    assert fake_queue.cancel(job, Registry(fake_redis)).status == "cancelled"


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
    with pytest.raises(Conflict, match="has ended already: cancelled"):
        fake_queue.cancel(job, Registry(fake_redis))


def test_an_unknown_job_is_not_found(fake_queue: TrainingQueue) -> None:
    with pytest.raises(UnknownName, match="job 'nope' is not known"):
        fake_queue.job("nope")


# --- one training per model and data


def test_a_second_request_joins_the_training_that_waits(fake_queue: TrainingQueue) -> None:
    first = fake_queue.request("m", "data")
    assert not first.existing
    assert fake_queue.request("m", "other data, which it will read, too") == Requested(first.job, existing=True)
    assert fake_queue.rq.job_ids == [first.job]


def test_other_models_and_other_spans_are_other_trainings(fake_queue: TrainingQueue) -> None:
    asked = [
        fake_queue.request("m", "data"),
        fake_queue.request("n", "data"),
        fake_queue.request("m", "data", start="2026-01-01T00:00:00+00:00"),
    ]
    assert [request.existing for request in asked] == [False, False, False]


def test_a_request_joins_what_was_enqueued_by_a_schedule(fake_queue: TrainingQueue) -> None:
    with fake_queue.redis.pipeline() as pipe:
        pipe.multi()
        job = fake_queue.enqueue("m", trigger="schedule", pipeline=pipe)
        pipe.execute()
    assert fake_queue.request("m", "data") == Requested(job, existing=True)


def test_a_training_that_runs_is_joined_while_there_are_no_other_data(fake_queue: TrainingQueue) -> None:
    first = fake_queue.request("m", "data")
    began(fake_queue, first.job, run="r1")
    assert fake_queue.request("m", "newer").job == first.job, "it has not read its data yet"
    fake_queue.redis.hset(f"rq:job:{first.job}", "meta", json.dumps({"run": "r1", "data": "data"}))
    assert fake_queue.request("m", "data").job == first.job
    second = fake_queue.request("m", "newer")
    assert not second.existing
    assert fake_queue.request("m", "newest") == Requested(second.job, existing=True)


def test_the_place_is_free_once_the_job_has_ended_in_any_way(fake_queue: TrainingQueue, fake_redis: Redis) -> None:
    def end(status: str) -> None:
        fake_queue.redis.hset(f"rq:job:{fake_queue.request('m', 'data').job}", "status", status)

    for end_it in (
        lambda: fake_queue.cancel(fake_queue.request("m", "data").job, Registry(fake_redis)),
        lambda: end("finished"),
        lambda: end("failed"),
        lambda: end("stopped"),
        lambda: fake_queue.redis.delete(f"rq:job:{fake_queue.request('m', 'data').job}"),
    ):
        end_it()
        fake_queue.redis.delete(fake_queue.rq.key)
        assert not fake_queue.request("m", "data").existing


def test_places_of_ended_jobs_are_forgotten(fake_queue: TrainingQueue, fake_redis: Redis, storage: Storage) -> None:
    registry = Registry(fake_redis)
    fake_queue.cancel(fake_queue.request("m", "data").job, registry)
    waiting = fake_queue.request("n", "data").job
    recover(fake_queue.rq, registry, storage)
    assert fake_redis.hgetall(keys.TRAININGS) == {"n||": waiting}


@pytest.mark.redis
def test_of_100_requests_at_once_one_trains_and_99_are_told_its_id(real_redis: RedisServer) -> None:
    queue = TrainingQueue(real_redis.client(text=False))
    with ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda _: queue.request("m", "data"), range(100)))
    assert len({request.job for request in asked}) == 1
    assert sum(request.existing for request in asked) == 99
    assert queue.rq.job_ids == [asked[0].job]


# --- limits and attempts


def test_a_model_may_have_a_time_limit_of_its_own(fake_queue: TrainingQueue) -> None:
    assert fake_queue.job(fake_queue.enqueue("m")).timeout == 3600
    assert fake_queue.job(fake_queue.enqueue("m", timeout=60)).timeout == 60


def test_cancelling_takes_the_lease_so_that_nothing_more_is_recorded(
    fake_queue: TrainingQueue, fake_redis: Redis
) -> None:
    registry, job = Registry(fake_redis), fake_queue.enqueue("m")
    lease = began(fake_queue, job, run="r1")
    fake_queue.cancel(job, registry)
    with pytest.raises(RunEnded, match="did not renew its lease"):
        registry.runs.start(Run(id="r1", model="m", started=utc_now(), job=job, lease=lease))


def test_jobs_are_taken_in_the_order_of_arrival_and_one_that_is_tried_again_joins_the_end(
    fake_queue: TrainingQueue,
) -> None:
    first = fake_queue.enqueue("scheduled", trigger="every")
    fake_queue.request("joined", "data")
    fake_queue.rq.enqueue("services.trainer.job.train", "shell")
    assert fake_queue.request("joined", "data").existing
    assert [fake_queue.job(job).model for job in fake_queue.rq.job_ids] == ["scheduled", "joined", "shell"]
    began(fake_queue, first, lease=-1)
    requeue_abandoned(fake_queue.rq)
    assert [fake_queue.job(job).model for job in fake_queue.rq.job_ids] == ["joined", "shell", "scheduled"]
