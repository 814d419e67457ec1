"""Real workers on a real Redis; those that are killed are in `tests/faults`, but for one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue
from rq.job import Callback

from modelmill.state.registry import Registry
from services.trainer.http import jobs
from services.trainer.jobs.journal import log_name
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import TRAIN
from services.trainer.worker import TrainJob
from tests.conftest import ROOT, USERS_MILL, RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import FeatureStub, serving
from tests.trainer.workers import Start, ended, horses, lives, waiting_for_frame, workers

pytestmark = pytest.mark.redis

STAGES = ("queued", "frame", "fit", "evaluate", "package", "register", "done")
MORE_MODELS = """

def like_user_target(name, estimator, **more):
    features = ["feature_1", "feature_2", "feature_3"]
    Model(name, entities=[user], features=features, label="target", estimator=estimator, **more)


def talkative():
    import logging, os, subprocess, warnings

    print("printed")
    logging.getLogger("mine").warning("logged")
    warnings.warn("warned")
    os.write(2, b"written by a library\\n")
    subprocess.run(["echo", "echoed by a child"])
    return classifier()


def hungry():
    import time

    begun, held = time.process_time(), bytearray(200_000_000)
    while time.process_time() - begun < 0.5:
        held[0] = 1
    return classifier()


def stubborn():
    import time
    from sklearn.linear_model import LogisticRegression

    class Stubborn(LogisticRegression):
        def fit(self, inputs, label):
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    pass

    return Stubborn()


def leaving_daemons(then):
    def estimator():
        import subprocess

        subprocess.run(["sh", "-c", "(setsid sleep 333 &)"], check=True)
        return then()

    return estimator


def raising(error):
    def estimator():
        raise error

    return estimator


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


def ending(name, *arguments):
    def estimator():
        import os, sys

        {"_exit": os._exit, "abort": os.abort, "exit": sys.exit}[name](*arguments)

    return estimator


def by_name(output=None):
    from sklearn.compose import make_column_transformer
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = make_column_transformer(("passthrough", ["feature_1", "feature_2"]))
    made = make_pipeline(StandardScaler(), chosen, GaussianProcessClassifier(optimizer=None))
    return made.set_output(transform=output) if output else made


def by_config():
    import sklearn

    sklearn.set_config(transform_output="pandas")
    return by_name()


like_user_target("by_config", by_config)
like_user_target("by_own_output", lambda: by_name("pandas"))
like_user_target("exits_well", ending("_exit", 0))
like_user_target("exits", ending("exit", 0))
like_user_target("aborts", ending("abort"))
like_user_target("surrogate", raising(ValueError("a\\ud800b")))
like_user_target("mute", raising(Mute()))
like_user_target("leaves", leaving_daemons(classifier))
like_user_target("leaves_and_hangs", leaving_daemons(stubborn), timeout="3s")
like_user_target("talkative", talkative)
like_user_target("hungry", hungry)
like_user_target("stubborn", stubborn, timeout="3s")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A Redis that all tests here share, because a worker takes seconds to start."""
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stub() -> Iterator[FeatureStub]:
    with serving(FeatureStub()) as stub:
        yield stub


@pytest.fixture(scope="module")
def env(redis_server: RedisServer, stub: FeatureStub, folder: Path) -> dict[str, str]:
    mill = folder / "mill.py"
    mill.write_text(USERS_MILL.read_text() + MORE_MODELS)
    return {
        **os.environ,
        "MODELMILL_REDIS_URL": redis_server.url,
        "MODELMILL_FEATURE_URL": stub.url,
        "MODELMILL_STORAGE_URL": f"file://{folder}/storage",
        "MODELMILL_DEFINITIONS": str(mill),
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "OMP_DISPLAY_ENV": "TRUE",
        "MODELMILL_TRAIN_OPENMP_WAIT": "passive",
    }


class Crew:
    """The worker that all tests here share, or the one in its place after a test has ended it."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.start()

    def start(self) -> None:
        self.worker = self._start()


@pytest.fixture(scope="module")
def shared_crew(env: dict[str, str], folder: Path) -> Iterator[Crew]:
    with workers(env, folder / "worker.log") as start:
        yield Crew(start)


@pytest.fixture
def crew(shared_crew: Crew) -> Crew:
    """A crew whose worker lives."""
    if shared_crew.worker.poll() is not None:
        shared_crew.start()
    return shared_crew


@pytest.fixture(autouse=True)
def answering(stub: FeatureStub) -> None:
    stub.open.set()
    stub.failing = False
    stub.asked.clear()


@pytest.fixture
def queue(redis_server: RedisServer, crew: Crew) -> TrainingQueue:
    return TrainingQueue(redis_server.client(text=False))


@pytest.fixture
def registry(redis_server: RedisServer) -> Registry:
    return Registry(redis_server.client())


def test_a_worker_trains_what_is_enqueued(queue: TrainingQueue, registry: Registry) -> None:
    job = ended(queue, queue.enqueue("user_target", by="me"))
    assert (job.status, job.stage, job.progress, job.rows) == ("finished", "done", 1.0, 300)
    assert job.run is not None
    run = registry.runs.get(job.run)
    assert (run.status, run.job, run.by) == ("succeeded", job.job, "me")
    assert registry.aliases("user_target") == {"champion": run.version}


def test_a_training_is_enqueued_from_the_shell(
    queue: TrainingQueue, redis_server: RedisServer, env: dict[str, str]
) -> None:
    rq = str(Path(sys.executable).parent / "rq")
    command = f"{rq} enqueue --url {redis_server.url} --queue train --serializer json --timeout 1h {TRAIN} user_target"
    said = subprocess.run(command.split(), check=True, capture_output=True, text=True, env=env).stdout
    job = ended(queue, said.rpartition("job-id '")[2].partition("'")[0])
    assert (job.status, job.model) == ("finished", "user_target")


def test_an_attempt_after_one_that_had_registered_its_version_trains_no_second(
    queue: TrainingQueue, registry: Registry
) -> None:
    first = ended(queue, queue.enqueue("user_target"))
    before = registry.versions("user_target", limit=1)
    again = queue.rq.enqueue_call(TRAIN, kwargs={"model": "user_target"}, meta={"run": first.run})
    assert ended(queue, again.id).status == "finished"
    assert registry.versions("user_target", limit=1) == before


def test_an_attempt_after_one_that_had_recorded_nothing_trains(queue: TrainingQueue, registry: Registry) -> None:
    job = ended(queue, queue.rq.enqueue_call(TRAIN, kwargs={"model": "user_target"}, meta={"run": "never"}).id)
    assert job.status == "finished"
    assert job.run != "never"


def test_nothing_but_a_training_runs_and_the_job_says_why(
    queue: TrainingQueue, redis_server: RedisServer, folder: Path
) -> None:
    proof = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w')\ndef callback(*_): pass\n")
    pickled = Queue("train", connection=redis_server.client(text=False))
    jobs = {
        queue.rq.enqueue("os.system", f"touch {proof}").id: "function 'os.system' may not run here",
        queue.rq.enqueue("evil.callback").id: "function 'evil.callback' may not run here",
        queue.rq.enqueue(TRAIN, "m", on_failure=Callback("evil.callback")).id: "a job with callbacks may not run",
        pickled.enqueue("os.system", f"touch {proof}").id: "the job is not JSON; enqueue it with `--serializer json`",
    }
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


def test_an_error_in_the_job_is_final_and_shown(queue: TrainingQueue) -> None:
    view = ended(queue, queue.enqueue("user_targt"))
    assert view.status == "failed"
    assert "did you mean 'user_target'" in view.error
    assert queue.rq.job_ids == []


def test_a_canceled_job_is_stopped_and_its_worker_goes_on(
    queue: TrainingQueue, registry: Registry, crew: Crew, stub: FeatureStub
) -> None:
    stub.open.clear()
    job = queue.enqueue("user_target")
    waiting_for_frame(queue, job, stub)
    [horse] = horses(crew.worker)
    assert queue.cancel(job, registry, by="me").status == "cancelled"
    eventually(lambda: not lives(horse), within=5, saying="the process that trained is gone")
    stub.open.set()
    assert ended(queue, queue.enqueue("user_target")).status == "finished"
    assert queue.job(job).status == "cancelled"
    assert [run.error for run in registry.runs.newest("user_target", limit=2)] == ["", "cancelled by me"]


def test_the_time_limit_of_a_model_cannot_be_caught_by_its_code(queue: TrainingQueue, registry: Registry) -> None:
    job = ended(queue, queue.enqueue("stubborn"))
    assert (job.status, job.error) == ("failed", "time limit of 3 s: the training was stopped")
    assert job.run is not None
    run = registry.runs.get(job.run)
    assert (run.status, run.stage, run.error) == ("failed", "fit", job.error)
    assert queue.rq.job_ids == [], "it is not tried again"
    assert ended(queue, queue.enqueue("user_target")).status == "finished", "the worker goes on"


@pytest.mark.parametrize(
    "model, error",
    [
        ("exits_well", "its process ended itself before the training was over: exit code 0"),
        ("exits", "SystemExit: 0"),
        ("aborts", "its process ended itself before the training was over: signal 6 (SIGABRT)"),
        ("surrogate", r"ValueError: a\ud800b"),
        ("mute", "Mute: (Mute that cannot be shown: its text raised ValueError)"),
    ],
)
def test_however_its_code_ends_a_training_it_has_failed_once_and_says_why(
    queue: TrainingQueue, registry: Registry, model: str, error: str
) -> None:
    view = ended(queue, queue.enqueue(model))
    assert (view.status, view.error, view.attempt) == ("failed", error, 1)
    [run] = registry.runs.newest(model)
    assert (run.status, run.error) == ("failed", error)


def test_a_package_that_opens_in_the_process_of_its_training_alone_is_not_registered(
    queue: TrainingQueue, registry: Registry
) -> None:
    view = ended(queue, queue.enqueue("by_config"))
    assert view.status == "failed"
    assert "serves in the process of its training alone; in another one:" in view.error
    assert "sklearn.set_config is not" in view.error
    assert registry.versions("by_config") == []
    assert ended(queue, queue.enqueue("by_own_output")).status == "finished"


def sleepers() -> list[int]:
    """The daemons that a model here leaves behind."""
    commands = {int(folder.name): folder / "cmdline" for folder in Path("/proc").glob("[0-9]*")}
    return [pid for pid, file in commands.items() if file.exists() and file.read_bytes() == b"sleep\x00333\x00"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere who has lost its parent is not found")
@pytest.mark.parametrize("end", ["finished", "failed", "cancelled"])
def test_daemons_that_a_training_leaves_are_gone_with_it(
    queue: TrainingQueue, registry: Registry, stub: FeatureStub, end: str
) -> None:
    job = queue.enqueue("leaves" if end == "finished" else "leaves_and_hangs")
    eventually(sleepers, within=30, saying="it has left a daemon")
    if end == "cancelled":
        queue.cancel(job, registry)
    assert ended(queue, job).status == end
    eventually(lambda: not sleepers(), within=5, saying="its daemon is gone")


def test_a_fault_that_may_pass_is_tried_again_after_a_pause(
    queue: TrainingQueue, registry: Registry, stub: FeatureStub
) -> None:
    stub.failing = True
    job = queue.enqueue("user_target")
    eventually(lambda: queue.job(job).status == "scheduled", within=10, saying="it waits for its second attempt")
    view = queue.job(job)
    assert view.attempt == 1
    assert "out of order" in view.reason
    stub.failing = False
    view = ended(queue, job)
    assert (view.status, view.attempt) == ("finished", 2)
    again, first = registry.runs.newest("user_target", limit=2)
    assert (first.status, first.attempt, first.retry_reason) == ("failed", 1, "")
    assert (again.status, again.attempt, again.retry_reason) == ("succeeded", 2, first.error)


def test_what_user_code_says_is_live_in_the_journal_and_then_in_the_storage(
    queue: TrainingQueue, registry: Registry, folder: Path
) -> None:
    job = ended(queue, queue.enqueue("talkative"))
    assert job.run is not None
    file = folder / "storage" / log_name("talkative", job.run)
    eventually(file.exists, within=5, saying="the log is in the storage")
    events = "".join(jobs.follow(queue, job.job, None))
    for said in ("printed", "logged", "warned", "written by a library", "echoed by a child"):
        assert said in file.read_text()
        assert said in events
    stages = re.findall(r'event: stage\ndata: .*"stage":"(\w+)"', events)
    assert tuple(dict.fromkeys(stages)) == STAGES


def test_what_a_run_takes_is_recorded(queue: TrainingQueue, registry: Registry) -> None:
    job = ended(queue, queue.enqueue("hungry"))
    assert job.run is not None
    run = registry.runs.get(job.run)
    assert run.peak_memory_mb > 250
    assert 0.5 < run.cpu_seconds < 10


def test_openmp_waits_as_the_setting_says(queue: TrainingQueue, folder: Path) -> None:
    ended(queue, queue.enqueue("user_target"))
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in (folder / "worker.log").read_text()


def test_rq_sees_the_same_queue(queue: TrainingQueue, redis_server: RedisServer, env: dict[str, str]) -> None:
    rq = str(Path(sys.executable).parent / "rq")
    command = [rq, "info", "--url", redis_server.url]
    ended(queue, queue.enqueue("user_target"))  # the worker has started, and the queue is known
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    assert "train" in said
    assert "1 workers, 1 queues" in said


def test_a_plain_rq_worker_can_carry_out_the_same_jobs(environment: dict[str, str], real_redis: RedisServer) -> None:
    queue = TrainingQueue(real_redis.client(text=False))
    job = queue.enqueue("user_target")
    rq = str(Path(sys.executable).parent / "rq")
    command = f"{rq} worker train --burst --url {real_redis.url} --serializer rq.serializers.JSONSerializer"
    own = environment | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command.split(), check=True, capture_output=True, cwd=ROOT, env=own, timeout=60)
    assert (queue.job(job).status, queue.job(job).error) == ("finished", "")
    assert Registry(real_redis.client()).aliases("user_target") == {"champion": 1}
    queue.redis.close()


def test_health_tells_whether_a_worker_of_this_host_lives(
    queue: TrainingQueue, env: dict[str, str], real_redis: RedisServer
) -> None:
    def health(**changes: str) -> int:
        command = [sys.executable, "-m", "services.trainer.health"]
        return subprocess.run(command, cwd=ROOT, env=env | changes, capture_output=True).returncode

    eventually(lambda: health() == 0, within=30, saying="the worker counts as alive")
    assert health(MODELMILL_REDIS_URL=real_redis.url) == 1


def test_after_sigkill_of_the_worker_its_job_runs_again_within_15_s(
    queue: TrainingQueue, registry: Registry, crew: Crew, stub: FeatureStub
) -> None:
    stub.open.clear()
    job = queue.enqueue("user_target")
    waiting_for_frame(queue, job, stub)
    [horse] = horses(crew.worker)
    crew.worker.kill()
    killed = time.monotonic()
    eventually(lambda: not lives(horse), within=2, saying="the process that trained died with its worker")
    crew.start()
    waiting_for_frame(queue, job, stub, attempt=2)
    assert time.monotonic() - killed < 15
    stub.open.set()
    assert ended(queue, job).status == "finished"
    again, lost = registry.runs.newest("user_target", limit=2)
    assert (again.status, again.job) == ("succeeded", job)
    assert (lost.status, lost.stage, lost.job) == ("lost", "frame", job)
    assert lost.error.startswith("worker lost")


def test_sigterm_lets_the_training_in_hand_end_first(queue: TrainingQueue, crew: Crew, stub: FeatureStub) -> None:
    stub.open.clear()
    job = queue.enqueue("user_target")
    waiting_for_frame(queue, job, stub)
    crew.worker.send_signal(signal.SIGTERM)
    stub.open.set()
    assert ended(queue, job).status == "finished"
    assert crew.worker.wait(timeout=10) == 0
