"""How far the answers of a package are from the estimator's own, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelmill.errors import InvalidRequest
from modelmill.packages.package import Parity
from services.trainer.evaluation.answers import Answers

NEGLIGIBLE = 1e-6
"""Of a number itself, what its difference is at least measured relative to: where all answers are nearly the same."""


@dataclass(frozen=True)
class Tolerance:
    """How far a graph's answers may be off for it to be served instead of the estimator."""

    probability: float = 1e-5
    number: float = 1e-4
    """Relative to the spread of the answers to the held-out rows, or to how far a number is from their mean."""

    @classmethod
    def strict(cls, difference: float) -> Tolerance:
        """No answer off by more than that."""
        return cls(difference, difference)


@dataclass(frozen=True)
class OwnAnswers:
    """What is compared of an estimator's answers for n rows: labels and maybe probabilities, or numbers."""

    labels: np.ndarray | None
    """[n, labels]; None for a regression."""
    numbers: np.ndarray
    """[n, classes] probabilities, those of several labels side by side, or [n, labels] numbers, or [n, 0]."""
    scale: np.ndarray
    """What a difference is measured relative to, for each of the numbers."""

    @classmethod
    def of(cls, answers: Answers, among: np.ndarray | None = None) -> OwnAnswers:
        """What is compared of an estimator's answers; `among` has the spread that counts, if not its own."""
        predicted = np.column_stack([output.predicted for output in answers.outputs])
        if answers.task == "regression":
            numbers = predicted.astype(np.float64)
            among = numbers if among is None else among
            apart = np.maximum(np.abs(numbers - among.mean(axis=0)), among.std(axis=0))
            return cls(None, numbers, np.maximum(apart, NEGLIGIBLE * np.abs(numbers)))
        given = [output.probabilities for output in answers.outputs if output.probabilities is not None]
        numbers = np.hstack(given) if given else np.empty((len(answers), 0))
        return cls(predicted, numbers, np.ones(numbers.shape))

    def followed_by(self, more: OwnAnswers) -> OwnAnswers:
        """Both, row after row."""
        labels = None if self.labels is None or more.labels is None else np.concatenate([self.labels, more.labels])
        numbers = np.concatenate([self.numbers, more.numbers])
        return OwnAnswers(labels, numbers, np.concatenate([self.scale, more.scale]))

    def rows(self, chosen: np.ndarray | slice) -> OwnAnswers:
        """Those to some of the rows."""
        labels = None if self.labels is None else self.labels[chosen]
        return OwnAnswers(labels, self.numbers[chosen], self.scale[chosen])

    def differing(self, outputs: list[np.ndarray], tolerance: Tolerance) -> np.ndarray:
        """[n] whether a package with these outputs answers a row otherwise than within `tolerance`.

        Raises:
            InvalidRequest: where it does not answer with a label or number for each of a row.
        """
        shape, expected = outputs[0].shape, (self.numbers if self.labels is None else self.labels).shape
        if shape != expected and not (expected[1] == 1 and shape == expected[:1]):
            raise InvalidRequest(
                f"its answers for {expected[0]} rows are of the shape {list(shape)}; expected {expected[1]} a row"
            )
        found: np.ndarray = np.logical_or(self.apart(outputs, tolerance), self._other_labels(outputs))
        return found

    def apart(self, outputs: list[np.ndarray], tolerance: Tolerance) -> np.ndarray:
        """[n] whether a probability or number of a row is further off than `tolerance` allows."""
        allowed = (tolerance.number if self.labels is None else tolerance.probability) * self.scale
        return np.asarray(np.any(~(self._differences(outputs) <= allowed), axis=1))  # NaN always is

    def tied(self, tolerance: Tolerance) -> np.ndarray:
        """[n] whether two classes are as probable as each other, within `tolerance`, so that the label says little."""
        if self.labels is None or self.numbers.shape[1] < 2:
            return np.zeros(len(self.numbers), np.bool_)
        greatest = np.partition(self.numbers, -2, axis=1)
        near: np.ndarray = greatest[:, -1] - greatest[:, -2] <= 2 * tolerance.probability
        return near

    def parity(self, outputs: list[np.ndarray]) -> Parity:
        """The figures for a package with these outputs."""
        differences = self._differences(outputs)
        with np.errstate(invalid="ignore"):  # 0 / 0, where all numbers are 0
            relative = np.where(differences > 0, differences / self.scale, 0)
        return Parity(
            rows=len(self.numbers),
            labels_differing=float(self._other_labels(outputs).mean()),
            max_difference=float(differences.max(initial=0)),
            max_relative_difference=float(relative.max(initial=0)),
        )

    def _differences(self, outputs: list[np.ndarray]) -> np.ndarray:
        if not self.numbers.shape[1]:
            return np.zeros(self.numbers.shape)
        numbers = outputs[0 if self.labels is None else 1]
        found: np.ndarray = np.abs(numbers.reshape(self.numbers.shape) - self.numbers)
        return found

    def _other_labels(self, outputs: list[np.ndarray]) -> np.ndarray:
        if self.labels is None:
            return np.zeros(len(self.numbers), np.bool_)
        other = outputs[0].astype(self.labels.dtype).reshape(self.labels.shape) != self.labels
        return np.asarray(np.any(other, axis=1))
