"""The whole of it by processes: what a predictor served, audited, explained, forgotten and rebuilt over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelmill.errors import RequestFailed
from modelmill.state import keys
from services.feature.definitions.catalogue import Catalogue
from services.feature.store.journal import alone
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.conftest import Room
from tests.feature.processes import Service
from tests.feature.serving import publish
from tests.predictor.process import PredictorProcess

MILL = """
from modelmill import Entity, Model, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "sold": float})

@feature(users, dtype=float)
def f(row):
    return row["x"] / 3

Model("m", entities=[user], features=["x", "f"], label="sold", estimator=None)
"""


def row(key: str, second: int, x: float) -> dict[str, Any]:
    return {"user_id": key, "at": f"2026-01-31T12:{second // 60:02}:{second % 60:02}Z", "x": x, "sold": 1.0}


@pytest.mark.redis
def test_what_a_predictor_serves_amid_ingests_is_audited_explained_forgotten_and_rebuilt(
    real_redis: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "mill.py").write_text(MILL)
    redis, service = real_redis.client(), Service(tmp_path, real_redis)
    predictor = PredictorProcess(tmp_path, real_redis.url, service.storage.url)
    try:
        service.start()
        service.ingest(*[row(f"u{n}", 0, n / 7) for n in range(20)])
        publish(Room(Catalogue(redis, service.storage, service.mill), None))  # type: ignore[arg-type]
        predictor.start()
        with service.client() as client:
            asked = 0
            for second in range(1, 31):
                client.ingest("users", [row(f"u{n}", second, n + second / 7) for n in range(0, 20, 2)])
                for n in range(5):
                    instances = {"instances": [{"user_id": f"u{n}"}, {"user_id": f"u{n + 5}"}]}
                    assert predictor.predict(instances, "m").status_code == 200
                    asked += 1
            eventually(lambda: redis.xlen(keys.EVENTS_PREDICTIONS) == asked, within=10, saying="all are reported")
            found = client.audit("m")
            assert (found["predictions"], found["rows"], found["values"]) == (asked, 2 * asked, 4 * asked)
            assert (found["differences"], found["not_auditable"]) == (0, {})

            redis.hset(keys.feature("user", "u3"), "x", "123.5")
            predictor.predict({"user_id": "u3"}, "m")
            eventually(lambda: client.audit("m")["differences"] == 1, within=10, saying="the corruption is found")
            assert client.explain("user", "u3")["sources"]["users"]["online_equals_history"] is False
            client.rebuild()
            assert client.explain("user", "u3")["sources"]["users"]["online_equals_history"] is True

            receipt = client.forget("user", "u3", by="test", reason="asked")
            assert receipt["counts"]["rows"] == {"users": 1}
            assert client.audit("m")["differences"] == 0
            with pytest.raises(RequestFailed, match="user 'u3' has no features"):
                client.entity("user", "u3")
            client.rebuild()
            assert client.explain("user", "u3")["forgotten"] == receipt["ended"]
            with (
                alone(redis, keys.REBUILD_LOCK, "rebuilding", patience=0),
                pytest.raises(RequestFailed, match="others are rebuilding"),
            ):
                client.rebuild()
    finally:
        predictor.end()
        service.server.stop()
