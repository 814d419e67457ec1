from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.errors import CorruptFeature
from modelmill.state.connections import Redis
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME
from services.feature.store import online
from services.feature.store.history import INGEST_TIME
from tests.conftest import RedisServer

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
Source("users", entity=user, event_time="at",
       columns={"x": float | None, "n": int | None, "flag": bool | None, "name": str | None})
Source("visits", entity=user, event_time="at", columns={"pages": int})
"""
COLUMNS = ["x", "n", "flag", "name"]
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)
SCHEMA = pa.schema(
    [("user_id", pa.string()), ("x", pa.float64()), ("n", pa.int64()), ("flag", pa.bool_()), ("name", pa.string()),
     (EVENT_TIME, pa.timestamp("us", "UTC")), (INGEST_TIME, pa.timestamp("us", "UTC")), (FAILED, pa.string())]
)  # fmt: skip
INGESTED = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.redis)])
def redis(request: pytest.FixtureRequest) -> Redis:
    """An empty Redis: the fake one of the other tests, and a real one, so that the fake cannot lie."""
    if request.param == "fake":
        return fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
    client = request.getfixturevalue("server").client()
    client.flushall()
    return client


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Definitions:
    path: Path = tmp_path_factory.mktemp("mill") / "mill.py"
    path.write_text(MILL)
    return load(path)


@pytest.fixture(scope="module")
def users(definitions: Definitions) -> Source:
    return definitions.source("users")


def row(key: str = "u", at: float = 0, ingested: float = 0, **values: Any) -> dict[str, Any]:
    times = {EVENT_TIME: NOON + timedelta(seconds=at), INGEST_TIME: INGESTED + timedelta(seconds=ingested)}
    return {"user_id": key, **times, **values}


def write(redis: Redis, source: Source, *rows: dict[str, Any]) -> int:
    return online.write(redis, source, COLUMNS, pa.Table.from_pylist(list(rows), SCHEMA))


def stored(redis: Redis, key: str = "u") -> dict[str, str]:
    found: dict[str, str] = redis.hgetall(f"feature:user:{key}")
    return found


def test_an_entity_is_a_hash_that_a_person_can_read(redis: Redis, users: Source) -> None:
    write(redis, users, row(x=0.1 + 0.2, n=-7, flag=True, name='ü, "quoted": [null]'))
    assert stored(redis) == {
        "x": "0.30000000000000004",
        "n": "-7",
        "flag": "true",
        "name": 'ü, "quoted": [null]',
        "_time.users": "2013-01-31T12:00:00.000000Z 2026-11-25T00:00:00.000000Z",
    }


@pytest.mark.parametrize(
    "time, text",
    [
        (datetime(1000, 1, 1, 0, 0, 0, 1, UTC), "1000-01-01T00:00:00.000001Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "1969-12-31T23:59:59.999999Z"),
        (datetime(9999, 12, 30, 23, 59, 59, 100_000, UTC), "9999-12-30T23:59:59.100000Z"),
    ],
)
def test_times_of_any_year_are_texts_of_one_width(redis: Redis, users: Source, time: datetime, text: str) -> None:
    write(redis, users, row(**{EVENT_TIME: time}))
    assert stored(redis)["_time.users"] == f"{text} 2026-11-25T00:00:00.000000Z"


def test_rows_without_some_values_do_not_lend_each_other_theirs(redis: Redis, users: Source) -> None:
    write(redis, users, row("a", x=1.0, n=1, flag=True, name="a"), row("b", n=2), row("c", name="c"))
    times = {"_time.users"}
    assert [stored(redis, key).keys() - times for key in "abc"] == [{"x", "n", "flag", "name"}, {"n"}, {"name"}]
    assert (stored(redis, "b")["n"], stored(redis, "c")["name"]) == ("2", "c")


def test_a_missing_value_is_an_absent_field(redis: Redis, users: Source) -> None:
    write(redis, users, row(x=1.0))
    assert stored(redis).keys() == {"x", "_time.users"}


def test_a_null_deletes_the_former_value(redis: Redis, users: Source) -> None:
    write(redis, users, row(x=1.0, n=1, name="a", **{FAILED: "n: error"}))
    write(redis, users, row(at=1, x=None, n=2))
    assert stored(redis) == {"n": "2", "_time.users": "2013-01-31T12:00:01.000000Z 2026-11-25T00:00:00.000000Z"}


def test_failed_features_are_told_beside_the_values(redis: Redis, users: Source) -> None:
    failed = '{"x":"ZeroDivisionError: division by zero"}'
    write(redis, users, row(**{FAILED: failed}))
    assert stored(redis)["_failed.users"] == failed


def test_an_older_row_leaves_what_is_newer(redis: Redis, users: Source) -> None:
    write(redis, users, row(at=1, x=1.0))
    assert write(redis, users, row(at=0.999999, x=2.0, n=2)) == 1
    assert stored(redis).keys() == {"x", "_time.users"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "overtaken"])
def test_of_equal_event_times_the_later_ingest_wins(order: tuple[int, int], redis: Redis, users: Source) -> None:
    for ingested in order:
        write(redis, users, row(ingested=ingested, x=float(ingested)))
    assert stored(redis)["x"] == "1.0"


def test_what_is_written_again_is_not_late(redis: Redis, users: Source) -> None:
    assert [write(redis, users, row(x=1.0)) for _ in range(2)] == [0, 0]


def test_the_rows_of_entities_with_a_newer_row_are_late(redis: Redis, users: Source) -> None:
    write(redis, users, row("a", at=5), row("b", at=1), row("c", at=5))
    assert write(redis, users, row("a", at=1), row("a", at=2), row("b", at=2), row("c", at=4), row("d", at=0)) == 3


def test_of_one_entity_s_rows_in_a_table_the_newest_is_written(redis: Redis, users: Source) -> None:
    write(redis, users, row(at=1, x=1.0), row(at=3, x=2.0), row(at=3, x=3.0), row(at=2, x=4.0))
    assert stored(redis)["x"] == "3.0"


def test_sources_of_an_entity_keep_their_own_times(redis: Redis, users: Source, definitions: Definitions) -> None:
    write(redis, users, row(at=9, x=1.0))
    schema = pa.schema([SCHEMA.field(name) for name in ("user_id", EVENT_TIME, INGEST_TIME, FAILED)])
    visits = pa.Table.from_pylist([row()], schema).append_column("pages", [[3]])
    online.write(redis, definitions.source("visits"), ["pages"], visits)
    [entity] = online.read(redis, definitions, "user", ["u"], NOON)
    assert entity.there
    assert entity.features == {"x": 1.0, "n": None, "flag": None, "name": None, "pages": 3}
    assert entity.event_times == {"users": "2013-01-31T12:00:09.000000Z", "visits": "2013-01-31T12:00:00.000000Z"}


def test_more_entities_than_a_batch_are_all_written(
    redis: Redis, users: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "ENTITIES_PER_CALL", 10)
    write(redis, users, *(row(str(n), x=n / 2) for n in range(25)))
    assert [stored(redis, str(n))["x"] for n in range(25)] == [str(n / 2) for n in range(25)]


def wide(entities: int, fields: int, texts: Sequence[int]) -> pa.Table:
    """Rows with so many text features, of an entity all of the same of these lengths."""
    columns = {
        f"f{number}": [str(number) * (texts[n % len(texts)]) for n in range(entities)] for number in range(fields)
    }
    return pa.table(
        {
            "user_id": [str(n) for n in range(entities)],
            **columns,
            EVENT_TIME: pa.array([NOON] * entities, SCHEMA.field(EVENT_TIME).type),
            INGEST_TIME: pa.array([INGESTED] * entities, SCHEMA.field(INGEST_TIME).type),
            FAILED: pa.nulls(entities, pa.string()),
        }
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entities=st.integers(1, 600),
    fields=st.sampled_from([1, 10, 100, 480]),
    texts=st.lists(st.sampled_from([1, 20, 3000]), min_size=1, max_size=5),
    late=st.sets(st.integers(0, 599)),
)
def test_no_call_of_the_script_writes_more_than_redis_does_fast_enough(
    entities: int, fields: int, texts: list[int], late: set[int], users: Source, fake_redis: Redis
) -> None:
    entities = min(entities, 60_000 // fields // max(texts) + 1)
    later = f"9999-01-01T00:00:00.000000Z {INGESTED:%Y-%m-%dT%H:%M:%S.%fZ}"
    fake_redis.flushall()
    for n in late:
        fake_redis.hset(f"feature:user:{n}", "_time.users", later)
    run, calls = online.ask_ahead, []

    def noted(redis: Redis, given: Iterator[tuple[Any, ...]], in_flight: int) -> Iterator[Any]:
        for call in given:
            calls.append((call[2], sum(map(len, call[-2:]))))
            yield from run(redis, iter([call]), in_flight)

    table = wide(entities, fields, texts)
    names = [name for name in table.column_names if name.startswith("f")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "ask_ahead", noted)
        assert online.write(fake_redis, users, names, table) == len(late & set(range(entities)))
    for count, size in calls:
        assert count == 1 or count * (fields + 2) + size / online.FIELD_BYTES <= 2 * online.BATCH_COST
    assert sum(count for count, _ in calls) == entities
    for n in range(entities):
        found = stored(fake_redis, str(n))
        assert found.pop("_time.users") == (
            later if n in late else "2013-01-31T12:00:00.000000Z 2026-11-25T00:00:00.000000Z"
        )
        assert found == ({} if n in late else {name: table[name][n].as_py() for name in names})


def test_narrow_rows_go_in_as_few_calls_as_a_batch_allows(users: Source, fake_redis: Redis) -> None:
    calls: list[int] = []
    table = wide(2 * online.ENTITIES_PER_CALL, 10, [18])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            online, "ask_ahead", lambda _redis, given, _in_flight: (calls.append(call[2]) or [] for call in given)
        )
        online.write(fake_redis, users, [f"f{n}" for n in range(10)], table)
    assert calls == [online.ENTITIES_PER_CALL] * 2


@pytest.mark.parametrize("batch", [7, 100])
def test_the_late_ones_of_several_batches_are_counted(
    batch: int, redis: Redis, users: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "ENTITIES_PER_CALL", batch)
    write(redis, users, *(row(str(n), at=n % 2) for n in range(50)))
    assert write(redis, users, *(row(str(n), at=0.5) for n in range(50))) == 25


@pytest.mark.parametrize("key", ["a:b", "with space", "ü", "{a}", "x" * 1024, '"', "\\", "\n"])
def test_any_key_is_read_as_it_was_written(key: str, redis: Redis, users: Source, definitions: Definitions) -> None:
    write(redis, users, row(key, x=1.0))
    [entity] = online.read(redis, definitions, "user", [key], NOON)
    assert entity.there
    assert entity.features["x"] == 1.0


def test_what_is_not_there_is_none_in_its_place(redis: Redis, users: Source, definitions: Definitions) -> None:
    write(redis, users, row("a", x=1.0), row("c", x=3.0))
    found = online.read(redis, definitions, "user", ["a", "b", "c", "a"], NOON)
    assert [entity and entity.features["x"] for entity in found] == [1.0, None, 3.0, 1.0]


@pytest.mark.parametrize(("field", "text"), [("x", "much"), ("n", "1.5"), ("flag", "yes")])
def test_a_text_that_is_no_value_is_told_by_name(
    field: str, text: str, redis: Redis, users: Source, definitions: Definitions
) -> None:
    write(redis, users, row())
    redis.hset("feature:user:u", field, text)
    with pytest.raises(CorruptFeature, match=f"feature '{field}' of user 'u' is stored as '{text}'; expected"):
        online.read(redis, definitions, "user", ["u"], NOON)


AGING = MILL.replace('"users", entity=user,', '"users", entity=user, max_age="1h",')


@pytest.mark.parametrize(("age", "expired"), [(0, False), (3600, False), (3600.000001, True), (-5, False)])
def test_a_row_is_expired_once_its_age_is_over_what_its_source_allows(
    age: float, expired: bool, redis: Redis, users: Source, tmp_path: Path
) -> None:
    (tmp_path / "mill.py").write_text(AGING)
    write(redis, users, row(x=1.0, **{FAILED: '{"n":"ValueError: no"}'}))
    [entity] = online.read(redis, load(tmp_path / "mill.py"), "user", ["u"], NOON + timedelta(seconds=age))
    assert entity.there
    assert entity.features["x"] == (None if expired else 1.0)
    assert entity.failed == ({} if expired else {"n": "ValueError: no"})
    assert entity.expired == (["users"] if expired else [])
    assert entity.event_times == {"users": "2013-01-31T12:00:00.000000Z"}


def test_an_entity_of_which_only_other_fields_are_left_is_not_there(redis: Redis, definitions: Definitions) -> None:
    redis.hset("feature:user:u", "former", "1.0")
    assert [one.there for one in online.read(redis, definitions, "user", ["u"], NOON)] == [False]


def test_an_error_leaves_the_next_answer_whole(redis: Redis, users: Source, definitions: Definitions) -> None:
    redis.set("feature:user:text", "no hash")
    write(redis, users, row(x=1.0))
    with pytest.raises(ResponseError):
        online.read(redis, definitions, "user", ["text", "u"], NOON)
    [entity] = online.read(redis, definitions, "user", ["u"], NOON)
    assert entity.there
    assert entity.features["x"] == 1.0


ANY = {
    "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "n": st.none() | st.integers(1 - 10**18, 10**18 - 1),
    "flag": st.none() | st.booleans(),
    "name": st.none() | st.text(st.characters(codec="utf-8")),
}
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(values=st.fixed_dictionaries(ANY))
def test_values_are_read_bit_for_bit_as_they_were_written(
    values: dict[str, Any], redis: Redis, users: Source, definitions: Definitions
) -> None:
    redis.delete("feature:user:u")
    write(redis, users, row(**values))
    [entity] = online.read(redis, definitions, "user", ["u"], NOON)
    assert entity.there
    features = {name: entity.features[name] for name in values}
    assert repr(features) == repr(values)


WRITES = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), min_size=1, max_size=4), max_size=6)


@quick
@given(batches=WRITES)
def test_in_any_order_of_writes_the_newest_row_stays(
    batches: Sequence[Sequence[tuple[str, int]]], redis: Redis, users: Source
) -> None:
    redis.delete("feature:user:a", "feature:user:b")
    newest: dict[str, tuple[int, int]] = {}
    number = 0
    for batch in batches:
        rows = []
        for key, at in batch:
            number += 1
            rows.append(row(key, at, n=number if number % 3 else None))
            newest[key] = max(newest.get(key, (-1, 0)), (at, number))
        write(redis, users, *rows)
    for key, (at, number) in newest.items():
        found = stored(redis, key)
        assert found["_time.users"].startswith(f"2013-01-31T12:00:0{at}.000000Z")
        assert found.get("n") == (str(number) if number % 3 else None)


@pytest.mark.redis
def test_however_many_write_at_once_the_newest_row_stays(server: RedisServer, users: Source) -> None:
    redis = server.client()
    redis.flushall()
    keys = [str(key) for key in range(50)]

    def write_all(at: int) -> int:
        return write(redis, users, *(row(key, at, n=at, name=str(at)) for key in keys))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_all, [(7 * step) % 40 for step in range(40)]))
    assert [(stored(redis, key)["n"], stored(redis, key)["name"]) for key in keys] == [("39", "39")] * 50


@pytest.mark.redis
def test_redis_may_forget_the_script(server: RedisServer, users: Source) -> None:
    redis = server.client()
    redis.flushall()
    write(redis, users, row(x=1.0))
    redis.script_flush()
    write(redis, users, row(at=1, x=2.0))
    assert stored(redis)["x"] == "2.0"


@pytest.mark.parametrize("batch", [1, 100])
def test_removed_fields_are_gone_from_every_entity(batch: int, redis: Redis, users: Source) -> None:
    write(redis, users, *(row(str(n), x=1.0, n=n) for n in range(10)))
    online.remove(redis, "user", ["n", "no such field"])
    assert {key for n in range(10) for key in stored(redis, str(n))} == {"x", "_time.users"}
