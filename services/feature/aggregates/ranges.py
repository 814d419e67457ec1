"""Statistics of many ranges of ordered rows at once; what a training frame's windows and online tiles are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from modelmill.windows import SMALLEST, distinct, hashed, value_text
from services.feature.aggregates.exact import Ints, running


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
