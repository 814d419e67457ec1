"""What the trials of a search are judged on: pairs of rows to fit on and rows to score, the same for every trial."""

from __future__ import annotations

import copy
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

from modelmill.errors import InvalidRequest

FOLDS = 5
"""Where a model does not say how many."""


@dataclass(frozen=True)
class Folds:
    """Pairs of row numbers."""

    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Those to fit on, and those to score."""
    how: str
    """In words, for the run's record."""


@dataclass(frozen=True)
class Kinds:
    """What is known of the rows that folds are made of."""

    ordered: bool
    """Whether they are in the order of event times that mean something: then what is scored is newer than what was
    fitted on, unless a splitter says otherwise."""
    classes: bool
    """Whether the labels are classes, each of which is to be in every fold."""
    groups: np.ndarray | None = None
    """[n] group of each row, where all rows of a group are to be in one fold."""


def make_folds(cv: Any, rows: pd.DataFrame, label: np.ndarray, kinds: Kinds, seed: int) -> Folds:
    """The folds that a model's `cv` makes of its training rows.

    Args:
        cv: None, a number of folds, a share, a splitter of scikit-learn, or a function that returns one of them.
        rows: [n, inputs]
        label: [n] or [n, labels]

    Raises:
        InvalidRequest: for what is no such thing, or cannot part these rows.
    """
    if label.ndim > 1:  # of several labels none can be in every fold as the others are
        kinds = replace(kinds, classes=False)
    if isinstance(cv, type) or (callable(cv) and not hasattr(cv, "get_n_splits")):
        cv = cv()
    if isinstance(cv, float) and kinds.groups is None and kinds.ordered:
        cut = len(rows) - max(1, round(len(rows) * cv))
        numbers = np.arange(len(rows))
        pairs, how = [(numbers[:cut], numbers[cut:])], f"the newest {len(rows) - cut} of {len(rows)} rows"
    else:
        splitter = _splitter(cv, kinds, seed)
        how = " ".join(str(splitter).split())
        try:
            parts = splitter.split(rows, label, kinds.groups)
            pairs = [(np.asarray(fit), np.asarray(score)) for fit, score in parts]
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"cv={how} cannot part {len(rows)} rows: {error}") from error
    if not pairs or not all(len(fit) and len(score) for fit, score in pairs):
        raise InvalidRequest(f"cv={how} leaves no rows to fit on, or none to score, of {len(rows)}")
    return Folds(tuple(pairs), how)


def _splitter(cv: Any, kinds: Kinds, seed: int) -> Any:
    if hasattr(cv, "get_n_splits"):
        return _seeded(cv, seed)
    if isinstance(cv, float):
        if kinds.groups is not None:
            return GroupShuffleSplit(1, test_size=cv, random_state=seed)
        return (StratifiedShuffleSplit if kinds.classes else ShuffleSplit)(1, test_size=cv, random_state=seed)
    if cv is not None and (isinstance(cv, bool) or not isinstance(cv, int)):
        raise InvalidRequest(f"cv is {cv!r}; expected a number of folds, a share, or a splitter of scikit-learn")
    count = FOLDS if cv is None else cv
    if kinds.groups is not None:
        return (StratifiedGroupKFold if kinds.classes else GroupKFold)(count, shuffle=True, random_state=seed)
    if kinds.ordered:
        return TimeSeriesSplit(count)
    return (StratifiedKFold if kinds.classes else KFold)(count, shuffle=True, random_state=seed)


def _seeded(splitter: Any, seed: int) -> Any:
    """A splitter that shuffles the same way each time; its own seed, if it has one, stays."""
    random = getattr(splitter, "shuffle", True) and hasattr(splitter, "random_state")
    if not random or splitter.random_state is not None:
        return splitter
    seeded = copy.copy(splitter)
    seeded.random_state = seed
    return seeded
