"""The online store: one readable Redis hash an entity, written so that an older row never overwrites a newer one.

Which of two rows is newer is decided in Redis, by their event times, and of equal ones by their ingest times, whatever
the order in which they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.declarations import Source
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.declare.features import Aggregate
from modelmill.state import keys
from modelmill.state import online as entities
from modelmill.state.connections import Redis, ask, ask_ahead, pooled
from modelmill.state.online import EntityReader, Status, StoredEntity, StoredFeature, TileReader
from modelmill.times import micros
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME
from services.feature.store.history import INGEST_TIME

ENTITIES_PER_CALL = 250
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
    script = redis.script_load(UPSERT)

    def calls() -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(ids), ENTITIES_PER_CALL):
            batch = newest.slice(start, ENTITIES_PER_CALL)
            hashes = [keys.feature(entity, one) for one in ids[start : start + ENTITIES_PER_CALL]]
            columns = [_times(batch), batch[FAILED], *(batch[field] for field in fields)]
            for first, last, content in _parts(len(hashes), [_texts(column) for column in columns]):
                firsts.append(start + first)
                yield ("EVALSHA", script, last - first, *hashes[first:last], names, content)

    answers = enumerate(ask_ahead(redis, calls(), IN_FLIGHT))
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
    """What is stored online of one entity, as a moment sees it."""

    features: dict[str, Any]
    """Every feature that its sources declare; None where the value is missing or expired."""
    event_times: dict[str, str]
    """Source to the event time of the row that its values come from."""
    ingest_times: dict[str, str]
    """Source to the ingest time of that row."""
    failed: dict[str, str]
    """Feature that has no value because its function failed on that row to its error; without those of expired rows."""
    expired: list[str]
    """Sources whose row is older than they allow."""
    stored: StoredEntity

    @property
    def there(self) -> bool:
        """Whether a row has arrived."""
        return bool(self.event_times) or any(map(any, self.stored.tiles))

    def answer(self) -> dict[str, Any]:
        """What a request without `detail` is told."""
        return {
            "features": self.features,
            "event_times": self.event_times,
            "ingest_times": self.ingest_times,
            "failed": self.failed,
        }


def read(redis: Redis, definitions: Definitions, entity: str, ids: Sequence[str], now: datetime) -> list[OnlineEntity]:
    """The stored features of each id as `now` sees them, in one round trip.

    Raises:
        CorruptFeature: for a stored text that is no value of the feature's type, no time, no error or no tile.
    """
    reader, aggregates = _reader(definitions, entity)
    cutoffs, t = reader.cutoffs(now), micros(now)
    with pooled(redis) as connection:
        found = entities.read(partial(ask, connection), [(reader, key) for key in ids], t)
    return [_entity(stored, aggregates, cutoffs, t) for stored in found]


def _reader(definitions: Definitions, entity: str) -> tuple[EntityReader, list[str]]:
    """Reads the features of an entity; and the names of its aggregates, as they are read."""
    features: dict[str, list[StoredFeature]] = {}
    groups: dict[str, list[Aggregate]] = {}
    for ref in definitions.features_of(entity).values():
        if ref.aggregate is None:
            one = StoredFeature(ref.name, ref.field, ref.column.dtype, ref.source)
            features.setdefault(ref.source, []).append(one)
        else:
            groups.setdefault(definitions.tile_group(ref.aggregate).name, []).append(ref.aggregate)
    reader = EntityReader(
        entity,
        tuple(chain.from_iterable(features.values())),
        {source: definitions.source(source).max_age for source in features},
        tuple(TileReader(group, tuple(one.reading for one in found)) for group, found in groups.items()),
        full=True,
    )
    return reader, [one.name for found in groups.values() for one in found]


def _entity(stored: StoredEntity, aggregates: Sequence[str], cutoffs: Sequence[str], t: int) -> OnlineEntity:
    reader, times = stored.reader, stored.times()
    hidden = entities.hidden(times, cutoffs)
    values, of_tiles = stored.values(hidden), chain.from_iterable(stored.aggregates(t))
    judged = zip(reader.features, reader.source_numbers, values, stored.errors(), strict=True)
    failed = {
        feature.name: error
        for feature, number, value, error in judged
        if error is not None and value is None and number not in hidden
    }
    named = {source: text for source, text in zip(reader.sources, times, strict=True) if text is not None}
    return OnlineEntity(
        dict(zip([*(one.name for one in reader.features), *aggregates], [*values, *of_tiles], strict=True)),
        {source: text[entities.EVENT_TIME] for source, text in named.items()},
        {source: text[entities.INGEST_TIME] for source, text in named.items()},
        failed,
        [reader.sources[number] for number in hidden if times[number] is not None],
        stored,
    )


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


@dataclass(frozen=True, slots=True)
class Detail:
    """One feature value; times and age are those of its source's row, None without one and for aggregates, which are of
    many rows and whose window says what is too old."""

    value: Any
    status: Status
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
    return {ref.name: _detail(found, ref, "" if ref.aggregate else ref.source, ages) for ref in refs}


def _detail(found: OnlineEntity, ref: FeatureRef, row: str, ages: Mapping[str, float]) -> Detail:
    """One feature, with the times of the row of the source `row`."""
    value, error = found.features[ref.name], found.failed.get(ref.name)
    return Detail(
        value,
        entities.status(value, error, expired=row in found.expired),
        ages.get(row),
        found.event_times.get(row),
        found.ingest_times.get(row),
        ref.source,
        error,
    )
