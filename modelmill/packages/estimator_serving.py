"""A scikit-learn estimator that answers as an ONNX session does, for packages that have no graph.

Whoever imports this module has pandas, skops and soon scikit-learn in memory: import it only to open such a package.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException
from threadpoolctl import ThreadpoolController

from modelmill.declare.trusted_types import TRUSTED
from modelmill.errors import EstimatorFailed, UntrustedTypes
from modelmill.packages.package import MATRIX, Input, Layout

METHODS = {"label": "predict", "probabilities": "predict_proba", "variable": "predict"}
"""Output, named as skl2onnx names those of its graphs, to what gives it."""
TYPES = {"f": "tensor(double)", "i": "tensor(int64)", "u": "tensor(int64)", "b": "tensor(bool)"}
"""Kind of a NumPy type to the name that ONNX has for it; anything else is text."""


@dataclass(frozen=True)
class Node:
    """One input or output, described as ONNX Runtime does."""

    name: str
    type: str
    shape: list[int | None]


class EstimatorSession:
    """Has those parts of an `onnxruntime.InferenceSession` that a package is served by."""

    def __init__(self, estimator: Any, inputs: Sequence[Input], layout: Layout, labels: int = 1) -> None:
        self.estimator = _in_one_thread(estimator)
        self.columns = [item.name for item in inputs]
        self.layout = layout
        self.inputs = _inputs(inputs, layout)
        self.outputs = _outputs(estimator, labels)
        self.threads = ThreadpoolController()

    def get_inputs(self) -> list[Node]:
        """What it takes."""
        return self.inputs

    def get_outputs(self) -> list[Node]:
        """What it gives."""
        return self.outputs

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs for n rows, each with n entries.

        Raises:
            EstimatorFailed: for values that the estimator cannot take.
        """
        rows = self._frame(feed)
        try:
            with self.threads.limit(limits=1):  # requests run side by side already
                return [self._asked(name, rows) for name in outputs]
        except Exception as error:  # an estimator may raise anything
            raise EstimatorFailed(type(self.estimator).__name__, error) from error

    def _asked(self, output: str, rows: pd.DataFrame) -> np.ndarray:
        answers = getattr(self.estimator, METHODS[output])(rows)
        if output == "probabilities" and isinstance(self.estimator.classes_, list):
            return np.hstack(of_each_label(answers))
        return np.asarray(answers)

    def _frame(self, feed: Mapping[str, np.ndarray]) -> pd.DataFrame:
        if self.layout == "matrix":
            return pd.DataFrame(feed[MATRIX], columns=self.columns, copy=False)
        columns = {name: feed[name].reshape(-1) for name in self.columns}
        # A type must be named for text to stay what it was in training.
        return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


def load_estimator(content: bytes, trusted: Collection[str] = ()) -> Any:
    """The estimator in a skops file, made of trusted types alone: those reviewed, and those in `trusted`.

    Raises:
        UntrustedTypes: naming the others; nothing of the file has been loaded then.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about each other's versions, which the manifest holds
            return skops.io.loads(content, trusted=[*TRUSTED, *trusted])
    except UntrustedTypesFoundException:
        raise UntrustedTypes(sorted(set(foreign_types(content)) - set(trusted))) from None


def foreign_types(content: bytes) -> list[str]:
    """The types beside the reviewed ones that the estimator in a skops file is made of; nothing of it is loaded."""
    return sorted(set(skops.io.get_untrusted_types(data=content)) - TRUSTED)


def _in_one_thread(estimator: Any) -> Any:
    """Let no estimator, nor one inside it, start threads or processes of its own for a request."""
    seen, waiting = set(), [estimator]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif hasattr(one, "__dict__") and not isinstance(one, type) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(vars(one).values())
            if getattr(one, "n_jobs", None) is not None:
                one.n_jobs = None
    return estimator


def _inputs(inputs: Sequence[Input], layout: Layout) -> list[Node]:
    if layout == "matrix":
        return [Node(MATRIX, "tensor(double)", [None, len(inputs)])]
    return [Node(i.name, "tensor(string)" if i.dtype == "str" else "tensor(double)", [None, 1]) for i in inputs]


def of_each_label(probabilities: Any) -> list[np.ndarray]:
    """[n, classes] probabilities for each of several labels, as an estimator gives them.

    Most give such a list; a chain of classifiers gives [n, labels], those of the second of two classes.
    """
    if isinstance(probabilities, list):
        return [np.asarray(own) for own in probabilities]
    return [np.column_stack([1 - second, second]) for second in np.asarray(probabilities).T]


def _outputs(estimator: Any, count: int) -> list[Node]:
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return [Node("variable", "tensor(double)", [None, count])]
    if isinstance(classes, list):
        kinds = {TYPES.get(np.asarray(own).dtype.kind, "tensor(string)") for own in classes}
        several = Node("label", kinds.pop() if len(kinds) == 1 else "tensor(string)", [None, len(classes)])
        total = sum(len(own) for own in classes)
        probable = hasattr(estimator, "predict_proba")
        return [several, Node("probabilities", "tensor(double)", [None, total])] if probable else [several]
    labels = Node("label", TYPES.get(np.asarray(classes).dtype.kind, "tensor(string)"), [None])
    if not hasattr(estimator, "predict_proba"):
        return [labels]
    return [labels, Node("probabilities", "tensor(double)", [None, len(classes)])]
