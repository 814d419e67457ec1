"""Which rows a model is trained on, and which are held out to evaluate it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelmill.errors import InvalidRequest

SEED = 0
"""Of random splits, so that the same rows are held out again of the same frame."""
FEWEST = 5
"""Rows below which neither part says anything."""


@dataclass(frozen=True)
class Split:
    """Row numbers of both parts, each in ascending order."""

    train: np.ndarray
    held_out: np.ndarray
    how: str
    """In words, for the run's record."""


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
            " times, or declare the source without event_time"
        )
    rows = np.arange(len(times))
    return _checked(rows[:cut], rows[cut:], f"by time: the newest {len(times) - cut} of {len(times)} rows held out")


def at_random(label: np.ndarray, share: float, *, classes: bool) -> Split:
    """Hold out about `share` of the rows at random; with `classes`, that share of each class.

    Args:
        label: [n]

    Raises:
        InvalidRequest: where too few rows are left on a side.
    """
    order = np.random.default_rng(SEED).permutation(len(label))
    groups = np.unique(label, return_inverse=True)[1] if classes else np.zeros(len(label), np.int64)
    held_out = [
        members[: round(len(members) * share)]
        for group in range(groups.max(initial=0) + 1)
        for members in [order[groups[order] == group]]
    ]
    chosen = np.zeros(len(label), np.bool_)
    chosen[np.concatenate(held_out)] = True
    stratified = ", stratified" if classes else ""
    how = f"at random, seed {SEED}{stratified}: {chosen.sum()} of {len(label)} rows held out"
    return _checked(np.flatnonzero(~chosen), np.flatnonzero(chosen), how)


def require_classes(label: np.ndarray, split: Split) -> None:
    """Refuse to train a classifier on one class.

    Raises:
        InvalidRequest: naming the class and the number of rows.
    """
    classes = np.unique(label[split.train])
    if len(classes) < 2:
        raise InvalidRequest(
            f"all {len(split.train)} rows to train on have the label {classes[0]!r} (split {split.how}); a classifier"
            " needs at least two classes"
        )


def _checked(train: np.ndarray, held_out: np.ndarray, how: str) -> Split:
    if min(len(train), len(held_out)) < FEWEST:
        raise InvalidRequest(
            f"{len(train)} rows to train on and {len(held_out)} held out; expected at least {FEWEST} of each: ingest"
            " more rows, or change test_share",
            rows_train=len(train),
            rows_test=len(held_out),
        )
    return Split(train, held_out, how)
