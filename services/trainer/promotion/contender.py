"""One of the two versions that gates compare, as it would be served, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import MIN_SEGMENT_ROWS, HeldOut
from services.trainer.evaluation.metrics import score, scores


@dataclass(frozen=True)
class Contender:
    """What a gate, and a user's function that is one, can ask about a version."""

    version: int | None
    """None for the candidate, which has no number yet."""
    model: Any
    """The packaged model: `predict` and maybe `predict_proba` take a DataFrame."""
    held_out: HeldOut
    answers: Answers
    """What it says of the held-out rows."""
    size: int
    """Bytes of its package."""
    other_scores: Mapping[str, float] = field(default_factory=dict)
    """Values of metrics that the package cannot give, such as of distances that its graph does not have."""
    _known: dict[Metric, float] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> pd.DataFrame:
        """The held-out rows."""
        return self.held_out.rows

    @property
    def label(self) -> np.ndarray:
        """[n] or [n, outputs]: what is true of them."""
        return self.held_out.label

    @property
    def predicted(self) -> np.ndarray:
        """[n] or [n, outputs]: what it says of them."""
        return self.answers.predicted

    @property
    def size_mb(self) -> float:
        """Size of its package in millions of bytes."""
        return self.size / 1e6

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The model's metrics on the held-out rows."""
        return dict(self.other_scores) | scores(self._given, self.answers, self.label)

    @cached_property
    def segments(self) -> dict[str, dict[str, dict[str, float]]]:
        """Column to the values, or ranges, of it, to the model's metrics there, of those with enough rows."""
        return {
            column: {
                value: scores(self._given, self.answers.rows(mask), self.label[mask])
                for value, mask in parts.masks().items()
                if mask.sum() >= MIN_SEGMENT_ROWS
            }
            for column, parts in self.held_out.segments.items()
        }

    def score(self, metric: Metric) -> float:
        """One metric on the held-out rows.

        Raises:
            InvalidRequest: where it cannot be computed.
        """
        if metric not in self._known:
            try:
                self._known[metric] = score(metric, self.answers, self.label)
            except InvalidRequest:
                if metric.name not in self.other_scores:
                    raise
                self._known[metric] = self.other_scores[metric.name]
        return self._known[metric]

    @property
    def _given(self) -> Sequence[Metric]:
        """The model's metrics that the answers can give."""
        found = []
        for metric in self.held_out.metrics:
            try:
                score(metric, self.answers, self.label)
            except InvalidRequest:
                continue
            found.append(metric)
        return found


@dataclass(frozen=True)
class Incomparable:
    """A champion that cannot be compared."""

    version: int
    reason: str
    broken: bool = False
    """Whether its package cannot be loaded at all, so that it is no champion to keep."""
