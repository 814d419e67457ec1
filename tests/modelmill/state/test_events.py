from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import EVENTS, Event, ModelPromoted, PredictionServed, RunStarted, parse

TEXT = st.text(st.characters(codec="utf-8"))
VALUES: dict[object, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(),
    float: st.floats(allow_nan=False),
    int | None: st.none() | st.integers(),
    list[str]: st.lists(TEXT),
    list[int]: st.lists(st.integers(-(2**53), 2**53)),
    dict[str, str]: st.dictionaries(TEXT, TEXT),
    list[list[str]]: st.lists(st.lists(TEXT)),
    dict[str, list[str | None]]: st.dictionaries(TEXT, st.lists(st.none() | TEXT)),
    list[Any]: st.lists(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT),
    dict[str, float]: st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False)),
    dict[str, list[Any]]: st.dictionaries(TEXT, st.lists(st.none() | st.integers(-(2**53), 2**53) | TEXT)),
}
"""Type of an event's field to values of it."""


def examples(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{item.name: VALUES[hints[item.name]] for item in fields(kind)})


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
@given(data=st.data())
def test_an_event_is_the_same_after_a_way_through_stream_fields(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(examples(kind))
    entry = event.to_fields()
    assert parse(entry) == event
    assert all(isinstance(text, str) for text in entry.values())


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
@given(data=st.data())
def test_an_entry_has_the_attributes_of_a_cloud_event(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(examples(kind))
    entry = event.to_fields()
    assert {"specversion", "id", "source", "type", "time", "subject"} <= entry.keys()
    assert (entry["specversion"], entry["type"]) == ("1.0", kind.type)
    assert entry["subject"] == str(getattr(event, kind.subject))


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_an_event_goes_to_a_stream_that_keys_names(kind: type[Event]) -> None:
    assert kind.stream in {value for name, value in vars(keys).items() if name.startswith("EVENTS_")}


def test_an_event_is_the_same_after_a_way_through_redis(fake_redis: Redis) -> None:
    event = ModelPromoted(model="m", alias="champion", version=2, previous=None, by="tést", reason="")
    bus.append(fake_redis, event)
    assert [found for _, found in bus.newest(fake_redis, keys.EVENTS_MODELS, 1)] == [event]


def test_an_entry_of_a_newer_kind_is_no_event() -> None:
    assert parse({"type": "model.exploded", "id": "1"}) is None


def test_fields_of_a_newer_version_are_left_out() -> None:
    event = RunStarted(model="m", run="r", trigger="manual")
    assert parse(event.to_fields() | {"mood": "good"}) == event


@pytest.mark.parametrize(
    "damage", [{"version": "two"}, {"latency_ms": ""}, {"features": "{"}], ids=lambda damage: next(iter(damage))
)
def test_an_entry_with_a_broken_value_is_refused_by_type_and_id(damage: dict[str, str]) -> None:
    event = PredictionServed(id="7", model="m", version=1, latency_ms=1.0, rows=1, features={}, predictions=[])
    with pytest.raises(ValueError, match=r"unreadable prediction.served event '7'"):
        parse(event.to_fields() | damage)


def test_an_entry_that_lacks_a_field_is_refused_by_its_name() -> None:
    entry = RunStarted(model="m", run="r", trigger="manual").to_fields()
    del entry["run"]
    with pytest.raises(ValueError, match="'run'"):
        parse(entry)
