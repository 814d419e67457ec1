from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
import pytest

from modelmill.errors import RequestFailed
from modelmill.local import free_port
from modelmill.state import keys
from tests.conftest import ROOT, USERS_MILL, RedisServer
from tests.eventually import eventually
from tests.feature.processes import Service

ROW = {"user_id": "u", "feature_1": 3.0, "feature_2": 1.0, "target": 1}


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    """The service, where it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "services.feature.main"],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.redis
def test_a_mistake_in_the_definitions_stops_the_start_with_file_line_and_reason(
    real_redis: RedisServer, tmp_path: Path
) -> None:
    mill = tmp_path / "mill.py"
    mill.write_text("from modelmill import Entity\nuser = Entity('us er', key='user_id')\n")
    done = run(
        MODELMILL_DEFINITIONS=str(mill),
        MODELMILL_REDIS_URL=real_redis.url,
        MODELMILL_STORAGE_URL=f"file://{tmp_path}/storage",
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"{mill}:2: entity name 'us er': expected letters, digits and _, not starting with a digit"
    )


def test_without_redis_the_start_stops_with_its_reason(tmp_path: Path) -> None:
    done = run(
        MODELMILL_DEFINITIONS=str(USERS_MILL),
        MODELMILL_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        MODELMILL_STORAGE_URL=f"file://{tmp_path}/storage",
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_used_stops_the_start_with_its_name() -> None:
    done = run(MODELMILL_WORKERS="many")
    assert (done.returncode, done.stderr.startswith("MODELMILL_WORKERS='many' cannot be used")) == (1, True)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The users example in two worker processes over a Redis that a test may stop, if it starts it again."""
    folder = tmp_path_factory.mktemp("feature")
    (folder / "redis").mkdir()
    redis = RedisServer(folder / "redis")
    redis.start()
    service = Service(folder, redis, workers=2)
    service.mill.write_text(USERS_MILL.read_text())
    try:
        service.start()
        yield service
    finally:
        service.server.stop()
        redis.stop()


@pytest.mark.redis
def test_what_one_process_takes_in_the_other_serves(service: Service) -> None:
    service.ingest(ROW)
    for _ in range(10):  # each over a connection of its own
        assert service.features("u")["feature_3"] == 9.0


@pytest.mark.redis
def test_all_processes_follow_what_is_applied_through_one(service: Service) -> None:
    service.ingest(ROW)
    former = service.mill.read_text()
    service.mill.write_text(
        former + "\n\n@feature(user, dtype=float)\ndef half(row):\n    return row['feature_1'] / 2\n"
    )
    with service.client() as client:
        assert client.apply()["backfilled"] >= 1

    def all_know() -> bool:
        return all("half" in service.features("u") for _ in range(10))

    eventually(all_know, within=10, saying="every process knows the new feature")
    assert service.features("u")["half"] == 1.5


@pytest.mark.redis
def test_while_redis_is_away_the_service_answers_503_and_recovers_by_itself(service: Service) -> None:
    before = service.history("users").num_rows
    service.redis.stop(kill=True)
    try:
        answer = httpx.post(f"{service.server.url}/sources/users/rows", json=ROW | {"user_id": "late"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert httpx.get(f"{service.server.url}/readyz").status_code == 503
        assert httpx.get(f"{service.server.url}/livez").status_code == 200
        assert service.history("users").num_rows == before
    finally:
        service.redis.start()
    service.server.until_ready()
    service.ingest(ROW | {"user_id": "late"})
    assert service.features("late")["feature_1"] == 3.0


@pytest.mark.redis
def test_the_definitions_are_registered_before_anything_is_served(service: Service) -> None:
    redis = service.redis.client()
    assert redis.hget(keys.DEFINITIONS, "path") == str(service.mill)
    assert redis.smembers(keys.MODELS) == {"user_target"}


@pytest.mark.redis
def test_an_error_of_the_service_is_one_of_the_client(service: Service) -> None:
    with service.client() as client, pytest.raises(RequestFailed, match="'uzers' is not known; did you mean 'users'"):
        client.ingest("uzers", [ROW])


@pytest.mark.redis
def test_a_large_spine_goes_up_in_pieces_and_its_frame_comes_down_with_its_length(service: Service) -> None:
    service.ingest(ROW | {"user_id": "long"})
    later = datetime.now(UTC) + timedelta(seconds=1)
    spine = pd.DataFrame({"user_id": ["long", "nobody"] * 125_000, "event_time": later, "n": range(250_000)})
    with service.client() as client:
        frame = client.training_frame(spine=spine, features=["user.feature_3"])
    assert frame["n"].tolist() == spine["n"].tolist()
    assert frame["user.feature_3"].fillna(0).tolist() == [9.0, 0.0] * 125_000

    def lines() -> Iterator[bytes]:  # without a length in advance
        yield b"user_id,event_time\n"
        for _ in range(250):
            yield f"long,{later.isoformat()}\n".encode() * 1000

    url = f"{service.server.url}/training-frames?features=user.feature_3"
    headers = {"Content-Type": "text/csv", "Accept": "application/vnd.apache.arrow.stream"}
    with httpx.stream("POST", url, content=lines(), headers=headers, timeout=60) as answer:
        content = answer.read()
    assert int(answer.headers["Content-Length"]) == len(content)
    table = pa.ipc.open_stream(content).read_all()
    assert table["user.feature_3"].to_pylist() == [9.0] * 250_000
    assert table["user.feature_3"].num_chunks == 3
