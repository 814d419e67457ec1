"""Live is what the registry calls champion, whatever was heard or missed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from threading import Event as Flag
from threading import Thread

import pytest
import redis.exceptions

from modelmill.errors import Unavailable
from modelmill.packages import package
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import Session
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor import loading, reports
from services.predictor.inference import LiveModels
from services.predictor.loading import Reconciler
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.predictor import packages
from tests.predictor.packages import manifest, publish


def versions(live: LiveModels) -> dict[str, int]:
    return {name: model.version for name, model in live.served.items()}


def spoil(storage: Storage, folder: str) -> None:
    storage.write(f"{folder}/{package.GRAPH}", b"spoilt")


def test_every_champion_is_loaded(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    publish(fake_redis, storage, manifest(model="other"), packages.classifier())
    reconciler.reconcile()
    assert versions(live) == {"user_target": 1, "other": 1}


def test_a_version_that_is_not_promoted_stays_out(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    publish(fake_redis, storage, manifest(), packages.classifier(), promote=False)
    reconciler.reconcile()
    assert versions(live) == {"user_target": 1}


def test_another_champion_is_swapped_in_and_a_rollback_out(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    assert versions(live) == {"user_target": 2}
    Registry(fake_redis).rollback("user_target", by="test")
    reconciler.reconcile()
    assert versions(live) == {"user_target": 1}


def test_what_is_live_is_not_loaded_again(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    loaded = live.served["user_target"]
    reconciler.reconcile()
    assert live.served["user_target"] is loaded


def test_a_model_without_a_champion_is_unloaded(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    fake_redis.delete(keys.aliases("user_target"))
    reconciler.reconcile()
    assert versions(live) == {}


def test_a_spoilt_package_keeps_the_old_version_live(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    spoil(storage, publish(fake_redis, storage, manifest(), packages.classifier()).package)
    failures = reports.LOAD_FAILURES.labels("user_target")._value.get()
    reconciler.reconcile()
    assert versions(live) == {"user_target": 1}
    assert live.problems["user_target"].version == 2
    assert "model.onnx differs from its SHA-256" in live.problems["user_target"].reason
    assert reports.LOAD_FAILURES.labels("user_target")._value.get() == failures + 1
    live.check_ready()


def test_a_package_that_was_mended_goes_live(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    folder = publish(fake_redis, storage, manifest(), packages.classifier()).package
    graph = storage.read(f"{folder}/{package.GRAPH}")
    spoil(storage, folder)
    reconciler.reconcile()
    storage.write(f"{folder}/{package.GRAPH}", graph)
    reconciler.reconcile()
    assert versions(live) == {"user_target": 1}
    assert not live.problems


def test_a_spoilt_package_is_tried_again_only_after_a_while(
    fake_redis: Redis, storage: Storage, live: LiveModels
) -> None:
    patient = Reconciler(Registry(fake_redis), storage, live, retry=60)
    folder = publish(fake_redis, storage, manifest(), packages.classifier()).package
    graph = storage.read(f"{folder}/{package.GRAPH}")
    spoil(storage, folder)
    patient.reconcile()
    storage.write(f"{folder}/{package.GRAPH}", graph)
    patient.reconcile()
    assert versions(live) == {}


def test_a_later_version_does_not_wait_for_a_spoilt_one(fake_redis: Redis, storage: Storage, live: LiveModels) -> None:
    patient = Reconciler(Registry(fake_redis), storage, live, retry=60)
    spoil(storage, publish(fake_redis, storage, manifest(), packages.classifier()).package)
    patient.reconcile()
    publish(fake_redis, storage, manifest(), packages.classifier())
    patient.reconcile()
    assert versions(live) == {"user_target": 2}


def test_a_problem_ends_with_the_return_to_the_live_version(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    spoil(storage, publish(fake_redis, storage, manifest(), packages.classifier()).package)
    reconciler.reconcile()
    Registry(fake_redis).rollback("user_target", by="test")
    reconciler.reconcile()
    assert not live.problems


def test_a_problem_ends_with_the_championship(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    spoil(storage, publish(fake_redis, storage, manifest(), packages.classifier()).package)
    reconciler.reconcile()
    fake_redis.delete(keys.aliases("user_target"))
    reconciler.reconcile()
    assert not live.problems


def test_a_problem_is_logged_once(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(storage, publish(fake_redis, storage, manifest(), packages.classifier()).package)
    with caplog.at_level(logging.ERROR):
        reconciler.reconcile()
        reconciler.reconcile()
    assert len(caplog.records) == 1
    assert "user_target version 1 cannot be loaded" in caplog.text


def test_one_spoilt_package_does_not_stop_the_others(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    spoil(storage, publish(fake_redis, storage, manifest(model="a"), packages.classifier()).package)
    publish(fake_redis, storage, manifest(model="b"), packages.classifier())
    reconciler.reconcile()
    assert versions(live) == {"b": 1}


# --- readiness


def test_not_ready_before_the_registry_was_read(live: LiveModels) -> None:
    with pytest.raises(Unavailable, match="the registry has not been read yet"):
        live.check_ready()


def test_not_ready_without_any_model(reconciler: Reconciler, live: LiveModels) -> None:
    reconciler.reconcile()
    with pytest.raises(Unavailable, match="no model has a champion yet"):
        live.check_ready()


def test_ready_with_the_first_champion(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    reconciler.reconcile()
    publish(fake_redis, storage, manifest(), packages.classifier())
    reconciler.reconcile()
    live.check_ready()


def test_not_ready_until_every_champion_of_the_start_was_tried(live: LiveModels) -> None:
    live.expect(["a", "b"])
    with pytest.raises(Unavailable, match="a: not loaded yet; b: not loaded yet"):
        live.check_ready()


def test_a_champion_that_cannot_be_loaded_is_told_and_holds_no_others(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(model="good"), packages.classifier())
    spoil(storage, publish(fake_redis, storage, manifest(model="bad"), packages.classifier()).package)
    reconciler.reconcile()
    assert live.check_ready().startswith("bad: version 1 cannot be loaded: package packages/bad")
    publish(fake_redis, storage, manifest(model="bad"), packages.classifier())
    reconciler.reconcile()
    assert live.check_ready() == ""


def test_not_ready_where_no_champion_can_be_loaded(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    spoil(storage, publish(fake_redis, storage, manifest(model="bad"), packages.classifier()).package)
    reconciler.reconcile()
    with pytest.raises(Unavailable, match="bad: version 1 cannot be loaded: package packages/bad"):
        live.check_ready()


@pytest.mark.parametrize("raised", [ValueError("a\ud800"), SystemExit(3)])
def test_whatever_code_of_a_package_raises_is_its_problem_alone(
    fake_redis: Redis,
    storage: Storage,
    reconciler: Reconciler,
    live: LiveModels,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
) -> None:
    def open_package(redis: Redis, manifest: Manifest, content: bytes) -> Session:
        if manifest.model == "bad":
            raise raised
        return open_here(redis, manifest, content)

    open_here = loading.open_package
    monkeypatch.setattr(loading, "open_package", open_package)
    for model in ("bad", "good"):
        publish(fake_redis, storage, manifest(model=model), packages.classifier())
    reconciler.reconcile()
    assert versions(live) == {"good": 1}
    live.check_ready().encode()


def test_a_champion_of_the_start_that_is_none_any_more_is_not_waited_for(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels
) -> None:
    publish(fake_redis, storage, manifest(model="good"), packages.classifier())
    spoil(storage, publish(fake_redis, storage, manifest(model="bad"), packages.classifier()).package)
    reconciler.reconcile()
    fake_redis.delete(keys.aliases("bad"))
    reconciler.reconcile()
    live.check_ready()


# --- the thread


@pytest.fixture
def running(real_redis: RedisServer, storage: Storage, live: LiveModels) -> Iterator[Reconciler]:
    """A reconciler in its thread, on a real Redis."""
    reconciler = Reconciler(Registry(real_redis.client()), storage, live, retry=0)
    stop = Flag()
    thread = Thread(target=reconciler.run, args=[stop])
    thread.start()
    yield reconciler
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.redis
def test_a_promotion_wakes_it(real_redis: RedisServer, storage: Storage, live: LiveModels, running: Reconciler) -> None:
    redis = real_redis.client()
    publish(redis, storage, manifest(), packages.classifier())
    eventually(lambda: versions(live) == {"user_target": 1}, within=5, saying="version 1 is live")
    publish(redis, storage, manifest(), packages.classifier(), promote=False)
    started = time.perf_counter()
    Registry(redis).promote("user_target", 2, by="test")
    eventually(lambda: versions(live) == {"user_target": 2}, within=5, saying="version 2 is live")
    assert time.perf_counter() - started < 0.9, "it was the once-a-second look that found it, not the event"


@pytest.mark.redis
def test_a_missed_event_is_healed(
    real_redis: RedisServer, storage: Storage, live: LiveModels, running: Reconciler
) -> None:
    redis = real_redis.client()
    publish(redis, storage, manifest(), packages.classifier())
    publish(redis, storage, manifest(), packages.classifier(), promote=False)
    eventually(lambda: versions(live) == {"user_target": 1}, within=5, saying="version 1 is live")
    redis.hset(keys.aliases("user_target"), "champion", "2")  # as after a promotion whose event was trimmed away
    eventually(lambda: versions(live) == {"user_target": 2}, within=5, saying="version 2 is live")


@pytest.mark.redis
def test_it_outlives_a_redis_that_is_away(
    real_redis: RedisServer, storage: Storage, live: LiveModels, running: Reconciler
) -> None:
    publish(real_redis.client(), storage, manifest(), packages.classifier())
    eventually(lambda: versions(live) == {"user_target": 1}, within=5, saying="version 1 is live")
    real_redis.stop()
    with pytest.raises(redis.exceptions.ConnectionError):
        real_redis.client().ping()
    assert versions(live) == {"user_target": 1}
    real_redis.start()
    publish(real_redis.client(), storage, manifest(), packages.classifier())
    eventually(lambda: versions(live) == {"user_target": 2}, within=10, saying="version 2 is live")


def test_it_outlives_what_nobody_thought_of(
    fake_redis: Redis, storage: Storage, reconciler: Reconciler, live: LiveModels, caplog: pytest.LogCaptureFixture
) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    fake_redis.hset(keys.aliases("user_target"), "champion", "seven")
    stop = Flag()
    thread = Thread(target=reconciler.run, args=[stop])
    thread.start()
    eventually(lambda: "reconciling failed" in caplog.text, within=5, saying="the failure is logged")
    fake_redis.hset(keys.aliases("user_target"), "champion", "1")
    eventually(lambda: versions(live) == {"user_target": 1}, within=5, saying="version 1 is live")
    stop.set()
    thread.join(timeout=10)
