"""Searches that several real workers share, on a real Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.trainer.job import train
from services.trainer.jobs.view import TRIAL
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.trainer.search_bench import TRIALS, Bench, crew, outcome
from tests.trainer.workers import ended, horses, lives, workers

pytestmark = pytest.mark.redis


@pytest.fixture
def bench(tmp_path: Path, environment: dict[str, str], real_redis: RedisServer) -> Iterator[Bench]:
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with workers(environment, tmp_path / "worker.log") as start:
        yield Bench(tmp_path, real_redis, environment, start)


def test_workers_share_the_trials_and_the_result_is_that_of_one_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew(bench, 2)
    bench.go()
    assert ended(bench.queue, bench.job).status == "finished"
    shared, run = outcome(bench), bench.run()
    monkeypatch.setenv("MODELMILL_DEFINITIONS", str(bench.folder / "mill.py"))
    assert outcome(bench, train("user_target")["run"]) == shared
    assert [number for number, _, _ in shared] == list(range(1, TRIALS + 1))
    assert len({trial.job for trial in bench.registry.runs.trials(run.id)}) == 2
    assert run.params["candidate"] == "tree"
    assert bench.storage.names(f"runs/user_target/{run.id}", ".parquet") == []
    helper = next(t.job for t in bench.registry.runs.trials(run.id) if t.job != bench.job)
    eventually(lambda: bench.queue.job(helper).status == "finished", within=10, saying="the helper's job has ended")


def test_one_worker_alone_carries_out_all_trials(bench: Bench) -> None:
    crew(bench, 1)
    bench.go()
    assert ended(bench.queue, bench.job).status == "finished"
    assert [number for number, _, _ in outcome(bench)] == list(range(1, TRIALS + 1))
    assert [job.job for job in bench.queue.jobs()] == [bench.job]


def test_the_trial_of_a_helper_that_was_killed_is_taken_up_again_and_counts_once(bench: Bench) -> None:
    crew(bench, 2)
    trials = bench.registry.runs.trials(bench.run().id)
    helped = next(trial for trial in trials if trial.job != bench.job)
    [helper] = [pid for pid in bench.began() if (bench.folder / f"began-{helped.trial}-{pid}").exists()]
    os.kill(helper, signal.SIGKILL)
    bench.go()
    assert ended(bench.queue, bench.job, within=40).status == "finished"
    assert [number for number, _, _ in outcome(bench)] == list(range(1, TRIALS + 1))
    assert bench.run().trials_ended == TRIALS
    eventually(
        lambda: bench.registry.runs.get(helped.id).status not in ("running", "succeeded"),
        within=20,
        saying="the run of the killed process is closed",
    )


def test_canceling_the_training_stops_its_helpers_within_5_s(bench: Bench) -> None:
    processes = [pid for worker in crew(bench, 2) for pid in horses(worker)]
    assert len(processes) == 2
    bench.queue.cancel(bench.job, bench.registry, by="me")
    run = bench.run()
    eventually(lambda: not any(map(lives, processes)), within=5, saying="both processes are gone")
    eventually(lambda: bench.registry.runs.running() == [], within=20, saying="every run is closed")
    trials = bench.registry.runs.trials(run.id)
    assert {trial.status for trial in (run, *trials)} == {"cancelled"}
    assert {trial.canceled_by for trial in trials if trial.job == bench.job} == {"me"}
    bench.go()
    assert ended(bench.queue, bench.queue.enqueue("user_target")).status == "finished", "both workers go on"


def test_a_helper_that_comes_when_the_search_is_over_does_nothing(bench: Bench) -> None:
    bench.go()
    bench.start()
    assert ended(bench.queue, bench.queue.enqueue("user_target"), within=60).status == "finished"
    late = bench.queue.rq.enqueue_call(TRIAL, kwargs={"run": bench.run().id})
    assert ended(bench.queue, late.id).status == "finished"
    assert len(outcome(bench)) == TRIALS
