"""Windowed aggregates as model inputs: read from tiles, beside the fields of the same entity."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from modelmill.errors import CorruptFeature, InvalidRequest
from modelmill.packages.package import Input, Manifest
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.times import micros
from modelmill.windows import Reading, tile_field
from services.predictor import features
from services.predictor.features import OnlineStore, Row
from services.predictor.instances import parse
from services.predictor.signature import Signature
from tests.predictor.packages import EVENT_TIME, manifest, put_user

GROUP = "visits.user.5m@12345678"
NOW = datetime(2026, 11, 23, 23, 48, tzinfo=UTC)
MEAN = Reading("mean", "pages", "float", window=600, hop=300, available_after=0)
COUNT = Reading("count", "_rows", "int", window=1200, hop=300, available_after=300)


def aggregate(name: str, reading: Reading, **more: Any) -> Input:
    return Input(name, "float", True, "user", name, "visits", tiles=GROUP, reading=reading, **more)


STORED = Input("feature_1", "float", False, "user", "feature_1", "users")
INPUTS = [aggregate("mean", MEAN), STORED, aggregate("count", COUNT)]


def put_tiles(redis: Redis, key: str, **tiles: list[float]) -> None:
    """Tiles by the minute that they begin at: `m2340=[1.0, 2.0]`."""
    for minute, values in tiles.items():
        start = datetime(2026, 11, 23, int(minute[1:3]), int(minute[3:]), tzinfo=UTC)
        content = {"_rows": {"count": len(values)}, "pages": {"count": len(values), "sum": [str(v) for v in values]}}
        redis.hset(keys.tiles(GROUP, key), tile_field(micros(start)), orjson.dumps(content).decode())


def row(redis: Redis, inputs: list[Input] = INPUTS, **body: Any) -> Row:
    signature = Signature.of(manifest(inputs=inputs))
    asked = parse(body, signature, 10)
    stored = features.read(OnlineStore(redis), signature, features.lookups(asked, signature), micros(NOW))
    return features.row(asked[0], signature, stored, features.cutoffs(signature, NOW), micros(NOW))


def test_each_is_made_of_the_tiles_in_its_own_window(fake_redis: Redis) -> None:
    put_user(fake_redis, "u", {"feature_1": "7.0"}, {"users": EVENT_TIME})
    put_tiles(fake_redis, "u", m2315=[9.0], m2320=[1.0], m2335=[2.0, 4.0], m2340=[6.0], m2345=[100.0])
    assert row(fake_redis, user_id="u").values == [4.0, 7.0, 3]


def test_without_tiles_there_is_no_value_and_nothing_to_count(fake_redis: Redis) -> None:
    put_user(fake_redis, "u", {"feature_1": "7.0"}, {"users": EVENT_TIME})
    assert row(fake_redis, user_id="u").values == [None, 7.0, 0]


def test_one_without_a_value_that_the_estimator_needs_is_refused_by_name(fake_redis: Redis) -> None:
    with pytest.raises(InvalidRequest, match=r"^input 'mean' has no value, for the windows .* hold nothing") as caught:
        row(fake_redis, [replace(aggregate("mean", MEAN), nullable=False)], user_id="u")
    assert caught.value.fields == {"field": "mean"}


def test_an_entity_may_have_nothing_but_aggregates(fake_redis: Redis) -> None:
    put_tiles(fake_redis, "u", m2340=[6.0])
    found = row(fake_redis, [aggregate("mean", MEAN)], user_id="u")
    assert (found.values, found.event_times) == ([6.0], {"user": None})


def test_a_default_stands_for_one_of_an_entity_that_has_no_tiles(fake_redis: Redis) -> None:
    inputs = [aggregate("mean", MEAN, has_default=True, default=-1.0)]
    assert row(fake_redis, inputs, user_id="u").values == [-1.0]
    put_tiles(fake_redis, "u", m2340=[6.0])
    assert row(fake_redis, inputs, user_id="u").values == [6.0]


def test_a_given_value_goes_before_it(fake_redis: Redis) -> None:
    put_user(fake_redis, "u", {"feature_1": "7.0"}, {"users": EVENT_TIME})
    assert row(fake_redis, user_id="u", mean=3.5).values == [3.5, 7.0, 0]


def test_without_a_key_each_of_them_has_to_be_given(fake_redis: Redis) -> None:
    with pytest.raises(InvalidRequest, match="or a value for each of mean, count"):
        row(fake_redis, feature_1=1.0)


def test_a_tile_that_is_none_is_told_by_its_group(fake_redis: Redis) -> None:
    fake_redis.hset(keys.tiles(GROUP, "u"), "2026-11-23T23:40Z", "spoilt")
    with pytest.raises(CorruptFeature, match=f"feature '{GROUP}' of user 'u' is stored as "):
        row(fake_redis, [aggregate("mean", MEAN)], user_id="u")


def test_a_manifest_keeps_how_they_are_read() -> None:
    described = manifest(inputs=INPUTS)
    assert Manifest.from_json(described.to_json()).inputs == INPUTS
