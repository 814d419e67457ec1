"""The stored features of the entities that instances name: read in one round trip, then put in the model's order."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import redis.exceptions
from redis.connection import AbstractConnection

from modelmill.columns.types import ERROR_LENGTH, MAX_SHOWN_CHARACTERS, let_stop
from modelmill.errors import InvalidRequest, MissingEntity, sentence
from modelmill.state import online
from modelmill.state.connections import Redis, ask
from modelmill.state.online import Command, StoredEntity, Texts
from modelmill.times import duration_text
from services.predictor.instances import EXPECTED, Instance
from services.predictor.signature import ComputedInput, EntitySignature, Signature, Value

Lookup = tuple[int, str]
"""An entity, by its position in the signature, and its key."""


Cutoffs = Sequence[Sequence[str]]
"""Of each entity of the signature, the earliest event time of each source that is not expired; empty where none is."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values that go into the model for one instance."""

    values: list[Value]
    """In the order of the model's inputs."""
    event_times: dict[str, str | None]
    """Entity that was looked up to the oldest event time of its sources, or None where defaults stand for it."""


def lookups(instances: Sequence[Instance], signature: Signature) -> list[Lookup]:
    """What has to be read for `instances`, each entity once."""
    wanted: dict[Lookup, None] = {}
    for number, entity in enumerate(signature.entities):
        for instance in instances:
            if instance.needs(number, entity):
                wanted[number, instance.keys[number]] = None  # type: ignore[index]  # needs() has seen the key
    return list(wanted)


def read(store: OnlineStore, signature: Signature, wanted: Sequence[Lookup], t: int) -> dict[Lookup, StoredEntity]:
    """What is stored of each entity in `wanted` at time t, microseconds since 1970, in one round trip.

    Where nothing is wanted Redis is not asked.
    """
    readers = [(signature.entities[number].reader, key) for number, key in wanted]
    return dict(zip(wanted, online.read(store.read, readers, t), strict=True))


def cutoffs(signature: Signature, now: datetime) -> Cutoffs:
    """Which event times are too old at `now`."""
    return [entity.reader.cutoffs(now) for entity in signature.entities]


def row(
    instance: Instance, signature: Signature, stored: Mapping[Lookup, StoredEntity], oldest: Cutoffs, t: int
) -> Row:
    """The values of all inputs for `instance`: given, else stored, else the default of an entity that is not there.

    Inputs that are computed from others come last. What is older than `oldest` counts as missing; the windows of
    aggregates are those of time t.

    Raises:
        MissingEntity: for an entity that is not there, where a feature of it is neither given nor has a default.
        InvalidRequest: for a feature without a value that the model needs.
        CorruptFeature: for a stored text that is no value of the feature's type.
    """
    fed = len(signature.inputs)
    values: list[Value] = [None] * (fed + len(signature.auxiliary))
    event_times: dict[str, str | None] = {}
    for number, entity in enumerate(signature.entities):
        if instance.needs(number, entity):
            found = stored[number, str(instance.keys[number])]
            times = found.times()
            if any(times):
                _stored(entity, found, times, oldest[number], instance, values)
                event_times[entity.name] = min(filter(None, times))[online.EVENT_TIME]
            else:
                _defaults(entity, found.key, instance, signature, values)
                event_times[entity.name] = None
            if entity.aggregates:
                _aggregates(entity, found, signature, values, t)
    for position, value in instance.given.items():
        values[position] = value
    for computed in signature.computed:
        if computed.position not in instance.given:
            values[computed.position] = _compute(computed, values)
    fed_values = values[:fed] if signature.auxiliary else values
    if None in fed_values:
        _require(signature, fed_values)
    return Row(fed_values, event_times)


def _require(signature: Signature, values: Sequence[Value]) -> None:
    """Refuse a row that lacks what the model needs, though it may be missing as it is declared."""
    for item, value in zip(signature.inputs, values, strict=True):
        if value is None and not item.nullable:
            origin = "the windows that it is read from hold nothing" if item.tiles else "what it is computed from lacks"
            raise InvalidRequest(
                f"input {item.name!r} has no value, for {origin}, and the model has no answer without one; expected"
                f" {EXPECTED[item.dtype]}. Give it in the request",
                field=item.name,
            )


def _compute(computed: ComputedInput, values: Sequence[Value]) -> Value:
    """The value of a computed input.

    None where a need lacks a value, or its function fails, and the model takes a missing value; a training frame has
    null there too.
    """
    if any(values[position] is None for position in computed.required):
        return None
    needs = {need: values[position] for need, position in computed.needs}
    feature = computed.feature
    try:
        value: Value = feature.compute(needs)
        return value
    except BaseException as error:
        let_stop(error)
        if feature.column.nullable:
            return None
        shown = ", ".join(f"{name}={value!r:.{MAX_SHOWN_CHARACTERS}}" for name, value in needs.items())
        raise InvalidRequest(
            f"{feature.kind} {feature.name!r} failed on {shown}: {sentence(error, ERROR_LENGTH)}."
            f" Give other values, or that of {feature.name!r}",
            field=feature.name,
        ) from None


def _stored(
    entity: EntitySignature,
    found: StoredEntity,
    times: Sequence[str | None],
    oldest: Sequence[str],
    instance: Instance,
    values: list[Value],
) -> None:
    hidden = online.hidden(times, oldest)
    numbers = entity.numbers
    unread = [numbers[position] for position in instance.given if position in numbers]
    for number, value in enumerate(found.values(hidden, unread)):
        if value is None and not entity.nullable[number] and number not in unread:
            _refuse_missing(found, number, times, hidden)
        values[entity.inputs[number]] = value


def _aggregates(
    entity: EntitySignature, found: StoredEntity, signature: Signature, values: list[Value], t: int
) -> None:
    for positions, tiles, read in zip(entity.aggregates, found.tiles, found.aggregates(t), strict=True):
        there = any(tiles)
        for position, value in zip(positions, read, strict=True):
            item = signature.input(position)
            values[position] = item.default if item.has_default and not there else value


def _refuse_missing(found: StoredEntity, number: int, times: Sequence[str | None], hidden: Collection[int]) -> NoReturn:
    reader, feature = found.reader, found.reader.features[number]
    source_number = reader.source_numbers[number]
    time = times[source_number]
    if time is None:
        reason = f"no row of source {feature.source!r} has arrived"
    elif source_number in hidden:
        limit = duration_text(reader.max_ages[feature.source] or 0)
        reason = (
            f"it is expired, since its newest row of source {feature.source!r} is of {time[online.EVENT_TIME]}, over"
            f" {limit} ago"
        )
    else:
        reason = "its feature function failed, or its newest row had no value"
    raise InvalidRequest(
        f"feature {feature.name!r} of {reader.entity} {found.key!r} is missing: {reason}; expected"
        f" {EXPECTED[feature.dtype]}. Mend its row, or give the value in the request",
        entity=reader.entity,
        key=found.key,
        field=feature.name,
    )


def _defaults(entity: EntitySignature, key: str, instance: Instance, signature: Signature, values: list[Value]) -> None:
    for position in entity.inputs:
        declared = signature.input(position)
        if declared.has_default:
            values[position] = declared.default
        elif position not in instance.given:
            raise MissingEntity(entity.name, key)


# --- reads the hashes of entities from the online store, all that a request needs in one round trip.


class OnlineStore:
    """A connection for each thread that reads.

    A request spends a third of its time on this read. redis-py's pool, retries and dispatch would add a tenth of a
    request; its connections, which know about TLS, passwords and time limits, are what is used here.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._own = threading.local()

    def read(self, commands: Sequence[Command]) -> list[Texts]:
        """What the HMGET `commands` answer; a connection that went stale is opened again, once.

        Raises:
            redis.exceptions.RedisError: where Redis is away, or a key holds no hash.
        """
        connection = self._connection()
        try:
            return ask(connection, commands)
        except redis.exceptions.ConnectionError:
            return ask(connection, commands)

    def close(self) -> None:
        """Close the calling thread's connection; that of a thread which ends is closed with it."""
        if (connection := getattr(self._own, "connection", None)) is not None:
            connection.disconnect()

    def _connection(self) -> AbstractConnection:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._pool.make_connection()
        return connection
