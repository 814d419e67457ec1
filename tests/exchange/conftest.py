"""A trainer with its worker, to which models from elsewhere are brought over HTTP, and from which versions are taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from werkzeug.serving import make_server

from modelmill import Client
from modelmill.settings import Settings
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor.inference import infer
from services.predictor.loading import load
from services.trainer.app import trainer_app
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs.index import RunIndex
from services.trainer.settings import TrainerSettings
from tests.conftest import USERS_MILL, RedisServer
from tests.trainer.conftest import FeatureStub, serving
from tests.trainer.workers import workers

MODEL = "user_target"


@dataclass
class Trainer:
    """The trainer of the users example, as a client sees it."""

    client: Client
    registry: Registry
    storage: Storage
    url: str

    def register(self, path: Path, **how: Any) -> dict[str, Any]:
        """The run of the version that a model from elsewhere became."""
        job = self.client.wait(self.client.register(MODEL, path, **how)["job"], seconds=60)
        assert job["status"] == "finished", job["error"]
        return self.client.get_run(job["run"])

    def answers(self, version: int, rows: pd.DataFrame) -> tuple[list[Any], np.ndarray]:
        """What the predictor answers with a version: labels, and the probabilities of the classes in their order."""
        model = load(self.registry, self.storage, MODEL, version)
        found = infer(model, rows.to_numpy().tolist())
        return found.predictions, np.array([list(row.values()) for row in found.probabilities or []])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """One for all tests of a module, because a worker takes seconds to start."""
    folder = tmp_path_factory.mktemp("exchange")
    (folder / "redis").mkdir()
    redis = RedisServer(folder / "redis")
    redis.start()
    with ExitStack() as ends, serving(FeatureStub()) as stub:
        ends.callback(redis.stop)
        own = {
            "MODELMILL_REDIS_URL": redis.url,
            "MODELMILL_FEATURE_URL": stub.url,
            "MODELMILL_STORAGE_URL": f"file://{folder}/storage",
            "MODELMILL_DEFINITIONS": str(USERS_MILL),
            "OMP_NUM_THREADS": "1",
        }
        with workers({**os.environ, **own}, folder / "worker.log") as start:
            start()
            yield from _served(redis, Storage(own["MODELMILL_STORAGE_URL"]))


def _served(redis: RedisServer, storage: Storage) -> Iterator[Trainer]:
    registry = Registry(redis.client())
    app = trainer_app(
        TrainingQueue(redis.client(text=False)), registry, Overview(registry, storage),
        Recipes(redis.client(), USERS_MILL), RunIndex(registry.runs), TrainerSettings(),
    )  # fmt: skip
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    with Client(Settings(trainer_url=url)) as client:
        yield Trainer(client, registry, storage, url)
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)
