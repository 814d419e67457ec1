from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmill.errors import Conflict, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from services.feature.proof.forget import forget
from services.feature.store import online
from services.feature.store.journal import alone
from services.feature.upkeep import compaction, rebuild
from services.feature.upkeep.statistics import StatisticsFiles
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.conftest import OpenRoom, Room
from tests.feature.processes import Service

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "note": str | None})
visits = Source("visits", entity=user, columns={"clicks": int})
items = Source("items", entity=item, columns={"price": float})
clicks = Source("clicks", entities=[user, item], columns={"clicked": bool})

@feature(users, dtype=float, max_failed=1.0)
def inverse(row):
    return 1 / row["x"]
"""
CHANGED = MILL.replace("1 / row", "2 / row")


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def row(key: str = "u", at: int = 0, x: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"user_id": key, "at": f"2013-01-31T12:00:{at:02}Z", "x": x, **more}


def everything(redis: Redis) -> dict[str, dict[str, str]]:
    """The whole online store."""
    return {name: redis.hgetall(name) for name in redis.scan_iter(match="feature:*")}


def rebuilt(room: Room, entity: str | None = None) -> dict[str, str | int]:
    """Ask for a rebuild and wait for its end."""
    answer = room.http.post("/rebuild", json={"entity": entity})
    assert answer.status_code == 202, answer.get_json()
    eventually(lambda: rebuild.read(room.redis)["state"] != "running", within=10, saying="the rebuild has ended")
    state: dict[str, str | int] = room.http.get("/rebuild").get_json()
    return state


def fill(room: Room) -> None:
    room.ingest("users", [row("u", note="a"), row("v", x=0.0), row("user:with 'all' *? ü", at=3)])
    room.ingest("users", [row("u", at=5, x=5.0), row("v", at=-0, x=4.0)])
    room.ingest("users", [row("u", at=4, x=4.0)])
    room.ingest("visits", [{"user_id": "u", "clicks": 1}, {"user_id": "w", "clicks": 2}])
    room.ingest("items", [{"item_id": "i", "price": 1.5}])
    room.ingest("clicks", [{"user_id": "u", "item_id": "i", "clicked": True}])


def test_an_emptied_online_store_is_as_before(room: Room) -> None:
    fill(room)
    before = everything(room.redis)
    room.redis.delete(*before)
    state = rebuilt(room)
    assert (state["state"], state["rows"], state["total"]) == ("done", 9, 9)
    assert everything(room.redis) == before


def test_damaged_values_are_mended(room: Room) -> None:
    fill(room)
    before = everything(room.redis)
    room.redis.hset(keys.feature("user", "u"), mapping={"x": "9.0", "note": "made up", "clicks": "x"})
    room.redis.hdel(keys.feature("user", "w"), "clicks")
    rebuilt(room)
    assert everything(room.redis) == before


def test_one_entity_alone_can_be_rebuilt(room: Room) -> None:
    fill(room)
    before = everything(room.redis)
    room.redis.delete(*before)
    rebuilt(room, "item")
    assert everything(room.redis) == {"feature:item:i": before["feature:item:i"]}


def test_a_row_that_came_in_meanwhile_stays(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(room)
    write = online.write
    coming = [row("u", at=9, x=9.0)]

    def races(redis: Redis, source: Any, fields: Any, table: Any) -> int:
        if coming:
            room.ingest("users", [coming.pop()])
        return write(redis, source, fields, table)

    monkeypatch.setattr(online, "write", races)
    rebuilt(room)
    assert room.online("user", "u")["x"] == "9.0"


def test_one_that_was_killed_goes_on_where_it_was(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    fill(room)
    before = everything(room.redis)
    room.redis.delete(*before)
    restored: list[int] = []
    restore = rebuild.restore_rows

    def dies(redis: Redis, source: Any, computed: Any, table: Any) -> None:
        if len(restored) == 2:
            raise Killed
        restored.append(table.num_rows)
        restore(redis, source, computed, table)

    rebuild._record_begin(room.redis, "")
    with monkeypatch.context() as patched:
        patched.setattr(rebuild, "restore_rows", dies)
        with pytest.raises(Killed):
            rebuild.rebuild(room.catalogue)
    assert rebuild.read(room.redis)["state"] == "running"
    assert rebuild.read(room.redis)["rows"] == 5
    rebuild.resume(room.catalogue)
    assert rebuild.read(room.redis)["state"] == "done"
    assert rebuild.read(room.redis)["rows"] == 9
    assert everything(room.redis) == before


def test_a_reason_why_it_cannot_be_done_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise Conflict("no")

    fill(room)
    monkeypatch.setattr(rebuild, "restore_rows", breaks)
    state = rebuilt(room)
    assert (state["state"], state["error"]) == ("failed", "no")


def test_only_one_at_a_time(room: Room) -> None:
    with (
        alone(room.redis, keys.REBUILD_LOCK, "rebuilding", patience=0),
        pytest.raises(Conflict, match="others are rebuilding the online store at this moment"),
    ):
        rebuild.begin(room.catalogue)


def test_what_cannot_be_asked_for_is_said(room: Room) -> None:
    with pytest.raises(UnknownName, match="entity 'usr' is not known; did you mean 'user'"):
        rebuild.begin(room.catalogue, "usr")
    assert room.http.post("/rebuild", json={"entity": 3}).status_code == 422


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1)),
        st.tuples(st.just("visits"), st.sampled_from("abc")),
        st.tuples(st.just("forget"), st.sampled_from("abc")),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("define"), st.sampled_from([MILL, CHANGED])),
    ),
    min_size=1,
    max_size=8,
)


def carry_out(room: Room, steps: Sequence[tuple[str, Any]]) -> None:
    number = 0.0
    for step, what in steps:
        number += 1
        match step:
            case "ingest":
                rows = [row(key, at, number % 5, note=None if number % 2 else str(number)) for key, at in what]
                room.ingest("users", rows)
            case "visits":
                room.ingest("visits", [{"user_id": what, "clicks": int(number)}])
            case "forget":
                forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", what)
            case "compact":
                compaction.compact(room.catalogue, "users", fewest=2)
            case "define":
                room.define(what)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_after_anything_that_happened_the_rebuilt_store_is_the_one_before(steps: Any, room: Room) -> None:
    carry_out(room, steps)
    before = everything(room.redis)
    if before:
        room.redis.delete(*before)
    rebuild._record_begin(room.redis, "")
    rebuild.rebuild(room.catalogue)
    assert everything(room.redis) == before


@pytest.mark.redis
def test_as_a_process_on_a_real_redis_also_after_it_was_killed(real_redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "mill.py").write_text(MILL)
    service = Service(tmp_path, real_redis)
    redis = real_redis.client()
    try:
        service.start()
        for n in range(20):
            service.ingest(*[row(f"u{n}-{m}", at=m % 60, x=m / 7) for m in range(200)])
        before = everything(redis)
        redis.delete(*before)
        with service.client() as client:
            assert client.rebuild()["rows"] == 4000
        assert everything(redis) == before
        redis.delete(*before)
        service.server.kill()
        rebuild._record_begin(redis, "")  # as if it had been killed right after it was asked, with the lock
        redis.set(keys.REBUILD_LOCK, "of a process that is dead", px=3000)
        service.start()
        eventually(lambda: rebuild.read(redis)["state"] == "done", within=20, saying="the rebuild was gone on with")
        assert everything(redis) == before
    finally:
        service.server.stop()
