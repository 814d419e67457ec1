"""How far the answers of a package are from the estimator's own, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelmill.errors import InvalidRequest
from modelmill.package import Parity
from services.trainer.evaluation.answers import Answers


@dataclass(frozen=True)
class Tolerance:
    """How far a graph's answers may be off for it to be served instead of the estimator."""

    probability: float = 1e-5
    number: float = 1e-4
    """Relative to the larger of a number and the spread of all."""
    edge_share: float = 1e-3
    """Share of the rows (or one row) that may be answered otherwise where they lie on the edge of a decision."""

    @classmethod
    def strict(cls, difference: float) -> Tolerance:
        """No answer off by more than that, on the edge of a decision or not."""
        return cls(difference, difference, 0)


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
    def of(cls, answers: Answers) -> OwnAnswers:
        """What is compared of an estimator's answers."""
        predicted = np.column_stack([output.predicted for output in answers.outputs])
        if answers.task == "regression":
            numbers = predicted.astype(np.float64)
            return cls(None, numbers, np.maximum(np.abs(numbers), numbers.std(axis=0)))
        given = [output.probabilities for output in answers.outputs if output.probabilities is not None]
        numbers = np.hstack(given) if given else np.empty((len(answers), 0))
        return cls(predicted, numbers, np.ones(numbers.shape))

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
        allowed = (tolerance.number if self.labels is None else tolerance.probability) * self.scale
        close = (self._differences(outputs) <= allowed).all(axis=1)  # NaN never is
        found: np.ndarray = ~close | self._other_labels(outputs)
        return found

    def parity(self, outputs: list[np.ndarray], edge_rows: int = 0) -> Parity:
        """The figures for a package with these outputs."""
        differences = self._differences(outputs)
        with np.errstate(invalid="ignore"):  # 0 / 0, where all numbers are 0
            relative = np.where(differences > 0, differences / self.scale, 0)
        return Parity(
            rows=len(self.numbers),
            labels_differing=float(self._other_labels(outputs).mean()),
            max_difference=float(differences.max(initial=0)),
            max_relative_difference=float(relative.max(initial=0)),
            edge_rows=edge_rows,
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
