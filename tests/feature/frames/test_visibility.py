"""The rule of visibility, against a reader of it that looks at every row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.feature.frames.joins import AsOf, Timeline

Ask = tuple[int, str | None]
"""Time and key of a spine row."""
Row = tuple[int, int, str | None]
"""Event time, ingest time and key."""


def brute_force(
    spine: Sequence[Ask], rows: Sequence[Row], as_of: AsOf = "event", max_age: int | None = None
) -> list[tuple[int | None, bool]]:
    """The rule, read aloud: the row that each spine row sees, and whether it is too old."""
    seen: list[tuple[int | None, bool]] = []
    for time, key in spine:
        visible = [
            (event, ingest, position)
            for position, (event, ingest, row_key) in enumerate(rows)
            if key is not None and row_key == key and event <= time and (as_of == "event" or ingest <= time)
        ]
        if not visible:
            seen.append((None, False))
            continue
        event, _, position = max(visible)
        seen.append((position, max_age is not None and time - event > max_age))
    return seen


def cut(values: Sequence[str | None], cuts: Sequence[int]) -> pa.ChunkedArray:
    """`values` in chunks that end at `cuts`."""
    ends = [0, *sorted(cut % (len(values) + 1) for cut in cuts), len(values)]
    return pa.chunked_array([pa.array(values[a:b], pa.string()) for a, b in itertools.pairwise(ends)], pa.string())


def found(
    spine: Sequence[Ask],
    rows: Sequence[Row],
    as_of: AsOf = "event",
    max_age: int | None = None,
    cuts: Sequence[int] = (),
) -> list[tuple[int | None, bool]]:
    events, ingests = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    timeline = Timeline(cut([key for *_, key in rows], cuts), events, ingests, as_of=as_of, max_age=max_age)
    times = np.array([time for time, _ in spine], np.int64)
    seen = timeline.find(cut([key for _, key in spine], cuts), times)
    positions = [None if row < 0 else row for row in seen.rows.tolist()]
    return list(zip(positions, seen.expired.tolist(), strict=True))


TIMES = st.integers(-3, 6)
KEYS = st.sampled_from(["a", "b", "", "ä", None])
SPINES = st.lists(st.tuples(TIMES, KEYS), max_size=12)
HISTORIES = st.lists(st.tuples(TIMES, TIMES, KEYS), max_size=12)
CUTS = st.lists(st.integers(0, 100), max_size=3)


@given(SPINES, HISTORIES, st.sampled_from(get_args(AsOf)), st.none() | st.integers(1, 4), CUTS)
@example([], [(1, 1, "a")], "event", None, [])
@example([(1, "a")], [], "known", 1, [])
@example([(1, None)], [(0, 0, None)], "event", None, [])
def test_a_spine_row_sees_what_the_rule_says(
    spine: list[Ask], rows: list[Row], as_of: AsOf, max_age: int | None, cuts: list[int]
) -> None:
    assert found(spine, rows, as_of, max_age, cuts) == brute_force(spine, rows, as_of, max_age)


@given(SPINES, HISTORIES, st.sampled_from(get_args(AsOf)), st.integers(0, 12))
def test_a_spine_may_be_asked_in_parts(spine: list[Ask], rows: list[Row], as_of: AsOf, at: int) -> None:
    assert found(spine[:at], rows, as_of) + found(spine[at:], rows, as_of) == found(spine, rows, as_of)


def test_many_rows_of_real_times_are_told_apart_to_the_microsecond() -> None:
    random = np.random.default_rng(7)
    day = 1_359_590_400_000_000  # 2013-01-31
    pool = day + random.integers(0, 40, 400)
    keys = [f"k{n}" for n in range(30)]
    rows = [(int(pool[n]), int(pool[-n]) + n % 9 * 10**12, keys[n % 29]) for n in random.permutation(400)]
    spine = [(int(time) + n % 5 * 10**12, keys[n % 30]) for n, time in enumerate(pool)]
    for as_of in get_args(AsOf):
        assert found(spine, rows, as_of, 10**12) == brute_force(spine, rows, as_of, 10**12)


SEEN = {
    "the newest before": ([(5, "a")], [(1, 0, "a"), (3, 0, "a"), (2, 0, "a")], [1]),
    "one at the very time": ([(3, "a")], [(1, 0, "a"), (3, 0, "a")], [1]),
    "none from after": ([(2, "a")], [(3, 0, "a")], [None]),
    "of equal times the later ingest": ([(3, "a")], [(3, 9, "a"), (3, 8, "a"), (1, 10, "a")], [0]),
    "of equal times and ingests the later row": ([(3, "a")], [(3, 1, "a"), (3, 1, "a")], [1]),
    "none of another key": ([(3, "a")], [(1, 0, "b")], [None]),
    "none for a null key": ([(3, None)], [(1, 0, None), (1, 0, "a")], [None]),
    "the same for the same": ([(3, "a"), (3, "a")], [(1, 0, "a")], [0, 0]),
    "each in its place": ([(9, "b"), (1, "a"), (5, "b")], [(4, 0, "b"), (0, 0, "a"), (7, 0, "b")], [2, 1, 0]),
}


@pytest.mark.parametrize(("spine", "rows", "expected"), SEEN.values(), ids=SEEN)
def test_visible_is(spine: list[Ask], rows: list[Row], expected: list[int | None]) -> None:
    assert [row for row, _ in found(spine, rows)] == expected


LATE = [(1, 1, "a"), (2, 5, "a"), (3, 4, "a")]
"""The row of event time 2 arrives last."""


@pytest.mark.parametrize(("time", "event", "known"), [(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 2, 2), (5, 2, 2)])
def test_as_of_known_a_row_is_hidden_until_it_was_ingested(time: int, event: int, known: int) -> None:
    assert found([(time, "a")], LATE, "event") == [(event, False)]
    assert found([(time, "a")], LATE, "known") == [(known, False)]


@pytest.mark.parametrize(("time", "expired"), [(3, False), (13, False), (14, True)])
def test_a_row_expires_when_it_is_older_than_allowed(time: int, expired: bool) -> None:
    assert found([(time, "a")], [(3, 0, "a")], max_age=10) == [(0, expired)]
