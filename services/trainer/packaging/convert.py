"""From a fitted estimator to an ONNX graph that gives the same answers, proved on the held-out rows and on probes.

Tried in this order, until one is good: one tensor of all inputs (`matrix`, numbers only) before a tensor an input
(`columns`), and single precision, which is faster, before double.

A graph is good when its labels equal the estimator's, its probabilities or numbers are within the tolerance, and where
the estimator has no answer it has none. Only values that the graph's type of numbers cannot hold are left out: a
request with one is refused.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import orjson
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common import tree_ensemble
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, VotingClassifier

from modelmill.errors import InvalidRequest, sentence
from modelmill.packages.package import MATRIX, Input, Layout, Parity, Precision
from modelmill.packages.sessions import graph_session
from services.trainer.packaging import trees
from services.trainer.packaging.graph import Graph, Tolerance
from services.trainer.packaging.probes import Proof, answered

CONVERSION_SECONDS = 60.0
"""That the conversions of one estimator may take together."""
MAX_REASON_CHARACTERS = 120
"""Characters of a row that a reason shows."""


class NoGraph(Exception):
    """No graph answers as the estimator does; the text says why not, for each that was tried."""


@dataclass(frozen=True)
class Converted:
    """A graph, how to feed it, and what it answers."""

    content: bytes
    graph: Graph
    layout: Layout
    tensor_dtype: Precision
    parity: Parity


def convert(
    estimator: Any, inputs: Sequence[Input], proof: Proof, tolerance: Tolerance, graphs: Graphs | None = None
) -> Converted:
    """The graph of the fitted `estimator` that stands the `proof`; `graphs` are its own, where they are made already.

    Raises:
        NoGraph: where there is none.
    """
    if proof.own.labels is not None and proof.own.labels.shape[1] > 1:
        raise NoGraph("it predicts classes of several labels, whose graphs give them in different forms")
    reasons: dict[str, list[str]] = {}
    with graphs or Graphs(estimator, inputs) as made:
        deadline = time.monotonic() + CONVERSION_SECONDS
        for layout, precision, making in made:
            try:
                content = making.result(deadline)
                graph = Graph(graph_session(content), list(proof.rows.columns), layout, precision)
                return Converted(content, graph, layout, precision, _agreement(graph, proof, tolerance))
            except Exception as error:  # neither skl2onnx's nor ONNX Runtime's errors have a common root
                reasons.setdefault(_reason(error), []).append(f"{layout} {precision}")
    raise NoGraph(f"{_listed(reasons)}{_too_fine(proof.rows[: proof.held_out])}")


def _agreement(graph: Graph, proof: Proof, tolerance: Tolerance) -> Parity:
    """How near its answers to the held-out rows are to the estimator's.

    Raises:
        _Failed: where the graph does not answer as the estimator does.
    """
    alone = proof.own.rows(slice(1)).differing(graph.run(proof.rows[:1]), tolerance)
    if alone.any():
        raise _Failed("it answers a row alone otherwise")
    held_out, probing = slice(proof.held_out), slice(proof.held_out, None)
    parity = None
    # The fewer rows first: a graph that differs at all differs on probes.
    for part in sorted((held_out, probing), key=lambda part: len(proof.rows[part])):
        rows, own = proof.rows[part], proof.own.rows(part)
        taken = graph.holds(rows)
        rows, own = rows[taken], own.rows(taken)
        if not len(rows):
            continue
        outputs = graph.run(rows)
        differing = own.differing(outputs, tolerance)
        if part is probing:  # some are on the very point where an answer turns
            differing &= ~(own.tied(tolerance) & ~own.apart(outputs, tolerance))
        elif taken.all():
            parity = own.parity(outputs)
        if differing.any():
            of, most = "probing" if part is probing else "held-out", own.parity(outputs).max_relative_difference
            which = f"{differing.sum()} of {len(rows)} {of} rows"
            raise _Failed(f"it answers {which} otherwise, by at most {most:.3g}: {_shown(rows[differing].iloc[0])}")
    refused = proof.refused[graph.holds(proof.refused)]
    found = answered(graph.answers, refused)
    if found.any():
        shown = _shown(refused[found].iloc[0])
        raise _Failed(f"it answers {found.sum()} rows for which the estimator has no answer: {shown}")
    return parity or proof.own.rows(held_out).parity(graph.run(proof.rows[held_out]))


def _shown(row: pd.Series) -> str:
    return orjson.dumps(row.to_dict(), option=orjson.OPT_SERIALIZE_NUMPY).decode()[:MAX_REASON_CHARACTERS]


class _Failed(Exception):
    """A conversion that raised, or took too long, in its process, or a graph that answers otherwise; the text says it
    all."""


class Making:
    """A conversion, in a process of its own, which is killed once nobody waits for it any more.

    It is the only sure way to end a loop in code that is not ours, and lets nothing of it be changed here. Forked, so
    that the estimator need not be pickled and nothing is imported again.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        context = multiprocessing.get_context("fork")
        self._reading, writing = context.Pipe(duplex=False)
        self._process = context.Process(target=_make, args=[make, writing], daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that threads may hold locks: it takes none of ours
            self._process.start()
        writing.close()

    def result(self, deadline: float) -> bytes:
        """What is made, by `deadline` of `time.monotonic()`.

        Raises:
            _Failed: where nothing is.
        """
        try:
            if not self._reading.poll(max(0.0, deadline - time.monotonic())):
                raise _Failed(f"its conversion did not end within {CONVERSION_SECONDS:g} s")
            content, reason = self._reading.recv()
        except EOFError:
            self._process.join()
            raise _Failed(f"its conversion ended with exit code {self._process.exitcode}") from None
        finally:
            self._process.kill()
        if reason:
            raise _Failed(reason)
        return bytes(content)

    def end(self) -> None:
        """Leave nothing of it."""
        self._process.kill()
        self._process.join()
        self._reading.close()


def _make(make: Callable[[], bytes], writing: Any) -> None:
    gc.freeze()  # a collection would copy all pages of what is there
    # A split on whether there is a value has the threshold infinity, whose neighbour it would look for without end.
    neighbour = tree_ensemble.sklearn_threshold
    tree_ensemble.sklearn_threshold = lambda value, *how: value if np.isinf(value) else neighbour(value, *how)
    try:
        writing.send((make(), ""))
    except Exception as error:  # skl2onnx's have no common root
        writing.send((b"", _reason(error)))


class Graphs:
    """The graphs of an estimator, one after the other; the first is being made from the beginning.

    So is the second where the first is seldom good: for trees that compare in double precision.
    """

    def __init__(self, estimator: Any, inputs: Sequence[Input]) -> None:
        self._waiting = [
            (layout, precision, partial(_graph, estimator, inputs, layout, precision))
            for layout, precision in _candidates(inputs)
        ]
        self._begun: list[Making] = []
        last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
        self._begin(2 if isinstance(last, HistGradientBoostingClassifier | HistGradientBoostingRegressor) else 1)

    def _begin(self, count: int) -> None:
        self._begun += [Making(make) for *_, make in self._waiting[len(self._begun) : count]]

    def __iter__(self) -> Iterator[tuple[Layout, Precision, Making]]:
        for number, (layout, precision, _) in enumerate(self._waiting):
            self._begin(number + 1)
            yield layout, precision, self._begun[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._begun:
            one.end()


def _candidates(inputs: Sequence[Input]) -> Iterator[tuple[Layout, Precision]]:
    layouts: tuple[Layout, ...] = ("columns",) if any(i.dtype == "str" for i in inputs) else ("matrix", "columns")
    for layout in layouts:
        yield layout, "float32"
        yield layout, "float64"


def _graph(estimator: Any, inputs: Sequence[Input], layout: Layout, precision: Precision) -> bytes:
    number = FloatTensorType if precision == "float32" else DoubleTensorType
    if layout == "matrix":
        types = [(MATRIX, number([None, len(inputs)]))]
    else:
        types = [(i.name, (StringTensorType if i.dtype == "str" else number)([None, 1])) for i in inputs]
    has_probabilities = hasattr(estimator, "predict_proba")
    with warnings.catch_warnings(), _without_flattening(estimator):
        warnings.simplefilter("ignore")  # theirs, about each other's versions
        model = convert_sklearn(
            estimator,
            initial_types=types,
            options={"zipmap": False} if has_probabilities else None,
            target_opset=trees.opset(estimator),
        )
    if not has_probabilities:
        del model.graph.output[1:]  # scores, which nobody may take for probabilities
        kept = [node for node in model.graph.node if node.op_type != "ZipMap"]  # it knows no double precision
        del model.graph.node[:]
        model.graph.node.extend(kept)
    if layout == "columns":
        _rename_inputs(model.graph, [item.name for item in inputs])
    content: bytes = model.SerializeToString()
    return trees.mended(content, estimator, precision)


@contextmanager
def _without_flattening(estimator: Any) -> Iterator[None]:
    """Let voting classifiers be converted, which skl2onnx refuses for how they transform, whatever they predict."""
    found = [one for one in (estimator, *estimator.get_params().values()) if isinstance(one, VotingClassifier)]
    flattening = [one for one in found if one.flatten_transform]
    for one in flattening:
        one.flatten_transform = False
    try:
        yield
    finally:
        for one in flattening:
            one.flatten_transform = True


def _rename_inputs(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs of a graph their own names again, of which skl2onnx keeps only letters and digits."""
    renamed = {item.name: name for item, name in zip(graph.input, names, strict=True)}
    for item in graph.input:
        item.name = renamed[item.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _too_fine(rows: pd.DataFrame) -> str:
    """The end of a sentence that names inputs whose values single precision cannot tell apart."""
    fine = [
        name
        for name in rows.columns
        if rows[name].dtype != object and rows[name].astype(np.float32).nunique() < 0.99 * rows[name].nunique()
    ]
    if not fine:
        return ""
    return f"; single precision cannot tell all values of {', '.join(map(repr, fine))} apart: scale or shift them"


def _listed(reasons: Mapping[str, Sequence[str]]) -> str:
    """All reasons in one sentence, each with the candidates that it goes for unless it is that of all."""
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{reason} ({', '.join(candidates)})" for reason, candidates in reasons.items())


def _reason(error: Exception) -> str:
    """Why a candidate failed: the first line of its error, without what only the libraries' authors need."""
    if isinstance(error, InvalidRequest):
        return error.detail
    if isinstance(error, _Failed):
        return str(error)
    if isinstance(error, MissingShapeCalculator | MissingConverter):
        kind = re.search(r"<class '(?:[\w.]+\.)?(\w+)'>", str(error))
        return f"skl2onnx has no converter for {kind[1] if kind else 'it'}"
    return re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |\. You may raise an issue at \S+", "", sentence(error))[:200]
