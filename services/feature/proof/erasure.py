"""Find and erase what is stored of one entity in each place: history, online store, tiles, quarantine, predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.declarations import Entity
from modelmill.declare.definitions import Definitions
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionFailed, PredictionServed
from modelmill.storage import Storage
from modelmill.times import iso
from modelmill.windows import TileGroup
from services.feature.proof.served import pages
from services.feature.rows.schema import TIME
from services.feature.store import history
from services.feature.store.backfill import Computed

Groups = Mapping[str, Collection[TileGroup]]
"""Source to the groups of tiles that its rows are added to."""
SCAN = 1000
"""Keys that Redis looks at in one step of a scan."""
ERASE = """
-- KEYS: the hash of an entity. ARGV: an ingest time; source to its fields, as JSON; '1' to only count.
-- Removes all fields but those of sources whose row was ingested later. Returns how many these are.
local kept = {}
for source, fields in pairs(cjson.decode(ARGV[2])) do
  local time = redis.call('HGET', KEYS[1], fields[1])
  if time and string.sub(time, 29) > ARGV[1] then
    for _, field in ipairs(fields) do kept[field] = true end
  end
end
local count = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if not kept[field] then
    count = count + 1
    if ARGV[3] ~= '1' then redis.call('HDEL', KEYS[1], field) end
  end
end
return count
"""


REPLACE = """
-- KEYS: a hash. ARGV: a field and its new value. Sets it only if it is still there.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
"""


@dataclass(frozen=True)
class Target:
    """The entity to erase: what came in until `until`. What is ingested later is of a new life."""

    entity: Entity
    key: str
    until: datetime

    @property
    def rows(self) -> pc.Expression:
        """That a row names the entity and had come in by then."""
        named = pc.field(self.entity.key) == pa.scalar(self.key)
        known = pc.field(history.INGEST_TIME) <= pa.scalar(self.until, TIME)
        return pc.coalesce(named & known, pa.scalar(False))

    def is_in(self, text: str) -> bool:
        """Whether the key is anywhere in a text, be it as CSV or JSON spells it."""
        spelled = (self.key, self.key.replace('"', '""'), orjson.dumps(self.key).decode()[1:-1])
        return any(one in text for one in spelled)


def sources_about(storage: Storage, definitions: Definitions, entity: Entity) -> list[str]:
    """The sources whose rows name such entities: those declared, and those whose history was left when they were not
    declared any more."""
    found = [source.name for source in definitions.sources.values() if entity in source.entities]
    stored = {name.split("/")[1]: name for name in storage.names(history.ROOT, history.SUFFIX)}
    former = [source for source in sorted(stored) if source not in definitions.sources]
    return found + [source for source in former if entity.key in history.stored_columns(storage, stored[source])]


def rows_in(storage: Storage, name: str, target: Target) -> int:
    """The rows of a history file that name the entity."""
    table = history.read_whole(storage, name, [target.entity.key, history.INGEST_TIME])
    return int(table.filter(target.rows).num_rows)


def rewrite(storage: Storage, name: str, target: Target, still_alone: Callable[[], bool]) -> None:
    """Write a history file anew without the rows that name the entity; one without other rows is removed.

    Raises:
        Conflict: where this process has lost the lock of the history; nothing was changed.
    """
    table = history.read_whole(storage, name)
    kept = table.filter(~target.rows)
    history.write(storage, name, kept, confirm=still_alone)
    if not kept.num_rows:
        storage.remove(name)


def online_fields(redis: Redis, definitions: Definitions, computed: Computed, target: Target, *, erase: bool) -> int:
    """Count, or erase, the fields of the entity's hash, except those of rows that were ingested later."""
    own = [source for source in definitions.sources.values() if source.entity is target.entity]
    fields = {
        source.name: [
            keys.time_field(source.name),
            keys.failed_field(source.name),
            *source.columns,
            *computed.get(source.name, {}),
        ]
        for source in own
    }
    arguments = [iso(target.until), orjson.dumps(fields), "" if erase else "1"]
    name = keys.feature(target.entity.name, target.key)
    return int(redis.register_script(ERASE)(keys=[name], args=arguments))


def fed(redis: Redis, storage: Storage, groups: Groups, target: Target) -> dict[TileGroup, set[str]]:
    """Which entities' tiles hold rows that name this one: its own, and those of others that are named beside it."""
    found: dict[TileGroup, set[str]] = {}
    for source, of_source in groups.items():
        columns = list({target.entity.key, history.INGEST_TIME, *(group.key for group in of_source)})
        for name in history.names(storage, source) if of_source else ():
            rows = history.read_whole(storage, name, columns).filter(target.rows)
            for group in of_source if rows.num_rows else ():
                found.setdefault(group, set()).update(rows[group.key].drop_null().to_pylist())
        for group in of_source:
            if group.entity == target.entity.name and redis.exists(keys.tiles(group.name, target.key)):
                found.setdefault(group, set()).add(target.key)
    return found


def former_tiles(redis: Redis, target: Target, groups: Groups) -> list[str]:
    """The hashes with tiles of the entity's own aggregates that are not of these groups: of former declarations."""
    names = {group.name for of_source in groups.values() for group in of_source}
    found = []
    for name in redis.scan_iter(match=keys.tiles("*", _escaped(target.key)), count=SCAN):
        group, _, key = name.removeprefix(keys.tiles("", "")[:-1]).partition(":")
        if key == target.key and group.split(".")[1:2] == [target.entity.name] and group not in names:
            found.append(name)
    return found


def quarantined(redis: Redis, source: str, target: Target) -> Iterator[str]:
    """The rejected rows of a source that name the entity, as ids of the quarantine's stream."""
    for page in pages(redis, keys.rejected(source)):
        for position, entry in page:
            if _names(entry["content"], target):
                yield position


def _names(content: str, target: Target) -> bool:
    """Whether a rejected row names the entity; one that cannot be read does if the key is anywhere in it."""
    try:
        row = orjson.loads(content)
    except orjson.JSONDecodeError:
        return target.is_in(content)
    return isinstance(row, dict) and str(row.get(target.entity.key)) == target.key


def remove_reasons(redis: Redis, source: str, target: Target) -> None:
    """Remove from the answers that the journal keeps the reasons of rejected rows in which the key is anywhere."""
    for name in redis.scan_iter(match=keys.ingest(source, "*"), count=SCAN, _type="hash"):
        for field, text in redis.hgetall(name).items():
            if field not in ("draft", "answer") or not text:
                continue
            answer = orjson.loads(text)
            kept = [reason for reason in answer["reasons"] if not target.is_in(f"{reason['value']} {reason['reason']}")]
            if len(kept) < len(answer["reasons"]):
                changed = orjson.dumps(answer | {"reasons": kept}).decode()
                redis.register_script(REPLACE)(keys=[name], args=[field, changed])


def predictions(redis: Redis, target: Target) -> Iterator[str]:
    """The predictions that were asked for the entity, as ids of the log's stream."""
    quoted = repr(target.key)
    for page in pages(redis, keys.EVENTS_PREDICTIONS):
        for position, entry in page:
            if entry["type"] == PredictionFailed.type:
                if quoted in entry["error"]:
                    yield position
            elif entry["type"] == PredictionServed.type:
                looked_up = orjson.loads(entry.get("keys") or "{}")
                if target.key in looked_up.get(target.entity.name, ()):
                    yield position


def remove_entries(redis: Redis, stream: str, positions: Iterator[str], size: int = 500) -> int:
    """Remove entries of a stream and return how many."""
    waiting: list[str] = []
    removed = 0
    for position in positions:
        waiting.append(position)
        if len(waiting) == size:
            removed += redis.xdel(stream, *waiting)
            waiting.clear()
    return removed + (redis.xdel(stream, *waiting) if waiting else 0)


def _escaped(text: str) -> str:
    """As a pattern of Redis that matches the text alone."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in text)
