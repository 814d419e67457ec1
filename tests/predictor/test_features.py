"""Which values go into the model: given, stored, default, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from modelmill.columns.types import Column
from modelmill.declare.declarations import About
from modelmill.declare.features import RequestFeature
from modelmill.errors import CorruptFeature, InvalidRequest, MissingEntity
from modelmill.packages.package import Input
from modelmill.state.connections import Redis
from modelmill.times import micros
from services.predictor import features
from services.predictor.features import OnlineStore, Row
from services.predictor.instances import parse
from services.predictor.signature import Signature
from tests.predictor.packages import EVENT_TIME, USER_INPUTS, manifest, put_complete_user, put_user

SIGNATURE = Signature.of(manifest())
OLDER = "2026-11-23T20:00:00.000000Z"


NOW = datetime.fromisoformat(EVENT_TIME) + timedelta(hours=1)


def rows(redis: Redis, *bodies: dict[str, object], signature: Signature = SIGNATURE, now: datetime = NOW) -> list[Row]:
    asked = parse({"instances": list(bodies)}, signature, 100)
    stored = features.read(OnlineStore(redis), signature, features.lookups(asked, signature), micros(now))
    oldest = features.cutoffs(signature, now)
    return [features.row(instance, signature, stored, oldest, micros(now)) for instance in asked]


def test_stored_features_come_in_the_models_order(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    assert rows(fake_redis, {"user_id": "u1"})[0].values == [2.0, 0.5, 3]


def test_a_given_value_goes_before_the_stored_one(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    assert rows(fake_redis, {"user_id": "u1", "feature_1": -1.0})[0].values == [-1.0, 0.5, 3]


def test_a_given_null_goes_before_the_stored_value(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    assert rows(fake_redis, {"user_id": "u1", "feature_2": None})[0].values == [2.0, None, 3]


def test_each_entity_is_looked_up_once() -> None:
    asked = parse({"instances": [{"user_id": "u1"}, {"user_id": "u2"}, {"user_id": "u1"}]}, SIGNATURE, 100)
    assert features.lookups(asked, SIGNATURE) == [(0, "u1"), (0, "u2")]


def test_given_features_are_not_looked_up() -> None:
    asked = parse({"user_id": "u1", "feature_1": 1.0, "feature_2": 1.0, "clicks": 1}, SIGNATURE, 100)
    assert features.lookups(asked, SIGNATURE) == []


def test_an_entitys_time_is_that_of_its_oldest_source(fake_redis: Redis) -> None:
    whole = {"feature_1": "1.0", "feature_2": "1.0", "clicks": "1"}
    put_user(fake_redis, "u1", whole, {"users": EVENT_TIME, "visits": OLDER})
    assert rows(fake_redis, {"user_id": "u1"})[0].event_times == {"user": OLDER}


@pytest.mark.parametrize(
    "dtype, text, value",
    [
        ("float", "0.1", 0.1),
        ("float", "1e-07", 1e-07),
        ("int", "-3", -3),
        ("bool", "true", True),
        ("bool", "false", False),
        ("str", "true", "true"),
        ("str", "", ""),
    ],
)
def test_stored_text_becomes_a_value_of_its_type(fake_redis: Redis, dtype: str, text: str, value: object) -> None:
    signature = Signature.of(manifest(inputs=[Input("x", dtype, False, "user", "x", "users")]))
    put_user(fake_redis, "u1", {"x": text}, {"users": EVENT_TIME})
    (row,) = rows(fake_redis, {"user_id": "u1"}, signature=signature)
    assert row.values == [value]
    assert type(row.values[0]) is type(value)


def test_text_that_is_no_value_of_its_type_is_named(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"feature_1": "1.0", "clicks": "often"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    with pytest.raises(
        CorruptFeature, match="feature 'clicks' of user 'u1' is stored as 'often'; expected a whole number"
    ):
        rows(fake_redis, {"user_id": "u1"})


def test_a_given_value_stands_for_a_stored_text_that_is_none(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"feature_1": "1.0", "clicks": "often"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    assert rows(fake_redis, {"user_id": "u1", "clicks": 2})[0].values == [1.0, None, 2]


def test_a_nullable_feature_may_lack(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"feature_1": "1.0", "clicks": "1"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    assert rows(fake_redis, {"user_id": "u1"})[0].values == [1.0, None, 1]


def test_a_needed_feature_that_lacks_is_named_with_its_entity(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"clicks": "1"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    with pytest.raises(
        InvalidRequest, match="'feature_1' of user 'u1' is missing: its feature function failed"
    ) as caught:
        rows(fake_redis, {"user_id": "u1"})
    assert caught.value.fields == {"entity": "user", "key": "u1", "field": "feature_1"}


def test_a_source_without_a_row_is_named(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"feature_1": "1.0"}, {"users": EVENT_TIME})
    with pytest.raises(InvalidRequest, match="'clicks' of user 'u1' is missing: no row of source 'visits' has arrived"):
        rows(fake_redis, {"user_id": "u1"})


AGING = Signature.of(manifest(inputs=[replace(item, max_age=3600) for item in USER_INPUTS[:2]] + USER_INPUTS[2:]))
LATER = NOW + timedelta(microseconds=1)


def test_a_row_is_used_until_its_age_is_over_what_its_source_allows(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    assert rows(fake_redis, {"user_id": "u1"}, signature=AGING)[0].values == [2.0, 0.5, 3]


def test_an_expired_feature_that_is_needed_is_named_with_the_time_of_its_row(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    reason = f"'feature_1' of user 'u1' is missing: it is expired, .* 'users' is of {EVENT_TIME}, over 1h ago"
    with pytest.raises(InvalidRequest, match=reason):
        rows(fake_redis, {"user_id": "u1"}, signature=AGING, now=LATER)


def test_an_expired_feature_is_missing_where_it_may_lack(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    body = {"user_id": "u1", "feature_1": 7.0}
    assert rows(fake_redis, body, signature=AGING, now=LATER)[0].values == [7.0, None, 3]


def test_a_needed_feature_that_lacks_may_be_given(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"feature_1": "1.0"}, {"users": EVENT_TIME})
    assert rows(fake_redis, {"user_id": "u1", "clicks": 9})[0].values == [1.0, None, 9]


def test_an_entity_that_is_not_there_is_named(fake_redis: Redis) -> None:
    with pytest.raises(MissingEntity, match="user 'nobody' has no features"):
        rows(fake_redis, {"user_id": "nobody"})


DEFAULTS = Signature.of(
    manifest(
        inputs=[
            replace(USER_INPUTS[0], has_default=True, default=7.0),
            replace(USER_INPUTS[1], has_default=True, default=None),
            replace(USER_INPUTS[2], has_default=True, default=1),
        ]
    )
)


def test_defaults_stand_for_an_entity_that_is_not_there(fake_redis: Redis) -> None:
    (row,) = rows(fake_redis, {"user_id": "nobody"}, signature=DEFAULTS)
    assert row.values == [7.0, None, 1]
    assert row.event_times == {"user": None}


def test_a_given_value_goes_before_a_default(fake_redis: Redis) -> None:
    assert rows(fake_redis, {"user_id": "nobody", "clicks": 5}, signature=DEFAULTS)[0].values == [7.0, None, 5]


def test_a_default_does_not_stand_for_a_value_that_lacks(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"clicks": "1"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    with pytest.raises(InvalidRequest, match="'feature_1' of user 'u1' is missing"):
        rows(fake_redis, {"user_id": "u1"}, signature=DEFAULTS)


def test_a_default_for_each_feature_that_is_not_given_is_needed(fake_redis: Redis) -> None:
    partly = Signature.of(manifest(inputs=[replace(USER_INPUTS[0], has_default=True, default=7.0), *USER_INPUTS[1:]]))
    with pytest.raises(MissingEntity):
        rows(fake_redis, {"user_id": "nobody"}, signature=partly)
    given = {"user_id": "nobody", "feature_2": 1.0, "clicks": 1}
    assert rows(fake_redis, given, signature=partly)[0].values == [7.0, 1.0, 1]


def test_rows_of_several_entities_are_read(fake_redis: Redis) -> None:
    two = Signature.of(
        manifest(
            entities={"user": "user_id", "shop": "shop_id"},
            inputs=[USER_INPUTS[0], Input("size", "int", False, "shop", "size", "shops")],
        )
    )
    put_complete_user(fake_redis, "u1", 1.5)
    fake_redis.hset("feature:shop:s1", mapping={"size": "8", "_time.shops": f"{OLDER} {OLDER}"})
    (row,) = rows(fake_redis, {"user_id": "u1", "shop_id": "s1"}, signature=two)
    assert row.values == [1.5, 8]
    assert row.event_times == {"user": EVENT_TIME, "shop": OLDER}


def ratio(row: dict[str, float]) -> float:
    return row["clicks"] / row["user.feature_1"] + row["hour"]


def computing(function: Callable[[dict[str, float]], float] = ratio, *, nullable: bool = False) -> Signature:
    needs = {"clicks": "clicks", "user.feature_1": "user.feature_1", "hour": "hour"}
    auxiliary = replace(USER_INPUTS[0], name="user.feature_1")
    inputs = [
        Input("ratio", "float", nullable, needs=needs, version="4f2e1a9c"),
        USER_INPUTS[2],
        Input("hour", "int", False),
    ]
    feature = RequestFeature(function, Column("ratio", "float", nullable), list(needs), About())
    return Signature.of(manifest(inputs=inputs, auxiliary=[auxiliary]), {"ratio": feature})


def test_an_input_is_computed_from_what_is_stored_and_given_and_what_only_it_needs_is_not_fed(
    fake_redis: Redis,
) -> None:
    put_complete_user(fake_redis, "u1")
    assert rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing())[0].values == [8.5, 3, 7]


def test_an_input_is_computed_from_given_values_before_stored_ones(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1")
    body = {"user_id": "u1", "hour": 7, "user.feature_1": 6.0}
    assert rows(fake_redis, body, signature=computing())[0].values == [7.5, 3, 7]


def test_a_given_value_goes_before_a_computed_one_and_nothing_that_only_it_needs_is_missing(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"clicks": "3"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    body = {"hour": 7, "ratio": -1.0}
    assert rows(fake_redis, body | {"user_id": "u1"}, signature=computing())[0].values == [-1.0, 3, 7]
    assert rows(fake_redis, body | {"clicks": 5}, signature=computing())[0].values == [-1.0, 5, 7]


def test_without_a_key_what_is_computed_from_has_to_be_given(fake_redis: Redis) -> None:
    with pytest.raises(InvalidRequest, match=r"'user_id' is missing; .* a value for each of user\.feature_1"):
        rows(fake_redis, {"hour": 7, "clicks": 5}, signature=computing())
    body = {"hour": 7, "clicks": 5, "user.feature_1": 2.0}
    assert rows(fake_redis, body, signature=computing())[0].values == [9.5, 5, 7]


def test_what_is_computed_from_may_not_lack(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"clicks": "3"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    with pytest.raises(InvalidRequest, match=r"feature 'user\.feature_1' of user 'u1' is missing"):
        rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing())


def test_what_is_computed_from_may_lack_where_the_model_takes_a_missing_value(fake_redis: Redis) -> None:
    put_user(fake_redis, "u1", {"clicks": "3"}, {"users": EVENT_TIME, "visits": EVENT_TIME})
    assert rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing(nullable=True))[0].values == [None, 3, 7]


def test_a_function_that_fails_is_named_with_its_values_and_its_error(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1", feature_1=0.0)
    reason = (
        "request feature 'ratio' failed on clicks=3, user.feature_1=0.0, hour=7: ZeroDivisionError: float division by"
        " zero. Give other values, or that of 'ratio'"
    )
    with pytest.raises(InvalidRequest) as caught:
        rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing())
    assert (caught.value.detail, caught.value.fields) == (reason, {"field": "ratio"})


def test_a_function_that_fails_gives_a_missing_value_where_the_model_takes_one(fake_redis: Redis) -> None:
    put_complete_user(fake_redis, "u1", feature_1=0.0)
    assert rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing(nullable=True))[0].values == [None, 3, 7]


def test_a_function_that_would_end_the_process_is_named_as_any_other(fake_redis: Redis) -> None:
    def ratio(row: dict[str, float]) -> float:
        raise SystemExit(3)

    put_complete_user(fake_redis, "u1")
    with pytest.raises(InvalidRequest, match=r"request feature 'ratio' failed on clicks=3, .*: SystemExit: 3\. Give"):
        rows(fake_redis, {"user_id": "u1", "hour": 7}, signature=computing(ratio))
