"""Which row a moment sees: the one rule of the feature store, for many moments at once.

A spine row (key, t) sees, of a source, the newest row of its key with event time <= t; of equal event times the one
ingested later; of rows that are equal in both, the later one. As of what was `known`, it sees only rows that had been
ingested by t, too. A row whose age, t - event time, is over the source's `max_age` is expired. A null key matches
nothing.

How: a row comes into sight at its effective time, its event time or, as of what was known, the later of its event and
ingest times. The rows are ordered by effective time, and the place of each in that order is joined with its key's
number to one whole number, so that one sort groups them by key and one binary search finds the last row of a key that
is in sight at t. What that row's moment sees is the greatest row in sight so far, a running maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

AsOf = Literal["event", "known"]
"""By event times alone, or hiding also what had not been ingested yet."""
NOTHING = -1
"""In place of a row's number: no row is in sight."""


@dataclass(frozen=True)
class Seen:
    """What n spine rows see."""

    rows: np.ndarray
    """[n] number of the row that is seen, int32 or int64, or `NOTHING`; expired ones included."""
    expired: np.ndarray
    """[n] whether that row is older than allowed."""


class Timeline:
    """The rows of one source, arranged once to be asked by many spine rows.

    Args:
        keys: [n] text, plain or dictionary-encoded; null for rows that nothing sees.
        events, ingests: [n] int64, microseconds since 1970.
        as_of: what counts as visible.
        max_age: microseconds after its event time at which a row is still used; None for ever.

    It keeps 20 bytes a row, 8 more with a `max_age`, and each different key once.
    """

    def __init__(
        self,
        keys: pa.ChunkedArray,
        events: np.ndarray,
        ingests: np.ndarray,
        *,
        as_of: AsOf = "event",
        max_age: int | None = None,
    ) -> None:
        self._keys, codes = _coded(keys)
        self._max_age = max_age
        self._events = events if max_age is not None else None
        self._base = len(events) + 1  # greater than any place or rank
        self.row_type = np.dtype(np.int32 if len(events) < 2**31 else np.int64)
        """Of the numbers of rows."""
        by_event = np.lexsort((ingests, events)).astype(self.row_type)  # rank to row; ties keep their order
        if as_of == "known":
            effective = np.maximum(events, ingests)[by_event]
            ranks = np.argsort(effective, kind="stable").astype(self.row_type)  # place to rank
            self._moments = effective[ranks]
            codes = codes[by_event[ranks]]
        else:
            self._moments = events[by_event]
            codes = codes[by_event]
        self._places = self._grouped(codes)
        places = self._places % self._base
        if as_of == "known":
            groups = self._places - places
            best = np.maximum.accumulate(groups + ranks[places]) - groups
            self._rows = by_event[best]
        else:  # in the order of events the last row in sight is the greatest
            self._rows = by_event[places]

    def find(self, keys: pa.Array | pa.ChunkedArray, times: np.ndarray) -> Seen:
        """What each of n spine rows sees.

        Args:
            keys: [n] text; null matches nothing.
            times: [n] int64, microseconds since 1970.
        """
        if not len(self._places):
            nothing = np.full(len(times), NOTHING, self.row_type)
            return Seen(nothing, np.zeros(len(times), np.bool_))
        codes = _numbers(pc.index_in(keys.cast(pa.string()), self._keys)).astype(np.int64)
        in_sight = _search(self._moments, times, "right")
        at = _search(self._places, codes * self._base + in_sight, "left") - 1
        found = (codes >= 0) & (at >= 0)
        found &= self._places[at] // self._base == codes
        rows = np.where(found, self._rows[at], NOTHING).astype(self.row_type)
        if self._max_age is None or self._events is None:
            return Seen(rows, np.zeros(len(times), np.bool_))
        return Seen(rows, found & (times - self._events[rows] > self._max_age))

    def _grouped(self, codes: np.ndarray) -> np.ndarray:
        """Key and place of each row that has a key, as one number, in order; `codes` are in the order of places."""
        places = codes.astype(np.int64)
        places *= self._base
        places += np.arange(len(codes), dtype=codes.dtype)
        if (codes < 0).any():
            places = places[codes >= 0]
        places.sort()
        return places


def _search(ordered: np.ndarray, values: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """`np.searchsorted`, which for values in order stays in the processor's cache: ten times as fast."""
    order = np.argsort(values)
    found = np.empty(len(values), np.int64)
    found[order] = np.searchsorted(ordered, values[order], side)
    return found


def _coded(keys: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The different keys, and for each row the number of its own among them, or -1."""
    coded = keys.dictionary_encode().unify_dictionaries()
    if not len(coded):
        return pa.array([], pa.string()), np.empty(0, np.int32)
    numbers = np.concatenate([_numbers(chunk.indices) for chunk in coded.chunks])
    return coded.chunk(0).dictionary.cast(pa.string()), numbers


def _numbers(indices: pa.Array | pa.ChunkedArray) -> np.ndarray:
    numbers: np.ndarray = pc.fill_null(indices, -1).to_numpy()
    return numbers
