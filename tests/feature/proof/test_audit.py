"""Predictions of a real predictor, compared with the history that they were served from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmill.errors import UnknownName
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionServed
from services.feature.intake import ingest as ingest_module
from services.feature.proof import audit as module
from services.feature.proof.audit import Audit, audit
from services.feature.proof.forget import forget
from services.feature.upkeep.statistics import StatisticsFiles
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.conftest import OpenRoom, Room
from tests.feature.serving import Serving, publish

MILL = """
from modelmill import Entity, Model, Source, feature
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, event_time="at", columns={"x": float | None, "n": int, "ok": bool | None})
items = Source("items", entity=item, columns={"price": float})
sales = Source("sales", entities=[user, item], columns={"hour": int, "sold": float})

@feature(users, dtype=float)
def f(row):
    return (row["x"] or 0.1) * 2

Model("m", entities=[user, item], features=["x", "n", "ok", "f", "price"], inputs={"hour": int}, label="sold",
      estimator=None, source=sales,
      defaults={"x": 0.5, "n": 1, "ok": False, "f": 1.0, "price": 9.5})
"""
CHANGED = MILL.replace("* 2", "* 3")


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    room.ingest("users", [row("u", x=0.1), row("v", x=None, ok=None)])
    room.ingest("items", [{"item_id": "i", "price": 1.25}])
    publish(room)
    return room


@pytest.fixture
def serving(room: Room) -> Serving:
    return Serving(room)


def row(key: str, at: int = 0, **columns: Any) -> dict[str, Any]:
    return {"user_id": key, "at": f"2026-01-31T12:00:{at:02}Z", "n": 3, "ok": True, **columns}


def asked(user: str, item: str = "i", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "hour": 7, **more}


def audited(room: Room) -> Audit:
    return audit(room.redis, room.catalogue.storage, "m", datetime.now(UTC) - timedelta(hours=1))


def outcome(found: Audit) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("equal", "in_flight", "differences")}


def test_what_was_served_is_what_was_known(room: Room, serving: Serving) -> None:
    serving.predict(asked("u"), asked("v"))
    room.ingest("users", [row("u", at=1, x=7.0)])
    serving.predict(asked("u"))
    found = audited(room)
    assert (found.predictions, found.rows, found.values) == (2, 3, 15)
    assert outcome(found) == {"equal": 15, "in_flight": 0, "differences": 0}
    assert found.not_auditable == {}


def test_a_late_row_does_not_change_what_was_known(room: Room, serving: Serving) -> None:
    room.ingest("users", [row("u", at=5, x=5.0)])
    serving.predict(asked("u"))
    room.ingest("users", [row("u", at=3, x=3.0)])
    assert outcome(audited(room)) == {"equal": 5, "in_flight": 0, "differences": 0}


def test_values_that_the_caller_gave_are_not_compared(room: Room, serving: Serving) -> None:
    serving.predict(asked("u", x=123.0), {"hour": 1, "x": 1.0, "n": 1, "ok": True, "f": 2.0, "price": 1.0})
    found = audited(room)
    assert (found.rows, found.values, found.equal) == (1, 4, 4)


def test_an_entity_that_is_not_there_has_the_defaults(room: Room, serving: Serving) -> None:
    serving.predict(asked("u", item="nobody"))
    assert outcome(audited(room)) == {"equal": 5, "in_flight": 0, "differences": 0}


@pytest.mark.parametrize(
    ("field", "text", "expected"), [("x", "0.10000000000000002", "0.1"), ("n", "4", "3"), ("ok", "false", "true")]
)
def test_a_value_that_was_served_and_is_not_in_the_history_is_a_difference(
    field: str, text: str, expected: str, room: Room, serving: Serving
) -> None:
    serving.predict(asked("v"))
    room.redis.hset(keys.feature("user", "u"), field, text)
    prediction = serving.predict(asked("v"), asked("u"))
    found = audited(room)
    assert outcome(found) == {"equal": 14, "in_flight": 0, "differences": 1}
    [difference] = found.first
    assert (difference.prediction, difference.row, difference.feature) == (prediction, 1, field)
    assert (difference.served, difference.expected) == (text, expected)
    assert difference.event_time == "2026-01-31T12:00:00.000000Z"
    assert difference.ingest_time is not None


def test_a_row_that_came_in_by_another_way_than_the_history_is_a_difference(room: Room, serving: Serving) -> None:
    times = " ".join(["2026-01-31T12:00:01.000000Z"] * 2)
    room.redis.hset(keys.feature("user", "w"), mapping={"x": "1.0", "n": "1", "_time.users": times})
    serving.predict(asked("w"))
    found = audited(room)
    assert {(d.feature, d.served, d.expected, d.event_time) for d in found.first} == {
        ("x", "1.0", "0.5", None),
        ("ok", "null", "false", None),
        ("f", "null", "1.0", None),
    }


def test_differences_are_counted_all_and_described_at_first(
    room: Room, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LISTED_DIFFERENCES", 2)
    room.redis.hset(keys.feature("user", "u"), "x", "7.0")
    serving.predict(*[asked("u")] * 5)
    found = audited(room)
    assert (found.differences, len(found.first)) == (5, 2)


@pytest.mark.parametrize("online_first", [True, False], ids=["seen", "not seen"])
def test_a_row_that_was_being_ingested_may_have_been_seen_or_not(
    online_first: bool, room: Room, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ingest_module._write_online

    def predicts_meanwhile(*arguments: Any) -> int:
        if online_first:
            late = write(*arguments)
            serving.predict(asked("u"))
            return late
        serving.predict(asked("u"))
        return write(*arguments)

    monkeypatch.setattr(ingest_module, "_write_online", predicts_meanwhile)
    room.ingest("users", [row("u", at=1, x=7.0)])
    found = audited(room)
    assert outcome(found) == {
        "equal": 5 - 2 * (not online_first),
        "in_flight": 2 * (not online_first),
        "differences": 0,
    }


def test_a_row_whose_ingest_has_not_ended_may_not_have_been_seen(
    room: Room, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ingest_module, "_write_online", die)
        with pytest.raises(Killed):
            room.ingest("users", [row("u", at=1, x=7.0)])
    serving.predict(asked("u"))
    assert outcome(audited(room)) == {"equal": 3, "in_flight": 2, "differences": 0}


def test_a_wrong_value_is_not_excused_by_an_ingest_that_went_on(
    room: Room, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ingest_module._write_online

    def predicts_meanwhile(*arguments: Any) -> int:
        room.redis.hset(keys.feature("user", "u"), "x", "99.0")
        serving.predict(asked("u"))
        return write(*arguments)

    monkeypatch.setattr(ingest_module, "_write_online", predicts_meanwhile)
    room.ingest("users", [row("u", at=1, x=7.0)])
    assert audited(room).differences > 0


def test_each_version_is_compared_with_its_own_features(room: Room, serving: Serving) -> None:
    serving.predict(asked("u"))
    room.define(CHANGED)
    serving.predict(asked("u"))
    publish(room)
    serving.predict(asked("u"))
    found = audited(room)
    assert (found.predictions, outcome(found)) == (3, {"equal": 15, "in_flight": 0, "differences": 0})
    events = [e for _, e in bus.newest(room.redis, keys.EVENTS_PREDICTIONS, 9) if isinstance(e, PredictionServed)]
    assert [(e.version, e.features["f"]) for e in events] == [(1, [0.2]), (1, [0.2]), (2, [0.30000000000000004])]


WINDOWED = """
from modelmill import Aggregate, Entity, Model, Source
item = Entity("item", key="item_id")
items = Source("items", entity=item, columns={"price": float})
sales = Source("sales", entities=[item], event_time="at", columns={"sold": float})
Aggregate(sales, "sold", "mean", window="2h", by=item, hop="1m")
Aggregate(sales, None, "count", window="1h", by=item, hop="1m")
Model("m", entities=[item], features=["price", "sold_mean_2h", "sales_count_1h"], label="sold", estimator=None,
      source=sales, defaults={"price": 9.5, "sold_mean_2h": -1.0})
"""


def sale(minutes: int, sold: float) -> dict[str, Any]:
    return {"item_id": "i", "at": (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(), "sold": sold}


def test_aggregates_are_compared_too(open_room: OpenRoom) -> None:
    room = open_room(WINDOWED)
    publish(room)
    serving = Serving(room)
    serving.predict({"item_id": "i"})
    for n in range(5):
        room.ingest("sales", [sale(20 * n + 5, n / 7), sale(20 * n + 6, 0.1)])
        serving.predict({"item_id": "i"}, {"item_id": "nobody"})
    assert outcome(audited(room)) == {"equal": 33, "in_flight": 0, "differences": 0}
    [tiles] = room.redis.scan_iter(match="tiles:*:i")
    room.redis.hdel(tiles, sorted(room.redis.hgetall(tiles))[-1])
    serving.predict({"item_id": "i"})
    found = audited(room)
    assert {d.feature for d in found.first} == {"sold_mean_2h", "sales_count_1h"}
    assert (found.equal, found.differences) == (34, 2)


def test_an_aggregate_of_another_entity_whose_rows_were_forgotten_since_is_no_difference(open_room: OpenRoom) -> None:
    with_users = WINDOWED.replace("entities=[item], event", "entities=[Entity('user', key='user_id'), item], event")
    room = open_room(with_users)
    publish(room)
    serving = Serving(room)
    serving.predict({"item_id": "nobody"})  # the first takes longer
    room.ingest("sales", [sale(5, 1.0) | {"user_id": "u"}, sale(6, 3.0) | {"user_id": "v"}])
    online = datetime.now(UTC)
    eventually(lambda: datetime.now(UTC) - online > timedelta(seconds=1), within=9, saying="rows are in flight no more")
    serving.predict({"item_id": "i"})
    forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", "u")
    serving.predict({"item_id": "i"})
    found = audited(room)
    assert outcome(found) == {"equal": 7, "in_flight": 0, "differences": 0}
    assert found.not_auditable == {"values: rows of source 'sales' were forgotten since": 2}
    room.redis.delete(*room.redis.scan_iter(match="tiles:*:i"))
    serving.predict({"item_id": "i"})
    assert audited(room).differences == 2, "what is damaged later is told"


def test_an_aggregate_may_have_seen_a_row_that_was_coming_or_not(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(WINDOWED)
    publish(room)
    serving = Serving(room)
    add = ingest_module._add_to_tiles

    def predicts_meanwhile(*arguments: Any) -> None:
        serving.predict({"item_id": "i"})
        add(*arguments)

    monkeypatch.setattr(ingest_module, "_add_to_tiles", predicts_meanwhile)
    room.ingest("sales", [sale(5, 1.0)])
    assert outcome(audited(room)) == {"equal": 1, "in_flight": 2, "differences": 0}


def test_predictions_that_cannot_be_compared_are_counted_with_the_reason(room: Room, serving: Serving) -> None:
    serving.predict(asked("u"))
    [(_, event)] = bus.newest(room.redis, keys.EVENTS_PREDICTIONS, 1)
    entry = event.to_fields()
    for change in ({"keys": "{}"}, {"version": "7"}, {"features": "{}"}, {"rows": "2"}):
        room.redis.xadd(keys.EVENTS_PREDICTIONS, entry | change)
    found = audited(room)
    assert (found.predictions, outcome(found)) == (5, {"equal": 5, "in_flight": 0, "differences": 0})
    assert dict(found.not_auditable) == {
        "predictions: the event does not say which keys were looked up": 1,
        "predictions: the event lacks features of its version": 1,
        "predictions: the event's lists are not as long as it says": 1,
        "predictions of version 7, which is gone: version '7' is not known; known: 1": 1,
    }


def test_a_prediction_that_was_reported_after_its_entity_was_forgotten_is_no_difference(
    room: Room, serving: Serving
) -> None:
    serving.predict(asked("u"))
    [(_, event)] = bus.newest(room.redis, keys.EVENTS_PREDICTIONS, 1)
    forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", "u")
    room.redis.xadd(keys.EVENTS_PREDICTIONS, event.to_fields())
    found = audited(room)
    assert outcome(found) == {"equal": 1, "in_flight": 0, "differences": 0}
    assert found.not_auditable == {"values: the entity was forgotten since": 4}


def test_only_predictions_of_that_time_count(room: Room, serving: Serving) -> None:
    serving.predict(asked("u"))
    assert audit(room.redis, room.catalogue.storage, "m", datetime.now(UTC)).predictions == 0


def test_an_unknown_model_is_named(room: Room) -> None:
    with pytest.raises(UnknownName, match="model 'n' is not known"):
        audit(room.redis, room.catalogue.storage, "n", datetime.now(UTC))


def test_over_http(room: Room, serving: Serving) -> None:
    serving.predict(asked("u"))
    answer = room.http.post("/audits", json={"model": "m", "since": "15m"})
    assert (answer.status_code, answer.get_json()["equal"]) == (200, 5)
    for body in ({"model": "m", "since": "soon"}, {"model": 3}):
        assert room.http.post("/audits", json=body).status_code == 422


def test_a_model_without_stored_features_is_answered_with_the_count_of_what_cannot_be_compared(
    open_room: OpenRoom,
) -> None:
    room = open_room("""
        from modelmill import Entity, Model, Source
        user = Entity("user", key="user_id")
        sales = Source("sales", entities=[user], columns={"hour": int, "sold": float})
        Model("m", entities=[], features=[], inputs={"hour": int}, label="sold", estimator=None, source=sales)
    """)
    publish(room)
    Serving(room).predict({"hour": 7}, {"hour": 8})
    answer = room.http.post("/audits", json={"model": "m"})
    assert (answer.status_code, answer.get_json()["predictions"]) == (200, 1)
    assert answer.get_json()["not_auditable"] == {"predictions of version 1, which records no stored features": 1}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.sampled_from("uv"), st.integers(0, 5), st.floats(-1e6, 1e6)),
        st.tuples(st.just("predict"), st.sampled_from("uvw"), st.just(0), st.just(0.0)),
    ),
    max_size=12,
)


def run(room: Room, steps: Any) -> int:
    serving = Serving(room)
    count = 0
    for step, key, at, x in steps:
        if step == "ingest":
            room.ingest("users", [row(key, at=at, x=x)])
        else:
            serving.predict(asked(key), asked("v"))
            count += 2
    return count


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_came_in_whenever_every_prediction_is_what_was_known(steps: Any, room: Room) -> None:
    room.redis.delete(keys.EVENTS_PREDICTIONS)
    rows = run(room, steps)
    found = audited(room)
    assert (found.rows, outcome(found)) == (rows, {"equal": 5 * rows, "in_flight": 0, "differences": 0})


@pytest.mark.redis
def test_on_a_real_redis(open_room: OpenRoom, real_redis: RedisServer) -> None:
    redis: Redis = real_redis.client()
    room = open_room(MILL, redis)
    publish(room)
    rows = run(room, [("ingest", "u", n % 7, n / 7) if n % 3 else ("predict", "u", 0, 0.0) for n in range(60)])
    assert outcome(audited(room)) == {"equal": 5 * rows, "in_flight": 0, "differences": 0}
    redis.hset(keys.feature("user", "u"), "x", "0.5")
    Serving(room).predict(asked("u"))
    assert audited(room).differences == 1
