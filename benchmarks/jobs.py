"""From enqueueing a training to its begin in an idle worker, beside what plain RQ takes to begin a job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

import redis
from rq import Queue, SimpleWorker, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from benchmarks.system import MODELS, WAIT, System, running, until
from modelmill import local
from services.trainer.jobs.queue import TrainingQueue

PLAIN = {
    "plain RQ, forking, nothing loaded": (Worker, False),
    "plain RQ, forking, scikit-learn loaded": (Worker, True),
    "plain RQ, not forking": (SimpleWorker, True),
}
"""What is compared: kind of worker, and whether it has loaded what a training needs."""
PAUSE = 0.3
"""Seconds between two jobs, in which the worker is idle again."""


def measure(effort: Effort) -> list[Table]:
    """Time jobs one by one, ours and RQ's."""
    samples: dict[str, list[float]] = {}
    with running() as system:
        samples["modelmill worker"] = list(_trainings(system, effort.timed_swaps))
    for name, (kind, loaded) in PLAIN.items():
        with _plain_worker(kind, loaded=loaded) as queue:
            samples[name] = list(_jobs(queue, effort.timed_swaps))
    rows = [_row(name, found) for name, found in samples.items()]
    return [
        Table(
            "From enqueueing to begin, idle worker",
            ["worker", "p50 ms", "p95 ms", "max ms"],
            rows,
            "Ours begins when its run is recorded: by then it has claimed the job, read the definitions in force, and"
            " looked for an earlier attempt. Forking is the floor for a worker that keeps jobs apart.",
            samples,
        )
    ]


def _row(name: str, found: list[float]) -> list[Cell]:
    return [name, median(found), quantiles(found, n=20, method="inclusive")[-1], max(found)]


def _trainings(system: System, count: int) -> Iterator[float]:
    """Milliseconds from before a training is enqueued to the time at which its run says that it began."""
    settings = system.client.settings
    queue = TrainingQueue(redis.Redis.from_url(settings.redis_url))
    model = MODELS[0]
    for number in range(count + 1):
        begun = time.time()
        job = queue.enqueue(model, by="benchmark")
        until(lambda job=job: queue.job(job).status == "finished", "a training to end")
        run = system.registry.runs.get(str(queue.job(job).run))
        if number:  # the first one finds nothing warm
            yield (datetime.fromisoformat(run.started).timestamp() - begun) * 1000
        time.sleep(PAUSE)


def _jobs(queue: Queue, count: int) -> Iterator[float]:
    """Milliseconds from before a job is enqueued to the time that it returns."""
    for number in range(count + 1):
        begun = time.time()
        job = queue.enqueue("time.time")
        until(lambda job=job: job.get_status() == "finished", "a job to end")
        if number:
            yield (float(_result(job)) - begun) * 1000
        time.sleep(PAUSE)


def _result(job: Job) -> float:
    result = job.latest_result()
    assert result is not None
    return float(result.return_value)


@contextmanager
def _plain_worker(kind: type[BaseWorker], *, loaded: bool) -> Iterator[Queue]:
    """A worker of RQ's, on a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="modelmill-benchmark-") as folder:
        port = local.free_port()
        server = subprocess.Popen(local.redis_command(Path(folder), port), stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        until(_answering(client), "Redis to answer")
        code = f"import sys; sys.argv[1:] and __import__('services.trainer.job'); from rq import {kind.__name__} as W;"
        code += "import redis; from rq.serializers import JSONSerializer as J; W(['plain'], connection=redis.Redis("
        code += f"port={port}), serializer=J).work(logging_level='WARNING')"
        worker = subprocess.Popen([sys.executable, "-c", code, *(["loaded"] if loaded else [])], env={**os.environ})
        queue = Queue("plain", connection=client, serializer=JSONSerializer)
        try:
            until(lambda: bool(Worker.count(queue=queue)), "the worker to be there")
            yield queue
        finally:
            for process in (worker, server):
                process.terminate()
                process.wait(timeout=WAIT)


def _answering(client: redis.Redis) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False

    return answers
