from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from modelmill.windows import ROWS, Reading
from services.feature.frames import windows as module
from services.feature.frames.windows import AsOf, Rows, Spine, windows
from services.feature.rows.schema import ARROW
from tests.feature.brute_force import MINUTE, START, History, brute_force, histories, readings_of, rows_of, spine_of

CODES = {None: -1, "a": 0, "b:é c": 1}


@given(histories())
@pytest.mark.parametrize("gathered", [1, 10_000])
@pytest.mark.parametrize("as_of", ["event", "known"])
def test_every_function_is_what_its_rule_says(as_of: AsOf, gathered: int, history: History) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHERED", gathered)
        found = windows(history.reading, rows_of(history.unsorted, CODES), spine_of(history.spine, CODES), as_of)
        column = pa.array([row.value for row in history.unsorted], ARROW[history.reading.dtype])
        for reading in readings_of(history):
            values = found.values(reading, None if reading.column == ROWS else column).to_pylist()
            wanted = [brute_force(reading, history.rows, key, t, known=as_of == "known") for key, t in history.spine]
            assert list(map(repr, values)) == list(map(repr, wanted)), reading.function


READING = Reading("sum", "x", "float", window=600, hop=300, available_after=0)


def values(
    reading: Reading, times: list[int], column: list[float], at: list[int], as_of: AsOf = "event"
) -> list[float]:
    rows = Rows(np.zeros(len(times), np.int64), np.array(times), np.array(times) + 7 * MINUTE)
    spine = Spine(np.zeros(len(at), np.int64), np.array(at))
    found: list[float] = windows(reading, rows, spine, as_of).values(reading, pa.array(column)).to_pylist()
    return found


def test_a_row_enters_a_window_at_the_end_of_its_hop_and_leaves_it_a_window_later() -> None:
    moments = [START + minutes * MINUTE for minutes in (0, 4, 5, 14, 15, 16)]
    assert values(READING, [START + MINUTE], [2.0], moments) == [None, None, 2.0, 2.0, None, None]


def test_what_is_known_later_enters_so_much_later() -> None:
    moments = [START + minutes * MINUTE for minutes in (11, 12, 21, 22)]
    assert values(replace(READING, available_after=7 * 60), [START + MINUTE], [2.0], moments) == [None, 2.0, 2.0, None]


def test_what_was_not_ingested_by_then_is_not_known() -> None:
    moments = [START + minutes * MINUTE for minutes in (6, 7, 8, 10)]
    assert values(READING, [START, START + MINUTE], [1.0, 2.0], moments, "known") == [None, 1.0, 3.0, 3.0]
    assert values(READING, [START, START + 1], [1.0, 2.0], [START + 7 * MINUTE], "known") == [1.0]


def test_a_sum_is_rounded_once_whatever_cancels() -> None:
    times = [START + number for number in range(4)]
    assert values(READING, times, [1e16, 1.0, -1e16, 1e-16], [START + 5 * MINUTE]) == [
        1.0000000000000002 - 2.220446049250313e-16 or 1.0
    ]


def test_the_distinct_values_of_many_are_estimated_within_the_stated_error() -> None:
    count = 20_000
    reading = replace(READING, function="count_distinct")
    (found,) = values(reading, [START] * count, [float(number) for number in range(count)], [START + 5 * MINUTE])
    assert abs(found / count - 1) < 3 / np.sqrt(254)
