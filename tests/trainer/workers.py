"""Real workers for tests, as processes of their own, and how to look at them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import ENDED_NAMES, JobView
from tests.conftest import ROOT
from tests.eventually import eventually
from tests.trainer.conftest import FeatureStub

Worker = subprocess.Popen[bytes]
Start = Callable[[], Worker]


@contextmanager
def workers(environment: dict[str, str], log: Path) -> Iterator[Start]:
    """A function that starts one more worker; those that are left at the end are killed."""
    started: list[Worker] = []

    def start() -> Worker:
        command = [sys.executable, "-m", "services.trainer.worker"]
        with log.open("ab") as output:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        worker.wait(timeout=10)


def ended(queue: TrainingQueue, job: str, within: float = 30) -> JobView:
    """The job once it has ended."""
    eventually(lambda: queue.job(job).status in ENDED_NAMES, within=within, saying=f"job {job} ends")
    return queue.job(job)


def waiting_for_frame(queue: TrainingQueue, job: str, stub: FeatureStub, attempt: int = 1) -> None:
    """Return once the job has asked for its frame, which `stub` keeps back."""
    eventually(lambda: len(stub.asked) >= attempt, within=30, saying=f"attempt {attempt} asks for its frame")
    assert queue.job(job).status == "started"


def horses(worker: Worker) -> list[int]:
    """The processes in which `worker` trains, by their ids."""
    children = map(int, Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split())
    return [pid for pid in children if os.getpgid(pid) == pid]  # beside each is one that opens its package


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
