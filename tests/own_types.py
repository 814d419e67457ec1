"""Types of a user's own, in a module that the trainer and the predictor can import."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin


class Halved(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Halves every number."""

    def fit(self, rows: pd.DataFrame, label: Any = None) -> Halved:
        self.fitted_ = True
        return self

    def transform(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows / 2


def doubled(rows: pd.DataFrame) -> pd.DataFrame:
    """Doubles every number."""
    return rows * 2
