"""Seeds, so that a training can be repeated."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


def seeded(estimator: Any, seed: int) -> Any:
    """`estimator` with `seed` for each `random_state`, its own or one inside it, that was left open."""
    open_ones = [
        name
        for name, value in estimator.get_params(deep=True).items()
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    return estimator.set_params(**dict.fromkeys(open_ones, seed))


def seed_process(seed: int) -> None:
    """Seed what is drawn from the generators of the process, as functions in a pipeline may do."""
    random.seed(seed)
    np.random.seed(seed)
