"""Tiles in Redis: rows are added to them once, whatever is retried, in any order."""

from __future__ import annotations

from collections.abc import Sequence

from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.windows import SECOND, SMALLEST, TileGroup, tile_field
from services.feature.aggregates.tile_batch import TileContent

CHUNK = 250
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
        for tile in batch[done : done + CHUNK]:
            size += len(tile.content)
            if tiles and size > CHUNK_BYTES:
                break
            place = keys.tiles(name or group.name, tile.key)
            tiles += [numbers.setdefault(place, len(numbers) + 2), tile.field, tile.content]
        done = int(script(keys=[journal, *numbers], args=[marker, done, *settings, *tiles]))
    return done >= len(batch)
