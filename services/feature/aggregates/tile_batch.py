"""The rows of one ingest, summed up per entity and hop, as they are added to the tiles in Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.windows import HUGE, ROWS, SECOND, TileGroup, partials, tile_field, time_text, value_text
from services.feature.aggregates.exact import Ints, range_sums, running
from services.feature.aggregates.ranges import Ranges, extremes, hashes, numbers, plain, present
from services.feature.intake.validate import EVENT_TIME
from services.feature.store.history import INGEST_TIME

Listed = list[dict[str, Any]]


@dataclass(frozen=True)
class TileContent:
    """What a batch adds to one tile of one entity."""

    key: str
    field: str
    """The tile's name, `2013-01-31T05:00Z`."""
    content: str
    """JSON."""


def tile_batch(group: TileGroup, table: pa.Table, ingest_time: int) -> list[TileContent]:
    """What the rows of one ingest add to the tiles of `group`, ordered by entity and time; the same for the same rows.

    Tiles that are older than any read from `ingest_time` on may need are left out.

    Args:
        table: the rows with the group's join key and columns, `_event_time` and `_ingest_time`, in the order of their
            ingest.
        ingest_time: of the latest of them, or later; microseconds since 1970.
    """
    encoded = table[group.key].combine_chunks().dictionary_encode()
    ids = encoded.dictionary.to_pylist()
    keyed = np.flatnonzero(present(encoded))
    codes = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    times = table[EVENT_TIME].cast(pa.int64()).to_numpy()
    order = keyed[np.lexsort((times[keyed], codes[keyed]))]
    codes, tiles = codes[order], times[order] // (group.hop * SECOND)
    ranges = _ranges(order, codes, tiles)
    ranges = _needed(group, ranges, codes, tiles, ingest_time)
    contents = _contents(group, table, times, ranges)
    fields = {tile: tile_field(tile * group.hop * SECOND) for tile in np.unique(tiles[ranges.starts]).tolist()}
    owners = zip(codes[ranges.starts].tolist(), tiles[ranges.starts].tolist(), contents, strict=True)
    return [TileContent(ids[code], fields[tile], orjson.dumps(content).decode()) for code, tile, content in owners]


def _ranges(order: Ints, codes: Ints, tiles: Ints) -> Ranges:
    """One range for each tile of each entity."""
    new = np.ones(len(order), bool)
    new[1:] = (codes[1:] != codes[:-1]) | (tiles[1:] != tiles[:-1])
    starts = np.flatnonzero(new)
    return Ranges(order, np.cumsum(new), starts, np.append(starts[1:], len(order)))


def _needed(group: TileGroup, ranges: Ranges, codes: Ints, tiles: Ints, ingest_time: int) -> Ranges:
    """Without the tiles of an entity that the online store would delete for those that it has after them here."""
    owner, passed = codes[ranges.starts], tiles[ranges.starts] <= ingest_time // (group.hop * SECOND)
    before = running(passed)
    last_of_owner = np.searchsorted(owner, owner, "right")
    newer = before[last_of_owner] - before[1:]
    needed = newer < group.kept
    return Ranges(ranges.order, ranges.tiles, ranges.starts[needed], ranges.ends[needed])


def _contents(group: TileGroup, table: pa.Table, times: Ints, ranges: Ranges) -> Listed:
    ingested = table[INGEST_TIME].cast(pa.int64()).to_numpy()
    contents: Listed = [{} for _ in ranges.starts]
    columns: dict[str, list[str]] = {}
    for column, statistic in group.statistics:
        columns.setdefault(column, []).append(statistic)
    for column, statistics in columns.items():
        if column == ROWS:
            rows = [{"count": count} for count in ranges.counts().tolist()]
        else:
            rows = _statistics(plain(table[column].combine_chunks()), statistics, times, ingested, ranges)
        for content, found in zip(contents, rows, strict=True):
            if found:
                content[column] = found
    return contents


def _statistics(column: pa.Array, wanted: Sequence[str], times: Ints, ingested: Ints, ranges: Ranges) -> Listed:
    """Of one column, a dict for each range; empty where it has no value."""
    ranges = ranges.where(present(column))
    filled = ranges.counts() > 0
    some = Ranges(ranges.order, ranges.tiles, ranges.starts[filled], ranges.ends[filled])
    rows: Listed = [{} for _ in some.starts]
    for statistic in wanted:
        if statistic == "last":
            _add_last(rows, column, times, ingested, some)
        elif statistic == "count":
            _add(rows, statistic, some.counts().tolist())
        elif statistic == "distinct":
            _add(rows, statistic, [[f"{value:016x}" for value in found] for found in hashes(column, some).listed()])
        else:
            _NUMERIC[statistic](rows, statistic, column, some)
    found = iter(rows)
    return [next(found) if has else {} for has in filled.tolist()]


def _add(rows: Listed, statistic: str, values: Sequence[Any]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[statistic] = value


def _add_last(rows: Listed, column: pa.Array, times: Ints, ingested: Ints, ranges: Ranges) -> None:
    at = ranges.last()
    values = map(value_text, column.take(at).to_pylist())
    moments, ingests = (map(time_text, of[at.to_numpy()].tolist()) for of in (times, ingested))
    _add(rows, "last", [list(one) for one in zip(moments, ingests, values, strict=True)])


def _add_extreme(rows: Listed, statistic: str, column: pa.Array, ranges: Ranges) -> None:
    choose = np.minimum if statistic == "min" else np.maximum
    found = pa.array(extremes(choose, numbers(column)[ranges.order], ranges.starts, ranges.ends)).cast(column.type)
    _add(rows, statistic, [value_text(value) for value in found.to_pylist()])


def _add_sums(rows: Listed, statistic: str, column: pa.Array, ranges: Ranges) -> None:
    ordered = numbers(column)[ranges.order]
    huge = np.abs(ordered) >= HUGE
    sums = range_sums(np.where(huge, 0, ordered), ranges.starts, ranges.ends, squared=statistic == "squares")
    for row, units in zip(rows, sums.units.tolist(), strict=True):
        row[statistic] = [value_text(part) for part in partials(units, sums.scale)]
    if statistic == "sum" and huge.any():
        before = running(huge)
        for row, count in zip(rows, (before[ranges.ends] - before[ranges.starts]).tolist(), strict=True):
            if count:
                row["huge"] = count


_NUMERIC: dict[str, Callable[[Listed, str, pa.Array, Ranges], None]] = {
    "min": _add_extreme,
    "max": _add_extreme,
    "sum": _add_sums,
    "squares": _add_sums,
}
