"""Searches while the workers that share them are killed and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import environment, feature_stub  # noqa: F401  fixtures
from tests.trainer.search_bench import TRIALS, Bench, crew, outcome
from tests.trainer.workers import Worker, ended, horses, lives, workers

pytestmark = [pytest.mark.faults, pytest.mark.redis]

BOUND = 15
"""Seconds within which what a killed worker had in hand is taken up again."""


@pytest.fixture
def bench(tmp_path: Path, environment: dict[str, str], real_redis: RedisServer) -> Iterator[Bench]:  # noqa: F811
    with workers(environment, tmp_path / "worker.log") as start:
        yield Bench(tmp_path, real_redis, environment, start)


def sides(bench: Bench, crew: list[Worker]) -> tuple[Worker, Worker]:
    """The worker that trains, and the one that helps."""
    trials = bench.registry.runs.trials(bench.run().id)
    trains = next(trial.trial for trial in trials if trial.job == bench.job)
    processes = {worker: pid for worker in crew for pid in horses(worker)}
    trainer = next(w for w, pid in processes.items() if (bench.folder / f"began-{trains}-{pid}").exists())
    return trainer, next(worker for worker in crew if worker is not trainer)


def test_the_trial_of_a_helper_whose_worker_was_killed_is_taken_up_again(bench: Bench) -> None:
    _, helper = sides(bench, crew(bench, 2))
    helper.kill()
    bench.go()
    begun = time.monotonic()
    assert ended(bench.queue, bench.job).status == "finished"
    assert time.monotonic() - begun < BOUND
    assert [number for number, _, _ in outcome(bench)] == list(range(1, TRIALS + 1))
    eventually(
        lambda: "lost" in {trial.status for trial in bench.registry.runs.trials(bench.run().id)},
        within=BOUND,
        saying="the helper's run is lost",
    )


def test_a_helper_that_slept_too_long_adds_nothing(bench: Bench) -> None:
    _, helper = sides(bench, crew(bench, 2))
    [process] = horses(helper)
    for pid in (helper.pid, process):
        os.kill(pid, signal.SIGSTOP)
    bench.go()
    assert ended(bench.queue, bench.job).status == "finished"
    for pid in (helper.pid, process):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not lives(process), within=BOUND, saying="the process that woke up ends")
    assert [number for number, _, _ in outcome(bench)] == list(range(1, TRIALS + 1))


def test_a_killed_training_begins_again_and_its_helper_stops(bench: Bench) -> None:
    started = crew(bench, 2)
    trainer, helper = sides(bench, started)
    [process] = horses(helper)
    first = bench.run()
    trainer.kill()
    eventually(lambda: not lives(process), within=2 * BOUND, saying="the helper's process is gone")
    eventually(lambda: bench.run().id != first.id, within=2 * BOUND, saying="the training has begun again")
    bench.go()
    assert ended(bench.queue, bench.job).status == "finished"
    assert [number for number, _, _ in outcome(bench)] == list(range(1, TRIALS + 1))
    assert bench.registry.runs.get(first.id).status == "lost"
    eventually(lambda: bench.registry.runs.running() == [], within=BOUND, saying="every run is closed")
    assert outcome(bench, first.id) == []
    eventually(
        lambda: bench.storage.names(f"runs/user_target/{first.id}", ".parquet") == [],
        within=BOUND,
        saying="what the workers shared is removed",
    )
