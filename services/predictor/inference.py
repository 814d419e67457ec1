"""From rows of values to answers: tensors in the model's layout, one run of its graph, JSON values out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import Any

import numpy as np

from modelmill.errors import InvalidAnswer, InvalidRequest, NoAnswer, Unavailable, sentence
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import Session
from services.predictor.signature import Signature, Value


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answered, one entry a row."""

    predictions: list[Any]
    """Labels, or numbers of a regression; of a model with several labels an object of label to either."""
    probabilities: list[dict[str, Any]] | None
    """Class to its probability, where the model has them; of several labels, label to such an object."""


def infer(model: ServedModel, rows: Sequence[list[Value]]) -> Answers:
    """The answers of `model` to `rows`, each with a value for every input.

    Raises:
        InvalidRequest: for a value that the model has no answer for, or whose number its number type cannot hold.
        Exception: whatever the model raises for its own example, too.
    """
    try:
        return _answers(model, rows)
    except InvalidRequest:
        raise
    except Exception as error:  # neither ONNX Runtime's nor an estimator's errors have a common root
        refused = _no_answer(model, rows)
        if refused is None:
            raise
        raise refused from error


def _answers(model: ServedModel, rows: Sequence[list[Value]]) -> Answers:
    outputs = model.session.run(model.outputs, tensors(model, rows))
    if model.manifest.labels:
        return _of_several(model, outputs)
    if model.manifest.task == "regression":
        numbers = outputs[0].reshape(-1).tolist()
        _check_finite(model, [[number] for number in numbers])
        return Answers(numbers, None)
    labels = [model.labels.get(label, label) for label in outputs[0].tolist()]
    if not model.class_names:
        return Answers(labels, None)
    probabilities = outputs[1].tolist()
    _check_finite(model, probabilities)
    return Answers(labels, [dict(zip(model.class_names, row, strict=True)) for row in probabilities])


def _no_answer(model: ServedModel, rows: Sequence[list[Value]]) -> NoAnswer | None:
    """Which value of which row the model has no answer for; None where it has none for its example either.

    Found by halving: first the row, then, in its example, how many of the row's values it still answers with.
    """
    example = [model.manifest.example[item.name] for item in model.signature.inputs]
    if _trouble(model, [example]):
        return None
    first, end = 0, len(rows)
    while end - first > 1:
        middle = (first + end) // 2
        first, end = (first, middle) if _trouble(model, rows[first:middle]) else (middle, end)
    row = rows[first]

    def mixed(count: int) -> str:
        return _trouble(model, [[*row[:count], *example[count:]]])

    answered, refused, reason = 0, len(row), mixed(len(row))
    if not reason:
        return None
    while refused - answered > 1:
        middle = (answered + refused) // 2
        trouble = mixed(middle)
        answered, refused, reason = (answered, middle, trouble) if trouble else (middle, refused, reason)
    return NoAnswer(first, model.signature.inputs[answered].name, row[answered], reason)


def _trouble(model: ServedModel, rows: Sequence[list[Value]]) -> str:
    """Why the model has no answer to one of `rows`; empty where it has."""
    try:
        _answers(model, rows)
    except InvalidAnswer as error:
        return f"it would be {error.answer}"
    except Exception as error:  # ONNX Runtime's have no common root
        return sentence(error, 300)
    return ""


def _of_several(model: ServedModel, outputs: Sequence[Any]) -> Answers:
    """The answers of a model with several labels, each named by its label."""
    manifest, rows = model.manifest, outputs[0].tolist()
    if manifest.task == "regression":
        _check_finite(model, rows)
        return Answers([dict(zip(manifest.labels, row, strict=True)) for row in rows], None)
    predictions = [
        {
            label: classes[classes.index(value)]  # the class itself: False, where a tensor holds 0
            for label, classes, value in zip(manifest.labels, manifest.classes, row, strict=True)
        }
        for row in rows
    ]
    if len(outputs) == 1:
        return Answers(predictions, None)
    beside = outputs[1].tolist()
    _check_finite(model, beside)
    return Answers(predictions, [_named(model, row) for row in beside])


def _named(model: ServedModel, beside: list[float]) -> dict[str, dict[str, float]]:
    """The probabilities of one row, which stand side by side, by label and class."""
    numbers = iter(beside)
    return {label: {name: next(numbers) for name in names} for label, names in model.label_classes.items()}


def tensors(model: ServedModel, rows: Sequence[list[Value]]) -> dict[str, Any]:
    """The graph's inputs; a missing value is NaN in a tensor of numbers and the empty string in one of text."""
    try:
        with np.errstate(over="raise"):
            if model.manifest.layout == "matrix":
                return {name: np.array(rows, dtype) for name, dtype in model.tensors.items()}
            return {
                item.name: _column([row[position] for row in rows], model.tensors[item.name])
                for position, item in enumerate(model.signature.inputs)
            }
    except (FloatingPointError, OverflowError):
        raise _too_large(model, rows) from None


def _column(values: list[Value], dtype: Any) -> Any:
    if dtype is np.object_:
        values = ["" if value is None else value for value in values]
    return np.array(values, dtype).reshape(-1, 1)


def _too_large(model: ServedModel, rows: Sequence[list[Value]]) -> InvalidRequest:
    kind = model.manifest.tensor_dtype
    largest = float(np.finfo(kind).max)
    for number, row in enumerate(rows):
        for item, value in zip(model.signature.inputs, row, strict=True):
            if isinstance(value, float | int) and abs(value) > largest:
                return InvalidRequest(
                    f"instance {number}: {item.name!r} is {value}; expected at most {largest:.4g}, the largest {kind}",
                    instance=number,
                    field=item.name,
                )
    return InvalidRequest(f"a value is too large for {kind}")


def _check_finite(model: ServedModel, answers: list[list[float]]) -> None:
    for number, row in enumerate(answers):
        for answer in row:
            if not isfinite(answer):
                raise InvalidAnswer(model.name, model.version, number, answer)


# --- the models that this process serves now. Readers take no lock: a swap replaces the whole mapping at once.


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to answer."""

    name: str
    version: int
    manifest: Manifest
    signature: Signature
    session: Session
    tensors: Mapping[str, Any]
    """Name of each of the session's inputs to its NumPy type."""
    outputs: list[str]
    """The session's outputs: labels and maybe probabilities, or numbers."""
    labels: Mapping[Value, Value]
    """What the graph calls a class to what the estimator calls it: ONNX has 0 and 1 for False and True."""
    class_names: tuple[str, ...]
    """The classes as names of probabilities; empty where the model has none."""
    label_classes: Mapping[str, tuple[str, ...]]
    """Label to the names of its classes, of a model with several."""
    loaded: str
    """When it was loaded, as an ISO time."""


@dataclass(frozen=True)
class LoadProblem:
    """Why a champion is not live."""

    version: int
    reason: str
    since: str
    """When it was first met, as an ISO time."""
    retry_at: float = field(repr=False)
    """When it is tried again, by `time.monotonic()`."""


class LiveModels:
    """Which versions are served, and which champions could not be loaded. One thread writes, any may read."""

    def __init__(self) -> None:
        self.served: Mapping[str, ServedModel] = MappingProxyType({})
        self.problems: Mapping[str, LoadProblem] = MappingProxyType({})
        self._awaited: frozenset[str] | None = None

    def swap(self, model: ServedModel) -> None:
        """Serve `model` from now on; requests that have begun end with the version they began with."""
        self.served = MappingProxyType({**self.served, model.name: model})
        self.solve(model.name)

    def drop(self, model: str) -> None:
        """Serve `model` no longer."""
        self.served = MappingProxyType({name: one for name, one in self.served.items() if name != model})

    def note(self, model: str, problem: LoadProblem) -> None:
        """Remember why the champion of `model` is not live."""
        self.problems = MappingProxyType({**self.problems, model: problem})

    def solve(self, model: str) -> None:
        """Forget the problem of `model`, if it had one."""
        if model in self.problems:
            self.problems = MappingProxyType({name: one for name, one in self.problems.items() if name != model})

    def expect(self, champions: Collection[str]) -> None:
        """Remember which models have to be tried before this process is ready: the first champions it hears of."""
        self._awaited = frozenset(champions) if self._awaited is None else self._awaited & frozenset(champions)

    def check_ready(self) -> str:
        """Which champions are not live, and why; those of others do not suffer by it.

        Raises:
            Unavailable: until each champion known at the start is live or could not be loaded, and one model is live.
        """
        if self._awaited is None:
            raise Unavailable("the registry has not been read yet")
        problems = "; ".join(f"{name}: {problem.reason}" for name, problem in sorted(self.problems.items()))
        if untried := sorted(self._awaited - self.served.keys() - self.problems.keys()):
            raise Unavailable("; ".join(f"{name}: not loaded yet" for name in untried))
        if not self.served:
            raise Unavailable(problems or "no model has a champion yet: train one, or promote a version")
        return problems
