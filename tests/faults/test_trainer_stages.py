"""Workers, the processes that train, and Redis killed in every stage of a training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.storage import TEMPORARY, Storage
from services.trainer.jobs.queue import TrainingQueue
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import FeatureStub, environment, feature_stub  # noqa: F401  fixtures
from tests.trainer.gates import STAGES, Gate
from tests.trainer.workers import Start, Worker, ended, horses, lives, workers

pytestmark = [pytest.mark.faults, pytest.mark.redis]

BOUND = 30
"""Seconds within which a killed training runs again."""


@pytest.fixture
def gate(tmp_path: Path, environment: dict[str, str]) -> Gate:  # noqa: F811
    gate = Gate(tmp_path)
    environment["MODELMILL_DEFINITIONS"] = str(gate.mill)
    return gate


@pytest.fixture
def queue(environment: dict[str, str], real_redis: RedisServer) -> TrainingQueue:  # noqa: F811
    return TrainingQueue(real_redis.client(text=False))


@pytest.fixture
def registry(real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def start(environment: dict[str, str], gate: Gate, tmp_path: Path) -> Iterator[Start]:  # noqa: F811
    with workers(environment, tmp_path / "worker.log") as start:
        yield start


def worker_of(crew: list[Worker]) -> Worker:
    """The one that has a process which trains."""
    return eventually(lambda: next(w for w in crew if horses(w)), within=10, saying="one of them trains")


def settled(queue: TrainingQueue, registry: Registry, storage: Storage, job: str) -> None:
    """The job has finished with one version; what was lost says so; nothing is left over, and nothing is stuck."""
    assert ended(queue, job, within=60).status == "finished"
    eventually(lambda: not registry.runs.running(), within=BOUND, saying="no run is left open")
    runs = registry.runs.newest("user_target")
    [version] = registry.versions("user_target")
    assert [run.version for run in runs if run.status == "succeeded"] == [1]
    assert all(run.status == "lost" and run.error for run in runs if run.status != "succeeded")
    assert len({run.status for run in runs}) <= 2
    eventually(lambda: _packages(storage) == [version.package], within=BOUND, saying="no other package is left")
    assert [name for name in _files(storage) if TEMPORARY in name] == []
    again = queue.request("user_target", "data")
    assert not again.existing, "the place of the training is free"
    assert ended(queue, again.job).status == "finished"


def _files(storage: Storage) -> list[str]:
    return [str(path) for path in storage.files.find(storage.root)]


def _packages(storage: Storage) -> list[str]:
    folders = (path.removeprefix(f"{storage.root}/").rpartition("/")[0] for path in _files(storage))
    return sorted({folder for folder in folders if folder.startswith("packages/")})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("victim", ["worker", "process"])
def test_a_training_that_is_killed_runs_again_and_nothing_of_it_is_left(
    start: Start, queue: TrainingQueue, registry: Registry, storage: Storage, gate: Gate, victim: str, stage: str
) -> None:
    crew = [start(), start()] if victim == "worker" else [start()]
    gate.close(at=stage)
    job = queue.request("user_target", "data").job
    eventually(gate.reached, within=30, saying=f"the training is at {stage}")
    worker = worker_of(crew)
    [horse] = horses(worker)
    if victim == "worker":
        worker.kill()
    else:
        os.kill(horse, signal.SIGKILL)
    gate.open()
    begun = time.monotonic()
    eventually(lambda: not lives(horse), within=2, saying="the process that trained is gone")
    eventually(lambda: _goes_on(queue, job), within=BOUND, saying="it runs again")
    print(f"{victim} killed at {stage}: again after {time.monotonic() - begun:.1f} s")
    settled(queue, registry, storage, job)


def _goes_on(queue: TrainingQueue, job: str) -> bool:
    """Whether a second attempt has begun or, where the first one had registered its version, told its result."""
    view = queue.job(job)
    return view.attempt == 2 and view.status in ("started", "finished")


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_outlives_a_redis_that_is_killed(
    start: Start,
    queue: TrainingQueue,
    registry: Registry,
    storage: Storage,
    gate: Gate,
    real_redis: RedisServer,
    stage: str,
) -> None:
    start()
    gate.close(at=stage)
    job = queue.request("user_target", "data").job
    eventually(gate.reached, within=30, saying=f"the training is at {stage}")
    time.sleep(1.5)  # so that the append-only file, synced each second, holds all of it
    real_redis.stop(kill=True)
    time.sleep(3)  # longer than a renewal of the lease
    real_redis.start()
    gate.open()
    settled(queue, registry, storage, job)


@pytest.mark.parametrize("seconds", [3, 12], ids=["shortly", "for longer than a lease"])
def test_a_training_that_needs_a_redis_that_is_away_runs_again(
    start: Start,
    queue: TrainingQueue,
    registry: Registry,
    storage: Storage,
    gate: Gate,
    real_redis: RedisServer,
    seconds: int,
) -> None:
    worker = start()
    gate.close(at="fit")
    job = queue.request("user_target", "data").job
    eventually(gate.reached, within=30, saying="the training is at fit")
    time.sleep(1.5)  # so that the append-only file, synced each second, holds all of it
    [horse] = horses(worker)
    real_redis.stop(kill=True)
    gate.open()  # it goes on, and finds no Redis
    time.sleep(seconds)
    real_redis.start()
    eventually(lambda: not lives(horse), within=BOUND, saying="the process that found no Redis is gone")
    settled(queue, registry, storage, job)
    assert queue.job(job).attempt == 2
    assert worker.poll() is None


def test_a_training_whose_worker_is_stopped_ends_with_its_lease(
    start: Start, queue: TrainingQueue, registry: Registry, storage: Storage, gate: Gate
) -> None:
    crew = [start(), start()]
    gate.close(at="fit")
    job = queue.request("user_target", "data").job
    eventually(gate.reached, within=30, saying="the training is at fit")
    sleeper = worker_of(crew)
    [horse] = horses(sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    eventually(lambda: queue.job(job).attempt == 2, within=BOUND, saying="the other worker begins again")
    eventually(lambda: not lives(horse), within=5, saying="the first process has noticed that it is not wanted")
    os.kill(sleeper.pid, signal.SIGCONT)
    gate.open()
    settled(queue, registry, storage, job)


def test_a_cancelled_training_is_gone_in_every_stage(
    start: Start, queue: TrainingQueue, registry: Registry, storage: Storage, gate: Gate
) -> None:
    worker = start()
    for stage in STAGES[:-1]:
        gate.close(at=stage)
        job = queue.request("user_target", "data").job
        eventually(gate.reached, within=30, saying=f"the training is at {stage}")
        [horse] = horses(worker)
        queue.cancel(job, registry, by="me")
        eventually(lambda pid=horse: not lives(pid), within=5, saying="its process is gone")
        gate.open()
        run = registry.runs.newest("user_target", limit=1)[0]
        assert (run.status, run.canceled_by, run.error) == ("cancelled", "me", "cancelled by me")
        assert run.peak_memory_mb > 0
        assert run.cpu_seconds > 0
        eventually(lambda: not _packages(storage), within=BOUND, saying="no package is left")
        assert queue.job(job).status == "cancelled"
    job = queue.request("user_target", "data").job
    assert ended(queue, job).status == "finished"
    assert worker.poll() is None
    assert len(registry.versions("user_target")) == 1


def test_20_trainings_at_once_are_each_done_once_by_two_workers(
    start: Start, queue: TrainingQueue, registry: Registry
) -> None:
    start(), start()
    days = [f"2026-01-{day:02}T00:00:00+00:00" for day in range(1, 21)]
    with ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda day: queue.request("user_target", "data", end=day), days))
    assert len({request.job for request in asked}) == 20
    for request in asked:
        assert ended(queue, request.job, within=90).status == "finished"
    assert [version.version for version in registry.versions("user_target")] == list(range(20, 0, -1))
    assert len(registry.runs.newest("user_target")) == 20
    eventually(lambda: not registry.redis.exists(keys.TRAININGS), within=10, saying="all places are forgotten")


def test_of_20_requests_for_the_same_at_once_one_trains(
    start: Start, queue: TrainingQueue, registry: Registry, gate: Gate
) -> None:
    start(), start()
    gate.close(at="frame")
    with ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda _: queue.request("user_target", "data"), range(20)))
    assert len({request.job for request in asked}) == 1
    gate.open()
    assert ended(queue, asked[0].job).status == "finished"
    assert len(registry.runs.newest("user_target")) == 1
