"""On which rows a model that was trained elsewhere is judged: those that a training of today would hold out.

They may well be among those that it was fitted on; nobody here can know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelmill.columns.types import Column
from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions
from modelmill.errors import InvalidRequest, RequestFailed, Unavailable, sentence
from modelmill.packages.offers import Offer
from modelmill.packages.package import GRAPH, Input
from modelmill.packages.sessions import graph_session
from services.trainer.evaluation.answers import Answers, Task, task_of
from services.trainer.evaluation.evaluation import HeldOut
from services.trainer.exchange.foreign import ForeignGraph, as_labels
from services.trainer.packaging.graph import Graph, GraphClassifier, GraphRegressor, OwnAnswers
from services.trainer.packaging.packing import Packed
from services.trainer.settings import TrainerSettings
from services.trainer.training.frame import Frame
from services.trainer.training.split import Split
from services.trainer.training.steps import frame_file, hold_out, read_frame, split_frame


@dataclass(frozen=True)
class JudgingRows:
    """The labelled rows, and those of them that a model is judged on."""

    frame: Frame
    parted: Split
    held_out: HeldOut


def judging_rows(
    definitions: Definitions, recipe: Model, inputs: Sequence[Input], task: Task, settings: TrainerSettings
) -> JudgingRows | str:
    """The labelled rows and what is held out of them; or, in a sentence, why there are none."""
    try:
        with frame_file(settings, definitions, recipe) as file:
            frame = read_frame(definitions, recipe, file)
        parted = split_frame(definitions, recipe, frame, classes=task == "classification")
    except (InvalidRequest, RequestFailed, Unavailable) as error:
        return error.detail
    return JudgingRows(frame, parted, hold_out(recipe, frame, parted))


def one_row(inputs: Sequence[Input], example: dict[str, Any] | None) -> pd.DataFrame:
    """A row of `example`, in the place of the held-out ones; zero and the empty text where it gives nothing.

    Raises:
        InvalidRequest: for a value that is not of the input's type.
    """
    given = example or {}
    columns = {}
    for item in inputs:
        value = given.get(item.name, "" if item.dtype == "str" else 0.0)
        missing = value is None
        if not missing and isinstance(value, str) != (item.dtype == "str"):
            raise InvalidRequest(f"the example's {item.name!r} is {value!r}; expected {item.dtype}")
        if item.dtype == "str":
            columns[item.name] = np.array(["" if missing else value], np.object_)
        else:
            columns[item.name] = np.array([np.nan if missing else float(value)])
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


# --- what an offered file holds, as something that can be asked, and whether it answers as its task wants


@dataclass(frozen=True)
class Candidate:
    """Something that answers, and the graph that it is where it came as one."""

    estimator: Any
    """With the methods of an estimator of scikit-learn."""
    foreign: ForeignGraph | None = None
    graph: Graph | None = None

    def packed(self, rows: pd.DataFrame, answers: Answers) -> Packed | None:
        """The graph as it is to be served; None for an estimator, which is packed as any other."""
        if self.foreign is None or self.graph is None:
            return None
        parity = OwnAnswers.of(answers).parity(self.graph.run(rows))
        layout, precision = self.foreign.layout, self.foreign.tensor_dtype
        return Packed("onnx", "", self.graph, layout, precision, parity, {GRAPH: self.foreign.content})


def task_in(offered: ForeignGraph | Any) -> Task:
    """What an offered graph or estimator is for."""
    return offered.task if isinstance(offered, ForeignGraph) else task_of(offered)


def candidate(
    offered: ForeignGraph | Any,
    offer: Offer,
    model: str,
    inputs: list[Input],
    label: Column,
    labels: np.ndarray | None,
) -> Candidate:
    """What can be asked; `labels` are those of the labelled rows, if there are such.

    Raises:
        InvalidRequest: for classes that are not the label's, or that nobody tells.
    """
    if not isinstance(offered, ForeignGraph):
        if hasattr(offered, "classes_"):
            as_labels(offered.classes_.tolist(), label, model)
        return Candidate(offered)
    try:
        session = graph_session(offered.content)
    except Exception as error:  # ONNX Runtime's errors have no common root
        raise InvalidRequest(f"ONNX Runtime cannot load the graph: {sentence(error, 300)}") from None
    graph = Graph(session, [item.name for item in inputs], offered.layout, offered.tensor_dtype)
    if offered.task == "regression":
        return Candidate(GraphRegressor(graph), offered, graph)
    classes = offer.classes or offered.classes or (None if labels is None else np.unique(labels).tolist())
    if classes is None:
        raise InvalidRequest(
            "the graph does not name its classes, and there are no labelled rows: say them, --classes 0,1"
        )
    return Candidate(GraphClassifier(graph, as_labels(classes, label, model)), offered, graph)


def answers_of(estimator: Any, rows: pd.DataFrame) -> Answers:
    """What it says of `rows`.

    Raises:
        InvalidRequest: where it does not answer each with a label of its classes, or with a finite number; or answers
            a row otherwise when other ones are with it.
    """
    try:
        answers = Answers.of(estimator, rows)
        [output] = answers.outputs
        shape = np.shape(output.predicted)
    except Exception as error:  # anything that a foreign model may raise
        raise InvalidRequest(f"the model does not answer a row: {sentence(error, 300)}") from None
    if shape != (len(rows),):
        raise InvalidRequest(f"the model answers {len(rows)} rows in the shape {list(shape)}; expected one each")
    _require_any_count(estimator, rows, output.predicted[0])
    if answers.task == "regression":
        odd = output.predicted[~np.isfinite(output.predicted)]
        if len(odd):
            raise InvalidRequest(f"the model answers {float(odd[0])!r}; expected finite numbers")
        return answers
    classes = output.classes.tolist()
    if unknown := sorted(set(output.predicted.tolist()) - set(classes)):
        raise InvalidRequest(f"the model answers {unknown[0]!r}, which is none of its classes {classes}")
    if output.probabilities is not None:
        _require_probabilities(output.predicted, output.probabilities, classes)
    return answers


def _require_any_count(estimator: Any, rows: pd.DataFrame, first: Any) -> None:
    """Refuse a model that does not answer the first row alike alone and beside others, as a request may hold it."""
    for count in (1, 3):
        try:
            found = Answers.of(estimator, rows.iloc[[0] * count]).predicted
        except Exception as error:  # anything that a foreign model may raise
            raise InvalidRequest(
                f"the model answers {len(rows)} rows at once, but not {count}: {sentence(error, 300)}"
            ) from None
        same = np.isclose(found, first, equal_nan=True) if found.dtype.kind == "f" else found == first
        if found.shape != (count,) or not np.all(same):
            raise InvalidRequest(
                f"the model answers a row with {first!s} among {len(rows)}, and with {found.tolist()!s:.80} as"
                f" {count} rows; expected one answer each, whatever other rows come with it"
            )


def _require_probabilities(predicted: np.ndarray, probabilities: np.ndarray, classes: list[Any]) -> None:
    """Refuse probabilities that are not those of the classes, in their order."""
    rows, finite = len(predicted), bool(np.isfinite(probabilities).all())
    if probabilities.shape != (rows, len(classes)) or not finite:
        raise InvalidRequest(
            f"the model gives probabilities in the shape {list(probabilities.shape)}"
            f"{'' if finite else ', not all of them finite'}; expected finite ones of {len(classes)} classes"
        )
    likeliest = np.asarray(classes)[probabilities.argmax(axis=1)]
    # A threshold of the model's own may turn some of them round, but not most.
    if (others := int((likeliest != predicted).sum())) > rows / 2:
        raise InvalidRequest(
            f"the likeliest class differs from the label on {others} of {rows} rows: the probabilities are not in the"
            f" order {classes}; say the order, --classes"
        )
