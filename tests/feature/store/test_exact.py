from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelmill.windows import HUGE, TINY
from services.feature.store.tile_batch import range_sums

COLUMNS = st.one_of(
    st.lists(st.floats(-HUGE, HUGE, exclude_min=True, exclude_max=True)).map(lambda v: np.array(v, np.float64)),
    st.lists(st.floats(-1000, 1000).map(lambda v: round(v, 2))).map(lambda v: np.array(v, np.float64)),
    st.lists(st.integers(-(10**18) + 1, 10**18 - 1)).map(lambda v: np.array(v, np.int64)),
    st.lists(st.booleans()).map(lambda v: np.array(v, bool)),
)


@given(COLUMNS, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
@pytest.mark.parametrize("squared", [False, True])
def test_sums_of_ranges_are_exact(squared: bool, values: NDArray[np.float64], ranges: list[tuple[int, int]]) -> None:
    edges = np.array([sorted(min(edge, len(values)) for edge in pair) for pair in ranges], np.int64).reshape(-1, 2)
    found = range_sums(values, edges[:, 0], edges[:, 1], squared=squared)
    numbers = [Fraction(value) for value in values.tolist()]
    if squared:
        numbers = [
            number**2 if values.dtype != np.float64 or abs(number) >= TINY else Fraction(0) for number in numbers
        ]
    wanted = [sum(numbers[start:end], Fraction(0)) for start, end in edges.tolist()]
    assert [Fraction(units, 2**found.scale) for units in found.units.tolist()] == wanted
    if not squared:
        assert found.rounded().tolist() == [float(total) for total in wanted]
