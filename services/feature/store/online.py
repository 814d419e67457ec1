"""The online store: one readable Redis hash an entity, written so that an older row never overwrites a newer one.

Which of two rows is newer is decided in Redis, by their event times, and of equal ones by their ingest times, whatever
the order in which they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.columns.types import READ
from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.declare.features import Aggregate
from modelmill.errors import CorruptFeature
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.online import TileReader
from modelmill.times import micros
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME, EXPECTED
from services.feature.store.history import INGEST_TIME

BATCH = 250
"""Entities written by one call of the script at most: enough to save round trips."""
BATCH_COST = 3500
"""Fields written by one call of the script at most, times and failures included, unless one entity has more: 5 to 13 ms
of Redis, which answers nobody meanwhile."""
SLOW_FIELDS = 1000
"""So many fields make each field of an entity cost twice as much: Redis looks through a compact hash for each."""
FIELD_BYTES = 400
"""Bytes of values that cost Redis as much as one more field."""
IN_FLIGHT = 4
"""Calls that are on their way at once: Redis writes one batch while the next is put into words here."""
SCAN = 1000
"""Hashes looked at in one step where fields are removed."""

UPSERT = """
-- KEYS: the hash of each entity. ARGV: the names of its fields, the first the one with the row's times; then, for each
-- field, the list of its values: text, or null where there is none. Both as JSON. A hash that holds a newer row is left
-- as it is. Times are text of fixed width, so they compare as text. Returns the positions of the hashes left.
local fields, columns, late = cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), {}
local call, null, present = redis.call, cjson.null, {} -- one table for all hashes: growing a new one for each is slow
for i, key in ipairs(KEYS) do
  local stored = call('HGET', key, fields[1])
  if not stored or stored <= columns[1][i] then
    local count, absent = 0, {}
    for j, field in ipairs(fields) do
      local value = columns[j][i]
      if value == null then
        absent[#absent + 1] = field
      else
        present[count + 1], present[count + 2] = field, value
        count = count + 2
      end
    end
    call('HSET', key, unpack(present, 1, count))
    if #absent > 0 then call('HDEL', key, unpack(absent)) end
  else
    late[#late + 1] = i
  end
end
return late
"""


def write(redis: Redis, source: Source, fields: Sequence[str], table: pa.Table) -> int:
    """Write the newest row of each entity in `table`; returns the number of rows that came late.

    `table` has the entity's key, `_event_time`, `_ingest_time`, `_failed` and `fields`; those that it lacks are missing
    in all its rows: a column that was not declared for a while keeps no value of an older row. Late are the rows of
    entities of which a newer row than these was there already.
    """
    assert source.entity is not None
    entity, key = source.entity.name, source.entity.key
    for field in [field for field in fields if field not in table.column_names]:
        table = table.append_column(field, pa.nulls(table.num_rows, pa.string()))
    newest = _newest_per_key(table, key)
    ids = newest[key].to_pylist()
    names = orjson.dumps([keys.time_field(source.name), keys.failed_field(source.name), *fields])

    firsts: list[int] = []

    def calls() -> Iterator[tuple[list[str], list[bytes]]]:
        for start in range(0, len(ids), BATCH):
            batch = newest.slice(start, BATCH)
            hashes = [keys.feature(entity, one) for one in ids[start : start + BATCH]]
            columns = [_times(batch), batch[FAILED], *(batch[field] for field in fields)]
            for first, last, content in _parts(len(hashes), [_texts(column) for column in columns]):
                firsts.append(start + first)
                yield hashes[first:last], [names, content]

    answers = enumerate(_run(redis, UPSERT, calls()))
    refused = [ids[firsts[call] + position - 1] for call, late in answers for position in late]
    return int(pc.sum(pc.is_in(table[key], pa.array(refused, pa.string()))).as_py() or 0) if refused else 0


def _parts(count: int, columns: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """The columns of `count` entities, each a JSON list of texts, in parts that Redis writes fast enough: of each the
    first entity, the one after the last, and its columns."""
    fields = len(columns) * (1 + len(columns) / SLOW_FIELDS)
    if count * fields + sum(map(len, columns)) / FIELD_BYTES <= BATCH_COST or count == 1:
        yield 0, count, b"[%b]" % b",".join(columns)
        return
    texts: list[list[str | None]] = [orjson.loads(column) for column in columns]
    first, cost = 0, 0.0
    for at, row in enumerate(zip(*texts, strict=True)):
        own = fields + sum(len(text) for text in row if text is not None) / FIELD_BYTES
        if at > first and cost + own > BATCH_COST:
            yield first, at, orjson.dumps([column[first:at] for column in texts])
            first, cost = at, 0.0
        cost += own
    yield first, count, orjson.dumps([column[first:] for column in texts])


def _run(redis: Redis, script: str, calls: Iterator[tuple[list[str], list[bytes]]]) -> Iterator[Any]:
    """The answers to calls of a script, in their order; several calls are on their way at once."""
    sha = redis.script_load(script)
    pool = redis.connection_pool
    connection = pool.get_connection()
    waiting = 0
    try:
        for names, arguments in calls:
            connection.send_command("EVALSHA", sha, len(names), *names, *arguments)
            waiting += 1
            if waiting == IN_FLIGHT:
                waiting -= 1
                yield connection.read_response()
        while waiting:
            waiting -= 1
            yield connection.read_response()
    except BaseException:
        connection.disconnect()  # answers that were not read would be taken for those to the next question
        raise
    finally:
        pool.release(connection)


def remove(redis: Redis, entity: str, fields: Collection[str]) -> None:
    """Remove fields from the hashes of all entities, a step at a time, so that others are served in between."""
    step: deque[str] = deque()
    for name in redis.scan_iter(match=keys.feature(entity, "*"), count=SCAN):
        step.append(name)
        if len(step) == SCAN:
            _remove(redis, step, fields)
    _remove(redis, step, fields)


def _remove(redis: Redis, step: deque[str], fields: Collection[str]) -> None:
    with redis.pipeline(transaction=False) as pipe:
        while step:
            pipe.hdel(step.popleft(), *fields)
        pipe.execute()


@dataclass(frozen=True, slots=True)
class OnlineEntity:
    """What is stored online of one entity."""

    features: dict[str, Any]
    """Every feature that its sources declare; None where the value is missing or expired."""
    event_times: dict[str, str]
    """Source to the event time of the row that its values come from."""
    ingest_times: dict[str, str]
    """Source to the ingest time of that row."""
    failed: dict[str, str]
    """Feature whose function failed on that row to its error; without those of expired rows."""
    expired: list[str]
    """Sources whose row is older than they allow."""

    def answer(self) -> dict[str, Any]:
        """What a request without `detail` is told."""
        return {
            "features": self.features,
            "event_times": self.event_times,
            "ingest_times": self.ingest_times,
            "failed": self.failed,
        }


def read(
    redis: Redis, definitions: Definitions, entity: str, ids: Sequence[str], now: datetime
) -> list[OnlineEntity | None]:
    """The stored features of each id as `now` sees them, in one round trip; None where no row has arrived.

    Raises:
        CorruptFeature: for a stored text that is no value of the feature's type, or no tile.
    """
    sources = [_Reader.of(definitions, name, refs, now) for name, refs in _by_source(definitions, entity).items()]
    fields = [field for source in sources for field in source.fields]
    aggregates = _Aggregates(definitions, entity, now)
    commands: list[tuple[str, ...]] = []
    for key in ids:
        commands += [("HMGET", keys.feature(entity, key), *fields)] if fields else []
        commands += aggregates.commands(key)
    answers = iter(_ask(redis, commands))
    found = []
    for key in ids:
        read = _entity(entity, key, next(answers) if fields else [], sources)
        there = aggregates.add(read, key, answers)
        found.append(read if there or read.event_times else None)
    return found


class _Aggregates:
    """Reads an entity's windowed aggregates, a command for each group of tiles."""

    def __init__(self, definitions: Definitions, entity: str, now: datetime) -> None:
        self._entity = entity
        self._time = micros(now)
        groups: dict[str, list[Aggregate]] = {}
        for aggregate in definitions.aggregates.get(entity, {}).values():
            groups.setdefault(definitions.tile_group(aggregate).name, []).append(aggregate)
        self._readers = [
            (TileReader(group, tuple(one.reading for one in found)), [one.name for one in found])
            for group, found in groups.items()
        ]

    def commands(self, key: str) -> list[tuple[str, ...]]:
        return [reader.command(key, self._time) for reader, _ in self._readers]

    def add(self, read: OnlineEntity, key: str, answers: Iterator[list[str | None]]) -> bool:
        """Add the values to `read`; whether there were any tiles."""
        there = False
        for reader, names in self._readers:
            texts = next(answers)
            there |= any(texts)
            try:
                read.features.update(zip(names, reader.values(texts, self._time), strict=True))
            except (ValueError, KeyError, TypeError):
                text = ", ".join(filter(None, texts))
                raise CorruptFeature(self._entity, key, reader.group, text, "tiles") from None
        return there


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is read of an entity's hash for one source: the times of its row, what failed on it, then its values."""

    source: str
    cutoff: str
    values: list[tuple[str, str, Callable[[str], Any], str]]
    """Name, field, what reads its text, and what that is expected to be."""
    fields: list[str]

    @classmethod
    def of(cls, definitions: Definitions, source: str, refs: Sequence[FeatureRef], now: datetime) -> _Reader:
        values = [(ref.name, ref.field, READ[ref.column.dtype], EXPECTED[ref.column.dtype]) for ref in refs]
        fields = [keys.time_field(source), keys.failed_field(source), *(ref.field for ref in refs)]
        return cls(source, times.cutoff(now, definitions.source(source).max_age), values, fields)


def _by_source(definitions: Definitions, entity: str) -> dict[str, list[FeatureRef]]:
    found: dict[str, list[FeatureRef]] = {}
    for ref in definitions.features_of(entity).values():
        if ref.aggregate is None:
            found.setdefault(ref.source, []).append(ref)
    return found


def _ask(redis: Redis, commands: Sequence[tuple[str, ...]]) -> list[list[str | None]]:
    """The answers to `commands`, sent together; redis-py's pipeline would take twice as long for a hundred of them."""
    pool = redis.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # answers that were not read would be taken for those to the next question
        raise
    finally:
        pool.release(connection)


def _entity(entity: str, key: str, found: Sequence[str | None], sources: Sequence[_Reader]) -> OnlineEntity:
    read = OnlineEntity({}, {}, {}, {}, [])
    at = 0
    for source in sources:
        times, failed, *texts = found[at : at + len(source.fields)]
        at += len(source.fields)
        if times is not None:
            read.event_times[source.source], _, read.ingest_times[source.source] = times.partition(" ")
        if times is None or times < source.cutoff:
            read.features.update(dict.fromkeys([value[0] for value in source.values]))
            if times is not None:
                read.expired.append(source.source)
            continue
        for (name, field, decode, expected), text in zip(source.values, texts, strict=True):
            try:
                read.features[name] = None if text is None else decode(text)
            except (ValueError, KeyError):
                raise CorruptFeature(entity, key, field, str(text), expected) from None
        if failed is not None:
            errors = orjson.loads(failed)
            read.failed.update({name: errors[field] for name, field, *_ in source.values if field in errors})
    return read


def _newest_per_key(table: pa.Table, key: str) -> pa.Table:
    times = table[EVENT_TIME].cast(pa.int64()).to_numpy()
    order = np.argsort(times, kind="stable")  # rows are in the order of their ingest
    ids = table[key].to_pylist()
    last = {ids[i]: i for i in order}
    return table.take(pa.array(np.fromiter(last.values(), np.int64, len(last))))


def _times(table: pa.Table) -> pa.ChunkedArray:
    """Event time and ingest time of each row as one text."""
    return pc.binary_join_element_wise(_iso(table[EVENT_TIME]), _iso(table[INGEST_TIME]), " ")


def _iso(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as ISO texts of 27 characters; a cast writes them thirty times as fast as `strftime`."""
    texts = times.cast(pa.timestamp("us")).cast(pa.string())  # 2013-01-31 05:00:00.000000
    return pc.binary_replace_slice(pc.binary_replace_slice(texts, 10, 11, "T"), 26, 26, "Z")


def _texts(column: pa.ChunkedArray) -> bytes:
    """Values as they shall stand in the hash, as a JSON list: each a text, or null.

    JSON writes a number as the shortest text that reads back as the same; in quotes it reaches the hash unchanged.
    """
    listed: bytes = orjson.dumps(column.to_pylist())
    if pa.types.is_string(column.type):
        return listed
    quoted = b'["%b"]' % listed[1:-1].replace(b",", b'","')
    return quoted.replace(b'"null"', b"null")


# --- why each feature value of an entity is there or not, how old it is, and which row it comes from.

Status = Literal["present", "missing", "expired", "failed"]


@dataclass(frozen=True, slots=True)
class Detail:
    """One feature value; times and age are those of its source's row, None without one and for aggregates."""

    value: Any
    status: Status
    """`missing`: no row has arrived, or it has no value; `expired`: it is too old; `failed`: the function failed."""
    age_seconds: float | None
    event_time: str | None
    ingest_time: str | None
    source: str
    error: str | None
    """Why the function failed."""


def details(found: OnlineEntity, refs: Iterable[FeatureRef], now: datetime) -> dict[str, Detail]:
    """Each of the features `refs` of an entity, as `now` sees it."""
    ages = {
        source: round((now - datetime.fromisoformat(time)).total_seconds(), 3)
        for source, time in found.event_times.items()
    }
    return {ref.name: _of_window(found, ref) if ref.aggregate else _of_row(found, ref, ages) for ref in refs}


def _of_row(found: OnlineEntity, ref: FeatureRef, ages: Mapping[str, float]) -> Detail:
    value, error = found.features[ref.name], found.failed.get(ref.name)
    status: Status = "missing" if value is None else "present"
    if ref.source in found.expired:
        status = "expired"
    elif error is not None:
        status = "failed"
    event_time, ingest_time = found.event_times.get(ref.source), found.ingest_times.get(ref.source)
    return Detail(value, status, ages.get(ref.source), event_time, ingest_time, ref.source, error)


def _of_window(found: OnlineEntity, ref: FeatureRef) -> Detail:
    """An aggregate is of many rows: it has no time of its own, and its window says what is too old."""
    value = found.features[ref.name]
    return Detail(value, "missing" if value is None else "present", None, None, None, ref.source, None)
