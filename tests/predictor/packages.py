"""Small real models, packaged and registered as the trainer would, so that the predictor is tested without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from modelmill.packages import package
from modelmill.packages.package import Input, Manifest
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import Run, new_run_id
from modelmill.storage import Storage
from modelmill.times import utc_now

USER_INPUTS = [
    Input("feature_1", "float", False, "user", "feature_1", "users"),
    Input("feature_2", "float", True, "user", "feature_2", "users"),
    Input("clicks", "int", False, "user", "clicks", "visits"),
]
"""Three features of a user from two sources; `feature_2` may be missing."""
EVENT_TIME = "2026-11-23T23:47:08.123456Z"
INGEST_TIME = "2026-11-23T23:47:09.000000Z"


def manifest(**changes: Any) -> Manifest:
    """The manifest of `classifier()`, with `changes`."""
    fields: dict[str, Any] = {
        "model": "user_target",
        "run": new_run_id(),
        "task": "classification",
        "entities": {"user": "user_id"},
        "inputs": USER_INPUTS,
        "layout": "matrix",
        "tensor_dtype": "float32",
        "classes": [0, 1],
        "label": "target",
        "metrics": {"accuracy": 0.9},
        "example": {"feature_1": 0.1, "feature_2": 0.2, "clicks": 3},
    }
    return Manifest(**(fields | changes))


def _numbers(inputs: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(200, inputs)).astype(np.float32)


def classifier(labels: Sequence[Any] = (0, 1), inputs: int = 3) -> bytes:
    """The graph of a logistic regression: the second label where the first input is positive, about."""
    numbers = _numbers(inputs)
    chosen = np.array(labels)[(numbers[:, 0] > 0).astype(int)]
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, chosen)
    graph: bytes = to_onnx(estimator, numbers[:1], options={id(estimator): {"zipmap": False}}).SerializeToString()
    return graph


def regression(inputs: int = 3) -> bytes:
    """The graph of a linear regression: the sum of the inputs."""
    numbers = _numbers(inputs)
    graph: bytes = to_onnx(LinearRegression().fit(numbers, numbers.sum(axis=1)), numbers[:1]).SerializeToString()
    return graph


def without_probabilities() -> bytes:
    """The graph of a classifier that only knows labels; its scores are left out, as the trainer does."""
    numbers = _numbers(3)
    graph = to_onnx(LinearSVC().fit(numbers, (numbers[:, 0] > 0).astype(int)), numbers[:1])
    del graph.graph.output[1:]
    content: bytes = graph.SerializeToString()
    return content


def mixed_columns() -> bytes:
    """The graph of a classifier with an input for each column: `city`, a text, and `distance`, a number."""
    import pandas as pd

    frame = pd.DataFrame({"city": ["a", "b"] * 50, "distance": np.linspace(-1, 1, 100)})
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["distance"])
    )
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, (frame["city"] == "b").astype(int))
    graph: bytes = to_onnx(
        estimator,
        initial_types=[("city", StringTensorType([None, 1])), ("distance", FloatTensorType([None, 1]))],
        options={id(estimator): {"zipmap": False}},
    ).SerializeToString()
    return graph


def served_by_scikit_learn(estimator: Any, label: str = "number", **changes: Any) -> tuple[Manifest, bytes]:
    """The package of an estimator that is served itself; fitted to tell whether the first input is positive."""
    import pandas as pd

    numbers = pd.DataFrame(_numbers(3).astype(float), columns=[item.name for item in USER_INPUTS])
    positive = (numbers["feature_1"] > 0).to_numpy()
    classes = {"number": [0, 1], "bool": [False, True], "text": ["no", "yes"]}[label]
    estimator.fit(numbers, np.array(classes, object if label == "text" else None)[positive.astype(int)])
    described = manifest(runtime="skops", tensor_dtype="float64", classes=classes, **changes)
    return described, skops.io.dumps(estimator)


def publish(redis: Redis, storage: Storage, described: Manifest, content: bytes, *, promote: bool = True) -> Version:
    """Package and register a version, and promote it if asked to."""
    folder = package.write(storage, described, {described.served: content})
    registry = Registry(redis)
    run = Run(id=described.run, model=described.model, started=utc_now())
    registry.runs.start(run)
    champion = registry.aliases(described.model).get("champion")
    return registry.register(run, folder, promote=promote, champion=champion)


def put_user(redis: Redis, key: str, features: Mapping[str, str], event_times: Mapping[str, str]) -> None:
    """Store a user's features and the event times of its sources as the feature service does."""
    times = {keys.time_field(source): f"{time} {INGEST_TIME}" for source, time in event_times.items()}
    redis.hset(keys.feature("user", key), mapping={**features, **times})


def put_complete_user(redis: Redis, key: str = "u1", feature_1: float = 2.0) -> None:
    """Store a user that lacks nothing."""
    put_user(
        redis,
        key,
        {"feature_1": repr(feature_1), "feature_2": "0.5", "clicks": "3"},
        {"users": EVENT_TIME, "visits": EVENT_TIME},
    )
