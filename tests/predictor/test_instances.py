"""What a predict request may hold, and what is said about one that may not."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill.errors import InvalidRequest, MalformedBody, TooLarge
from modelmill.packages.package import Input
from services.predictor.instances import Instance, parse
from services.predictor.signature import Signature
from tests.predictor.packages import USER_INPUTS, manifest

SIGNATURE = Signature.of(
    manifest(
        inputs=[
            *USER_INPUTS,
            Input("amount", "float", False),
            Input("hour", "int", True),
            Input("weekend", "bool", True),
            Input("city", "str", True),
        ]
    )
)
FEATURE_1, FEATURE_2, CLICKS, AMOUNT, HOUR, WEEKEND, CITY = range(7)
LIMIT = 3


def one(body: Any) -> Instance:
    (instance,) = parse(body, SIGNATURE, LIMIT)
    return instance


def refusal(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(body, SIGNATURE, LIMIT)
    return caught.value


def test_an_object_is_one_instance() -> None:
    instance = one({"user_id": "u1", "amount": 2.5})
    assert instance.keys == ["u1"]
    assert instance.given == {AMOUNT: 2.5, HOUR: None, WEEKEND: None, CITY: None}


def test_instances_are_taken_in_their_order() -> None:
    bodies = [{"user_id": name, "amount": 1.0} for name in ("u1", "u2", "u3")]
    assert [instance.keys for instance in parse({"instances": bodies}, SIGNATURE, LIMIT)] == [["u1"], ["u2"], ["u3"]]


def test_a_key_may_be_an_integer() -> None:
    assert one({"user_id": 42, "amount": 1.0}).keys == ["42"]


@pytest.mark.parametrize("key", [None, True, 1.5, "", ["u1"], {}])
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    error = refusal({"user_id": key, "amount": 1.0})
    assert "'user_id' is" in error.detail
    assert "expected a string that is not empty, or an integer" in error.detail


def test_all_features_stand_for_the_key() -> None:
    instance = one({"feature_1": 1.0, "feature_2": None, "clicks": 2, "amount": 1.0})
    assert instance.keys == [None]
    assert instance.given.items() >= {FEATURE_1: 1.0, FEATURE_2: None, CLICKS: 2}.items()


def test_without_a_key_the_features_that_lack_are_named() -> None:
    error = refusal({"feature_1": 1.0, "amount": 1.0})
    assert error.detail == (
        "field 'user_id' is missing; expected the key of a user, or a value for each of feature_2, clicks"
    )
    assert error.fields == {"field": "user_id"}


def test_a_needed_input_that_lacks_is_named() -> None:
    assert refusal({"user_id": "u1"}).detail == "field 'amount' is missing; expected a finite number"


def test_an_integer_is_a_number() -> None:
    value = one({"user_id": "u1", "amount": 3}).given[AMOUNT]
    assert isinstance(value, float)


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("amount", "3", "a finite number"),
        ("amount", True, "a finite number"),
        ("amount", None, "a finite number"),
        ("amount", [1], "a finite number"),
        ("feature_2", "x", "a finite number or null"),
        ("hour", 1.0, "a whole number of at most 18 digits or null"),
        ("hour", False, "a whole number of at most 18 digits or null"),
        ("weekend", 1, "true or false or null"),
        ("weekend", "true", "true or false or null"),
        ("city", 7, "text or null"),
    ],
)
def test_a_value_of_another_type_is_refused(field: str, value: Any, expected: str) -> None:
    error = refusal({"user_id": "u1", "amount": 1.0, field: value})
    assert f"field {field!r} is " in error.detail
    assert error.detail.endswith(f"; expected {expected}")
    assert error.fields == {"field": field}


def test_the_instance_and_the_value_are_named() -> None:
    error = refusal({"instances": [{"user_id": "u1", "amount": 1.0}, {"user_id": "u1", "amount": "much"}]})
    assert error.detail == "instance 1: field 'amount' is \"much\"; expected a finite number"
    assert error.fields == {"instance": 1, "field": "amount"}


def test_a_long_value_is_shown_in_part() -> None:
    assert len(refusal({"user_id": "u1", "amount": "x" * 10_000}).detail) < 200


def test_an_unknown_field_gets_the_nearest_known_names() -> None:
    assert refusal({"user_id": "u1", "amuont": 1.0}).detail == ("field 'amuont' is not known; did you mean 'amount'?")


def test_a_field_beside_instances_is_refused() -> None:
    error = refusal({"instances": [{"user_id": "u1", "amount": 1.0}], "amount": 2.0})
    assert "field 'amount' stands beside instances" in error.detail


def test_no_instances_are_refused() -> None:
    assert refusal({"instances": []}).detail == "instances is empty; expected 1 to 3 of them"


def test_an_instance_that_is_no_object_is_refused() -> None:
    assert refusal({"instances": [5]}).detail == "instance 0: a number was given; expected an object"


def test_more_instances_than_the_limit_are_refused() -> None:
    with pytest.raises(TooLarge, match=r"4 is over the limit of 3.*MODELMILL_MAX_INSTANCES"):
        parse({"instances": [{}] * 4}, SIGNATURE, LIMIT)


@pytest.mark.parametrize("body, kind", [([], "an array"), ("x", "a string"), (None, "null"), (1, "a number")])
def test_a_body_that_is_no_object_is_malformed(body: Any, kind: str) -> None:
    with pytest.raises(MalformedBody, match=f"the body is {kind}; expected an object"):
        parse(body, SIGNATURE, LIMIT)


def test_entities_that_share_a_join_key_get_the_same_key() -> None:
    shared = Signature.of(
        manifest(
            entities={"origin": "airport", "weather": "airport"},
            inputs=[
                Input("delay", "float", False, "origin", "delay", "flights"),
                Input("wind", "float", False, "weather", "wind", "hours"),
            ],
        )
    )
    (instance,) = parse({"airport": "JFK"}, shared, LIMIT)
    assert instance.keys == ["JFK", "JFK"]
