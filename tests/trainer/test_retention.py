"""Old versions leave the storage, whatever interrupts it."""

from __future__ import annotations

import pytest

from modelmill.packages import package
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import code_file, folder, modules_folder
from modelmill.storage import Storage
from services.trainer.models import Retention
from tests.trainer.calls import Train

MODEL = "user_target"


@pytest.fixture
def retention(registry: Registry, storage: Storage) -> Retention:
    return Retention(registry, storage)


def test_a_new_version_lets_the_oldest_go_with_its_runs_files(
    retention: Retention, trained: Train, storage: Storage
) -> None:
    storage.write(f"{folder(MODEL, 'r1')}/log.txt", b"x" * 100)
    code = [code_file(MODEL, "r1"), f"{modules_folder(MODEL, 'r1')}/own.py"]
    for name in code:
        storage.write(name, b"# how it was made")
    for _ in range(7):
        trained()
        retention.after_registration(MODEL, 6)
    assert storage.names(f"packages/{MODEL}/r1", "") == []
    assert storage.names(folder(MODEL, "r1"), "") == code, "it can still be traced and repeated"
    assert storage.names(f"packages/{MODEL}/r2", "") != []
    assert retention.registry.version(MODEL, 1).freed > 100  # type: ignore[operator]
    assert retention.registry.runs.get("r1").version == 1, "the run's record stays"


def test_a_version_that_is_still_served_from_is_not_pruned(
    retention: Retention, trained: Train, storage: Storage
) -> None:
    for _ in range(9):
        trained()
    retention.registry.promote(MODEL, 1, alias="stable", by="me")
    assert [removal.version for removal in retention.prune(MODEL, 1, by="me").removed] == [2, 3]
    package.read(storage, package.location(MODEL, "r1"))


def test_a_version_whose_predictions_the_monitor_counts_is_not_pruned(retention: Retention, trained: Train) -> None:
    for _ in range(8):
        trained()
    retention.registry.redis.zadd(keys.monitor_minutes(MODEL), {"1:2026-11-25T12:00Z": 1.0})
    pruning = retention.prune(MODEL, 1, by="me")
    assert [removal.version for removal in pruning.removed] == [2]
    assert pruning.kept["1"] == "the monitor keeps windows of its predictions"


def test_an_interrupted_pruning_is_finished_by_the_next(
    retention: Retention, trained: Train, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(7):
        trained()

    def full_disk(_: str) -> None:
        raise OSError("the disk has gone")

    with monkeypatch.context() as broken:
        broken.setattr(storage, "remove_folder", full_disk)
        with pytest.raises(OSError, match="gone"):
            retention.prune(MODEL, 1, by="me")
        retention.after_registration(MODEL, 1)  # it only logs: the version is registered
    assert retention.registry.version(MODEL, 1).pruned
    assert [removal.version for removal in retention.prune(MODEL, 1, by="me").removed] == [1]
    assert retention.registry.pruned_with_files(MODEL) == []
