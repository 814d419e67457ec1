"""Trainings while workers, the processes that train, and Redis are killed and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from modelmill.state.registry import Registry
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import LEASE_SECONDS
from services.trainer.jobs.view import ATTEMPTS
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import FeatureStub, environment, feature_stub  # noqa: F401  fixtures
from tests.trainer.workers import Start, Worker, ended, horses, lives, waiting_for_frame, workers

pytestmark = [pytest.mark.faults, pytest.mark.redis]

BOUND = 15
"""Seconds within which a killed worker's job runs again."""
STUCK = """    import time
    from pathlib import Path

    while Path({gate!r}).exists():
        time.sleep(0.05)

"""


@pytest.fixture
def queue(environment: dict[str, str], real_redis: RedisServer) -> TrainingQueue:  # noqa: F811
    return TrainingQueue(real_redis.client(text=False))


@pytest.fixture
def registry(real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:  # noqa: F811
    with workers(environment, tmp_path / "worker.log") as start:
        yield start


@pytest.fixture
def gate(tmp_path: Path, environment: dict[str, str]) -> Path:  # noqa: F811
    """A file while which exists the users example gets stuck making its estimator, in code of the user's."""
    gate, mill = tmp_path / "gate", tmp_path / "mill.py"
    before = "def classifier():  # imported where it is needed: by the trainer alone\n"
    assert before in USERS_MILL.read_text()
    mill.write_text(USERS_MILL.read_text().replace(before, before + STUCK.format(gate=str(gate))))
    gate.touch()
    environment["MODELMILL_DEFINITIONS"] = str(mill)
    return gate


def working(queue: TrainingQueue, job: str) -> str:
    """The run that the job works on now."""
    run = eventually(lambda: queue.job(job).run, within=30, saying="the job has begun a run")
    assert queue.job(job).status == "started"
    return run


def worker_of(queue: TrainingQueue, crew: list[Worker]) -> Worker:
    """The one of two workers that has a process which trains."""
    return eventually(lambda: next(w for w in crew if horses(w)), within=10, saying="one of them trains")


def test_another_worker_takes_over_from_one_that_is_killed(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Path
) -> None:
    crew = [start(), start()]
    job = queue.enqueue("user_target")
    first = working(queue, job)
    victim = worker_of(queue, crew)
    [horse] = horses(victim)
    victim.kill()
    killed = time.monotonic()
    eventually(lambda: not lives(horse), within=2, saying="the process that trained died with its worker")
    eventually(lambda: queue.job(job).run not in (None, first), within=BOUND, saying="another worker begins again")
    took = time.monotonic() - killed
    assert took < BOUND
    print(f"taken over after {took:.1f} s")
    assert registry.runs.get(first).error.startswith("worker lost")
    gate.unlink()
    assert ended(queue, job).status == "finished"
    assert len(registry.versions("user_target")) == 1


def test_after_the_training_process_is_killed_the_job_runs_again_at_once(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Path
) -> None:
    worker, job = start(), queue.enqueue("user_target")
    first = working(queue, job)
    os.kill(horses(worker)[0], signal.SIGKILL)
    eventually(lambda: queue.job(job).run not in (None, first), within=3, saying="the job has begun again")
    eventually(lambda: registry.runs.get(first).status == "lost", within=BOUND, saying="the first run is closed")
    gate.unlink()
    assert ended(queue, job).status == "finished"
    assert worker.poll() is None


def test_a_job_whose_process_is_killed_each_time_has_failed_after_three_attempts(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Path
) -> None:
    worker, job = start(), queue.enqueue("user_target")
    runs: set[str] = set()
    for _ in range(ATTEMPTS):
        run = eventually(lambda: queue.job(job).run not in runs and queue.job(job).run, within=30, saying="it begins")
        assert run
        runs.add(str(run))
        os.kill(horses(worker)[0], signal.SIGKILL)
    view = ended(queue, job)
    assert view.status == "failed"
    assert "signal 9" in view.error
    eventually(lambda: not registry.runs.running(), within=BOUND, saying="all runs are closed")
    assert {run.status for run in registry.runs.newest("user_target")} == {"lost"}
    assert len(registry.runs.newest("user_target")) == ATTEMPTS


def test_a_training_goes_on_while_redis_restarts(
    start: Start,
    queue: TrainingQueue,
    registry: Registry,
    real_redis: RedisServer,
    feature_stub: FeatureStub,  # noqa: F811
) -> None:
    feature_stub.open.clear()
    worker, job = start(), queue.enqueue("user_target")
    waiting_for_frame(queue, job, feature_stub)
    time.sleep(1.5)  # so that the append-only file, synced each second, holds all of it
    real_redis.stop(kill=True)
    time.sleep(4)  # longer than a renewal of the lease
    real_redis.start()
    feature_stub.open.set()
    assert ended(queue, job, within=60).status == "finished"
    assert registry.aliases("user_target")["champion"] >= 1
    eventually(lambda: not registry.runs.running(), within=BOUND, saying="no run is left open")
    assert ended(queue, queue.enqueue("user_target")).status == "finished", "the worker goes on"
    assert worker.poll() is None


def test_an_idle_worker_waits_for_a_redis_that_is_away(
    start: Start, queue: TrainingQueue, real_redis: RedisServer
) -> None:
    worker = start()
    assert ended(queue, queue.enqueue("user_target")).status == "finished"
    time.sleep(1.5)
    real_redis.stop(kill=True)
    time.sleep(6)
    real_redis.start()
    assert ended(queue, queue.enqueue("user_target")).status == "finished"
    assert worker.poll() is None


def test_a_worker_that_slept_too_long_can_write_nothing_of_its_run(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Path
) -> None:
    crew = [start(), start()]
    job = queue.enqueue("user_target")
    first = working(queue, job)
    sleeper = worker_of(queue, crew)
    [horse] = horses(sleeper)
    for pid in (sleeper.pid, horse):
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: queue.job(job).run not in (None, first), within=BOUND, saying="the other worker begins again")
    gate.unlink()
    assert ended(queue, job).status == "finished"
    for pid in (horse, sleeper.pid):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not lives(horse), within=30, saying="the late process gives up")
    assert len(registry.versions("user_target")) == 1
    assert registry.runs.get(first).status == "lost"
    assert registry.runs.get(first).version is None
    assert queue.job(job).status == "finished"


@pytest.mark.parametrize("first", ["the process", "its worker"])
def test_a_job_whose_processes_all_stood_still_for_longer_than_its_lease_runs_again(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Path, first: str
) -> None:
    worker, job = start(), queue.enqueue("user_target")
    run = working(queue, job)
    [horse] = horses(worker)
    for pid in (worker.pid, horse):
        os.kill(pid, signal.SIGSTOP)
    lease = registry.runs.get(run).lease
    eventually(
        lambda: not registry.redis.exists(lease), within=LEASE_SECONDS + 5, saying="the lease is gone, and nobody looks"
    )
    gate.unlink()
    for pid in (horse, worker.pid) if first == "the process" else (worker.pid, horse):
        with suppress(ProcessLookupError):  # the other has just ended it
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
    assert ended(queue, job, within=60).status == "finished"
    ended_as = registry.runs.get(run)  # the process says so itself, or its worker does
    assert (ended_as.status, "renew" in ended_as.error or "SIGKILL" in ended_as.error) in {
        ("lost", True),
        ("failed", True),
    }
    assert len(registry.versions("user_target")) == 1
