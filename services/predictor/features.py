"""The stored features of the entities that instances name: read in one round trip, then put in the model's order."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import redis.exceptions
from redis.connection import Connection

from modelmill import times
from modelmill.columns.types import ERROR_LENGTH, SHOWN, let_stop
from modelmill.errors import CorruptFeature, InvalidRequest, MissingEntity, sentence
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.times import duration_text
from services.predictor.instances import EXPECTED, Instance
from services.predictor.signature import (
    AggregateInputs,
    ComputedInput,
    EntitySignature,
    Signature,
    StoredInput,
    Value,
)

EVENT_TIME = slice(27)
"""The event time in the times of a row."""

Lookup = tuple[int, str]
"""An entity, by its position in the signature, and its key."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is stored of one entity."""

    stored: Stored
    """Of its hash: the signature's `fields`."""
    tiles: list[Stored]
    """Of each of its aggregates' groups, as their reader asked."""


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


def read(store: OnlineStore, signature: Signature, wanted: Sequence[Lookup], t: int) -> dict[Lookup, Found]:
    """What is stored of each entity in `wanted` at time t, microseconds since 1970, in one round trip.

    Where nothing is wanted Redis is not asked.
    """
    if not wanted:
        return {}
    commands: list[tuple[str, ...]] = []
    for number, key in wanted:
        entity = signature.entities[number]
        if entity.fields:
            commands.append(("HMGET", keys.feature(entity.name, key), *entity.fields))
        for aggregates in entity.aggregates:
            commands.append(aggregates.reader.command(key, t))
    answers = iter(store.read(commands))
    return {
        lookup: Found(next(answers) if entity.fields else [], [next(answers) for _ in entity.aggregates])
        for lookup in wanted
        for entity in [signature.entities[lookup[0]]]
    }


def cutoffs(signature: Signature, now: datetime) -> Cutoffs:
    """Which event times are too old at `now`."""
    return [
        [times.cutoff(now, age) for age in entity.max_ages] if any(entity.max_ages) else ()
        for entity in signature.entities
    ]


def row(instance: Instance, signature: Signature, stored: Mapping[Lookup, Found], oldest: Cutoffs, t: int) -> Row:
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
            key = str(instance.keys[number])
            found = stored[number, key]
            times = found.stored[len(entity.inputs) :]
            if any(times):
                _decode(entity, key, found.stored, times, _expired(times, oldest[number]), instance, values)
                event_times[entity.name] = min(time[EVENT_TIME] for time in times if time)
            else:
                _defaults(entity, key, instance, signature, values)
                event_times[entity.name] = None
            for aggregates, tiles in zip(entity.aggregates, found.tiles, strict=True):
                _aggregate(entity, key, aggregates, tiles, signature, values, t)
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
        shown = ", ".join(f"{name}={value!r:.{SHOWN}}" for name, value in needs.items())
        raise InvalidRequest(
            f"{feature.kind} {feature.name!r} failed on {shown}: {sentence(error, ERROR_LENGTH)}."
            f" Give other values, or that of {feature.name!r}",
            field=feature.name,
        ) from None


def _expired(times: Stored, oldest: Sequence[str]) -> Sequence[int]:
    """The sources whose row is too old."""
    if not oldest:
        return ()
    return [source for source, time in enumerate(times) if time is not None and time < oldest[source]]


def _decode(
    entity: EntitySignature,
    key: str,
    found: Stored,
    times: Stored,
    expired: Sequence[int],
    instance: Instance,
    values: list[Value],
) -> None:
    for item, text in zip(entity.inputs, found, strict=False):
        if item.position in instance.given:
            continue
        if text is not None and item.source not in expired:
            try:
                values[item.position] = item.decode(text)
            except (ValueError, KeyError):
                raise CorruptFeature(entity.name, key, item.field, text, EXPECTED[item.dtype]) from None
        elif not item.nullable:
            _refuse_missing(entity, key, item, times, expired)


def _aggregate(
    entity: EntitySignature,
    key: str,
    aggregates: AggregateInputs,
    tiles: Stored,
    signature: Signature,
    values: list[Value],
    t: int,
) -> None:
    there = any(tiles)
    try:
        found = aggregates.reader.values(tiles, t)
    except (ValueError, KeyError, TypeError):
        raise CorruptFeature(entity.name, key, aggregates.reader.group, str(tiles), "tiles") from None
    for position, value in zip(aggregates.positions, found, strict=True):
        item = signature.input(position)
        values[position] = item.default if item.has_default and not there else value


def _refuse_missing(
    entity: EntitySignature, key: str, item: StoredInput, times: Stored, expired: Sequence[int]
) -> NoReturn:
    source, time = entity.sources[item.source], times[item.source]
    if time is None:
        reason = f"no row of source {source!r} has arrived"
    elif item.source in expired:
        limit = duration_text(entity.max_ages[item.source] or 0)
        reason = f"it is expired, since its newest row of source {source!r} is of {time[EVENT_TIME]}, over {limit} ago"
    else:
        reason = "its feature function failed, or its newest row had no value"
    raise InvalidRequest(
        f"feature {item.name!r} of {entity.name} {key!r} is missing: {reason}; expected {EXPECTED[item.dtype]}."
        " Mend its row, or give the value in the request",
        entity=entity.name,
        key=key,
        field=item.name,
    )


def _defaults(entity: EntitySignature, key: str, instance: Instance, signature: Signature, values: list[Value]) -> None:
    for item in entity.inputs:
        declared = signature.input(item.position)
        if declared.has_default:
            values[item.position] = declared.default
        elif item.position not in instance.given:
            raise MissingEntity(entity.name, key)


# --- reads the hashes of entities from the online store, all that a request needs in one round trip.

Stored = list[str | None]
"""The texts of the fields that were asked for; None for a field that is not there."""


class OnlineStore:
    """A connection for each thread that reads.

    A request spends a third of its time on this read. redis-py's pool, retries and dispatch would add a tenth of a
    request; its connections, which know about TLS, passwords and time limits, are what is used here.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._own = threading.local()

    def read(self, commands: Sequence[tuple[str, ...]]) -> list[Stored]:
        """What the HMGET `commands` answer; a connection that went stale is opened again, once.

        Raises:
            redis.exceptions.RedisError: where Redis is away, or a key holds no hash.
        """
        connection = self._connection()
        try:
            return _ask(connection, commands)
        except redis.exceptions.ConnectionError:
            return _ask(connection, commands)

    def close(self) -> None:
        """Close the calling thread's connection; that of a thread which ends is closed with it."""
        if (connection := getattr(self._own, "connection", None)) is not None:
            connection.disconnect()

    def _connection(self) -> Connection:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._pool.make_connection()
        return connection


def _ask(connection: Connection, commands: Sequence[tuple[str, ...]]) -> list[Stored]:
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # answers that were not read would be taken for those to the next question
        raise
