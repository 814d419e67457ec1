"""Which rows are held out, and which folds a search is scored on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, TimeSeriesSplit

from modelmill.declare.splits import AtRandom, ByGroup, ByTime
from modelmill.errors import InvalidRequest
from services.trainer.training.frame import Frame
from services.trainer.training.split import (
    MIN_ROWS_A_SIDE,
    FoldConstraints,
    Folds,
    at_random,
    by_group,
    by_time,
    make_folds,
    require_classes,
    split,
)


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


@given(st.lists(st.integers(0, 12), min_size=2 * MIN_ROWS_A_SIDE, max_size=80), st.floats(0.05, 0.95))
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
    with pytest.raises(InvalidRequest, match=r"all 30 rows to train on have the label 1 \(split "):
        require_classes(label, at_random(label, 0.25, 0, classes=True))


def test_by_group_no_group_is_on_both_sides() -> None:
    groups = pd.Series(np.random.default_rng(0).integers(0, 40, 1000), name="user_id")
    split = by_group(groups, 0.25, 0)
    assert not {*groups[split.train]} & {*groups[split.held_out]}
    assert 200 <= len(split.held_out) <= 300
    assert split.description.startswith(f"by group of user_id, seed 0: {len(split.held_out)} of 1000 rows held out, ")


def test_by_group_rows_without_a_value_are_one_group() -> None:
    groups = pd.Series([None] * 30 + ["a"] * 30 + ["b"] * 30, name="shop")
    split = by_group(groups, 0.3, 0)
    assert len(split.held_out) == 30


def test_by_group_another_seed_holds_out_other_groups() -> None:
    groups = pd.Series(np.repeat(np.arange(20), 10), name="shop")
    first, second = (by_group(groups, 0.25, seed).held_out.tolist() for seed in (0, 1))
    assert first != second


def test_by_group_a_group_greater_than_its_share_is_trained_on() -> None:
    groups = pd.Series(["great"] * 90 + ["small"] * 10, name="shop")
    assert by_group(groups, 0.2, 0).held_out.tolist() == list(range(90, 100))


def test_by_group_a_single_group_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="all 20 rows have the same 'shop'"):
        by_group(pd.Series(["a"] * 20, name="shop"), 0.25, 0)


@given(st.lists(st.integers(0, 8), min_size=2 * MIN_ROWS_A_SIDE, max_size=80), st.floats(0.05, 0.95), st.integers(0, 5))
def test_by_group_every_row_is_on_the_side_of_its_group(groups: list[int], share: float, seed: int) -> None:
    column = pd.Series(groups, name="g")
    try:
        split = by_group(column, share, seed)
    except InvalidRequest:
        return
    assert sorted([*split.train, *split.held_out]) == list(range(len(groups)))
    assert not {*column[split.train]} & {*column[split.held_out]}


def test_several_labels_are_split_without_regard_to_their_classes() -> None:
    label = np.random.default_rng(0).integers(0, 2, (100, 2))
    assert at_random(label, 0.25, 7, classes=True).description == "at random, seed 7: 25 of 100 rows held out"


def test_a_function_says_which_rows_are_held_out() -> None:
    def north(frame: pd.DataFrame) -> pd.Series:
        assert list(frame.columns) == ["_event_time", "x", "y", "region"]
        return frame["region"] == "north"

    split_up = split(north, whole(), ["y"], classes=False)
    assert split_up.held_out.tolist() == list(range(10))
    assert split_up.description == "by function north: 10 of 20 rows held out"


@pytest.mark.parametrize("answer", [None, [True] * 3, np.ones(20), pd.Series([True] * 19 + [None])])
def test_a_function_that_returns_anything_else_is_refused(answer: object) -> None:
    def odd(_: pd.DataFrame) -> object:
        return answer

    with pytest.raises(InvalidRequest, match=r"split function odd returned .*a truth value for each of 20 rows"):
        split(odd, whole(), ["y"], classes=False)


def test_a_rule_finds_its_column_among_inputs_and_what_is_carried() -> None:
    assert split(ByGroup("region", 0.5), whole(), ["y"], classes=False).description.endswith("1 of 2 groups")
    assert split(ByTime(0.25), whole(), ["y"], classes=False).held_out.tolist() == [15, 16, 17, 18, 19]
    assert split(AtRandom(0.25, 4), whole(), ["y"], classes=False).description.startswith("at random, seed 4: 5 of 20")


def whole() -> Frame:
    carried = pd.DataFrame({"region": ["north"] * 10 + ["south"] * 10})
    return Frame(pd.DataFrame({"x": np.arange(20.0)}), np.arange(20.0), carried, times(*range(20)), 0, "")


N = 60
LABEL = np.arange(N) % 3 == 0


def folds(cv: Any = None, *, ordered: bool = False, classes: bool = True, groups: np.ndarray | None = None) -> Folds:
    rows = pd.DataFrame({"a": np.zeros(N)})
    return make_folds(cv, rows, LABEL, FoldConstraints(ordered, classes, groups), seed=0)


def equal(one: Folds, other: Folds) -> bool:
    pairs = zip(one.pairs, other.pairs, strict=True)
    return all(np.array_equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("cv", [None, 3, TimeSeriesSplit(4), lambda: TimeSeriesSplit(4), TimeSeriesSplit])
def test_rows_in_the_order_of_time_are_judged_on_newer_ones(cv: Any) -> None:
    for fit, score in folds(cv, ordered=True).pairs:
        assert fit.max() < score.min()


def test_other_rows_are_parted_at_random_with_every_class_in_each_fold() -> None:
    made = folds()
    assert len(made.pairs) == 5
    assert all(LABEL[score].mean() == pytest.approx(1 / 3) for _, score in made.pairs)
    assert np.array_equal(np.sort(np.concatenate([score for _, score in made.pairs])), np.arange(N))
    assert made.description == "StratifiedKFold(n_splits=5, random_state=0, shuffle=True)"


def test_numbers_to_predict_are_not_stratified() -> None:
    assert folds(4, classes=False).description == "KFold(n_splits=4, random_state=0, shuffle=True)"


def test_several_labels_are_not_stratified() -> None:
    rows, labels = pd.DataFrame({"a": np.zeros(N)}), np.column_stack([LABEL, ~LABEL])
    made = make_folds(3, rows, labels, FoldConstraints(ordered=False, classes=True), seed=0)
    assert made.description == "KFold(n_splits=3, random_state=0, shuffle=True)"


def test_a_share_is_one_split() -> None:
    [(fit, score)] = folds(0.25, ordered=True).pairs
    assert (list(fit), list(score)) == (list(range(45)), list(range(45, 60)))
    [(fit, score)] = folds(0.25).pairs
    assert (len(fit), len(score), LABEL[score].sum()) == (45, 15, 5)


@pytest.mark.parametrize("cv", [None, 0.25, GroupKFold(4)])
def test_groups_stay_together(cv: Any) -> None:
    groups = np.arange(N) % 12
    for fit, score in folds(cv, ordered=True, groups=groups).pairs:
        assert not set(groups[fit]) & set(groups[score])


@pytest.mark.parametrize("cv", [None, 3, 0.2, KFold(3, shuffle=True), RepeatedKFold(n_splits=3, n_repeats=2)])
def test_the_same_rows_are_parted_the_same_way_each_time(cv: Any) -> None:
    assert equal(folds(cv), folds(cv))


def test_a_splitter_keeps_its_own_seed() -> None:
    assert (
        folds(KFold(3, shuffle=True, random_state=7)).description == "KFold(n_splits=3, random_state=7, shuffle=True)"
    )


@pytest.mark.parametrize(
    "cv, error",
    [
        (100, "cannot part 60 rows"),
        (GroupKFold(3), "The 'groups' parameter should not be None"),
        (lambda: "five", "cv is 'five'; expected a number of folds, a share, or a splitter of scikit-learn"),
    ],
)
def test_what_cannot_part_the_rows_is_refused(cv: Any, error: str) -> None:
    with pytest.raises(InvalidRequest, match=error):
        folds(cv, classes=False)
