"""What forgetting an entity erases, what it leaves, and that it is brought to its end whenever it is killed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from modelmill.errors import Conflict, InvalidRequest, Unavailable, UnknownName
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import EntityForgotten
from modelmill.storage import Storage
from modelmill.windows import TileGroup
from services.feature.frames.frames import model_frame
from services.feature.intake.decode import RawRows
from services.feature.intake.ingest import ingest
from services.feature.proof import erasure, receipts
from services.feature.proof import forget as module
from services.feature.proof.forget import forget
from services.feature.store import history, journal
from services.feature.upkeep import compaction, rebuild
from services.feature.upkeep.rebuild import recover
from services.feature.upkeep.statistics import StatisticsFiles
from tests.conftest import RedisServer
from tests.feature.conftest import OpenRoom, Room
from tests.feature.serving import Serving, publish

MILL = """
from modelmill import Entity, Model, Source, feature
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "note": str | None})
visits = Source("visits", entity=user, columns={"clicks": int})
items = Source("items", entity=item, columns={"price": float})
sales = Source("sales", entities=[user, item], columns={"sold": float})

@feature(users, dtype=float)
def f(row):
    return row["x"] * 2

Model("m", entities=[user], features=["x", "f"], label="sold", estimator=None, source=sales)
"""
KEY = "forget-me: 'né' *42? \\ ü"
OTHER = "someone-else"


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def row(key: str, at: int = 0, x: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"user_id": key, "at": f"2013-01-31T12:00:{at:02}Z", "x": x, **more}


def fill(room: Room) -> None:
    """Rows of both in every place, alone in files and together with others."""
    room.ingest("users", [row(KEY, note="secret"), row(OTHER, note="open"), row(KEY, at=1)])
    room.ingest("users", [row(OTHER, at=2)])
    room.ingest("users", [row(KEY, at=3)])
    room.ingest("visits", [{"user_id": KEY, "clicks": 1}])
    room.ingest("items", [{"item_id": "i", "price": 1.5}])
    room.ingest("sales", [{"user_id": who, "item_id": "i", "sold": 1.0} for who in (KEY, OTHER)])
    for key in (KEY, OTHER):
        bad = [row(key, x="much"), {"user_id": key, "at": "never", "x": 1.0}, row(OTHER, at=4)]  # type: ignore[arg-type]
        names = ["user_id", "at", "x"]
        raw = RawRows({name: [one[name] for one in bad] for name in names}, range(1, 4))
        ingest(room.catalogue, "users", raw, f"{len(key)}", skip_bad=True)
    for source in room.catalogue.definitions.sources.values():
        StatisticsFiles(room.catalogue.storage).of(source)
    publish(room)
    serving = Serving(room)
    serving.predict({"user_id": KEY}, {"user_id": OTHER})
    serving.predict({"user_id": OTHER})
    room.redis.hset(keys.tiles("sales.user.300@0123abcd", KEY), "2013-01-31T05:00Z", "{}")
    room.redis.hset(keys.tiles("sales.item.300@0123abcd", KEY), "2013-01-31T05:00Z", "{}")
    room.redis.hset(keys.tiles("sales.user.300@0123abcd", OTHER), "2013-01-31T05:00Z", "{}")


def forget_user(room: Room, key: str = KEY, **more: Any) -> receipts.Receipt:
    return forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", key, **more)


def stored_texts(room: Room) -> Iterator[str]:
    """All that any file of the storage, Parquet decoded, and any key and value of Redis says."""
    storage = room.catalogue.storage
    for path in storage.files.find(storage.path("")):
        content = storage.files.cat_file(path)
        yield path + content.decode(errors="replace")
        if path.endswith(".parquet"):
            yield from flat(pq.read_table(io.BytesIO(content)).to_pylist())
    yield from redis_texts(room.redis)


def redis_texts(redis: Redis) -> Iterator[str]:
    readers = {
        "string": redis.get,
        "hash": redis.hgetall,
        "set": redis.smembers,
        "zset": lambda name: redis.zrange(name, 0, -1),
        "stream": redis.xrange,
        "list": lambda name: redis.lrange(name, 0, -1),
    }
    for name in redis.scan_iter():
        yield name
        yield from flat(readers[redis.type(name)](name))


def flat(content: Any) -> Iterator[str]:
    """Every value in nested mappings and lists, as text."""
    if isinstance(content, dict):
        yield from flat([*content.keys(), *content.values()])
    elif isinstance(content, list | tuple | set):
        for one in content:
            yield from flat(one)
    else:
        yield str(content)


def naming(room: Room, key: str = KEY) -> list[str]:
    """Where the key is, however it is spelled."""
    spelled = {key, repr(key)[1:-1], orjson.dumps(key).decode()[1:-1], key.replace('"', '""')}
    return [text for text in stored_texts(room) if any(one in text for one in spelled)]


def test_nothing_of_the_key_is_anywhere(room: Room) -> None:
    fill(room)
    room.redis.delete(keys.tiles("sales.item.300@0123abcd", KEY))  # an item that happens to be called so
    assert len(naming(room)) > 8
    forget_user(room, by="ops", reason="asked for it")
    assert naming(room) == []
    assert "secret" not in "".join(stored_texts(room)), "statistics hold values"


def test_a_receipt_counts_what_was_erased(room: Room) -> None:
    fill(room)
    receipt = forget_user(room, by="ops", reason="asked for it")
    assert receipt.counts == receipts.Counts(
        rows={"users": 3, "visits": 1, "sales": 1},
        files={"users": 2, "visits": 1, "sales": 1},
        quarantined={"users": 2},
        fields=5,
        tiles=1,
        predictions=1,
    )
    kept = room.redis.hgetall(keys.forgotten("user", receipts.digest_of(KEY)))
    assert kept == {
        "begun": receipt.begun, "ended": receipt.ended, "by": "ops", "reason": "asked for it",
        "rows.users": "3", "rows.visits": "1", "rows.sales": "1", "files.users": "2", "files.visits": "1",
        "files.sales": "1", "quarantined.users": "2", "fields": "5", "tiles": "1", "predictions": "1",
    }  # fmt: skip
    [(_, event)] = bus.newest(room.redis, keys.EVENTS_FEATURES, 1)
    assert isinstance(event, EntityForgotten)
    assert (event.entity, event.digest, event.rows, event.by) == ("user", receipts.digest_of(KEY), 5, "ops")


def test_others_keep_all_that_they_have(room: Room) -> None:
    fill(room)
    online = room.online("user", OTHER), room.redis.hgetall("feature:item:i")
    history_of = {s: [r for r in room.history(s).to_pylist() if r.get("user_id") == OTHER] for s in ("users", "sales")}
    rejected = len([e for _, e in room.redis.xrange(keys.rejected("users")) if OTHER in e["content"]])
    forget_user(room)
    assert (room.online("user", OTHER), room.redis.hgetall("feature:item:i")) == online
    assert {s: room.history(s).to_pylist() for s in ("users", "sales")} == history_of
    assert room.redis.xlen(keys.rejected("users")) == rejected
    assert room.redis.xlen(keys.EVENTS_PREDICTIONS) == 1
    assert room.redis.exists(keys.tiles("sales.user.300@0123abcd", OTHER))
    assert room.redis.exists(keys.tiles("sales.item.300@0123abcd", KEY)), "another entity of the same key"


def test_neither_a_rebuild_nor_an_applied_definition_brings_it_back(room: Room) -> None:
    fill(room)
    forget_user(room)
    rebuild._record_begin(room.redis, "")
    rebuild.rebuild(room.catalogue)
    room.define(MILL.replace("* 2", "* 3"))
    compaction.compact(room.catalogue, "users", fewest=2)
    assert room.online("user", KEY) == {}
    assert room.online("user", OTHER)["f"] == "6.0"


def test_forgetting_again_answers_the_former_receipt(room: Room) -> None:
    fill(room)
    receipt = forget_user(room, by="ops")
    assert forget_user(room, by="someone") == receipt
    assert len([e for _, e in bus.newest(room.redis, keys.EVENTS_FEATURES, 99) if isinstance(e, EntityForgotten)]) == 1


def test_of_an_entity_that_was_never_there_there_is_a_receipt_too(room: Room) -> None:
    receipt = forget_user(room)
    assert receipt.counts.empty
    assert receipt.ended


def test_what_comes_in_later_is_a_new_life_that_can_be_forgotten_too(room: Room) -> None:
    fill(room)
    forget_user(room)
    room.ingest("users", [row(KEY, at=9, x=9.0)])
    assert room.online("user", KEY)["x"] == "9.0"
    assert "clicks" not in room.online("user", KEY)
    assert forget_user(room).counts.rows == {"users": 1}
    assert room.online("user", KEY) == {}


def test_a_row_that_comes_in_meanwhile_stays_whole(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(room)
    erase = module._erase_history
    coming = [row(KEY, at=9, x=9.0)]

    def races(*arguments: Any) -> None:
        if coming:
            room.ingest("users", [coming.pop()])
        erase(*arguments)

    monkeypatch.setattr(module, "_erase_history", races)
    forget_user(room)
    assert [r["x"] for r in room.history("users").to_pylist() if r["user_id"] == KEY] == [9.0]
    assert room.online("user", KEY).keys() == {"x", "f", "_time.users"}


STEPS = ["_erase_history", "remove_tiles"]
ERASURES = ["rewrite", "online_fields", "remove_entries"]


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("function", STEPS + ERASURES)
@pytest.mark.parametrize("after", [0, 1], ids=["before it", "after it"])
def test_one_that_was_killed_is_brought_to_its_end_by_the_next(
    function: str, after: int, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(room)
    room.redis.delete(keys.tiles("sales.item.300@0123abcd", KEY))
    of = module if function in STEPS else erasure
    real = getattr(of, function)

    def dies(*arguments: Any, **more: Any) -> Any:
        if function == "online_fields" and not more["erase"]:
            return real(*arguments, **more)
        if after:
            real(*arguments, **more)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(of, function, dies)
        with pytest.raises(Killed):
            forget_user(room)
    assert room.redis.hget(keys.forgotten("user", receipts.digest_of(KEY)), "ended") == ""
    receipt = forget_user(room)
    assert naming(room) == []
    assert (receipt.counts.rows, receipt.counts.fields) == ({"users": 3, "visits": 1, "sales": 1}, 5)
    assert receipt.ended


def test_an_open_ingest_that_may_hold_rows_of_it_is_waited_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(room)
    with monkeypatch.context() as patched:
        patched.setattr(history, "write", _killed)
        with pytest.raises(Killed):
            room.ingest("users", [row(KEY)], digest="a")
    with pytest.raises(Conflict, match="1 ingests into source 'users' that have begun may hold rows of this user"):
        forget_user(room, wait=0)
    assert room.online("user", KEY) != {}
    recover(room.catalogue, older_than=-1)
    forget_user(room, wait=0)
    assert room.online("user", KEY) == {}


def test_an_open_ingest_whose_rows_are_known_is_waited_for_only_if_it_names_it(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(journal, "finish", _killed)
        with pytest.raises(Killed):
            room.ingest("users", [row(OTHER)], digest="a")
        forget_user(room, wait=0)
        with pytest.raises(Killed):
            room.ingest("users", [row(KEY)], digest="b")
    with pytest.raises(Conflict):
        forget_user(room, wait=0)


def _killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_broken_line_that_an_answer_shows_goes_too(room: Room) -> None:
    lines = f'user_id,at,x\n"{OTHER}",2013-01-31T12:00:00Z,1.0\n"{KEY}",2013-01-31T12:00:00Z,1.0,too many\n'
    answer = room.post("users", lines, on_error="skip").get_json()
    assert (answer["rejected"], len(naming(room))) == (1, 4)
    forget_user(room)
    assert naming(room) == []
    assert room.post("users", lines, on_error="skip").get_json()["duplicate"] == 1


def test_files_that_a_killed_process_left_half_written_go_too(room: Room) -> None:
    fill(room)
    folder = Path(room.catalogue.storage.path("history/users/day=2013-01-31"))
    folder.mkdir()
    left, coming = folder / ".tmp-1-a.parquet", folder / ".tmp-2-b.parquet"
    left.write_text(KEY)
    coming.write_text("an ingest of another that has just begun")
    later = datetime.now(UTC).timestamp() + 60
    os.utime(coming, (later, later))
    forget_user(room)
    assert not left.exists()
    assert coming.exists()


def test_what_a_killed_compaction_left_goes_too(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(room)
    room.redis.delete(keys.tiles("sales.item.300@0123abcd", KEY))
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "remove", _killed)
        with pytest.raises(Killed):
            compaction.compact(room.catalogue, "users", fewest=2)
    assert len(naming(room)) > 8
    assert forget_user(room).counts.rows["users"] == 3
    assert naming(room) == []


def test_history_of_a_source_that_is_not_declared_any_more_is_erased_too(room: Room) -> None:
    fill(room)
    room.redis.delete(keys.tiles("sales.item.300@0123abcd", KEY))
    without = "\n".join(line for line in MILL.splitlines() if not line.startswith("visits"))
    room.define(without)
    assert forget_user(room).counts.rows["visits"] == 1
    assert naming(room) == []


def test_a_frame_that_is_being_made_says_that_rows_were_erased(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.feature.frames.joins import Join

    fill(room)
    locate = Join._locate

    def erased_meanwhile(*arguments: Any) -> Any:
        found = locate(*arguments)
        forget_user(room)
        return found

    monkeypatch.setattr(Join, "_locate", erased_meanwhile)
    definitions = room.catalogue.definitions
    with pytest.raises(Unavailable, match="rows of source 'users' were erased while they were read; try again"):
        model_frame(room.catalogue.storage, definitions, definitions.model("m"))


@pytest.mark.parametrize("field", ["by", "reason"])
def test_a_receipt_must_not_say_who_it_was(field: str, room: Room) -> None:
    with pytest.raises(InvalidRequest, match="expected a text without the key"):
        forget_user(room, "42", **{field: "user 42 wrote on the 3rd"})
    forget_user(room, "42", **{field: "ticket 1423"})


def test_an_undeclared_entity_is_named(room: Room) -> None:
    with pytest.raises(UnknownName, match="entity 'usr' is not known; did you mean 'user'"):
        forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "usr", "u")


def test_over_http(room: Room) -> None:
    fill(room)
    answer = room.http.delete(f"/entities/user/{OTHER}", query_string={"by": "ops", "reason": "gdpr"})
    assert answer.status_code == 200
    assert answer.get_json()["counts"]["rows"] == {"users": 4, "sales": 1}
    assert room.http.get(f"/entities/user/{OTHER}").status_code == 404


def test_a_tile_group_s_name_says_whose_it_is() -> None:
    group = TileGroup("sales", "user", "user_id", 300, 7200, (), ())
    assert group.name.split(".")[1] == "user"


@pytest.mark.redis
def test_on_a_real_redis(open_room: OpenRoom, real_redis: RedisServer) -> None:
    room = open_room(MILL, real_redis.client())
    fill(room)
    room.redis.delete(keys.tiles("sales.item.300@0123abcd", KEY))
    receipt = forget_user(room)
    assert (receipt.counts.fields, receipt.counts.tiles, receipt.counts.predictions) == (5, 1, 1)
    assert naming(room) == []
    assert room.online("user", OTHER) != {}
