from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tests.feature.conftest import ROW, Room


@pytest.mark.parametrize("accept", [None, "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"])
def test_a_training_frame_comes_as_parquet_or_arrow(accept: str | None, users: Room) -> None:
    users.ingest("users", [ROW, ROW | {"user_id": "v"}])
    headers = {"Accept": accept} if accept else {}
    answer = users.http.post("/training-frames", json={"model": "user_target"}, headers=headers)
    if accept and "arrow" in accept:
        frame = pa.ipc.open_stream(answer.data).read_pandas()
    else:
        frame = pd.read_parquet(io.BytesIO(answer.data))
    assert answer.content_type == (accept or "application/vnd.apache.parquet")
    assert list(frame.columns) == ["_event_time", "feature_1", "feature_2", "feature_3", "target"]
    assert frame["feature_3"].tolist() == [9.0, 9.0]


def test_a_training_frame_is_cut_by_time(users: Room) -> None:
    users.ingest("users", [ROW])
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert users.http.post("/training-frames", json={"model": "user_target", "end": later}).status_code == 200
    answer = users.http.post("/training-frames", json={"model": "user_target", "start": later})
    assert answer.status_code == 409
    assert "source 'users' has no rows to train 'user_target' on from" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "model is missing; expected a text"),
        ({"model": 3}, 422, "model is 3; expected a text"),
        ({"model": "user_tarpet"}, 404, "model 'user_tarpet' is not known; did you mean 'user_target'?"),
        ({"model": "user_target", "start": "soon"}, 422, "start is 'soon'; expected a time such as"),
        ({"model": "user_target", "end": 5}, 422, "end is 5; expected a time such as"),
    ],
)
def test_a_frame_that_cannot_be_made_says_why(body: dict[str, Any], status: int, detail: str, users: Room) -> None:
    answer = users.http.post("/training-frames", json=body)
    assert answer.status_code == status
    assert detail in answer.get_json()["detail"]
