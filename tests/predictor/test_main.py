"""The predictor as a process: swaps under load, a Redis that goes and comes back, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from modelmill.state import bus, keys
from modelmill.state.events import PredictionServed
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from tests.conftest import ROOT, RedisServer
from tests.eventually import eventually
from tests.predictor import packages
from tests.predictor.packages import manifest, publish, put_complete_user
from tests.predictor.process import PredictorProcess

pytestmark = pytest.mark.redis

VALUES = {"feature_1": 3.0, "feature_2": 0.5, "clicks": 3}


@pytest.fixture
def predictor(real_redis: RedisServer, storage: Storage, tmp_path: Path) -> Iterator[PredictorProcess]:
    """Not started; with one user and one model in Redis."""
    redis = real_redis.client()
    publish(redis, storage, manifest(), packages.classifier())
    put_complete_user(redis, "u1")
    process = PredictorProcess(tmp_path, real_redis.url, storage.url)
    yield process
    process.end()


@dataclass
class Load:
    """Threads that predict without a pause and remember every answer."""

    predictor: PredictorProcess
    stop: threading.Event = field(default_factory=threading.Event)
    versions: list[list[int]] = field(default_factory=lambda: [[] for _ in range(4)])
    """Of each thread, the versions that answered it."""
    failures: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def run(self, seen: list[int]) -> None:
        with httpx.Client(base_url=self.predictor.client.base_url, timeout=10) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post("/models/user_target/predict", json={"user_id": "u1"})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                seen.append(answer.json()["version"])
                self.ids.add(answer.json()["prediction_id"])

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self.run, args=[seen]) for seen in self.versions]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=15)


def reported(real_redis: RedisServer) -> list[str]:
    events = bus.newest(real_redis.client(), keys.EVENTS_PREDICTIONS, 100_000)
    return [event.id for _, event in events if isinstance(event, PredictionServed)]


def test_no_request_fails_while_versions_are_swapped(
    real_redis: RedisServer, storage: Storage, predictor: PredictorProcess
) -> None:
    predictor.start()
    redis, swaps = real_redis.client(), 8
    with Load(predictor) as load:
        for version in range(1, 2 + swaps):
            if version > 1:
                publish(redis, storage, manifest(), packages.classifier())
            eventually(
                lambda expected=version: all(seen and seen[-1] == expected for seen in load.versions),  # type: ignore[misc]
                within=10,
                saying=f"every thread is answered by version {version}",
            )
    assert not load.failures
    for seen in load.versions:
        assert seen == sorted(seen), "an older version answered after a newer one"
        assert set(seen) == set(range(1, 2 + swaps))
    assert predictor.metric('modelmill_model_swaps_total{model="user_target"}') == 1 + swaps
    assert predictor.metric('modelmill_live_version{model="user_target"}') == 1 + swaps
    eventually(
        lambda: sorted(reported(real_redis)) == sorted(load.ids), within=5, saying="each answer is reported once"
    )


def test_a_spoilt_version_fails_no_request(
    real_redis: RedisServer, storage: Storage, predictor: PredictorProcess
) -> None:
    predictor.start()
    redis = real_redis.client()
    with Load(predictor) as load:
        folder = publish(redis, storage, manifest(), packages.classifier(), promote=False).package
        storage.write(f"{folder}/model.onnx", b"spoilt")
        Registry(redis).promote("user_target", 2, by="test")
        eventually(
            lambda: predictor.metric('modelmill_model_load_failures_total{model="user_target"}') > 0,
            within=10,
            saying="the failed load is counted",
        )
    assert not load.failures
    assert {version for seen in load.versions for version in seen} == {1}
    assert predictor.get("/readyz").status_code == 200
    assert "differs from its SHA-256" in predictor.get("/models/user_target").json()["problem"]["reason"]


def test_it_starts_before_redis_and_before_the_first_model(
    real_redis: RedisServer, storage: Storage, tmp_path: Path
) -> None:
    real_redis.stop()
    predictor = PredictorProcess(tmp_path, real_redis.url, storage.url)
    try:
        predictor.start(ready=False)
        assert "the registry has not been read yet" in predictor.get("/readyz").json()["problems"]["models"]
        assert predictor.predict(VALUES).status_code == 503
        real_redis.start()
        eventually(
            lambda: "no model has a champion yet" in predictor.get("/readyz").json()["problems"]["models"],
            within=10,
            saying="the registry was read",
        )
        publish(real_redis.client(), storage, manifest(), packages.classifier())
        eventually(lambda: predictor.get("/readyz").status_code == 200, within=10, saying="it is ready")
        assert predictor.predict(VALUES).status_code == 200
    finally:
        predictor.end()


def test_a_redis_that_goes_and_comes_back(
    real_redis: RedisServer, storage: Storage, predictor: PredictorProcess
) -> None:
    predictor.start()
    assert predictor.predict({"user_id": "u1"}).status_code == 200
    real_redis.stop()

    by_key = predictor.predict({"user_id": "u1"})
    assert by_key.status_code == 503
    assert by_key.headers["Retry-After"] == "1"
    assert "Redis did not answer" in by_key.json()["detail"]
    by_value = predictor.predict(VALUES)
    assert by_value.status_code == 200
    assert predictor.get("/livez").status_code == 200
    assert predictor.get("/readyz").status_code == 503

    real_redis.start()
    assert predictor.predict({"user_id": "u1"}).status_code == 200
    publish(real_redis.client(), storage, manifest(), packages.classifier())
    eventually(
        lambda: predictor.predict({"user_id": "u1"}).json()["version"] == 2, within=10, saying="version 2 answers"
    )
    eventually(
        lambda: by_value.json()["prediction_id"] in reported(real_redis),
        within=10,
        saying="what was answered meanwhile is reported",
    )


def test_every_answer_before_its_end_is_reported(real_redis: RedisServer, predictor: PredictorProcess) -> None:
    predictor.start()
    with Load(predictor) as load:
        eventually(lambda: len(load.ids) > 200, within=10, saying="200 answers")
        predictor.stop()
    assert load.ids <= set(reported(real_redis))
    assert len(reported(real_redis)) == len(set(reported(real_redis)))
    assert "panicked" not in predictor.log


def test_its_end_does_not_wait_for_a_redis_that_is_away(real_redis: RedisServer, predictor: PredictorProcess) -> None:
    predictor.start()
    real_redis.stop()
    assert predictor.predict(VALUES).status_code == 200
    predictor.stop()
    assert "1 predicted rows are not reported" in predictor.log


def test_metrics_count_all_worker_processes(
    real_redis: RedisServer, storage: Storage, predictor: PredictorProcess
) -> None:
    predictor.settings["MODELMILL_WORKERS"] = "2"
    predictor.start()
    swapped = 'modelmill_model_swaps_total{model="user_target"}'
    eventually(lambda: predictor.metric(swapped) == 2, within=20, saying="both have loaded version 1")
    for _ in range(20):
        with httpx.Client(base_url=predictor.client.base_url) as client:  # a connection each, for either process
            assert client.post("/models/user_target/predict", json=VALUES).status_code == 200
    assert predictor.metric('modelmill_predictions_total{model="user_target",outcome="served"}') == 20


def test_a_setting_that_cannot_be_used_stops_the_start() -> None:
    environment = {**os.environ, "MODELMILL_MAX_INSTANCES": "many"}
    ended = subprocess.run(
        [sys.executable, "-m", "services.predictor.main"], cwd=ROOT, env=environment, capture_output=True, timeout=30
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"MODELMILL_MAX_INSTANCES='many' cannot be used")
