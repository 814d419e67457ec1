"""The online store: one readable Redis hash an entity, written so that an older row never overwrites a newer one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import keys
from modelmill.connections import Redis
from modelmill.declarations import Source
from modelmill.definitions import Definitions
from modelmill.errors import CorruptFeature
from services.feature.derive import FAILED
from services.feature.validate import EVENT_TIME, EXPECTED

BATCH = 250
"""Entities written by one call of the script: enough to save round trips, and Redis answers others in between."""

READ: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": {"true": True, "false": False}.__getitem__,
    "str": str,
}
"""Column type to what reads its text."""

UPSERT = """
-- KEYS: the hash of each entity. ARGV: the names of its fields, the first the one with the event time; then, for each
-- field, the list of its values: text, or null where there is none. Both as JSON. A hash that holds a newer event time
-- is left as it is; equal times: the later write wins. Times are text of fixed width, so they compare as text.
local fields, columns, written = cjson.decode(ARGV[1]), cjson.decode(ARGV[2]), 0
for i, key in ipairs(KEYS) do
  local stored = redis.call('HGET', key, fields[1])
  if not stored or stored <= columns[1][i] then
    local present, absent = {}, {}
    for j, field in ipairs(fields) do
      local value = columns[j][i]
      if value == cjson.null then
        absent[#absent + 1] = field
      else
        present[#present + 1] = field
        present[#present + 1] = value
      end
    end
    redis.call('HSET', key, unpack(present))
    if #absent > 0 then redis.call('HDEL', key, unpack(absent)) end
    written = written + 1
  end
end
return written
"""


def event_time_field(source: str) -> str:
    """The field of an entity's hash that says how new its values from `source` are."""
    return f"{EVENT_TIME}.{source}"


def failed_field(source: str) -> str:
    """The field of an entity's hash that names the features of `source` that failed, with their errors."""
    return f"{FAILED}.{source}"


def write(redis: Redis, source: Source, columns: Sequence[str], table: pa.Table) -> int:
    """Write the newest row of each entity in `table` and return how many entities took it.

    `table` has the entity's key, `columns`, `_event_time` and `_failed`; of equal event times the later row counts.
    """
    assert source.entity is not None
    newest = _newest_per_key(table, source.entity.key)
    hashes = [keys.feature(source.entity.name, key) for key in newest[source.entity.key].to_pylist()]
    fields = orjson.dumps([event_time_field(source.name), failed_field(source.name), *columns])
    newest = newest.select([EVENT_TIME, FAILED, *columns])
    script = redis.register_script(UPSERT)
    written = 0
    for start in range(0, len(hashes), BATCH):
        values = b",".join(_texts(column) for column in newest.slice(start, BATCH).itercolumns())
        written += script(keys=hashes[start : start + BATCH], args=[fields, b"[%b]" % values])
    return written


@dataclass(frozen=True)
class OnlineEntity:
    """What is stored online of one entity."""

    features: dict[str, Any]
    """Every feature that its sources declare; None where the value is missing."""
    event_times: dict[str, str]
    """Source to the event time of the row that its values come from."""
    failed: dict[str, str]
    """Source to the features of that row whose functions failed, with their errors."""


def read(redis: Redis, definitions: Definitions, entity: str, ids: Sequence[str]) -> list[OnlineEntity | None]:
    """The stored features of each id, in one round trip; None where nothing is stored.

    Raises:
        CorruptFeature: for a stored text that is no value of the feature's type.
    """
    columns = {name: ref.column.dtype for name, ref in definitions.features_of(entity).items()}
    with redis.pipeline(transaction=False) as pipe:
        for key in ids:
            pipe.hgetall(keys.feature(entity, key))
        found = pipe.execute()
    return [_entity(entity, key, one, columns) if one else None for key, one in zip(ids, found, strict=True)]


def _entity(entity: str, key: str, found: Mapping[str, str], columns: Mapping[str, str]) -> OnlineEntity:
    def of(prefix: str) -> dict[str, str]:
        return {name[len(prefix) + 1 :]: value for name, value in found.items() if name.startswith(f"{prefix}.")}

    features: dict[str, Any] = {}
    for name, dtype in columns.items():
        text = found.get(name)
        try:
            features[name] = None if text is None else READ[dtype](text)
        except (ValueError, KeyError):
            raise CorruptFeature(entity, key, name, str(text), EXPECTED[dtype]) from None
    return OnlineEntity(features, of(EVENT_TIME), of(FAILED))


def _newest_per_key(table: pa.Table, key: str) -> pa.Table:
    times = table[EVENT_TIME].cast(pa.int64()).to_numpy()
    order = np.argsort(times, kind="stable")
    ids = table[key].to_pylist()
    last = {ids[i]: i for i in order}
    return table.take(pa.array(np.fromiter(last.values(), np.int64, len(last))))


def _texts(column: pa.ChunkedArray) -> bytes:
    """Values as they shall stand in the hash, as a JSON list: each a text, or null.

    JSON writes a number as the shortest text that reads back as the same; in quotes it reaches the hash unchanged.
    """
    if pa.types.is_timestamp(column.type):
        column = pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")  # seconds with 6 decimals
    listed: bytes = orjson.dumps(column.to_pylist())
    if pa.types.is_string(column.type):
        return listed
    quoted = b'["%b"]' % listed[1:-1].replace(b",", b'","')
    return quoted.replace(b'"null"', b"null")
