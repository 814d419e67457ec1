"""From which ingest time on new rows are added to a group's tiles, and the filling of a new group with earlier rows.

A group's start is an ingest time that no request has. Rows of requests with later ones are added as they come, by
whoever ingests them; rows with earlier ones by `fill`, from the history. So each row is added once, whatever happens
at the same time, and a filling that was killed goes on where it stopped: it takes the rows in the order of their
ingest, a slab at a time, and a hash in Redis tells how many tiles of which slab are added. It is there as long as there
are any to add: who was stopped amid that, and wakes up when others went on, adds nothing.

Where rows are erased, `refill` makes the tiles anew that hold them: beside those that are read, whose place they take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc

from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from modelmill.times import micros, moment
from modelmill.windows import ROWS, SECOND, SMALLEST, TileGroup, tile_field
from services.feature.rows.schema import ARROW, EVENT_TIME, TIME, of_size
from services.feature.store import journal
from services.feature.store.history import INGEST_TIME, STAMP
from services.feature.store.snapshots import Snapshot
from services.feature.store.tile_batch import TileContent, tile_batch

SLAB = 50_000
"""Rows that are added together."""
SLAB_FIELD = "slab "
"""Before the number of a slab: field of the hash of a filling, how many of its tiles are added."""
SCAN = 1000
"""Tiles' hashes that are removed in one step."""
SWAP_CHUNK = 250
"""Entities whose tiles one call of a script exchanges: some milliseconds of Redis."""

SWAP = """
-- Exchanges the tiles of entities. KEYS: the pause of the source, the group's hash, then of each entity its tiles and
-- those that take their place. ARGV: what the pause holds, and the group's hash as `refill`, as long as both are the
-- caller's; then of each entity '1' if it has tiles to come, '' if none are left. Done again it changes nothing.
-- Returns 0 where pause or refill are not the caller's any more, which changes nothing either.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HGET', KEYS[2], 'refill') ~= ARGV[2] then return 0 end
for i = 3, #KEYS, 2 do
  local fresh = redis.call('EXISTS', KEYS[i + 1]) == 1
  if fresh or ARGV[(i + 3) / 2] == '' then redis.call('UNLINK', KEYS[i]) end
  if fresh then redis.call('RENAME', KEYS[i + 1], KEYS[i]) end
end
return 1
"""

FINISH = """
-- KEYS: a group's hash, that of its filling. ARGV: rows. Ends the filling, unless others have ended or stopped it.
if redis.call('DEL', KEYS[2]) == 1 then redis.call('HSET', KEYS[1], 'rows', ARGV[1], 'filled', '1') end
"""


def announce(redis: Redis, groups: Iterable[TileGroup]) -> None:
    """Give each group its start, unless it has one."""
    for group in groups:
        if not redis.hexists(keys.tile_group(group.name), "start"):
            remove(redis, group.name)  # what a process left that had not heard that nothing reads it any more
            begin = journal.tick(redis, group.source)
            with redis.pipeline() as pipe:
                pipe.hset(_progress(group, begin), "start", begin)
                pipe.hsetnx(keys.tile_group(group.name), "start", begin)
                pipe.execute()


def start(redis: Redis, group: TileGroup) -> int | None:
    """The start of a group; None where it was never announced, or is gone."""
    found = redis.hget(keys.tile_group(group.name), "start")
    return None if found is None else int(found)


def is_filled(redis: Redis, group: TileGroup) -> bool:
    """Whether all rows from before its start are in the tiles of a group."""
    return bool(redis.hexists(keys.tile_group(group.name), "filled"))


def add_rows(redis: Redis, group: TileGroup, begin: int | None, marker: str, rows: pa.Table, ingested: int) -> None:
    """Add the rows of one request to the tiles of a group, once, unless they are for its filling to add.

    Raises:
        Conflict: where `marker`, the request's journal hash, is gone.
    """
    if begin is None or ingested <= begin:
        return
    if not add(redis, group, marker, keys.tiles_field(group.name), tile_batch(group, rows, ingested), ingested):
        raise Conflict("the request is no longer in the journal; send it again")


def fill(redis: Redis, storage: Storage, group: TileGroup, tell: Callable[[int], None]) -> None:
    """Add all rows from before the group's start to its tiles, unless that was done; `tell` hears how many are done.

    Raises:
        Conflict: where requests from before the start do not end within `journal.INGEST_WAIT_SECONDS`, or others went
            on with the group while this process was stopped.
    """
    registered = redis.hgetall(keys.tile_group(group.name))
    if "filled" in registered:
        return
    begin = int(registered["start"])
    progress = _progress(group, begin)
    _await_earlier(redis, group, begin)
    begun = [int(field.removeprefix(SLAB_FIELD)) for field in redis.hkeys(progress) if field.startswith(SLAB_FIELD)]
    first = 0
    for rows in _slabs(storage, group, until=begin):
        if first >= max(begun, default=0):  # before one that was begun all are done
            try:
                _add_slab(redis, group, progress, first, rows, begin)
            except Conflict:
                if is_filled(redis, group):  # by others
                    return
                raise
        first += rows.num_rows
        tell(first)
    redis.register_script(FINISH)(keys=[keys.tile_group(group.name), progress], args=[first])


def refill(
    redis: Redis, storage: Storage, group: TileGroup, entities: Collection[str], erased: pc.Expression, column: str
) -> None:
    """Make the tiles of some entities anew, of all rows of the history but those `erased`; the group is filled.

    While predictions and ingests go on they are made beside those that are read, of the rows that there are; then, for
    some seconds in which the source takes no rows, of those that came since, and take their place. Killed anywhere, it
    is brought to its end by doing it again.

    Args:
        erased: of the join key `column` and the ingest time.

    Raises:
        Conflict: where requests that have begun do not end within `journal.INGEST_WAIT_SECONDS`, or others went on
            with the group while this process was stopped.
    """
    registered = keys.tile_group(group.name)
    if former := redis.hget(registered, "refill"):
        remove(redis, former)
    cut = journal.tick(redis, group.source)
    name, progress = f"{group.name}.{cut}", _progress(group, cut)
    redis.hset(registered, "refill", name)
    redis.hset(progress, "start", cut)
    wanted = pc.field(group.key).isin(pa.array(entities, pa.string())) & ~erased
    left: set[str] = set()
    numbers = count()

    def add(after: int, until: int) -> None:
        for rows in _slabs(storage, group, until=until, after=after, within=wanted, beside=column):
            _add_slab(redis, group, progress, next(numbers), rows, until, name)
            left.update(rows[group.key].unique().to_pylist())

    _await_earlier(redis, group, cut)
    add(0, cut)
    with journal.paused(redis, group.source) as pause:
        add(cut, journal.tick(redis, group.source))
        _swap(redis, group, name, {key: key in left for key in entities}, pause)
    with redis.pipeline() as pipe:
        pipe.delete(progress)
        pipe.hdel(registered, "refill")
        pipe.execute()


def restart(redis: Redis, source: str, groups: Collection[TileGroup]) -> None:
    """Empty groups of one source and give them a new start, so that `fill` adds all rows again.

    Meanwhile, for some seconds, the source takes no rows.

    Raises:
        Conflict: where requests that have begun do not end within `journal.INGEST_WAIT_SECONDS`.
    """
    if not groups:
        return
    with journal.paused(redis, source) as pause:
        for group in groups:
            remove(redis, group.name)
        if redis.get(keys.ingest_paused(source)) != pause:
            raise Conflict(f"this process was stopped while it emptied the tiles of {source}; try again")
        announce(redis, groups)


def remove(redis: Redis, group: str) -> None:
    """Remove all tiles of a group that nothing reads any more, a step at a time."""
    begin, made_beside = redis.hmget(keys.tile_group(group), "start", "refill")
    if made_beside:
        remove(redis, made_beside)
    redis.delete(keys.tile_group(group), keys.tile_group(f"{group}.{begin}"))
    step: list[str] = []
    for name in redis.scan_iter(match=keys.tiles(group, "*"), count=SCAN):
        step.append(name)
        if len(step) == SCAN:
            redis.unlink(*step)
            step.clear()
    if step:
        redis.unlink(*step)


def _slabs(
    storage: Storage,
    group: TileGroup,
    *,
    until: int,
    after: int = 0,
    within: pc.Expression | None = None,
    beside: str | None = None,
) -> Iterator[pa.Table]:
    """The rows of a group with after < ingest time <= until, all or those `within`, `SLAB` at a time; microseconds.

    `beside` is a join key that `within` looks at.
    """
    types = {column: ARROW[dtype] for column, dtype in group.dtypes if column != ROWS}
    types |= {group.key: pa.string(), EVENT_TIME: TIME, INGEST_TIME: TIME}
    schema = pa.schema(types | ({beside: pa.string()} if beside else {}))
    known = pc.field(INGEST_TIME) <= pa.scalar(until, TIME)
    wanted = known if within is None else known & within
    found = Snapshot(storage, schema, group.source).batches(list(types), wanted, after=f"{moment(after):{STAMP}}")
    return (pa.Table.from_batches([batch]) for batch in of_size(found, SLAB))


def _progress(group: TileGroup, begin: int) -> str:
    """The key of the hash that tells how far the filling that began at this ingest time is."""
    return keys.tile_group(f"{group.name}.{begin}")


def _add_slab(
    redis: Redis,
    group: TileGroup,
    progress: str,
    number: int,
    rows: pa.Table,
    ingested: int,
    name: str | None = None,
) -> None:
    """Add rows to the tiles of a group, or those stored under `name`, as long as the filling goes on.

    `number` is of its own for each slab: a process that was stopped amid one and wakes up late finds it done.
    """
    content = tile_batch(group, rows, ingested)
    if not add(redis, group, progress, f"{SLAB_FIELD}{number}", content, ingested, name=name):
        raise Conflict(f"others went on with the tiles {group.name} meanwhile; try again")


def _swap(redis: Redis, group: TileGroup, name: str, entities: Mapping[str, bool], pause: str) -> None:
    """Put the tiles stored under `name` in place of those of the group, for entities of which some are left."""
    script, listed = redis.register_script(SWAP), list(entities.items())
    for first in range(0, len(listed), SWAP_CHUNK):
        chunk = listed[first : first + SWAP_CHUNK]
        places = [keys.tiles(of, key) for key, _ in chunk for of in (group.name, name)]
        marks = ["1" if some else "" for _, some in chunk]
        at = [keys.ingest_paused(group.source), keys.tile_group(group.name)]
        if not script(keys=[*at, *places], args=[pause, name, *marks]):
            raise Conflict(f"others went on with the tiles {group.name} meanwhile; try again")


def _await_earlier(redis: Redis, group: TileGroup, begin: int) -> None:
    deadline = time.monotonic() + journal.INGEST_WAIT_SECONDS
    while (oldest := journal.oldest_open(redis, group.source)) is not None and micros(oldest) <= begin:
        if time.monotonic() > deadline:
            raise Conflict(f"requests to {group.source} that began before are still open; try again later")
        time.sleep(0.1)


# --- tiles in Redis: rows are added to them once, whatever is retried, in any order.

TILES_PER_CALL = 250
"""Tiles given to one call of the script at most: enough to save round trips."""
CHUNK_BYTES = 32_000
"""Of their contents at most, unless one tile has more."""
WORK = 64_000
"""Bytes of tiles, stored and new, with which a call of the script ends where it is: some 10 ms of Redis, which answers
nobody meanwhile."""

ADD = """
-- Adds tiles of an ingest, each once. KEYS: the journal hash of the ingest, then the tile hash of each entity.
-- ARGV: the journal's field with the number of tiles added; the number of the first tile given here; how many tiles of
-- an entity to keep, and above how many to delete any; the name of the present tile; how many distinct hashes to keep;
-- how much work to do; then for each tile: which of KEYS, its name, its content as JSON. Returns the number of tiles
-- added by now, which may be amid those given: where others have added the first one nothing is done; or -1 where there
-- is no journal hash, as the ingest has been closed.
local journal, marker, done = KEYS[1], ARGV[1], tonumber(ARGV[2])
local kept, limit, present, smallest = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local work = tonumber(ARGV[7])
if redis.call('EXISTS', journal) == 0 then return -1 end
local added = tonumber(redis.call('HGET', journal, marker) or 0)
if added ~= done then return added end

-- The shortest text that reads back as the same number.
local function text(number)
  local short = string.format('%.15g', number)
  if tonumber(short) == number then return short end
  return string.format('%.17g', number)
end

-- Whether the text a is less than b, as numbers; whole numbers may have more digits than a double tells apart, and
-- false is less than true.
local function less(a, b)
  local x, y = tonumber(a), tonumber(b)
  if x == nil or y == nil then return a < b end
  if x ~= y then return x < y end
  if #a ~= #b then return (#a < #b) == (x > 0) end
  if x > 0 then return a < b end
  return b < a
end

-- Adds the numbers of `fresh` to the partials of `stored`: each step keeps what rounding cuts off (Shewchuk, 1997).
local function grow(stored, fresh)
  local partials = {}
  for i, part in ipairs(stored) do partials[i] = tonumber(part) end
  for _, part in ipairs(fresh) do
    local x, n = tonumber(part), 0
    for _, y in ipairs(partials) do
      if math.abs(x) < math.abs(y) then x, y = y, x end
      local high = x + y
      local low = y - (high - x)
      if low ~= 0 then
        n = n + 1
        partials[n] = low
      end
      x = high
    end
    for i = #partials, n + 2, -1 do partials[i] = nil end
    partials[n + 1] = x
  end
  for i, part in ipairs(partials) do partials[i] = text(part) end
  return partials
end

local function union(stored, fresh)
  local both, i, j = {}, 1, 1
  while #both < smallest and (stored[i] or fresh[j]) do
    local a, b = stored[i], fresh[j]
    both[#both + 1] = (not b or (a and a < b)) and a or b
    if a == both[#both] then i = i + 1 end
    if b == both[#both] then j = j + 1 end
  end
  return both
end

local function add(stored, fresh) return stored + fresh end

local merge = {
  count = add,
  huge = add,
  sum = grow,
  squares = grow,
  distinct = union,
  min = function(stored, fresh) return less(fresh, stored) and fresh or stored end,
  max = function(stored, fresh) return less(stored, fresh) and fresh or stored end,
  last = function(stored, fresh)
    if stored[1] == fresh[1] then return stored[2] < fresh[2] and fresh or stored end
    return stored[1] < fresh[1] and fresh or stored
  end,
}

-- Deletes the oldest tiles of an entity that has too many; returns how many there were, if any had to go.
local function trim(key)
  local length = redis.call('HLEN', key)
  if length <= limit then return 0 end
  local passed = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field <= present then passed[#passed + 1] = field end
  end
  table.sort(passed)
  for i = 1, #passed - kept do redis.call('HDEL', key, passed[i]) end
  return length
end

for i = 8, #ARGV, 3 do
  local key, field, content = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
  local stored = redis.call('HGET', key, field)
  work = work - #content
  if stored then
    work = work - #stored
    local tile = cjson.decode(stored)
    for column, statistics in pairs(cjson.decode(content)) do
      local known = tile[column]
      if known then
        for name, value in pairs(statistics) do
          known[name] = known[name] == nil and value or merge[name](known[name], value)
        end
      else
        tile[column] = statistics
      end
    end
    content = cjson.encode(tile)
  end
  redis.call('HSET', key, field, content)
  if not stored then work = work - 20 * trim(key) end
  done = done + 1
  if work <= 0 then break end
end
redis.call('HSET', journal, marker, done)
return done
"""


def add(
    redis: Redis,
    group: TileGroup,
    journal: str,
    marker: str,
    batch: Sequence[TileContent],
    ingest_time: int,
    *,
    name: str | None = None,
) -> bool:
    """Add what `tile_batch` made of one ingest to the tiles, each of it once, some in each round trip.

    Whoever else adds the same batch, before, after or at the same time, adds none of it twice.

    Args:
        journal: the key of a hash that is there as long as anyone may still add this batch.
        marker: the field of that hash that counts the tiles.
        ingest_time: that the batch was made with.
        name: under which the tiles are stored, if not under the group's.

    Returns:
        Whether the whole batch is in the tiles; False where `journal` is gone, so that nobody can tell.
    """
    script = redis.register_script(ADD)
    present = tile_field(ingest_time // (group.hop * SECOND) * group.hop * SECOND)
    settings = [group.kept, group.limit, present, SMALLEST, WORK]
    done = 0
    while 0 <= done < len(batch):
        numbers: dict[str, int] = {}
        tiles: list[str | int] = []
        size = 0
        for tile in batch[done : done + TILES_PER_CALL]:
            size += len(tile.content)
            if tiles and size > CHUNK_BYTES:
                break
            place = keys.tiles(name or group.name, tile.key)
            tiles += [numbers.setdefault(place, len(numbers) + 2), tile.field, tile.content]
        done = int(script(keys=[journal, *numbers], args=[marker, done, *settings, *tiles]))
    return done >= len(batch)
