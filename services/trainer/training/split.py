"""Which rows a model is trained on, which are held out to evaluate it, and the folds of a search.

Splits are ours, the folds scikit-learn's: its `GroupShuffleSplit` holds out a share of the groups where users ask for a
share of the rows, its `StratifiedShuffleSplit` refuses a class of one row, and none of it splits by time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
)

from modelmill.declare.splits import AtRandom, ByGroup, ByTime, SplitRule
from modelmill.errors import InvalidRequest
from services.trainer.training.frame import Frame

MIN_ROWS_A_SIDE = 5
"""Rows below which neither part says anything."""
DEFAULT_FOLDS = 5
"""Of a search, where a model does not say how many."""


@dataclass(frozen=True)
class Split:
    """Row numbers of both parts, each in ascending order."""

    train: np.ndarray
    held_out: np.ndarray
    description: str
    """In words, for the run's record."""


def split(rule: SplitRule, frame: Frame, labels: Sequence[str], *, classes: bool) -> Split:
    """Split the rows of `frame` as `rule` says.

    Raises:
        InvalidRequest: where that is not possible, or too few rows are left on a side.
    """
    if isinstance(rule, ByTime):
        return by_time(frame.times, rule.share)
    if isinstance(rule, ByGroup):
        return by_group(frame.column(rule.column), rule.share, rule.seed)
    if isinstance(rule, AtRandom):
        return at_random(frame.label, rule.share, rule.seed, classes=classes)
    return by_function(rule, frame.pandas(labels))


def by_time(times: np.ndarray, share: float) -> Split:
    """Hold out the newest rows: about `share` of them; rows of one time are never parted.

    Args:
        times: [n] event times, ascending.

    Raises:
        InvalidRequest: where all rows have one time, or too few are left on a side.
    """
    wanted = max(1, round(len(times) * share))
    cut = np.searchsorted(times, times[len(times) - wanted], side="left")
    if cut == 0:  # the oldest time reaches into the held-out share: keep all of it to train on
        cut = np.searchsorted(times, times[0], side="right")
    if cut == len(times):
        raise InvalidRequest(
            f"all {len(times)} rows have the same event time, so none can be held out by time; ingest rows of other"
            " times, or declare split=at_random(...)"
        )
    held_out = np.arange(len(times)) >= cut
    return _checked(held_out, f"by time: the newest {held_out.sum()} of {len(times)} rows held out")


def by_group(groups: pd.Series, share: float, seed: int) -> Split:
    """Hold out all rows of some groups, in random order as many as come to about `share` of the rows.

    Args:
        groups: [n]; rows without a value are one group.

    Raises:
        InvalidRequest: where there is but one group, or too few rows are left on a side.
    """
    codes, values = pd.factorize(groups, use_na_sentinel=False)
    if len(values) < 2:
        raise InvalidRequest(
            f"all {len(groups)} rows have the same {groups.name!r}, so no group of them can be held out; ingest rows of"
            " other groups, or declare another split",
            column=str(groups.name),
        )
    sizes = np.bincount(codes)
    wanted, room = share * len(groups), share * len(groups)
    chosen = np.zeros(len(values), np.bool_)
    for group in np.random.default_rng(seed).permutation(len(values)):
        if sizes[group] <= room + wanted / 10:
            chosen[group] = True
            room -= sizes[group]
    if not chosen.any():
        chosen[sizes.argmin()] = True
    held_out = chosen[codes]
    return _checked(
        held_out,
        f"by group of {groups.name}, seed {seed}: {held_out.sum()} of {len(groups)} rows held out, {chosen.sum()} of"
        f" {len(values)} groups",
    )


def at_random(label: np.ndarray, share: float, seed: int, *, classes: bool) -> Split:
    """Hold out about `share` of the rows at random; with `classes`, that share of each class.

    Args:
        label: [n], or [n, outputs], of which no class gets its share.

    Raises:
        InvalidRequest: where too few rows are left on a side.
    """
    order = np.random.default_rng(seed).permutation(len(label))
    stratified = classes and label.ndim == 1
    strata = pd.factorize(label if stratified else np.zeros(len(label)), use_na_sentinel=False)[0][order]
    wanted = np.round(np.bincount(strata) * share)
    held_out = np.zeros(len(label), np.bool_)
    held_out[order] = pd.Series(strata).groupby(strata).cumcount() < wanted[strata]
    description = f"at random, seed {seed}{', stratified' if stratified else ''}"
    return _checked(held_out, f"{description}: {held_out.sum()} of {len(label)} rows held out")


def by_function(function: Callable[[pd.DataFrame], Any], frame: pd.DataFrame) -> Split:
    """Hold out the rows of which the user's function says so; its errors come as they are.

    Raises:
        InvalidRequest: where it returns anything but a truth value a row, or too few rows are left on a side.
    """
    name = getattr(function, "__name__", type(function).__name__)
    held_out = np.asarray(function(frame))
    if held_out.shape != (len(frame),) or held_out.dtype != np.bool_:
        raise InvalidRequest(
            f"split function {name} returned {held_out.dtype} of shape {held_out.shape}; expected a truth value for"
            f" each of {len(frame)} rows, True for held out"
        )
    return _checked(held_out, f"by function {name}: {held_out.sum()} of {len(frame)} rows held out")


def require_classes(label: np.ndarray, split: Split) -> None:
    """Refuse to train a classifier on one class.

    Args:
        label: [n] or [n, outputs]

    Raises:
        InvalidRequest: naming the class and the number of rows.
    """
    for column in label.reshape(len(label), -1).T:
        classes = np.unique(column[split.train])
        if len(classes) < 2:
            raise InvalidRequest(
                f"all {len(split.train)} rows to train on have the label {classes.tolist()[0]!r} (split"
                f" {split.description}); a classifier needs at least two classes"
            )


def _checked(held_out: np.ndarray, description: str) -> Split:
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if min(len(train), len(test)) < MIN_ROWS_A_SIDE:
        raise InvalidRequest(
            f"{len(train)} rows to train on and {len(test)} held out; expected at least {MIN_ROWS_A_SIDE} of each:"
            " ingest more rows, or change split",
            rows_train=len(train),
            rows_test=len(test),
        )
    return Split(train, test, description)


@dataclass(frozen=True)
class Folds:
    """Pairs of rows to fit on and rows to score, the same for every trial of a search."""

    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Row numbers."""
    description: str
    """In words, for the run's record."""


@dataclass(frozen=True)
class FoldConstraints:
    """What the folds of some rows have to keep to."""

    ordered: bool
    """Whether they are in the order of event times that mean something: then what is scored is newer than what was
    fitted on, unless a splitter says otherwise."""
    classes: bool
    """Whether the labels are classes, each of which is to be in every fold."""
    groups: np.ndarray | None = None
    """[n] group of each row, where all rows of a group are to be in one fold."""


def make_folds(cv: Any, rows: pd.DataFrame, label: np.ndarray, constraints: FoldConstraints, seed: int) -> Folds:
    """The folds that a model's `cv` makes of its training rows.

    Args:
        cv: None, a number of folds, a share, a splitter of scikit-learn, or a function that returns one of them.
        rows: [n, inputs]
        label: [n] or [n, labels]

    Raises:
        InvalidRequest: for what is no such thing, or cannot part these rows.
    """
    if label.ndim > 1:  # of several labels none can be in every fold as the others are
        constraints = replace(constraints, classes=False)
    if isinstance(cv, type) or (callable(cv) and not hasattr(cv, "get_n_splits")):
        cv = cv()
    if isinstance(cv, float) and constraints.groups is None and constraints.ordered:
        cut = len(rows) - max(1, round(len(rows) * cv))
        numbers = np.arange(len(rows))
        pairs, description = [(numbers[:cut], numbers[cut:])], f"the newest {len(rows) - cut} of {len(rows)} rows"
    else:
        splitter = _splitter(cv, constraints, seed)
        description = " ".join(str(splitter).split())
        try:
            parts = splitter.split(rows, label, constraints.groups)
            pairs = [(np.asarray(fit), np.asarray(score)) for fit, score in parts]
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"cv={description} cannot part {len(rows)} rows: {error}") from error
    if not pairs or not all(len(fit) and len(score) for fit, score in pairs):
        raise InvalidRequest(f"cv={description} leaves no rows to fit on, or none to score, of {len(rows)}")
    return Folds(tuple(pairs), description)


def _splitter(cv: Any, constraints: FoldConstraints, seed: int) -> Any:
    if hasattr(cv, "get_n_splits"):
        return _seeded(cv, seed)
    if isinstance(cv, float):
        if constraints.groups is not None:
            return GroupShuffleSplit(1, test_size=cv, random_state=seed)
        return (StratifiedShuffleSplit if constraints.classes else ShuffleSplit)(1, test_size=cv, random_state=seed)
    if cv is not None and (isinstance(cv, bool) or not isinstance(cv, int)):
        raise InvalidRequest(f"cv is {cv!r}; expected a number of folds, a share, or a splitter of scikit-learn")
    count = DEFAULT_FOLDS if cv is None else cv
    if constraints.groups is not None:
        return (StratifiedGroupKFold if constraints.classes else GroupKFold)(count, shuffle=True, random_state=seed)
    if constraints.ordered:
        return TimeSeriesSplit(count)
    return (StratifiedKFold if constraints.classes else KFold)(count, shuffle=True, random_state=seed)


def _seeded(splitter: Any, seed: int) -> Any:
    """A splitter that shuffles the same way each time; its own seed, if it has one, stays."""
    random = getattr(splitter, "shuffle", True) and hasattr(splitter, "random_state")
    if not random or splitter.random_state is not None:
        return splitter
    seeded = copy.copy(splitter)
    seeded.random_state = seed
    return seeded
