"""Runs as files, read back by pandas."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pandas as pd
import pytest

from modelmill.state.connections import Redis
from modelmill.state.runs import Run, Runs
from services.trainer.runs import export
from services.trainer.runs.index import RunIndex

TRAINED = Run(
    id="r1", model="m", started="2026-11-25T00:00:00.000000Z", finished="2026-11-25T00:00:01.000000Z", version=None,
    metric="auc", metrics={"accuracy": 0.9, "auc": 0.5}, params={"C": "1", "name": "'a, \"b\"'"}, rows_train=7,
    features=["age"], package="models/m/r1",
)  # fmt: skip
BARE = Run(id="r2", model="other", started="2026-11-25T01:00:00.000000Z")


@pytest.fixture
def index(fake_redis: Redis) -> RunIndex:
    runs = Runs(fake_redis)
    runs.start(TRAINED)
    runs.start(BARE)
    return RunIndex(runs)


def test_the_csv_has_the_five_columns_of_a_list_kept_by_hand(index: RunIndex) -> None:
    content = b"".join(export.as_csv(index.runs, index.search(order="started").ids))
    frame = pd.read_csv(io.BytesIO(content))
    assert list(frame.columns) == ["timestamp", "model", "parameters", "score", "model_path"]
    first, second = frame.to_dict("records")
    assert (first["timestamp"], first["model"], first["score"]) == (TRAINED.started, "m", 0.5)
    assert json.loads(first["parameters"]) == TRAINED.params
    assert first["model_path"] == "models/m/r1"
    assert pd.isna(second["score"])
    assert pd.isna(second["model_path"])


@pytest.mark.parametrize(
    "run, score",
    [
        (TRAINED, 0.5),
        (BARE, None),
        (Run(id="r", model="m", started="", metrics={"mse": 2.0}), 2.0),
        (Run(id="r", model="m", started="", metrics={"mse": 2.0, "mae": 1.0}), None),
    ],
    ids=["its metric", "none", "its only one", "which of two"],
)
def test_the_score_is_the_metric_that_the_model_is_judged_by(run: Run, score: float | None) -> None:
    assert export.score(run) == score


def test_the_parquet_has_every_field_with_its_type(index: RunIndex) -> None:
    ids = index.search(order="started").ids
    content = b"".join(export.as_parquet(index.runs, ids, index.fields_of(ids)))
    frame = pd.read_parquet(io.BytesIO(content), dtype_backend="pyarrow")
    first, second = frame.to_dict("records")
    assert first["started"] == datetime(2026, 11, 25, tzinfo=UTC)
    assert (first["metrics.auc"], first["rows_train"], first["params.C"]) == (0.5, 7, "1")
    assert list(first["features"]) == ["age"]
    assert str(frame["rows_train"].dtype) == "int64[pyarrow]"
    assert pd.isna(second["metrics.auc"])
    assert {"traceback", "error", "version"} <= set(frame.columns)


def test_no_runs_are_files_without_rows(fake_redis: Redis) -> None:
    runs = Runs(fake_redis)
    assert b"".join(export.as_csv(runs, [])) == b"timestamp,model,parameters,score,model_path\n"
    assert len(pd.read_parquet(io.BytesIO(b"".join(export.as_parquet(runs, [], set()))))) == 0


def test_files_come_in_pieces(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH", 1)
    ids = index.search().ids
    assert len(list(export.as_csv(index.runs, ids))) == 1 + len(ids)
    pieces = list(export.as_parquet(index.runs, ids, index.fields_of(ids)))
    assert len(pd.read_parquet(io.BytesIO(b"".join(pieces)))) == len(ids)
