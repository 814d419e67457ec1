"""What answers for a package: an ONNX graph in ONNX Runtime, or the estimator itself in scikit-learn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime

from modelmill.declare import applied
from modelmill.packages.package import Manifest, Tensor
from modelmill.state.connections import Redis

TENSORS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(string)": np.object_,
}
"""ONNX's name of the type of a tensor that goes in to the type that NumPy has for it."""
NAMES = {"float": "float32", "double": "float64", "string": "str"}
"""ONNX's name of a type to NumPy's, where they differ."""

NEARLY = 1e-4
"""How far the answer to the example may be from what it was, of itself and at all."""


class Session(Protocol):
    """Those parts of an `onnxruntime.InferenceSession` that a package is served by."""

    def get_inputs(self) -> Sequence[Any]:
        """What it takes, each with `name`, `type` and `shape`."""

    def get_outputs(self) -> Sequence[Any]:
        """What it gives, likewise."""

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs for n rows, each with n entries."""


def open_session(manifest: Manifest, content: bytes, trusted: Collection[str] = ()) -> Session:
    """The session of a package, from the content of the file that is served.

    `trusted` are types of the user's own that its estimator may be made of.

    Raises:
        UntrustedTypes: for an estimator made of others. ONNX Runtime's errors have no common root.
    """
    if manifest.runtime == "onnx":
        return graph_session(content)
    from modelmill.packages.estimator_serving import (  # brings pandas, skops and scikit-learn
        EstimatorSession,
        load_estimator,
    )

    return EstimatorSession(
        load_estimator(content, trusted), manifest.inputs, manifest.layout, max(1, len(manifest.labels))
    )


def open_package(redis: Redis, manifest: Manifest, content: bytes) -> Session:
    """The session of a package that was trained here, by the code that it was trained with, whatever is in force.

    The types of the user's own that an estimator may be made of are those that the definitions name, not the package.

    Raises:
        UnknownName, DefinitionsError: where the definitions were never applied, or cannot be run here.
        UntrustedTypes: for an estimator made of other types. ONNX Runtime's errors have no common root.
    """
    if not manifest.trusted:
        return open_session(manifest, content)
    definitions = applied.load(redis, manifest.definitions)
    with definitions.code.importable():
        return open_session(manifest, content, definitions.model(manifest.model).trusted)


def graph_session(graph: bytes) -> Session:
    """The session of a graph.

    It has one thread: requests run side by side already, and the default is a pool of all the host's cores.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # whatever goes wrong is raised as well
    session: Session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session


def described(nodes: Sequence[Any]) -> list[Tensor]:
    """The inputs or outputs of a session as a manifest holds them."""
    return [
        Tensor(
            node.name,
            NAMES.get(kind := node.type.removeprefix("tensor(").removesuffix(")"), kind),
            [size if isinstance(size, int) else -1 for size in node.shape],
        )
        for node in nodes
    ]


def require_same(manifest: Manifest, outputs: Sequence[np.ndarray]) -> None:
    """Refuse a model that answers its example otherwise than when it was packed; rounding may differ by machine.

    Raises:
        ValueError: with both answers.
    """
    for found, packed in zip(outputs, manifest.answer, strict=True):
        expected = np.asarray(packed, found.dtype)
        if found.dtype.kind == "f":
            same = found.shape == expected.shape and np.allclose(found, expected, rtol=NEARLY, atol=NEARLY)
        else:
            same = np.array_equal(found, expected)
        if not same:
            raise ValueError(
                f"it answers its example with {found.tolist()}, and did with {packed} when it was packed, by"
                f" {', '.join(f'{name} {version}' for name, version in manifest.environment.items())}; train again"
            )
