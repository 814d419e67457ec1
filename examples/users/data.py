"""The example's rows: a file of the article's shape, the same at every call.

python -m examples.users.data users.csv
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 3000
SEED = 2022
EXAMPLE_USER = "a27b09ee-0cf8-11ed-899e-b29c4abd48f4"


def rows() -> pd.DataFrame:
    """`ROWS` users: two normal numbers, and a target that is likelier the larger a mix of them and a square is."""
    random = np.random.default_rng(SEED)
    feature_1, feature_2 = random.normal(size=(2, ROWS))
    score = 2.2 * feature_1 + 1.1 * feature_2 - 0.9 * feature_1**2 + 0.6
    target = (random.uniform(size=ROWS) < 1 / (1 + np.exp(-2 * score))).astype(int)
    users = [EXAMPLE_USER, *(str(uuid.UUID(bytes=random.bytes(16), version=4)) for _ in range(ROWS - 1))]
    return pd.DataFrame({"feature_1": feature_1, "feature_2": feature_2, "target": target, "user_id": users})


def write(path: Path) -> None:
    """Write the rows as CSV with pandas' unnamed index column first, as the article's file has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows().to_csv(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
