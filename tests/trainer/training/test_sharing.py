"""What the workers of a search share in the storage."""

from __future__ import annotations

import io

import numpy as np
import pytest

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.training import sharing

RUN = Run(id="r1", model="m", started=utc_now())
FOLDS = ((np.array([0, 1, 2]), np.array([3])), (np.array([2, 3]), np.array([0, 1])))


@pytest.fixture
def shared(storage: Storage, registry: Registry) -> Storage:
    registry.runs.start(RUN)
    sharing.keep_frame(storage, RUN, io.BytesIO(b"parquet"))
    sharing.keep_rows(storage, RUN, np.array([1, 4, 6, 7]), FOLDS)
    return storage


def test_what_is_read_is_what_was_kept(shared: Storage) -> None:
    train, folds = sharing.rows(shared, RUN)
    assert sharing.frame(shared, RUN).read() == b"parquet"
    assert train.tolist() == [1, 4, 6, 7]
    assert [(fit.tolist(), score.tolist()) for fit, score in folds] == [([0, 1, 2], [3]), ([2, 3], [0, 1])]


def test_nothing_is_left_when_the_search_has_ended(shared: Storage) -> None:
    sharing.remove(shared, RUN)
    assert shared.names("runs", "") == []
    with pytest.raises(FileNotFoundError):
        sharing.rows(shared, RUN)


def test_what_a_killed_process_has_left_is_swept_and_nothing_else(shared: Storage, registry: Registry) -> None:
    shared.write("runs/m/r1/evaluation.json", b"{}")
    sharing.sweep(shared, registry)
    assert len(shared.names("runs", "")) == 3, "the search goes on"
    registry.runs.fail(RUN, "lost", "")
    sharing.sweep(shared, registry)
    assert shared.names("runs", "") == ["runs/m/r1/evaluation.json"]
