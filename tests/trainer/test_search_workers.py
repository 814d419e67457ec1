"""Searches that several real workers share, on a real Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmill.registry import Registry
from modelmill.runs import Run
from modelmill.storage import Storage
from services.trainer.job import train
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import TRIAL
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually
from tests.trainer.workers import Start, ended, horses, lives, workers

pytestmark = pytest.mark.redis

TRIALS = 5
WAITS = '''
import os
import time
from pathlib import Path

from sklearn.dummy import DummyClassifier

FOLDER = Path({folder!r})


class Waits(DummyClassifier):
    """Says that its fit began, waits to be let go, and is a bad classifier."""

    def __init__(self, number=0):
        super().__init__()
        self.number = number

    def fit(self, X, y):
        (FOLDER / f"began-{{self.number}}-{{os.getpid()}}").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
        return super().fit(X, y)


def tree():
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=4, random_state=0)


'''
CANDIDATES = 'candidates={"waits": Candidate(Waits, search={"number": [1, 2, 3, 4]}), "tree": tree}, cv=3'


class Bench:
    """A trainer of the test's own whose model waits in all of its trials but the last."""

    def __init__(self, folder: Path, redis: RedisServer, environment: dict[str, str], start: Start) -> None:
        mill = folder / "mill.py"
        text = USERS_MILL.read_text().replace("every, feature", "Candidate, every, feature")
        text = text.replace("\nModel(", WAITS.format(folder=str(folder)) + "\nModel(")
        mill.write_text(text.replace("estimator=classifier", CANDIDATES))
        environment["MODELMILL_DEFINITIONS"] = str(mill)
        self.folder = folder
        self.queue = TrainingQueue(redis.client(text=False))
        self.registry = Registry(redis.client())
        self.storage = Storage(environment["MODELMILL_STORAGE_URL"])
        self.start = start
        self.job = ""

    def began(self) -> set[int]:
        """The processes that have begun a trial."""
        return {int(path.name.rpartition("-")[2]) for path in self.folder.glob("began-*")}

    def go(self) -> None:
        (self.folder / "go").touch()

    def run(self) -> Run:
        """The run of the training."""
        return self.registry.runs.newest("user_target")[0]


@pytest.fixture
def bench(tmp_path: Path, environment: dict[str, str], real_redis: RedisServer) -> Iterator[Bench]:
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with workers(environment, tmp_path / "worker.log") as start:
        yield Bench(tmp_path, real_redis, environment, start)


def crew(bench: Bench, count: int) -> list[int]:
    """Start workers; once all have come, enqueue a training, and return when each has a trial in hand."""
    started = [bench.start() for _ in range(count)]
    key = f"rq:workers:{bench.queue.rq.name}"
    eventually(lambda: bench.queue.redis.scard(key) == count, within=60, saying="all workers are there")
    bench.job = bench.queue.enqueue("user_target")
    eventually(lambda: len(bench.began()) == count, within=30, saying="every worker has a trial in hand")
    return [pid for worker in started for pid in horses(worker)]


def outcome(bench: Bench, run: str | None = None) -> list[tuple[int | None, str, float]]:
    """Number, status and score of each trial that counts."""
    trials = bench.registry.runs.trials(run or bench.run().id)
    return [(t.trial, t.status, t.metrics["accuracy"]) for t in trials if t.status == "succeeded"]


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
    processes = crew(bench, 2)
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
