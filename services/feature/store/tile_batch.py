"""The rows of one ingest, summed up exactly per entity and hop, as they are added to the tiles in Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from modelmill.times import iso, moment
from modelmill.windows import (
    HUGE,
    ROWS,
    SECOND,
    SMALLEST,
    TINY,
    TileGroup,
    distinct,
    hashed,
    partials,
    tile_field,
    value_text,
)
from services.feature.rows.schema import EVENT_TIME
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
    moments, ingests = ([iso(moment(t)) for t in of[at.to_numpy()].tolist()] for of in (times, ingested))
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


# --- statistics of many ranges of ordered rows at once; what a training frame's windows and online tiles are made with.


@dataclass(frozen=True)
class Ranges:
    """Rows in an order in which those of each range lie side by side.

    `tiles` tells the tile of each row in that order, as any number: rows of one tile lie side by side, by event time,
    then ingest time, then position; and a range is one or more whole tiles, or empty.
    """

    order: Ints
    """Positions of rows, n of them."""
    tiles: Ints
    """n numbers."""
    starts: Ints
    """Where each of m ranges starts in `order`."""
    ends: Ints
    """Where it ends."""

    def where(self, present: NDArray[np.bool_]) -> Ranges:
        """The same ranges of those rows only that `present` says true of, by position."""
        kept = present[self.order]
        before = running(kept)
        return Ranges(self.order[kept], self.tiles[kept], before[self.starts], before[self.ends])

    def counts(self) -> Ints:
        """The number of rows in each range."""
        return self.ends - self.starts

    def last(self) -> pa.Array:
        """The position of the last row of each range; null where it is empty."""
        rows = np.full(len(self.starts), -1, np.int64)
        found = self.ends > self.starts
        rows[found] = self.order[self.ends[found] - 1]
        return pa.array(rows, mask=~found)


def plain(values: pa.Array) -> pa.Array:
    """Values as aggregates see them: minus zero is zero."""
    return pc.add(values, 0.0) if pa.types.is_floating(values.type) else values


def numbers(values: pa.Array) -> NDArray[Any]:
    """Numeric values for NumPy: float64 or int64, whatever where null; true is 1."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8()).cast(pa.int64())
    found: NDArray[Any] = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    return found


def present(values: pa.Array) -> NDArray[np.bool_]:
    """Which values are not null."""
    found: NDArray[np.bool_] = pc.is_valid(values).to_numpy(zero_copy_only=False)
    return found


def extremes(choose: Callable[..., NDArray[Any]], ordered: NDArray[Any], starts: Ints, ends: Ints) -> NDArray[Any]:
    """`np.minimum` or `np.maximum` over each of the ranges of `ordered`; 0 where a range is empty.

    A range of length n is two of the power of two below n, which may overlap; so one pass a power suffices.
    """
    lengths = ends - starts
    found = np.zeros(len(starts), ordered.dtype)
    if not len(ordered):
        return found
    powers = np.frexp(lengths.astype(np.float64))[1] - 1  # -1 for an empty range
    table, width = ordered, 1
    for power in range(int(powers.max(initial=-1)) + 1):
        these = np.flatnonzero(powers == power)
        found[these] = choose(table[starts[these]], table[ends[these] - width])
        if len(table) > width:
            table = choose(table[:-width], table[width:])
        width *= 2
    return found


@dataclass(frozen=True)
class Hashes:
    """The distinct hashes of each tile, the `SMALLEST` smallest of them, in rising order."""

    values: NDArray[np.uint64]
    starts: Ints
    """Where the hashes of each range start in `values`."""
    ends: Ints

    def listed(self) -> list[list[int]]:
        """Of each range that is one tile, its hashes."""
        pairs = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.values[start:end].tolist() for start, end in pairs]

    def distinct(self) -> Ints:
        """How many distinct values are in each range: exact below `SMALLEST`, above it an estimate."""
        windows, inverse = np.unique(np.stack([self.starts, self.ends]), axis=1, return_inverse=True)
        found = np.zeros(windows.shape[1], np.int64)
        for number, (start, end) in enumerate(windows.T.tolist()):
            together = np.unique(self.values[start:end])
            found[number] = distinct(together[:SMALLEST].tolist()) if len(together) else 0
        return found[inverse.reshape(-1)]


def hashes(values: pa.Array, ranges: Ranges) -> Hashes:
    """The hashes of the values in each range. `values` are by position; those that `ranges` names are not null."""
    encoded = values.dictionary_encode()
    of_distinct = [hashed(value_text(value)) for value in encoded.dictionary.to_pylist()]
    codes = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)[ranges.order]
    ordered = np.array(of_distinct, np.uint64)[codes] if of_distinct else np.zeros(len(codes), np.uint64)
    tile = _tile_numbers(ranges.tiles)
    ordered = ordered[np.lexsort((ordered, tile))]  # in each tile by hash; `tile` is in order as it is
    new = np.ones(len(ordered), bool)
    new[1:] = (ordered[1:] != ordered[:-1]) | (tile[1:] != tile[:-1])
    earlier = running(new)[:-1]
    rank = earlier - earlier[np.searchsorted(tile, tile)]
    kept = new & (rank < SMALLEST)
    before = running(kept)
    return Hashes(ordered[kept], before[ranges.starts], before[ranges.ends])


def _tile_numbers(codes: Ints) -> Ints:
    """Tiles numbered 0, 1, 2, ... in their order."""
    changes = np.zeros(len(codes), np.int64)
    changes[1:] = codes[1:] != codes[:-1]
    return np.cumsum(changes)


# --- exact sums of numbers over ranges of an array, by the million: integers all the way, rounded once.
#
# A float is a whole number times a power of two, so a column of floats is a column of whole numbers in one unit, the
# smallest that any of them needs. Where these fit 63 bits even when all are added, a running sum is one pass; otherwise
# there is one pass for each 32 bits of them.

Ints = NDArray[np.int64]

LIMB = 32
"""Bits of a whole number that are added up at a time."""
AT_A_TIME = 1_000_000
"""Numbers that are taken apart at a time; bounds the memory that goes into it."""
HALF = 30
"""Bits of the lower part of a number when its square is computed in parts: parts then multiply within 63 bits."""


@dataclass(frozen=True)
class ExactSums:
    """Sums as whole numbers `units`, int64 or Python's own, each to be divided by 2**scale."""

    units: NDArray[Any]
    scale: int

    def rounded(self) -> NDArray[np.float64]:
        """The sums, each rounded to the nearest float."""
        if self.units.dtype == np.int64:
            return np.ldexp(self.units.astype(np.float64), -self.scale)
        return (self.units / (1 << self.scale)).astype(np.float64)


def range_sums(values: NDArray[Any], starts: Ints, ends: Ints, *, squared: bool = False) -> ExactSums:
    """The sum of `values[start:end]`, or of their squares, for each of the ranges.

    Args:
        values: float64, finite; int64 below 10**18 in magnitude; or bool.
    """
    if squared and values.dtype == np.float64:
        values = np.where(np.abs(values) < TINY, 0.0, values)
    digits, positions, width, scale = _whole(values)
    if squared:
        width, scale = 2 * width, 2 * scale
    if width + len(values).bit_length() < 63:
        units = digits << positions
        return ExactSums(_over(units * units if squared else units, starts, ends), scale)
    total = np.zeros(len(starts), object)
    for number in range(width // LIMB + 1):
        limb = np.zeros(len(values), np.int64)
        for part in _parts(len(values)):
            at = positions[part].astype(np.int64)
            for term in _square_terms(digits[part], at) if squared else [(digits[part], at)]:
                _add_limb(limb[part], *term, number)
        total += _over(limb, starts, ends).astype(object) * (1 << LIMB * number)
    return ExactSums(total, scale)


def running(values: NDArray[Any]) -> Ints:
    """The sums of the first 0, 1, 2, ... of `values`."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _over(values: Ints, starts: Ints, ends: Ints) -> Ints:
    sums = running(values)
    return sums[ends] - sums[starts]


def _whole(values: NDArray[Any]) -> tuple[Ints, NDArray[np.int16], int, int]:
    """Whole numbers and positions with values == digits * 2**(positions - scale), positions and scale >= 0.

    Returns:
        digits, positions, how many bits digits << positions have at most, scale.
    """
    digits = np.zeros(len(values), np.int64) if values.dtype == np.float64 else values.astype(np.int64)
    positions = np.zeros(len(values), np.int16)
    width, scale = 0, 0
    if values.dtype == np.float64:
        for part in _parts(len(values)):
            mantissas, exponents = np.frexp(values[part])
            digits[part] = np.ldexp(mantissas, 53)
            trailing = _bits(digits[part] & -digits[part]) - 1  # zeros at the end would make the common unit small
            trailing[digits[part] == 0] = 0
            digits[part] >>= trailing
            positions[part] = np.where(digits[part] == 0, 0, exponents + (trailing - 53))
        scale = max(0, -int(positions.min(initial=0)))
        positions += np.int16(scale)
    for part in _parts(len(values)):
        width = max(width, int((_bits(digits[part]) + positions[part]).max(initial=0)))
    return digits, positions, width, scale


def _parts(length: int) -> Iterator[slice]:
    """Slices that together cover an array, so that what is computed on the way needs little memory."""
    return (slice(start, start + AT_A_TIME) for start in range(0, length, AT_A_TIME))


def _bits(digits: Ints) -> Ints:
    """The length of each number in bits, or one more."""
    return np.frexp(np.abs(digits).astype(np.float64))[1].astype(np.int64)


def _square_terms(digits: Ints, positions: Ints) -> Sequence[tuple[Ints, Ints]]:
    magnitudes = np.abs(digits)
    high, low = magnitudes >> HALF, magnitudes & ((1 << HALF) - 1)
    return [
        (high * high, 2 * positions + 2 * HALF),
        (high * low, 2 * positions + HALF + 1),
        (low * low, 2 * positions),
    ]


def _add_limb(limb: Ints, digits: Ints, positions: Ints, number: int) -> None:
    """Add what digits * 2**positions has in bits LIMB * number and the next `LIMB - 1`, with its sign."""
    offset = number - positions // LIMB
    chosen = np.flatnonzero((offset >= 0) & (offset <= 2))
    digits, offset, shift = digits[chosen], offset[chosen], positions[chosen] % LIMB
    magnitudes, mask = np.abs(digits), (1 << LIMB) - 1
    low, high = (magnitudes & mask) << shift, (magnitudes >> LIMB) << shift
    parts = np.choose(offset, [low & mask, (low >> LIMB) + (high & mask), high >> LIMB])
    limb[chosen] += np.sign(digits) * parts
