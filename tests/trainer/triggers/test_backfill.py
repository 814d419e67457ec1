"""A model that is trained as of past days, one after another, across restarts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import utc_now
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.triggers.backfill import Backfill, Backfills, NoBackfill, Point, points, when
from tests.conftest import USERS_MILL, RedisServer

MODEL = "user_target"
MONTHS = [f"2013-0{month}-01T00:00:00Z" for month in range(2, 6)]


def asking(names: list[str] = MONTHS) -> Backfill:
    found = {name: Point(as_of=name) for name in names}
    return Backfill(model=MODEL, start=names[0], end=names[-1], step="month", by="ann", points=found)


@pytest.fixture
def definitions() -> Definitions:
    return load(USERS_MILL)


@pytest.fixture
def backfills(fake_queue: TrainingQueue, registry: Registry) -> Backfills:
    return Backfills(fake_queue, registry)


def waiting(queue: TrainingQueue) -> list[Job]:
    return queue.rq.get_jobs()


def work(backfills: Backfills, *, fail: str = "") -> str:
    """Do what a worker does with the one training that waits, and return the time as of which that was."""
    queue, registry = backfills.queue, backfills.registry
    (job,) = waiting(queue)
    as_of = str(job.kwargs["end"])
    run = Run(id=f"r-{job.id[:8]}", model=MODEL, started=utc_now(), job=job.id, trigger="backfill", as_of=as_of)
    registry.runs.start(run)
    with queue.redis.pipeline() as pipe:
        job.meta = {"run": run.id, "stage": "done", "error": fail}
        job.save_meta()
        queue.rq.remove(job.id)
        if fail:
            registry.runs.fail(run, fail, "")
        else:
            registry.register(run, "folder", promote=False, champion=None)
        job.set_status(JobStatus.FAILED if fail else JobStatus.FINISHED, pipeline=pipe)
        pipe.execute()
    return as_of


def statuses(backfills: Backfills) -> list[str]:
    return [point.status for point in backfills.get(MODEL).points.values()]


def test_a_model_is_trained_as_of_each_point_one_after_another(backfills: Backfills, definitions: Definitions) -> None:
    backfills.ask(asking())
    seen = []
    for _ in MONTHS:
        for _ in range(3):  # looks of several processes
            Backfills(backfills.queue, backfills.registry).advance(definitions)
        (job,) = waiting(backfills.queue)
        assert (job.kwargs["trigger"], job.kwargs["by"]) == ("backfill", "ann")
        seen.append(work(backfills))
    assert statuses(backfills) == ["succeeded", "succeeded", "succeeded", "active"]
    backfills.advance(definitions)
    done = backfills.get(MODEL)
    assert (seen, done.status) == (MONTHS, "done")
    assert [point.version for point in done.points.values()] == [1, 2, 3, 4]
    assert backfills.registry.redis.smembers(keys.BACKFILLS) == set()


def test_asked_again_it_goes_on_after_what_is_done(backfills: Backfills, definitions: Definitions) -> None:
    backfills.ask(asking())
    backfills.advance(definitions)
    work(backfills)
    backfills.advance(definitions)
    backfills.cancel(MODEL)
    assert statuses(backfills) == ["succeeded", "cancelled", "waiting", "waiting"]
    backfills.advance(definitions)
    assert waiting(backfills.queue) == []
    backfills.ask(asking([*MONTHS, "2013-06-01T00:00:00Z"]))
    assert statuses(backfills) == ["succeeded", "waiting", "waiting", "waiting", "waiting"]
    backfills.advance(definitions)
    assert work(backfills) == MONTHS[1]


def test_asked_again_when_all_is_done_it_is_done_unless_it_is_to_begin_anew(
    backfills: Backfills, definitions: Definitions
) -> None:
    for again in (False, True):
        backfills.ask(asking(MONTHS[:1]), again=again)
        backfills.advance(definitions)
        assert work(backfills) == MONTHS[0]
        backfills.advance(definitions)
        assert backfills.ask(asking(MONTHS[:1])).status == "done"


def test_the_same_request_joins_one_that_runs_and_another_is_refused(backfills: Backfills) -> None:
    first = backfills.ask(asking())
    assert backfills.ask(replace(asking(), by="bob")) == first
    with pytest.raises(Conflict, match=r"as of 4 points from 2013-02-01T00:00:00Z .* already"):
        backfills.ask(asking(MONTHS[:2]))


def test_a_point_that_fails_is_noted_and_tried_when_asked_again(backfills: Backfills, definitions: Definitions) -> None:
    backfills.ask(asking(MONTHS[:2]))
    backfills.advance(definitions)
    work(backfills, fail="no rows")
    backfills.advance(definitions)
    work(backfills)
    backfills.advance(definitions)
    done = backfills.get(MODEL)
    assert [(point.status, point.error) for point in done.points.values()] == [("failed", "no rows"), ("succeeded", "")]
    assert done.status == "done"
    backfills.ask(asking(MONTHS[:2]))
    assert statuses(backfills) == ["waiting", "succeeded"]


def test_it_waits_while_the_model_is_trained_otherwise_or_the_queue_is_full(
    backfills: Backfills, definitions: Definitions
) -> None:
    backfills.ask(asking())
    backfills.queue.enqueue(MODEL)
    backfills.advance(definitions)
    assert [job.trigger for job in backfills.queue.jobs()] == ["manual"]
    backfills.queue.rq.empty()
    for _ in range(3):
        backfills.queue.enqueue("other")
    backfills.advance(definitions)
    assert statuses(backfills) == ["waiting"] * 4
    backfills.queue.rq.empty()
    backfills.advance(definitions)
    assert statuses(backfills) == ["active", "waiting", "waiting", "waiting"]


def test_a_point_whose_job_is_forgotten_is_what_its_run_says(backfills: Backfills, definitions: Definitions) -> None:
    backfills.ask(asking(MONTHS[:2]))
    for _ in range(2):
        backfills.advance(definitions)
        (job,) = waiting(backfills.queue)
        if job.kwargs["end"] == MONTHS[0]:
            work(backfills)
        Job.fetch(job.id, connection=backfills.queue.redis, serializer=JSONSerializer).delete()
    backfills.advance(definitions)
    first, second = backfills.get(MODEL).points.values()
    assert (first.status, first.version) == ("succeeded", 1)
    assert (second.status, second.error) == ("failed", "its job is not known any more")


def test_a_model_that_is_not_declared_any_more_is_not_trained(backfills: Backfills, definitions: Definitions) -> None:
    backfills.ask(asking(MONTHS[:2]))
    for _ in MONTHS:
        backfills.advance(replace(definitions, models={}))
    assert statuses(backfills) == ["failed", "failed"]
    assert backfills.get(MODEL).status == "done"


def test_what_was_never_asked_for_or_has_ended_cannot_be_cancelled(backfills: Backfills) -> None:
    with pytest.raises(NoBackfill, match="'user_target' was never trained as of past days"):
        backfills.cancel(MODEL)
    backfills.ask(asking())
    backfills.cancel(MODEL)
    with pytest.raises(Conflict, match="has ended already: cancelled"):
        backfills.cancel(MODEL)


@pytest.mark.redis
def test_processes_side_by_side_train_each_point_once(real_redis: RedisServer, definitions: Definitions) -> None:
    several = [Backfills(TrainingQueue(real_redis.client(text=False)), Registry(real_redis.client())) for _ in range(3)]
    names = [when(point) for point in points(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 20, tzinfo=UTC), "1d")]
    several[0].ask(asking(names))
    seen: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        while several[0].get(MODEL).status == "running":
            list(pool.map(lambda backfills: backfills.advance(definitions), several))
            if waiting(several[0].queue):
                seen.append(work(several[0]))
    assert seen == names


def test_a_request_is_plain_text_in_redis(backfills: Backfills, fake_redis: Redis) -> None:
    backfills.ask(asking(MONTHS[:1]))
    found = fake_redis.hgetall(keys.backfill(MODEL))
    assert (found["status"], found["by"], found[f"point.{MONTHS[0]}"]) == ("running", "ann", '{"status":"waiting"}')
