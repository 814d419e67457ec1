"""How long a packaged model takes for one row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MOST_CALLS = 200
FEWEST_CALLS = 20
SECONDS = 0.04
"""After which no further call begins, once there were the fewest."""
WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds of some calls with one row each."""

    calls: np.ndarray

    def quantile(self, share: float) -> float:
        """Milliseconds below which this share of the calls is."""
        return float(np.quantile(self.calls, share))

    def __str__(self) -> str:
        return f"median {self.quantile(0.5):.3g} ms, p99 {self.quantile(0.99):.3g} ms of {len(self.calls)} calls"


def measure(model: Any, rows: pd.DataFrame) -> Latency:
    """Ask `model` about one row at a time; making a row into what the model takes is counted too."""
    singles = [rows.iloc[[number]] for number in range(min(len(rows), FEWEST_CALLS))]
    for row in singles[:WARM_UP]:
        model.predict(row)
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < FEWEST_CALLS or (len(took) < MOST_CALLS and time.perf_counter() - begun < SECONDS):
        row = singles[len(took) % len(singles)]
        started = time.perf_counter()
        model.predict(row)
        took.append((time.perf_counter() - started) * 1000)
    return Latency(np.array(took))
