"""Repetitions as jobs: asked for over HTTP, carried out by a real worker, reported beside the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from modelmill.state import keys
from modelmill.state.runs import Run
from services.trainer.app import trainer_app
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs.index import RunIndex
from services.trainer.settings import TrainerSettings
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.trainer.trace.conftest import House, users
from tests.trainer.workers import Start, Worker, ended, horses, workers

pytestmark = [pytest.mark.redis, pytest.mark.slow]
SLEEPY = """
def classifier():
    import os, time
    from sklearn.linear_model import LogisticRegression
    while os.path.exists("{gate}"):
        time.sleep(0.05)
    return LogisticRegression()
"""


@pytest.fixture
def start(house: House, tmp_path: Path) -> Iterator[Start]:
    with workers({**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "worker.log") as start:
        yield start


@pytest.fixture
def queue(house: House, real_redis: RedisServer) -> TrainingQueue:
    return TrainingQueue(real_redis.client(text=False))


@pytest.fixture
def http(house: House, queue: TrainingQueue) -> FlaskClient:
    overview, recipes = Overview(house.registry, house.storage), Recipes(house.registry.redis, house.mill)
    index = RunIndex(house.registry.runs)
    return trainer_app(queue, house.registry, overview, recipes, index, TrainerSettings.read()).test_client()


def test_a_worker_repeats_a_run_and_registers_nothing(
    house: House, http: FlaskClient, queue: TrainingQueue, start: Start
) -> None:
    house.ingest("users", users())
    start()
    trained = ended(queue, http.post("/models/user_target/train", json={}).json["job"])
    answer = http.post(f"/runs/{trained.run}/reproduce", json={"by": "me"})
    assert (answer.status_code, answer.json["model"]) == (202, "user_target")
    job = ended(queue, answer.json["job"])
    assert (job.status, job.model, job.run, job.trigger, job.by) == (
        "finished", "user_target", trained.run, "reproduce", "me",
    )  # fmt: skip
    assert (job.stage, job.progress) == ("done", 1.0)
    [report] = http.get(f"/runs/{trained.run}/reproductions").json["reproductions"]
    assert (report["equal"], report["job"], report["by"]) == (True, job.job, "me")
    assert [run.id for run in house.registry.runs.newest()] == [trained.run]
    assert len(house.registry.versions("user_target")) == 1


def _held(house: House, http: FlaskClient, start: Start, tmp_path: Path) -> tuple[Run, Path, Worker, str]:
    """A run whose repetition goes on as long as the gate is there."""
    text, gate = house.mill.read_text(), tmp_path / "gate"
    begin, end = text.index("def classifier"), text.index("Model(")
    house.define(text[:begin] + SLEEPY.format(gate=gate).lstrip() + "\n\n" + text[end:])
    house.ingest("users", users())
    run = house.train()
    gate.touch()
    return run, gate, start(), http.post(f"/runs/{run.id}/reproduce", json={}).json["job"]


def test_a_repetition_is_cancelled_and_leaves_no_report(
    house: House, http: FlaskClient, queue: TrainingQueue, start: Start, tmp_path: Path
) -> None:
    run, _, worker, job = _held(house, http, start, tmp_path)
    eventually(lambda: queue.job(job).stage == "frame", within=30, saying="the repetition waits at its gate")
    assert http.delete(f"/jobs/{job}").json["status"] == "cancelled"
    eventually(lambda: not horses(worker), within=10, saying="its process is gone")
    assert http.get(f"/runs/{run.id}/reproductions").json == {"reproductions": []}
    assert house.registry.runs.get(run.id).status == "succeeded"


def test_a_repetition_whose_worker_is_killed_begins_again(
    house: House, http: FlaskClient, queue: TrainingQueue, start: Start, tmp_path: Path
) -> None:
    run, gate, worker, job = _held(house, http, start, tmp_path)
    eventually(lambda: queue.job(job).stage == "frame", within=30, saying="the repetition waits at its gate")
    worker.kill()
    start()
    eventually(lambda: queue.job(job).attempt == 2, within=40, saying="another worker has begun again")
    gate.unlink()
    assert ended(queue, job).status == "finished"
    assert [one["equal"] for one in http.get(f"/runs/{run.id}/reproductions").json["reproductions"]] == [True]
    assert not house.registry.redis.exists(keys.RUNNING)
