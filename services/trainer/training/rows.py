"""The rows that estimators are fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Rows:
    """n labelled rows."""

    inputs: pd.DataFrame
    """[n, inputs]"""
    label: np.ndarray
    """[n]"""

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, numbers: np.ndarray) -> Rows:
        """The rows of these numbers, in their order."""
        return Rows(self.inputs.iloc[numbers], self.label[numbers])

    def fit(self, estimator: Any) -> Any:
        """Fit `estimator` on all of them, and return it."""
        return estimator.fit(self.inputs, self.label)
