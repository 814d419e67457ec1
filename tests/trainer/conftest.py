"""A stand-in for the feature service, and data of the users example."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import fakeredis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from threadpoolctl import threadpool_limits
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from modelmill.packages import package
from modelmill.packages.package import GRAPH
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.app import trainer_app
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import ATTEMPTS
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs.index import RunIndex
from services.trainer.settings import TrainerSettings
from tests.conftest import USERS_MILL, RedisServer
from tests.trainer.calls import Train, manifest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """OpenMP threads that wait for each other on a busy machine make a test of milliseconds last minutes."""
    with threadpool_limits(1):
        yield


def users_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """A training frame of the users example, in which the target follows the features most of the time."""
    random = np.random.default_rng(seed)
    one, two = random.normal(size=(2, rows))
    target = (one + two + 0.5 * random.normal(size=rows) > 0).astype(np.int64)
    times = np.datetime64("2026-01-01T00:00:00", "us") + np.arange(rows) * np.timedelta64(1, "m")
    return pa.table(
        {
            "_event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "feature_1": one,
            "feature_2": two,
            "feature_3": one**2,
            "target": target,
        }
    )


def parquet(table: pa.Table) -> bytes:
    """`table` as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@dataclass
class FeatureStub:
    """Answers `POST /training-frames` with `table`, once `open` is set; while `failing`, with status 500."""

    table: pa.Table = field(default_factory=users_table)
    open: Flag = field(default_factory=Flag)
    asked: list[dict[str, str | None]] = field(default_factory=list)
    url: str = ""
    failing: bool = False

    def __call__(self, request: Request) -> Response:
        assert (request.method, request.path) == ("POST", "/training-frames")
        self.asked.append(request.get_json())
        self.open.wait(60)
        if self.failing:
            return Response("out of order", status=500)
        return Response(parquet(self.table), content_type="application/vnd.apache.parquet")


@contextmanager
def serving(stub: FeatureStub) -> Iterator[FeatureStub]:
    """Serve `stub`, which answers at once; clear `open` to let it wait."""
    stub.open.set()
    server = make_server("127.0.0.1", 0, Request.application(stub), threaded=True)
    stub.url = f"http://127.0.0.1:{server.port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield stub
    stub.open.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def feature_stub() -> Iterator[FeatureStub]:
    """A feature service with the data of the users example."""
    with serving(FeatureStub()) as stub:
        yield stub


@pytest.fixture
def environment(
    real_redis: RedisServer, feature_stub: FeatureStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The settings of a trainer with Redis, storage and feature service of the test's own; set in this process too."""
    own = {
        "MODELMILL_REDIS_URL": real_redis.url,
        "MODELMILL_FEATURE_URL": feature_stub.url,
        "MODELMILL_STORAGE_URL": f"file://{tmp_path}/storage",
        "MODELMILL_DEFINITIONS": str(USERS_MILL),
        "OMP_NUM_THREADS": "1",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **own}


@pytest.fixture
def fake_queue(fake_redis: Redis) -> TrainingQueue:
    """A queue in the same Redis as `fake_redis`."""
    server = fake_redis.connection_pool.connection_kwargs["server"]
    return TrainingQueue(fakeredis.FakeRedis(server=server), limit=3)


def began(queue: TrainingQueue, job_id: str, *, run: str | None = None, lease: int = 10) -> str:
    """Let a job look as if a worker that has died since had begun it; returns the execution's key."""
    job = Job.fetch(job_id, connection=queue.redis, serializer=JSONSerializer)
    with queue.redis.pipeline() as pipe:
        pipe.lrem(queue.rq.key, 1, job_id)
        execution = Execution.create(job, lease, pipeline=pipe, worker_name="dead")
        job.prepare_for_execution("dead", pipeline=pipe)
        pipe.hset(job.key, "retries_left", ATTEMPTS - 1)
        if run:
            pipe.hset(job.key, "meta", json.dumps({"run": run, "stage": "fit", "progress": 0.2}))
        pipe.execute()
    return str(execution.key)


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


@pytest.fixture
def http(fake_redis: Redis, fake_queue: TrainingQueue, registry: Registry, storage: Storage) -> FlaskClient:
    """A client of the trainer of the users example."""
    overview = Overview(registry, storage)
    recipes, runs = Recipes(fake_redis, USERS_MILL), RunIndex(registry.runs)
    return trainer_app(fake_queue, registry, overview, recipes, runs, TrainerSettings()).test_client()


@pytest.fixture
def trained(registry: Registry, storage: Storage) -> Train:
    """A function that registers and promotes one more version of user_target."""

    def train() -> int:
        number = len(registry.versions("user_target")) + 1
        run = Run(id=f"r{number}", model="user_target", started=utc_now(), metrics={"accuracy": 0.9})
        registry.runs.start(run)
        folder = package.write(storage, manifest(run.id), {GRAPH: b"graph"})
        return registry.register(run, folder, promote=True, champion=number - 1 or None).version

    return train
