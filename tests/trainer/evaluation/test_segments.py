"""Columns part the held-out rows by their values, or by ranges of numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.evaluation.segments import BINS, MOST, parts


def sizes(values: pd.Series) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in parts(values).masks().items()}


def test_few_values_are_a_segment_each_in_order() -> None:
    assert sizes(pd.Series(["JFK", "EWR", "LGA", "EWR"], dtype=object)) == {"EWR": 2, "JFK": 1, "LGA": 1}
    assert sizes(pd.Series([3.0, 1.0, 1.0])) == {"1": 2, "3": 1}
    assert sizes(pd.Series([True, False, True])) == {"False": 1, "True": 2}


def test_missing_values_are_a_segment() -> None:
    assert sizes(pd.Series(["a", None, "", "a"], dtype=object)) == {"a": 2, "missing": 2}
    assert sizes(pd.Series([1.0, np.nan])) == {"1": 1, "missing": 1}
    assert sizes(pd.Series([None, None], dtype=object)) == {"missing": 2}


def test_of_many_values_the_rare_ones_are_together_and_it_says_so() -> None:
    values = pd.Series([f"v{number:02}" for number in range(MOST + 5) for _ in range(MOST + 5 - number)], dtype=object)
    found = sizes(values)
    assert len(found) == MOST + 1
    assert (found["v00"], found["other"]) == (MOST + 5, 1 + 2 + 3 + 4 + 5)
    assert parts(values).note == "the 12 most frequent of 17 values; the others are together in 'other'"


def test_a_value_of_the_name_of_the_rest_is_in_the_rest() -> None:
    values = pd.Series(["other"] * 9 + [f"v{number}" for number in range(MOST + 5)], dtype=object)
    assert sum(sizes(values).values()) == len(values)


def test_a_number_with_many_values_is_parted_at_its_quantiles() -> None:
    found = sizes(pd.Series(np.arange(100.0)))
    assert found == {"[0, 24.75)": 25, "[24.75, 49.5)": 25, "[49.5, 74.25)": 25, "[74.25, 99]": 25}
    assert parts(pd.Series(np.arange(100))).note == "4 ranges by quantiles of the held-out rows"


def test_a_number_that_is_mostly_one_value_has_fewer_ranges() -> None:
    found = sizes(pd.Series([0.0] * 80 + list(range(1, 21))))
    assert 1 <= len(found) < BINS
    assert sum(found.values()) == 100


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False, width=32)), min_size=1, max_size=60))
def test_every_row_is_in_one_segment(values: list[float | None]) -> None:
    masks = parts(pd.Series(values, dtype="float64")).masks().values()
    assert (np.sum(list(masks), axis=0) == 1).all()
