"""What the client sends for a training frame, and what it makes of the answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelmill import Client
from modelmill.errors import InvalidRequest
from modelmill.settings import Settings

FRAME = pd.DataFrame({"user_id": ["u"], "user.f": [1.5]})
Asked = list[httpx.Request]


@pytest.fixture
def asked() -> Asked:
    return []


@pytest.fixture
def client(asked: Asked) -> Client:
    """A client of a feature service that notes what it is asked, and answers `FRAME`."""

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        asked.append(request)
        return httpx.Response(200, content=FRAME.to_parquet())

    client = Client(Settings(feature_url="http://feature"))
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    return client


def test_the_frame_of_a_model_is_asked_for_by_name_and_span(client: Client, asked: Asked) -> None:
    pd.testing.assert_frame_equal(client.training_frame("m", end="2026-01-01", as_of="known"), FRAME)
    [request] = asked
    assert str(request.url) == "http://feature/training-frames"
    body = {"model": "m", "start": None, "end": "2026-01-01", "as_of": "known", "detail": False}
    assert orjson.loads(request.content) == body


def test_whole_numbers_of_a_frame_are_as_they_are_stored_where_some_are_missing(client: Client) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [2**53 + 1, None], "m": [1, 2]}), sink)
    answer = httpx.Response(200, content=sink.getvalue().to_pybytes())
    client.http = httpx.Client(transport=httpx.MockTransport(lambda request: answer))
    frame = client.training_frame("m")
    assert (frame["n"].tolist(), frame.dtypes.astype(str).tolist()) == ([2**53 + 1, pd.NA], ["Int64", "int64"])


SPINE = pd.DataFrame({"user_id": ["u"], "event_time": ["2026-01-01"]}, index=[7])


def in_memory(_: Path) -> pd.DataFrame:
    return SPINE


def in_parquet(folder: Path) -> Path:
    SPINE.to_parquet(folder / "spine.parquet", index=False)
    return folder / "spine.parquet"


@pytest.mark.parametrize("given", [in_memory, in_parquet])
def test_a_spine_goes_as_parquet_with_what_is_asked_for(
    given: Callable[[Path], Any], tmp_path: Path, client: Client, asked: Asked
) -> None:
    spine = given(tmp_path)
    client.training_frame(spine=spine, features=["f", "g"], entities=["user"], detail=True)
    [request] = asked
    assert dict(request.url.params) == {
        "features": "f,g", "entities": "user", "time": "event_time", "as_of": "event", "detail": "true",
    }  # fmt: skip
    assert request.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert pd.read_parquet(io.BytesIO(request.content)).to_dict("list") == SPINE.to_dict("list")


def test_a_spine_may_be_a_csv_file_for_the_features_of_a_model(tmp_path: Path, client: Client, asked: Asked) -> None:
    SPINE.to_csv(tmp_path / "spine.csv", index=False)
    client.training_frame("m", spine=tmp_path / "spine.csv", time="at")
    [request] = asked
    assert dict(request.url.params) == {"model": "m", "time": "at", "as_of": "event", "detail": "false"}
    assert (request.headers["Content-Type"], request.content) == ("text/csv", b"user_id,event_time\nu,2026-01-01\n")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({}, "expected a model, or a spine with features"),
        ({"features": ["user.f"]}, "expected a model, or a spine with features"),
        ({"model": "m", "spine": SPINE, "start": "2026-01-01"}, "a spine is taken whole"),
        ({"model": "m", "spine": "spine.json"}, "file 'spine.json': expected a name ending in .csv, .parquet"),
        ({"model": "m", "spine": "nowhere.csv"}, "file 'nowhere.csv' cannot be read: No such file"),
    ],
)
def test_what_makes_no_sense_is_not_sent(wanted: dict[str, Any], reason: str, client: Client, asked: Asked) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        client.training_frame(**wanted)
    assert asked == []
