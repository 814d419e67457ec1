"""Models of the users example as they are trained elsewhere, and the files in which they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.trainer.conftest import users_table

NAMES = ["feature_1", "feature_2", "feature_3"]


def rows(names: Sequence[str] = NAMES) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows to fit on and their labels."""
    frame = users_table(300, seed=3).to_pandas()
    return frame[list(names)], frame["target"].to_numpy()


def fitted(estimator: Any | None = None, names: Sequence[str] = NAMES) -> Any:
    """A pipeline, or `estimator`, fitted on the columns `names`."""
    given, label = rows(names)
    if estimator is None:
        estimator = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    return estimator.fit(given, label)


def skops_file(estimator: Any) -> bytes:
    content: bytes = skops.io.dumps(estimator)
    return content


def onnx_file(estimator: Any, width: int = 3, types: Any = None, **options: Any) -> bytes:
    """As skl2onnx writes it; by default with a ZipMap, as it does."""
    kinds = types or [("X", FloatTensorType([None, width]))]
    content: bytes = convert_sklearn(estimator, initial_types=kinds, options=options or None).SerializeToString()
    return content
