"""Rows on which a package is proved beside the held-out ones, and what the estimator says of them.

They are copies of held-out rows with values that requests may hold and these do not, one changed at a time: inputs that
may be missing are, alone, in pairs and all at once; texts that nobody has seen; zeros, numbers around those that single
precision holds, and extremes; numbers one step beside those that are there; and the two sides of edges, where the
estimator's answer jumps, which are found by narrowing down between two rows. The limits and choices that a source
declares are not looked at: a value that is given with a request need not keep to them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
import pandas as pd

from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.graph import OwnAnswers

ROWS_COPIED = 3
"""Rows of which copies are made."""
PAIRS = 100
"""Of inputs that are missing together, at most."""
TEXTS = ("", "a text that no row holds", "Ünknown 値")
WHOLE = (0, 1, -1, 10**6, -(10**6), 2**24 + 1, 2**53 + 1, -(2**53) + 1, 10**15)
NUMBERS = (*WHOLE, -0.0, 0.1, -0.1, 1e-300, 1e30, -1e30, 1e300, -1e300)
EDGES = 24
"""Pairs of rows between which an edge is looked for."""
NARROWING_ROUNDS = 7
"""In each the interval becomes a sixteenth: 28 bits of it in all, more than a number of single precision has."""
PARTS_PER_ROUND = 16

Change = tuple[int, Mapping[str, Any]]
"""The row that is copied, and the values that the copy has instead of its own."""


@dataclass(frozen=True)
class Proof:
    """What a package is asked, and what the estimator says."""

    rows: pd.DataFrame
    """Those that the estimator has answers for: the held-out ones first."""
    own: OwnAnswers
    """What it says of them."""
    held_out: int
    """How many are held-out ones."""
    refused: pd.DataFrame
    """Probes that it has no answer for: it raises, or answers with NaN or an infinity."""
    required: list[str]
    """Inputs that may be missing as they are declared, and for which it has no answer then."""


def prove(estimator: Any, inputs: Sequence[Input], rows: pd.DataFrame, own: OwnAnswers) -> Proof:
    """What a package of `estimator`, which answers the held-out `rows` with `own`, has to agree with."""
    ask, held_out = _asking(estimator), len(rows)
    complete = np.flatnonzero(rows.select_dtypes("number").notna().all(axis=1))
    base = rows.iloc[_spread(complete if len(complete) else np.arange(len(rows)), ROWS_COPIED)]
    nullable = [item.name for item in inputs if item.nullable]
    alone = _copies(base, [change for name in nullable for change in _everywhere(base, {name: _missing(base, name)})])
    known = answered(ask, alone)
    has_answer = np.asarray(known.reshape(len(nullable), len(base)).any(axis=1))
    required = [name for name, has in zip(nullable, has_answer, strict=True) if not has]
    free = [name for name in nullable if name not in required]
    more = [_copies(base, [*_missing_together(base, free), *_values(base, inputs)]), *_edges(estimator, inputs, rows)]
    of_free = np.repeat(has_answer, len(base))
    probes = pd.concat([alone[of_free], *more], ignore_index=True)
    there = np.concatenate([known[of_free], answered(ask, pd.concat(more, ignore_index=True))])
    asked = probes[there].reset_index(drop=True)
    if len(asked):
        with _quietly():
            own = own.followed_by(OwnAnswers.of(Answers.of(estimator, asked), own.numbers))
        rows = pd.concat([rows, asked], ignore_index=True)
    return Proof(rows, own, held_out, probes[~there].reset_index(drop=True), required)


def answered(ask: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame) -> np.ndarray:
    """[n] for which rows `ask` does not raise, and says True."""
    try:
        with _quietly():
            return ask(rows)
    except Exception:  # whatever an estimator, or a graph, raises
        if len(rows) <= 1:
            return np.zeros(len(rows), np.bool_)
        half = len(rows) // 2
        return np.concatenate([answered(ask, rows[:half]), answered(ask, rows[half:])])


def _asking(estimator: Any) -> Callable[[pd.DataFrame], np.ndarray]:
    def ask(rows: pd.DataFrame) -> np.ndarray:
        found: np.ndarray = np.isfinite(OwnAnswers.of(Answers.of(estimator, rows)).numbers).all(axis=1)
        return found

    return ask


class _quietly(warnings.catch_warnings):  # noqa: N801  used as the functions of NumPy and the library that it stands for
    """Without the warnings that extremes are worth."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def _spread(among: np.ndarray, count: int) -> np.ndarray:
    found: np.ndarray = among[np.unique(np.linspace(0, len(among) - 1, count).astype(int))]
    return found


def _copies(base: pd.DataFrame, changes: Sequence[Change]) -> pd.DataFrame:
    copies = base.iloc[[number for number, _ in changes]]
    columns = {name: copies[name].to_numpy(copy=True) for name in base.columns}
    for at, (_, values) in enumerate(changes):
        for name, value in values.items():
            columns[name][at] = value
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


def _everywhere(base: pd.DataFrame, values: Mapping[str, Any]) -> list[Change]:
    return [(number, values) for number in range(len(base))]


def _missing(base: pd.DataFrame, name: str) -> Any:
    return "" if base[name].dtype == object else np.nan


def _missing_together(base: pd.DataFrame, names: Sequence[str]) -> Iterator[Change]:
    lacking = {name: _missing(base, name) for name in names}
    for number, pair in enumerate(islice(combinations(names, 2), PAIRS)):
        yield number % len(base), {name: lacking[name] for name in pair}
    yield from _everywhere(base, lacking)


def _values(base: pd.DataFrame, inputs: Sequence[Input]) -> Iterator[Change]:
    """One input at a time changed; value by value, so that those which are refused stand together."""
    kinds = {"str": TEXTS, "bool": (0.0, 1.0), "int": WHOLE, "float": NUMBERS}
    for kind, values in kinds.items():
        for value in values:
            for number, item in enumerate(item for item in inputs if item.dtype == kind):
                yield number % len(base), {item.name: value}
    for item in inputs:
        if item.dtype == "float":
            for number, own in enumerate(base[item.name]):
                yield number, {item.name: np.nextafter(own, -np.inf)}
                yield number, {item.name: np.nextafter(own, np.inf)}


def _edges(estimator: Any, inputs: Sequence[Input], rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Both sides of the edges between pairs of rows that differ in one number; near the end, all that was looked at."""
    names = [item.name for item in inputs if item.dtype in ("float", "int")]
    if not names:
        return []
    whole = np.array([item.dtype == "int" for item in inputs if item.name in names])
    column = np.arange(EDGES) % len(names)
    low = rows.iloc[np.linspace(0, len(rows) - 1, EDGES).astype(int)].reset_index(drop=True)
    high = rows.iloc[np.linspace(len(rows) - 1, 0, EDGES).astype(int) // 2].reset_index(drop=True)
    pick = np.arange(EDGES), column
    ends = np.array([low[names].to_numpy()[pick], high[names].to_numpy()[pick]])
    kept = np.isfinite(ends).all(axis=0)
    low, ends, column = low[kept].reset_index(drop=True), ends[:, kept], column[kept]
    looked: list[pd.DataFrame] = []
    first = np.empty(0)
    for number in range(NARROWING_ROUNDS):
        points = np.linspace(ends[0], ends[1], PARTS_PER_ROUND + 1)
        points = np.where(whole[column], np.round(points), points)
        columns = {name: np.tile(low[name].to_numpy(), PARTS_PER_ROUND + 1) for name in low.columns}
        for at, name in enumerate(names):
            chosen = np.tile(column == at, PARTS_PER_ROUND + 1)
            columns[name][chosen] = points.reshape(-1)[chosen]
        probes = pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})
        try:
            with _quietly():
                found = _jumping(estimator, probes)
        except Exception:  # it may refuse what lies between two rows that it answers
            return looked
        steps = np.abs(np.diff(found.reshape(PARTS_PER_ROUND + 1, len(low), -1), axis=0)).max(axis=2)
        first = steps.max(axis=0) if number == 0 else first
        if number and (steps.max(axis=0) <= first / 4).all():  # answers without edges: less apart, the nearer they are
            return looked
        largest, rows_of = steps.argmax(axis=0), np.arange(len(low))
        ends = np.array([points[largest, rows_of], points[largest + 1, rows_of]])
        if number >= NARROWING_ROUNDS - 2:
            sides = np.concatenate([largest * len(low) + rows_of, (largest + 1) * len(low) + rows_of])
            looked.append(probes.loc[sides[np.tile(steps.max(axis=0) > 0, 2)]])
    return looked


def _jumping(estimator: Any, rows: pd.DataFrame) -> np.ndarray:
    """[n, any] numbers that tell how far the estimator's answers to two rows are from each other."""
    if hasattr(estimator, "predict_proba"):  # whose labels would say nothing more
        given = estimator.predict_proba(rows)
        return np.hstack([np.asarray(own, np.float64) for own in (given if isinstance(given, list) else [given])])
    answers, columns = Answers.of(estimator, rows), []
    for output in answers.outputs:
        found = output.decisions
        if found is None:
            found = np.searchsorted(output.classes, output.predicted) if len(output.classes) else output.predicted
        columns.append(np.asarray(found, np.float64).reshape(len(answers), -1))
    return np.hstack(columns)
