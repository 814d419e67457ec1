"""What ended runs have left in the storage is removed, and nothing else."""

from __future__ import annotations

import os
import time

import pytest

from modelmill.packages import package
from modelmill.packages.package import GRAPH
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.jobs.recovery import UNFINISHED, sweep
from tests.trainer.calls import manifest


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


def packaged(registry: Registry, storage: Storage, run_id: str) -> Run:
    run = Run(id=run_id, model="m", started=utc_now())
    registry.runs.start(run)
    package.write(storage, manifest(run_id), {GRAPH: b"graph"})
    return run


def runs_with_packages(storage: Storage) -> list[str]:
    return [name.split("/")[2] for name in storage.names("packages", package.MANIFEST)]


def test_packages_of_ended_runs_without_a_version_go(registry: Registry, storage: Storage) -> None:
    runs = {
        name: packaged(registry, storage, name) for name in ("failed", "lost", "cancelled", "running", "registered")
    }
    registry.runs.fail(runs["failed"], "no", "")
    registry.runs.lose(runs["lost"], "killed")
    registry.runs.cancel(runs["cancelled"], "me")
    registry.register(runs["registered"], package.location("user_target", "registered"), promote=False, champion=None)
    package.write(storage, manifest("unknown"), {GRAPH: b"graph"})
    sweep(registry, storage)
    assert runs_with_packages(storage) == ["registered", "running", "unknown"]
    sweep(registry, storage)
    assert runs_with_packages(storage) == ["registered", "running", "unknown"]


def test_a_package_that_was_never_finished_goes_too(registry: Registry, storage: Storage) -> None:
    run = Run(id="r1", model="m", started=utc_now())
    registry.runs.start(run)
    storage.write(f"{package.location('m', 'r1')}/.tmp-1-model.onnx", b"half")
    registry.runs.lose(run, "killed")
    sweep(registry, storage)
    assert not storage.files.exists(storage.path(package.location("m", "r1")))


def test_unfinished_files_go_when_nobody_can_be_writing_them(registry: Registry, storage: Storage) -> None:
    now = time.time()
    for name, written in (("old", now - UNFINISHED.total_seconds() - 60), ("new", now)):
        storage.write(f"runs/m/r1/.tmp-{name}-log.txt", b"half")
        os.utime(storage.path(f"runs/m/r1/.tmp-{name}-log.txt"), (written, written))
    sweep(registry, storage)
    assert os.listdir(storage.path("runs/m/r1")) == [".tmp-new-log.txt"]


def test_an_empty_storage_is_left_as_it_is(registry: Registry, storage: Storage) -> None:
    sweep(registry, storage)
    assert not os.path.exists(storage.root)
