"""Runs side by side."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from modelmill.state.connections import Redis
from modelmill.state.runs import Run, Runs
from services.trainer.runs import tables
from services.trainer.runs.index import RunIndex
from services.trainer.runs.tables import compare

ONE = Run(
    id="a", model="m", started="2026-11-25T00:00:00.000000Z", rows_train=100, data_fingerprint="f1",
    features=["age", "hour"], fields=["users.age@11112222"], metrics={"auc": 0.5}, params={"C": "1", "tol": "0.1"},
    packages={"numpy": "2.4.6"}, git_commit="abc",
)  # fmt: skip
OTHER = Run(
    id="b", model="m", started="2026-11-25T01:00:00.000000Z", rows_train=150, data_fingerprint="f1",
    features=["age", "name_length"], fields=["users.age@33334444", "users.name_length"], metrics={"auc": 0.75},
    params={"C": "1", "penalty": "'l2'"}, packages={"numpy": "2.4.6"}, git_commit="abc",
)  # fmt: skip


def lines(section: str, *runs: Run) -> dict[str, dict[str, Any]]:
    """The lines of one section by name."""
    return {line["name"]: line for line in compare(runs)["sections"][section]}


def test_each_line_has_the_values_of_the_runs_in_turn_and_whether_they_differ() -> None:
    assert compare([ONE, OTHER])["runs"] == ["a", "b"]
    params = lines("params", ONE, OTHER)
    assert params["C"] == {"name": "C", "values": ["1", "1"], "differs": False, "change": None}
    assert (params["tol"]["values"], params["tol"]["differs"]) == (["0.1", None], True)
    assert (params["penalty"]["values"], params["penalty"]["differs"]) == ([None, "'l2'"], True)


def test_numbers_that_differ_say_how_much_more_than_the_first_run_s_they_are() -> None:
    assert lines("metrics", ONE, OTHER, ONE)["auc"]["change"] == [0.0, 0.25, 0.0]
    assert lines("data", ONE, OTHER)["rows_train"]["change"] == [0, 50]
    assert lines("metrics", OTHER, Run(id="c", model="m", started=""))["auc"]["change"] == [0.0, None]
    versions = lines("run", replace(ONE, version=3), replace(OTHER, version=4))["version"]
    assert (versions["differs"], versions["change"]) == (True, None), "a version is no amount"


def test_the_data_says_what_was_trained_on() -> None:
    data = lines("data", ONE, OTHER)
    assert not data["data_fingerprint"]["differs"]
    assert data["rows_train"]["differs"]
    assert "data_start" not in data, "no run has one"


def test_features_are_compared_by_version_and_by_whether_they_are_there() -> None:
    features = lines("features", ONE, OTHER)
    assert features["users.age"]["values"] == ["11112222", "33334444"]
    assert features["users.name_length"]["values"] == [None, "column"]
    assert features["hour"]["values"] == ["input", None]


def test_code_and_packages_are_compared() -> None:
    assert not lines("packages", ONE, OTHER)["numpy"]["differs"]
    assert not lines("code", ONE, OTHER)["git_commit"]["differs"]


# Runs as files, read back by pandas.

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
    content = b"".join(tables.as_csv(index.runs, index.search(order="started").ids))
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
    assert tables.score(run) == score


def test_the_parquet_has_every_field_with_its_type(index: RunIndex) -> None:
    ids = index.search(order="started").ids
    content = b"".join(tables.as_parquet(index.runs, ids, index.fields_of(ids)))
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
    assert b"".join(tables.as_csv(runs, [])) == b"timestamp,model,parameters,score,model_path\n"
    assert len(pd.read_parquet(io.BytesIO(b"".join(tables.as_parquet(runs, [], set()))))) == 0


def test_files_come_in_pieces(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RUNS_PER_READ", 1)
    ids = index.search().ids
    assert len(list(tables.as_csv(index.runs, ids))) == 1 + len(ids)
    pieces = list(tables.as_parquet(index.runs, ids, index.fields_of(ids)))
    assert len(pd.read_parquet(io.BytesIO(b"".join(pieces)))) == len(ids)
