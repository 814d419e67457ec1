from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, TimeSeriesSplit

from modelmill.errors import InvalidRequest
from services.trainer.training.folds import Folds, Kinds, make_folds

N = 60
LABEL = np.arange(N) % 3 == 0


def folds(cv: Any = None, *, ordered: bool = False, classes: bool = True, groups: np.ndarray | None = None) -> Folds:
    rows = pd.DataFrame({"a": np.zeros(N)})
    return make_folds(cv, rows, LABEL, Kinds(ordered, classes, groups), seed=0)


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
    assert made.how == "StratifiedKFold(n_splits=5, random_state=0, shuffle=True)"


def test_numbers_to_predict_are_not_stratified() -> None:
    assert folds(4, classes=False).how == "KFold(n_splits=4, random_state=0, shuffle=True)"


def test_several_labels_are_not_stratified() -> None:
    rows, labels = pd.DataFrame({"a": np.zeros(N)}), np.column_stack([LABEL, ~LABEL])
    made = make_folds(3, rows, labels, Kinds(ordered=False, classes=True), seed=0)
    assert made.how == "KFold(n_splits=3, random_state=0, shuffle=True)"


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
    assert folds(KFold(3, shuffle=True, random_state=7)).how == "KFold(n_splits=3, random_state=7, shuffle=True)"


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
