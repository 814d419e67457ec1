from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.declare.definitions_file import load
from services.feature.definitions.catalogue import BYTES_COMPACT, BYTES_LARGE, COMPACT_FIELDS, warnings
from tests.conftest import RedisServer
from tests.feature.conftest import OpenRoom

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={{f"x{{n}}": float | None for n in range({count})}})
"""


@pytest.mark.parametrize("count, warned", [(511, 0), (512, 1)])
def test_an_entity_too_wide_for_a_compact_hash_is_told_with_its_cost(count: int, warned: int, tmp_path: Path) -> None:
    path = tmp_path / "mill.py"
    path.write_text(MILL.format(count=count))
    assert len(warnings(load(path))) == warned


def test_the_warning_comes_with_the_plan_and_stops_nothing(open_room: OpenRoom) -> None:
    room = open_room(MILL.format(count=600))
    sentence = (
        "entity 'user' has 600 features, 601 fields with their times: over 512 a Redis hash stops being compact, so"
        " that one entity takes about 52 kB instead of 24 kB"
    )
    assert room.http.post("/features", json={"dry_run": True}).get_json()["warnings"] == [sentence]
    assert room.http.post("/features").get_json()["warnings"] == [sentence]
    assert room.ingest("users", [{"user_id": "u", "x599": 1.5}]).accepted == 1
    assert room.online("user", "u")["x599"] == "1.5"


@pytest.mark.redis
def test_the_cost_is_what_redis_takes(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    for fields, stated in ((COMPACT_FIELDS, BYTES_COMPACT), (COMPACT_FIELDS + 1, BYTES_LARGE)):
        redis.hset("hash", mapping={f"feature_{n}": repr(n / 7) for n in range(fields)})
        assert redis.memory_usage("hash") / fields == pytest.approx(stated, rel=0.25)
