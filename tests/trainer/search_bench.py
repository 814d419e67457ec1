"""A trainer whose model waits in the trials of its search, so that tests can look at them and kill them."""

from __future__ import annotations

from pathlib import Path

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.jobs.queue import TrainingQueue
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually
from tests.trainer.workers import Start, Worker

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


def crew(bench: Bench, count: int) -> list[Worker]:
    """Start workers; once all have come, enqueue a training, and return them when each has a trial in hand."""
    started = [bench.start() for _ in range(count)]
    key = f"rq:workers:{bench.queue.rq.name}"
    eventually(lambda: bench.queue.redis.scard(key) == count, within=60, saying="all workers are there")
    bench.job = bench.queue.enqueue("user_target")
    eventually(lambda: len(bench.began()) == count, within=30, saying="every worker has a trial in hand")
    return started


def outcome(bench: Bench, run: str | None = None) -> list[tuple[int | None, str, float]]:
    """Number, status and score of each trial that counts."""
    trials = bench.registry.runs.trials(run or bench.run().id)
    return [(t.trial, t.status, t.metrics["accuracy"]) for t in trials if t.status == "succeeded"]
