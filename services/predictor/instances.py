"""From the body of a predict request to instances: what the caller gave for each row to predict.

An instance is an object of join keys, whose features are read from the online store, and of values for any of the
model's inputs, which go before what is stored. Without an entity's key, each of its features has to be given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from modelmill.columns.types import TYPES
from modelmill.errors import InvalidRequest, MalformedBody, TooLarge, did_you_mean
from modelmill.packages.package import Input
from services.predictor.signature import EntitySignature, Signature, Value

EXPECTED = {dtype: of.expected for dtype, of in TYPES.items()}
JSON_TYPES: dict[type, str] = {dict: "an object", list: "an array", str: "a string", type(None): "null"}


@dataclass(slots=True)
class Instance:
    """One row to predict, as the caller gave it."""

    keys: list[str | None]
    """An entity's key, or None where it was not given, in the order of the signature's entities."""
    given: dict[int, Value]
    """Position of a model input to its value."""

    def needs(self, number: int, entity: EntitySignature) -> bool:
        """Whether any feature of the signature's entity `number` has to be read for it."""
        return self.keys[number] is not None and not self.given.keys() >= entity.positions


def parse(body: Any, signature: Signature, limit: int) -> list[Instance]:
    """The instances in the decoded JSON `body`: of `{"instances": [...]}`, or the body itself as the only one.

    Raises:
        MalformedBody: for a body that is no object.
        TooLarge: for more than `limit` instances.
        InvalidRequest: naming the instance, the field, its value and what was expected.
    """
    if not isinstance(body, dict):
        raise MalformedBody(f"the body is {_json_type(body)}; expected an object with the instance to predict")
    if not is_batch(body):
        return [_instance(body, signature, None)]
    contents = body["instances"]
    if len(contents) > limit:
        raise TooLarge("instances", len(contents), limit, "MODELMILL_MAX_INSTANCES")
    if not contents:
        raise InvalidRequest(f"instances is empty; expected 1 to {limit} of them", field="instances")
    for name in body.keys() - {"instances"}:
        raise _invalid(f"field {name!r} stands beside instances; expected it in each of them", None, name)
    return [_instance(content, signature, number) for number, content in enumerate(contents)]


def is_batch(body: dict[str, Any]) -> bool:
    """Whether `body` is a list of instances (an input may be named `instances` too, but no input is a list)."""
    return isinstance(body.get("instances"), list)


def _instance(content: Any, signature: Signature, number: int | None) -> Instance:
    if not isinstance(content, dict):
        raise _invalid(f"{_json_type(content)} was given; expected an object", number)
    instance = Instance([None] * len(signature.entities), {})
    for name, value in content.items():
        entities = signature.keys.get(name)
        if entities is not None:
            key = _key(name, value, number)
            for entity in entities:
                instance.keys[entity] = key
            continue
        position = signature.positions.get(name)
        if position is None:
            raise _invalid(f"field {name!r} is not known{did_you_mean(name, signature.names)}", number, name)
        instance.given[position] = _value(signature.input(position), value, number)
    for position, dependents in signature.spare.items():
        if dependents <= instance.given.keys():
            instance.given.setdefault(position, None)
    _check_complete(instance, signature, number)
    return instance


def _check_complete(instance: Instance, signature: Signature, number: int | None) -> None:
    for position in signature.requested:
        if position not in instance.given:
            item = signature.inputs[position]
            if not item.nullable:
                raise _invalid(f"field {item.name!r} is missing; expected {EXPECTED[item.dtype]}", number, item.name)
            instance.given[position] = None
    for key, entity in zip(instance.keys, signature.entities, strict=True):
        if key is None:
            missing = [signature.input(p).name for p in sorted(entity.positions) if p not in instance.given]
            if missing:
                raise _invalid(
                    f"field {entity.key!r} is missing; expected the key of a {entity.name}, or a value for each of"
                    f" {', '.join(missing)}",
                    number,
                    entity.key,
                )


def _key(name: str, value: Any, number: int | None) -> str:
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    raise _wrong(name, value, "a string that is not empty, or an integer", number)


def _value(item: Input, value: Any, number: int | None) -> Value:
    kind = type(value)
    if item.dtype == "float":
        if kind is float or kind is int:
            return float(value)
    elif kind.__name__ == item.dtype:
        return value  # type: ignore[no-any-return]
    if value is None and item.nullable:
        return None
    raise _wrong(item.name, value, EXPECTED[item.dtype] + (" or null" if item.nullable else ""), number)


def _wrong(name: str, value: Any, expected: str, number: int | None) -> InvalidRequest:
    shown = orjson.dumps(value).decode()
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return _invalid(f"field {name!r} is {shown}; expected {expected}", number, name)


def _invalid(detail: str, number: int | None, name: str | None = None) -> InvalidRequest:
    where = {} if number is None else {"instance": number}
    named = {} if name is None else {"field": name}
    return InvalidRequest(detail if number is None else f"instance {number}: {detail}", **where, **named)


def _json_type(value: Any) -> str:
    return JSON_TYPES.get(type(value), "true or false" if isinstance(value, bool) else "a number")
