"""Runs logged by hand: begun, added to, ended, lost."""

from __future__ import annotations

import pytest

from modelmill.errors import Conflict, RunEnded, UnknownName
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import RunFailed, RunLogged, RunStarted
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.jobs.recovery import close_lost_runs
from services.trainer.runs.logged import LEASE_SECONDS, LoggedRuns, NewRun, RunChange


@pytest.fixture
def logged(registry: Registry) -> LoggedRuns:
    return LoggedRuns(registry.runs)


def begun(logged: LoggedRuns) -> Run:
    return logged.start(NewRun(model="by_hand", by="ann", params={"C": 1}, packages={"python": "3.13.1"}))


def events(redis: Redis) -> list[type]:
    return [type(event) for _, event in bus.newest(redis, keys.EVENTS_MODELS, 10)]


def test_a_run_of_a_model_that_nobody_declared_is_begun_added_to_and_ended(
    logged: LoggedRuns, registry: Registry, fake_redis: Redis
) -> None:
    run = begun(logged)
    logged.change(run.id, RunChange(params={"gamma": 2}, metrics={"accuracy": 0.8}))
    logged.change(run.id, RunChange(params={"C": 3}, metrics={"accuracy": 0.9, "f1": 0.5}))
    logged.change(run.id, RunChange(status="succeeded"))
    recorded = registry.runs.get(run.id)
    assert (recorded.status, recorded.trigger, recorded.by, recorded.version) == (
        "succeeded",
        "manual log",
        "ann",
        None,
    )
    assert recorded.params == {"C": "3", "gamma": "2"}
    assert recorded.metrics == {"accuracy": 0.9, "f1": 0.5}
    assert recorded.finished
    assert registry.models() == ["by_hand"]
    assert registry.runs.running() == []
    assert events(fake_redis) == [RunStarted, RunLogged]


def test_a_run_that_failed_keeps_its_error_and_traceback(
    logged: LoggedRuns, registry: Registry, fake_redis: Redis
) -> None:
    run = begun(logged)
    logged.change(run.id, RunChange(status="failed", error="ValueError: no", traceback="Traceback ..."))
    recorded = registry.runs.get(run.id)
    assert (recorded.status, recorded.error, recorded.traceback) == ("failed", "ValueError: no", "Traceback ...")
    assert events(fake_redis) == [RunStarted, RunFailed]


def test_each_call_renews_the_lease(logged: LoggedRuns, fake_redis: Redis) -> None:
    run = begun(logged)
    fake_redis.expire(keys.run_lease(run.id), 3)
    logged.change(run.id, RunChange(params={}, metrics={}))
    assert fake_redis.ttl(keys.run_lease(run.id)) > LEASE_SECONDS - 5


def test_a_run_whose_program_was_killed_is_closed_and_nothing_more_is_recorded(
    logged: LoggedRuns, registry: Registry, storage: Storage, fake_redis: Redis
) -> None:
    run = begun(logged)
    close_lost_runs(registry, storage)
    assert registry.runs.get(run.id).status == "running"
    fake_redis.delete(keys.run_lease(run.id))  # as its expiry does
    with pytest.raises(RunEnded, match="lease"):
        logged.change(run.id, RunChange(params={}, metrics={"accuracy": 1.0}))
    close_lost_runs(registry, storage)
    closed = registry.runs.get(run.id)
    assert closed.status == "lost"
    assert "lost" in closed.error
    with pytest.raises(RunEnded):
        logged.change(run.id, RunChange(status="succeeded"))
    assert registry.runs.get(run.id) == closed


def test_runs_that_a_worker_trains_are_not_written_by_hand(logged: LoggedRuns, registry: Registry) -> None:
    registry.runs.start(Run(id="r1", model="m", started=utc_now()))
    with pytest.raises(Conflict, match="not logged by hand"):
        logged.change("r1", RunChange(status="succeeded"))
    with pytest.raises(UnknownName):
        logged.change("r2", RunChange(status="succeeded"))
