"""From what a model says of the held-out rows to its evaluation: metrics, intervals, baseline, segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest, sentence
from services.trainer.evaluation.answers import Answers, Output, truths
from services.trainer.evaluation.bootstrap import interval
from services.trainer.evaluation.evaluation import Evaluation, Segment
from services.trainer.evaluation.metrics import score, scores
from services.trainer.evaluation.segments import Parts

FEWEST = 20
"""Rows below which a segment has no metrics."""


@dataclass(frozen=True)
class Question:
    """What is asked about the answers of a model to n held-out rows."""

    metrics: tuple[Metric, ...]
    """The deciding one first."""
    truth: np.ndarray
    """[n] or [n, outputs]"""
    labels: tuple[str, ...]
    """The name of each output."""
    segments: Mapping[str, Parts]
    """Column to how it parts the rows."""
    split: str
    seed: int = 0


def evaluate(question: Question, answers: Answers, trained_on: np.ndarray) -> Evaluation:
    """All that can be said about `answers`, those of one model.

    Args:
        trained_on: [m] or [m, outputs] the labels that the model was trained on, for the baseline.

    Raises:
        InvalidRequest: where one of the metrics cannot be computed.
    """
    found = scores(question.metrics, answers, question.truth)
    metrics = {name: _metric(question, name) for name in found}
    intervals = {name: interval(one, answers, question.truth, seed=question.seed) for name, one in metrics.items()}
    return Evaluation(
        rows=len(answers),
        split=question.split,
        metrics=found,
        intervals={name: one for name, one in intervals.items() if one},
        baseline=_where_defined(list(metrics.values()), baseline(answers, trained_on), question.truth),
        outputs=_outputs(question, list(metrics.values()), answers),
        segments={
            column: {
                name: _segment(question, list(metrics.values()), answers, mask) for name, mask in parts.masks().items()
            }
            for column, parts in question.segments.items()
        },
        notes={column: parts.note for column, parts in question.segments.items() if parts.note},
    )


def baseline(answers: Answers, trained_on: np.ndarray) -> Answers:
    """What a model says of as many rows that knows only the labels it was trained on.

    It answers the most frequent label with the shares of all of them, or the mean.
    """
    count = len(answers)
    outputs = []
    for label in truths(trained_on):
        if answers.task == "regression":
            outputs.append(Output(np.full(count, label.mean()), np.empty(0)))
        else:
            classes, times = np.unique(label, return_counts=True)
            shares = np.tile(times / len(label), (count, 1))
            outputs.append(Output(np.full(count, classes[times.argmax()]), classes, shares))
    return Answers(answers.task, tuple(outputs))


def brief(segments: Mapping[str, Mapping[str, Segment]], metric: str) -> dict[str, str]:
    """Column to where `metric` is lowest and highest, for the run's record."""
    found = {}
    for column, of_column in segments.items():
        values = [(one.metrics[metric], name, one.rows) for name, one in of_column.items() if metric in one.metrics]
        if values:
            (lo, where_lo, rows_lo), (hi, where_hi, rows_hi) = min(values), max(values)
            found[column] = (
                f"{metric} from {lo:.6g} ({where_lo}, {rows_lo} rows) to {hi:.6g} ({where_hi}, {rows_hi} rows)"
            )
        else:
            found[column] = f"no value of {metric} in any of {len(of_column)} segments"
    return found


def _metric(question: Question, name: str) -> Metric:
    return next((metric for metric in question.metrics if metric.name == name), Metric(name))


def _outputs(question: Question, metrics: Sequence[Metric], answers: Answers) -> dict[str, dict[str, float]]:
    """Each label's own metrics, where there are several labels."""
    if len(answers.outputs) == 1:
        return {}
    return {
        label: _where_defined(metrics, Answers(answers.task, (output,)), truth)
        for label, output, truth in zip(question.labels, answers.outputs, truths(question.truth), strict=True)
    }


def _where_defined(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray) -> dict[str, float]:
    found = {}
    for metric in metrics:
        try:
            found[metric.name] = score(metric, answers, truth)
        except Exception:  # the function may be the user's, and expect answers that vary
            continue
    return found


def _segment(question: Question, metrics: Sequence[Metric], answers: Answers, mask: np.ndarray) -> Segment:
    rows, own, truth = int(mask.sum()), answers.rows(mask), question.truth[mask]
    if rows < FEWEST:
        return Segment(rows, {}, missing={m.name: f"{rows} rows; expected at least {FEWEST}" for m in metrics})
    found, intervals, missing = {}, {}, {}
    for metric in metrics:
        try:
            found[metric.name] = score(metric, own, truth)
        except InvalidRequest as error:
            missing[metric.name] = error.detail
            continue
        except Exception as error:  # the user's function, which did well on all rows
            missing[metric.name] = sentence(error)
            continue
        if known := interval(metric, own, truth, seed=question.seed):
            intervals[metric.name] = known
    return Segment(rows, found, intervals, missing)
