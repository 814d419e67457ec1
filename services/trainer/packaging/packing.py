"""From a fitted estimator to the files that serve it: an ONNX graph where one answers alike, else the estimator."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import skops.io
from threadpoolctl import threadpool_limits

from modelmill.declare.trusted_types import FULL_NAME
from modelmill.errors import InvalidRequest, UntrustedTypes
from modelmill.packages.estimator_serving import EstimatorSession, foreign_types, load_estimator
from modelmill.packages.package import (
    ESTIMATOR,
    GRAPH,
    Input,
    Layout,
    Parity,
    Precision,
    Runtime,
    Tensor,
    required_words,
)
from modelmill.packages.sessions import described
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.convert import Converted, Graphs, NoGraph, convert
from services.trainer.packaging.graph import Graph
from services.trainer.packaging.parity import OwnAnswers, Tolerance
from services.trainer.packaging.probes import prove

log = logging.getLogger(__name__)

DEFAULT = Tolerance()
NAMES_NEEDED = "its functions and classes need names at the top of the definitions file or of a module"


@dataclass(frozen=True)
class Packed:
    """What serves a fitted estimator, checked on the held-out rows."""

    runtime: Runtime
    runtime_reason: str
    """Why it is not a graph."""
    graph: Graph
    """Answers as the predictor will."""
    layout: Layout
    tensor_dtype: Precision
    parity: Parity
    files: Mapping[str, bytes]
    trusted: Sequence[str] = ()
    """Types beside the reviewed ones that the estimator is made of."""
    required: Sequence[str] = ()
    """Inputs that may be missing by their declaration, and that the estimator cannot do without."""

    @property
    def tensors(self) -> list[Tensor]:
        """What goes in."""
        return described(self.graph.session.get_inputs())

    @property
    def outputs(self) -> list[Tensor]:
        """What comes out."""
        return described(self.graph.session.get_outputs())

    @property
    def recorded(self) -> dict[str, Any]:
        """What its run says of it, field by field."""
        runtime = f"onnx {self.tensor_dtype}" if self.runtime == "onnx" else self.runtime
        parity = {name: float(value) for name, value in asdict(self.parity).items()}
        return {"runtime": runtime, "runtime_reason": self.runtime_reason, "parity": parity}


def pack(
    estimator: Any,
    inputs: Sequence[Input],
    rows: pd.DataFrame,
    answers: Answers,
    *,
    trusted: Collection[str] = (),
    tolerance: Tolerance = DEFAULT,
) -> Packed:
    """Pack the fitted `estimator` and check it on the held-out `rows`, of which it says `answers`.

    An estimator that has no graph within `tolerance` is served by scikit-learn, if it is made of reviewed types and of
    those in `trusted` alone.

    Raises:
        InvalidRequest: where it can be served neither way, saying why not.
    """
    own = OwnAnswers.of(answers)
    with Graphs(estimator, inputs) as graphs:  # which are made meanwhile
        with threadpool_limits(limits=1):  # for few rows, more threads only wait for each other
            proof = prove(estimator, inputs, rows, own)
        if proof.required:
            log.warning("%s: %s", type(estimator).__name__, required_words(proof.required))
        kept = _kept(estimator)
        try:
            packed = _converted(convert(estimator, inputs, proof, tolerance, graphs), kept)
        except NoGraph as error:
            packed = _estimator(estimator, kept, inputs, rows, trusted, tolerance, own, str(error))
    return replace(packed, required=proof.required)


def _can_be_found(name: str) -> bool:
    """Whether a type or function can be loaded by the name that skops knows, which nothing inside a function can."""
    module, _, own = name.rpartition(".")
    return FULL_NAME.fullmatch(name) is not None and hasattr(sys.modules.get(module), own)


def _kept(estimator: Any) -> bytes | Exception:
    """What skops makes of it, or why it cannot."""
    try:
        content: bytes = skops.io.dumps(estimator)
        return content
    except Exception as error:  # it may hold anything
        return error


def _converted(converted: Converted, kept: bytes | Exception) -> Packed:
    files = {GRAPH: converted.content}
    if isinstance(kept, bytes):
        files[ESTIMATOR] = kept
    else:  # its graph answers without
        log.warning("the package has no %s: %s: %s", ESTIMATOR, type(kept).__name__, kept)
    return Packed("onnx", "", converted.graph, converted.layout, converted.tensor_dtype, converted.parity, files)


def _estimator(
    estimator: Any,
    content: bytes | Exception,
    inputs: Sequence[Input],
    rows: pd.DataFrame,
    trusted: Collection[str],
    tolerance: Tolerance,
    own: OwnAnswers,
    reason: str,
) -> Packed:
    """What is loaded from the file again serves, so that it is known to load."""
    layout: Layout = "columns" if any(item.dtype == "str" for item in inputs) else "matrix"
    refused = f"estimator {type(estimator).__name__} has no ONNX graph that answers as it does: {reason}. scikit-learn"
    try:
        if isinstance(content, Exception):
            raise content
        labels = (own.numbers if own.labels is None else own.labels).shape[1]
        session = EstimatorSession(load_estimator(content, trusted), inputs, layout, labels)
    except UntrustedTypes as error:
        nameless = [name for name in error.fields["types"] if not _can_be_found(name)]
        if nameless:
            raise InvalidRequest(f"{refused} cannot serve {', '.join(nameless)} either: {NAMES_NEEDED}") from None
        raise InvalidRequest(f"{refused} could serve it, but {error.detail}", **error.fields) from None
    except Exception as error:  # whatever the attributes of an estimator raise
        reason = f"skops cannot keep it: {type(error).__name__}: {error}"
        raise InvalidRequest(f"{refused} cannot serve it either, for {reason}; {NAMES_NEEDED}") from None
    graph = Graph(session, list(rows.columns), layout, "float64")
    outputs = graph.run(rows)
    if (differing := own.differing(outputs, tolerance)).any():
        raise InvalidRequest(
            f"{refused} cannot serve it either: loaded from its file it answers {differing.sum()} of {len(rows)}"
            " held-out rows otherwise"
        )
    log.warning("scikit-learn will serve %s, which takes longer: %s", type(estimator).__name__, reason)
    parity = own.parity(outputs)
    return Packed("skops", reason, graph, layout, "float64", parity, {ESTIMATOR: content}, foreign_types(content))
