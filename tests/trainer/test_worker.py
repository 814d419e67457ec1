"""Real workers on a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rq import Queue

from modelmill.registry import Registry
from services.trainer.queue import TRAIN, JobView, TrainingQueue
from services.trainer.worker import TrainJob
from tests.conftest import ROOT, RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import FeatureStub

pytestmark = pytest.mark.redis

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def queue(environment: dict[str, str], real_redis: RedisServer) -> TrainingQueue:
    return TrainingQueue(real_redis.client(text=False))


@pytest.fixture
def registry(real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """A function that starts one more worker; what the test leaves running is killed."""
    workers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "services.trainer.worker"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.wait(timeout=10)


def ended(queue: TrainingQueue, job: str, within: float = 30) -> JobView:
    """The job once it has ended."""
    eventually(lambda: queue.job(job).ended and queue.job(job).status != "started", within=within, saying="it ends")
    return queue.job(job)


def training(queue: TrainingQueue, job: str, stub: FeatureStub) -> None:
    """Wait until the job has asked for its frame and waits for it."""
    eventually(lambda: stub.asked, within=30, saying="the job asks for its frame")
    assert queue.job(job).status == "started"


def children(worker: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_trains_what_is_enqueued_also_from_the_shell(
    start: Start, queue: TrainingQueue, registry: Registry, real_redis: RedisServer, environment: dict[str, str]
) -> None:
    start()
    first = ended(queue, queue.enqueue("user_target", by="me"))
    assert (first.status, first.stage, first.progress, first.rows) == ("finished", "done", 1.0, 300)
    assert first.run is not None
    assert registry.run(first.run).job == first.job
    command = [
        *(str(Path(sys.executable).parent / "rq"), "enqueue", "--url", real_redis.url, "--queue", "train"),
        *("--serializer", "json", "--timeout", "1h", TRAIN, "user_target", "by=shell"),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    second = ended(queue, said.rpartition("job-id '")[2].partition("'")[0])
    assert (second.status, second.model, second.by) == ("finished", "user_target", "shell")
    assert registry.aliases("user_target") == {"champion": 2}


def test_nothing_but_a_training_runs_and_the_job_says_why(
    start: Start, queue: TrainingQueue, real_redis: RedisServer, tmp_path: Path
) -> None:
    proof, module = tmp_path / "ran", tmp_path / "evil.py"
    module.write_text(f"open({str(proof)!r}, 'w')\ndef callback(*_): pass\n")
    os.environ["PYTHONPATH"] = str(tmp_path)
    pickled = Queue("train", connection=real_redis.client(text=False))
    jobs = {
        queue.rq.enqueue("os.system", f"touch {proof}").id: "function 'os.system' may not run here",
        queue.rq.enqueue("evil.callback").id: "function 'evil.callback' may not run here",
        queue.rq.enqueue(TRAIN, "user_target", on_failure="evil.callback").id: "a job with callbacks may not run",
        pickled.enqueue("os.system", f"touch {proof}").id: "the job is not JSON; enqueue it with `--serializer json`",
    }
    start()
    for job, reason in jobs.items():
        view = ended(queue, job)
        assert view.status == "failed"
        assert reason in view.error
    assert not proof.exists()


def test_what_may_not_run_is_not_even_imported() -> None:
    job = TrainJob.create("antigravity.fly", connection=object(), serializer="json")
    with pytest.raises(Exception, match="may not run here"):
        job.perform()
    assert "antigravity" not in sys.modules


def test_an_error_in_the_job_is_final_and_shown(start: Start, queue: TrainingQueue, registry: Registry) -> None:
    start()
    view = ended(queue, queue.enqueue("user_targt"))
    assert view.status == "failed"
    assert "did you mean 'user_target'" in view.error
    assert queue.rq.job_ids == []


def test_a_canceled_job_is_stopped_and_its_worker_goes_on(
    start: Start, queue: TrainingQueue, registry: Registry, feature_stub: FeatureStub
) -> None:
    feature_stub.open.clear()
    worker, job = start(), queue.enqueue("user_target")
    training(queue, job, feature_stub)
    [horse] = children(worker)
    assert queue.cancel(job, registry, by="me").status == "canceled"
    eventually(lambda: not lives(horse), within=5, saying="the process that trained is gone")
    feature_stub.open.set()
    assert ended(queue, queue.enqueue("user_target")).status == "finished"
    assert queue.job(job).status == "canceled"
    assert [run.error for run in registry.runs("user_target")] == ["", "canceled by me"]


def test_sigterm_lets_the_training_in_hand_end_first(
    start: Start, queue: TrainingQueue, feature_stub: FeatureStub
) -> None:
    feature_stub.open.clear()
    worker, job = start(), queue.enqueue("user_target")
    training(queue, job, feature_stub)
    worker.send_signal(signal.SIGTERM)
    feature_stub.open.set()
    assert ended(queue, job).status == "finished"
    assert worker.wait(timeout=10) == 0


def test_after_sigkill_of_the_worker_the_job_runs_again_within_15_s(
    start: Start, queue: TrainingQueue, registry: Registry, feature_stub: FeatureStub
) -> None:
    feature_stub.open.clear()
    worker, job = start(), queue.enqueue("user_target")
    training(queue, job, feature_stub)
    [horse] = children(worker)
    worker.kill()
    killed = time.monotonic()
    worker.wait(timeout=10)
    eventually(lambda: not lives(horse), within=2, saying="the process that trained died with its worker")
    feature_stub.open.set()
    start()
    eventually(lambda: queue.job(job).run, within=15, saying="another worker has begun the job again")
    assert time.monotonic() - killed < 15
    assert ended(queue, job).status == "finished"
    again, lost = registry.runs("user_target")
    assert (again.status, again.version) == ("succeeded", 1)
    assert (lost.status, lost.stage) == ("failed", "frame")
    assert lost.error.startswith("worker lost")


def test_health_tells_whether_a_worker_of_this_host_lives(start: Start, environment: dict[str, str]) -> None:
    def health() -> int:
        command = [sys.executable, "-m", "services.trainer.health"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode

    assert health() == 1
    worker = start()
    eventually(lambda: health() == 0, within=30, saying="the worker counts as alive")
    worker.terminate()
    worker.wait(timeout=10)
    assert health() == 1
