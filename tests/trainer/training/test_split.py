"""Which rows are held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.errors import InvalidRequest
from services.trainer.training.split import FEWEST, at_random, by_time, require_classes


def times(*minutes: int) -> np.ndarray:
    return np.datetime64("2026-01-01", "us") + np.array(sorted(minutes)) * np.timedelta64(1, "m")


def test_by_time_the_newest_rows_are_held_out() -> None:
    split = by_time(times(*range(40)), 0.25)
    assert split.held_out.tolist() == list(range(30, 40))
    assert split.train.tolist() == list(range(30))


def test_rows_of_one_time_are_not_parted() -> None:
    split = by_time(times(*range(20), *[20] * 15, *range(21, 26)), 0.25)
    assert split.held_out.tolist() == list(range(20, 40))


def test_where_the_oldest_time_reaches_into_the_held_out_share_it_is_trained_on() -> None:
    split = by_time(times(*[0] * 30, *range(1, 7)), 0.5)
    assert split.train.tolist() == list(range(30))


@given(st.lists(st.integers(0, 12), min_size=2 * FEWEST, max_size=80), st.floats(0.05, 0.95))
def test_by_time_nothing_held_out_is_older_than_what_is_trained_on(minutes: list[int], share: float) -> None:
    moments = times(*minutes)
    try:
        split = by_time(moments, share)
    except InvalidRequest:
        return
    assert moments[split.train].max() < moments[split.held_out].min()
    assert sorted([*split.train, *split.held_out]) == list(range(len(moments)))


def test_by_time_rows_of_a_single_time_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="all 30 rows have the same event time"):
        by_time(times(*[3] * 30), 0.25)


def test_at_random_the_same_rows_are_held_out_each_time() -> None:
    label = np.arange(100) % 2
    first, second = (at_random(label, 0.25, 0, classes=True).held_out for _ in range(2))
    assert first.tolist() == second.tolist()


def test_at_random_each_class_gives_its_share() -> None:
    label = np.array(["rare"] * 20 + ["common"] * 180, dtype=object)
    held_out = label[at_random(label, 0.25, 0, classes=True).held_out]
    assert (held_out == "rare").sum() == 5
    assert (held_out == "common").sum() == 45


def test_at_random_a_class_of_one_row_is_trained_on() -> None:
    label = np.array([0] * 50 + [1] * 50 + [2])
    assert 100 in at_random(label, 0.25, 0, classes=True).train


def test_too_few_rows_are_refused_with_their_counts() -> None:
    with pytest.raises(InvalidRequest, match="6 rows to train on and 2 held out"):
        at_random(np.arange(8.0), 0.25, 0, classes=False)


def test_a_single_class_to_train_on_is_refused_with_its_name() -> None:
    label = np.ones(40, np.int64)
    with pytest.raises(InvalidRequest, match=r"all 30 rows to train on have the label .*1"):
        require_classes(label, at_random(label, 0.25, 0, classes=True))
