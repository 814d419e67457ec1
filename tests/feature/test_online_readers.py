"""Serving, lookup and explanation tell the same of an entity, whatever texts lie in Redis about it: the values that a
few lines of plain Python say, or the same complaint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modelmill.errors import CorruptFeature
from modelmill.state import keys
from modelmill.times import iso, micros
from modelmill.windows import tile_field
from services.predictor import features
from services.predictor.features import OnlineStore
from services.predictor.instances import parse
from services.predictor.signature import Signature
from services.trainer.packaging import packing as packaging
from tests.feature.conftest import OpenRoom, Room
from tests.predictor.packages import manifest

MILL = """
from modelmill import Aggregate, Entity, Model, Source, feature
user = Entity("user", key="user_id")
aging = Source("aging", entity=user, event_time="at", max_age="2h", columns={"x": float | None, "n": int | None})
lasting = Source("lasting", entity=user, event_time="at",
                 columns={"ok": bool | None, "name": str | None, "label": int})

@feature(aging, dtype=float | None)
def inverse(row):
    return 1 / row["x"]

Aggregate(aging, "x", "max", window="2d", hop="1d", name="most")
Aggregate(lasting, None, "count", window="1d", hop="1d", name="rows")
Model("m", entities=[user], features=["x", "n", "inverse", "ok", "name", "most", "rows"], label="label",
      source=lasting, estimator=None)
"""
SOURCES = {"aging": ["x", "n", "inverse"], "lasting": ["ok", "name"]}
GOOD: dict[str, dict[str, Any]] = {
    "x": {"0.1": 0.1, "-1e+300": -1e300},
    "n": {"-3": -3, "9007199254740993": 2**53 + 1},
    "inverse": {"10.0": 10.0},
    "ok": {"true": True, "false": False},
    "name": {"": "", "true": "true", "é:b": "é:b"},
}
"""Feature to texts of it and what they stand for."""
BAD: dict[str, list[str]] = {
    "x": ["much", ""],
    "n": ["1.5", "true"],
    "inverse": ["1/2"],
    "ok": ["yes", "True"],
    "name": [],
}
HOURS = {"fresh": 1, "old": 3}
TILES: dict[str, dict[str, Any]] = {
    "most": {'{"_rows":{"count":1},"x":{"max":"2.5"}}': 2.5, '{"_rows":{"count":4}}': None},
    "rows": {'{"_rows":{"count":4}}': 4},
}
BAD_TILES = ["spoilt", "5", '{"x":{},"_rows":{}}', '{"x":{"max":[]},"_rows":[]}']


@dataclass(frozen=True)
class State:
    """What lies in Redis about an entity."""

    rows: dict[str, str]
    """Source to whether its row is fresh, old, or has no time, or no ingest time that anybody could read."""
    texts: dict[str, str]
    failed: dict[str, str | list[str]]
    """Source to the features that failed on its row, or a text that tells no such thing."""
    tiles: dict[str, str]


def some(choices: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict(choices))


@st.composite
def states(draw: st.DrawFn) -> State:
    whole = draw(st.booleans())  # else any of it may be spoilt
    times = st.sampled_from(["fresh", "old"] if whole else ["fresh", "fresh", "old", "soon", "not ingested"])
    errors: dict[str, st.SearchStrategy[Any]] = {
        source: st.lists(st.sampled_from(names), unique=True) for source, names in SOURCES.items()
    }
    spoilt = st.sampled_from(["[]", "spoilt"])
    return State(
        draw(some(dict.fromkeys(SOURCES, times))),
        draw(some({name: st.sampled_from([*GOOD[name], *([] if whole else BAD[name])]) for name in GOOD})),
        draw(some({source: listed if whole else listed | spoilt for source, listed in errors.items()})),
        draw(some({name: st.sampled_from([*TILES[name], *([] if whole else BAD_TILES)]) for name in TILES})),
    )


def put(room: Room, state: State, now: datetime) -> None:
    definitions = room.catalogue.definitions
    refs = definitions.features_of("user")
    found = {"former@0000beef": "spoilt", "inverse@0000beef": "7.0"}
    for source, kind in state.rows.items():
        event = iso(now - timedelta(hours=HOURS.get(kind, 1)))
        found[keys.time_field(source)] = {"soon": "soon", "not ingested": f"{event} sometimeZ"}.get(
            kind, f"{event} {iso(now)}"
        )
    for source, listed in state.failed.items():
        text = listed if isinstance(listed, str) else orjson.dumps({refs[name].field: "no" for name in listed}).decode()
        found[keys.failed_field(source)] = text
    found |= {refs[name].field: text for name, text in state.texts.items()}
    room.redis.delete(*room.redis.scan_iter("feature:*"), *room.redis.scan_iter("tiles:*"), "no such key")
    room.redis.hset(keys.feature("user", "u"), mapping=found)
    yesterday = micros(now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1))
    for name, text in state.tiles.items():
        group = definitions.tile_group(definitions.aggregates["user"][name]).name
        room.redis.hset(keys.tiles(group, "u"), tile_field(yesterday), text)


def expected(state: State) -> dict[str, tuple[Any, str]]:
    """Value and status of each feature, of a state in which nothing that counts is spoilt."""
    found: dict[str, tuple[Any, str]] = {}
    for source, names in SOURCES.items():
        row = state.rows.get(source)
        for name in names:
            if row is None:
                found[name] = (None, "missing")
            elif row == "old" and source == "aging":
                found[name] = (None, "expired")
            elif name in state.texts:
                found[name] = (GOOD[name][state.texts[name]], "present")
            else:
                found[name] = (None, "failed" if name in state.failed.get(source, ()) else "missing")
    for name, values in TILES.items():
        value = values[state.tiles[name]] if name in state.tiles else 0 if name == "rows" else None
        found[name] = (value, "missing" if value is None else "present")
    return found


def served(room: Room, store: OnlineStore) -> dict[str, Any] | str:
    """What serving takes as inputs, or the field that is spoilt."""
    definitions, now = room.catalogue.definitions, datetime.now(UTC)
    fed = packaging.signature(definitions, definitions.model("m")).fed
    inputs = [replace(one, nullable=True, has_default=one.tiles is None) for one in fed]
    signature = Signature.of(manifest(inputs=inputs))
    asked = parse({"user_id": "u"}, signature, 1)
    stored = features.read(store, signature, features.lookups(asked, signature), micros(now))
    try:
        row = features.row(asked[0], signature, stored, features.cutoffs(signature, now), micros(now))
    except CorruptFeature as error:
        return str(error.fields["field"])
    return {item.name: value for item, value in zip(signature.inputs, row.values, strict=True)}


def told(room: Room, path: str, **query: str) -> dict[str, tuple[Any, str]] | str | None:
    """What is told of each feature over HTTP, or the field that is spoilt; None of an entity that is not there."""
    answer = room.http.get(path, query_string={"key": "u", **query})
    body = answer.get_json()
    if answer.status_code == 404:
        return None
    if answer.status_code == 500:
        assert body["type"] == "urn:modelmill:corrupt-feature", body
        return str(body["field"])
    found = {name: (one["value"], one["status"]) for name, one in body["features"].items()}
    found.pop("label")
    return found


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


@pytest.fixture
def store(room: Room) -> OnlineStore:
    return OnlineStore(room.redis)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states())
def test_serving_lookup_and_explanation_tell_the_same_of_whatever_is_stored(
    state: State, room: Room, store: OnlineStore
) -> None:
    now = datetime.now(UTC)
    put(room, state, now)
    explained, looked_up = told(room, "/entities/user/explain"), told(room, "/entities/user", detail="true")
    values = served(room, store)
    assume(datetime.now(UTC).date() == now.date())  # or the windows moved meanwhile
    spoilt = isinstance(explained, str)
    if state.rows or state.tiles or spoilt:
        assert repr(looked_up) == repr(explained)
    else:
        assert looked_up is None
    assert explained is not None
    if isinstance(explained, str):
        unread = explained.startswith("_failed.") or "not ingested" in state.rows.values()
        assert unread or values == explained
    else:
        wanted = expected(state)
        assert {name: repr(one) for name, one in explained.items()} == {name: repr(one) for name, one in wanted.items()}
        assert values == {name: value for name, (value, _) in explained.items()}
