"""How good a run's model is on the held-out rows: metrics, intervals and baseline, on all of them and in segments.

It is kept beside the run, `runs/{model}/{run}/evaluation.json`, with the figures of the model's card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pandas as pd
from pydantic import TypeAdapter

from modelmill.declare.declarations import Model
from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest, NotFound, sentence
from modelmill.state.runs import folder
from modelmill.storage import Storage
from services.trainer.evaluation.answers import Answers, Output, label_columns
from services.trainer.evaluation.figures import OTHER, feature_statistics, figures, shown
from services.trainer.evaluation.importance import Fitted, importance
from services.trainer.evaluation.metrics import Interval, interval, score, scores

FILE = "evaluation.json"
MIN_SEGMENT_ROWS = 20
"""Rows below which a segment has no metrics."""
MAX_VALUES = 12
"""Values that are segments of their own; rows of rarer ones are together in `other`."""
RANGES = 4
"""Ranges of a number with more than `MAX_VALUES` different values, each with as many rows."""
MISSING = "missing"


@dataclass(frozen=True)
class Segment:
    """The held-out rows with one value, or range of values, of a column."""

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Metric to the reason why it has no value here."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the held-out rows."""

    rows: int
    split: str
    metrics: dict[str, float]
    """The deciding one first."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    """The same metrics of a model that knows only the labels: their shares, or their mean."""
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)
    """Label to its metrics, where there are several labels."""
    segments: dict[str, dict[str, Segment]] = field(default_factory=dict)
    """Column to the values, or ranges of values, to their segments."""
    notes: dict[str, str] = field(default_factory=dict)
    """Column to what is to be known of its segments, such as that rare values are together."""
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label to figure to its data."""
    importance: dict[str, Any] = field(default_factory=dict)
    """How much the deciding metric falls where an input is shuffled."""
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Input to its statistics in the rows that the model was trained on."""
    purpose: dict[str, Any] = field(default_factory=dict)
    """What the model declares of itself: description, owner, tags, limits."""
    decision: dict[str, Any] = field(default_factory=dict)
    """Whether its version was promoted, and what each gate said."""

    def run_fields(self, metric: str) -> dict[str, Any]:
        """What the run's record holds of it, `metric` being the deciding one."""
        return {
            "metric": metric,
            "metrics": self.metrics,
            "intervals": {name: str(one) for name, one in self.intervals.items()},
            "segments": segment_extremes(self.segments, metric),
        }

    def to_json(self) -> bytes:
        """The evaluation as it is stored."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def from_json(cls, text: bytes) -> Evaluation:
        """The evaluation in `text`."""
        return JSON_CODEC.validate_json(text)


JSON_CODEC = TypeAdapter(Evaluation)


def write(storage: Storage, model: str, run: str, evaluation: Evaluation) -> None:
    """Keep the evaluation of a run."""
    storage.write(f"{folder(model, run)}/{FILE}", evaluation.to_json())


def read(storage: Storage, model: str, run: str) -> Evaluation:
    """The evaluation of a run.

    Raises:
        NotFound: where it has none: it failed before, or is of a former version of Modelmill.
    """
    try:
        return Evaluation.from_json(storage.read(f"{folder(model, run)}/{FILE}"))
    except FileNotFoundError:
        raise NotFound(f"run {run!r} of model {model!r} has no evaluation", run=run) from None


@dataclass(frozen=True)
class Segmentation:
    """n rows parted by one column."""

    codes: np.ndarray
    """[n] the number of each row's segment."""
    names: tuple[str, ...]
    """Values, or ranges such as `[2, 7)`."""
    note: str
    """What is to be known of them, or nothing."""

    def masks(self) -> dict[str, np.ndarray]:
        """Segment to which rows are in it; what has one name is one segment, such as a value `other` and the rest."""
        found: dict[str, np.ndarray] = {}
        for code, name in enumerate(self.names):
            found[name] = found.get(name, False) | (self.codes == code)
        return found


def segmentation(values: pd.Series) -> Segmentation:
    """Part rows by their values; a number with many values is parted at its quantiles.

    Args:
        values: [n]; None, NaN and the empty text are missing values.
    """
    absent = (values.isna() | (values == "")).to_numpy(np.bool_)
    present = values[~absent]
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and present.nunique() > MAX_VALUES:
        inside, names, note = _ranges(present.to_numpy(np.float64))
    else:
        inside, names, note = _values(present)
    codes = np.full(len(values), len(names))
    codes[~absent] = inside
    return Segmentation(codes, (*names, MISSING) if absent.any() else tuple(names), note)


def _ranges(numbers: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, RANGES + 1)))
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"[{lo:.6g}, {hi:.6g}{']' if hi == edges[-1] else ')'}" for lo, hi in pairwise(edges)]
    return codes, names, f"{len(names)} ranges by quantiles of the held-out rows"


def _values(values: pd.Series) -> tuple[np.ndarray, list[str], str]:
    counts = values.value_counts(sort=True)
    if len(counts) <= MAX_VALUES:
        kept = counts.index.sort_values()
        return kept.get_indexer(pd.Index(values)), [shown(value) for value in kept], ""
    kept = counts.index[:MAX_VALUES]
    codes = kept.get_indexer(pd.Index(values))
    note = f"the {MAX_VALUES} most frequent of {len(counts)} values; the others are together in {OTHER!r}"
    return np.where(codes < 0, MAX_VALUES, codes), [*(shown(value) for value in kept), OTHER], note


@dataclass(frozen=True)
class HeldOut:
    """n rows that a model was not trained on, and what is asked about its answers to them."""

    metrics: tuple[Metric, ...]
    """The deciding one first."""
    rows: pd.DataFrame
    """[n, inputs]"""
    label: np.ndarray
    """[n] or [n, outputs]"""
    label_names: tuple[str, ...]
    """The name of each output."""
    segments: Mapping[str, Segmentation] = field(default_factory=dict)
    """By column."""
    split: str = ""
    """How they were chosen, in words."""
    seed: int = 0


def evaluate(held_out: HeldOut, answers: Answers, trained_on: np.ndarray) -> Evaluation:
    """All that can be said about `answers`, those of one model.

    Args:
        trained_on: [m] or [m, outputs] the labels that the model was trained on, for the baseline.

    Raises:
        InvalidRequest: where one of the metrics cannot be computed.
    """
    found = scores(held_out.metrics, answers, held_out.label)
    declared = {metric.name: metric for metric in held_out.metrics}
    metrics = [declared.get(name, Metric(name)) for name in found]
    labels = zip(held_out.label_names, answers.outputs, label_columns(held_out.label), strict=True)
    return Evaluation(
        rows=len(answers),
        split=held_out.split,
        metrics=found,
        intervals=_intervals(metrics, answers, held_out.label, held_out.seed),
        baseline=_scores(metrics, baseline(answers, trained_on), held_out.label)[0],
        outputs={
            label: _scores(metrics, Answers(answers.task, (output,)), truth)[0]
            for label, output, truth in labels
            if len(answers.outputs) > 1
        },
        segments={
            column: {
                name: _segment(metrics, answers.rows(mask), held_out.label[mask], held_out.seed)
                for name, mask in by_value.masks().items()
            }
            for column, by_value in held_out.segments.items()
        },
        notes={column: by_value.note for column, by_value in held_out.segments.items() if by_value.note},
    )


def with_card_data(
    evaluation: Evaluation, recipe: Model, held_out: HeldOut, fitted: Fitted, trained_on: pd.DataFrame
) -> Evaluation:
    """`evaluation` with all that is drawn or told on the card.

    Args:
        fitted: what the evaluation was made of.
        trained_on: [m, inputs] the rows that the estimator was fitted on.
    """
    return replace(
        evaluation,
        figures=figures(held_out.label_names, fitted.answers, held_out.label),
        importance=importance(held_out.metrics[0], fitted, held_out.label, held_out.seed),
        features=feature_statistics(trained_on),
        purpose=asdict(recipe.about) | {"limits": recipe.limits},
    )


def baseline(answers: Answers, trained_on: np.ndarray) -> Answers:
    """What a model says of as many rows that knows only the labels it was trained on.

    It answers the most frequent label with the shares of all of them, or the mean.
    """
    count = len(answers)
    outputs = []
    for label in label_columns(trained_on):
        if answers.task == "regression":
            outputs.append(Output(np.full(count, label.mean()), np.empty(0)))
        else:
            classes, times = np.unique(label, return_counts=True)
            shares = np.tile(times / len(label), (count, 1))
            outputs.append(Output(np.full(count, classes[times.argmax()]), classes, shares))
    return Answers(answers.task, tuple(outputs))


def segment_extremes(segments: Mapping[str, Mapping[str, Segment]], metric: str) -> dict[str, str]:
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


def _segment(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray, seed: int) -> Segment:
    rows = len(answers)
    if rows < MIN_SEGMENT_ROWS:
        return Segment(
            rows, {}, missing={m.name: f"{rows} rows; expected at least {MIN_SEGMENT_ROWS}" for m in metrics}
        )
    found, missing = _scores(metrics, answers, truth)
    return Segment(rows, found, _intervals([m for m in metrics if m.name in found], answers, truth, seed), missing)


def _scores(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    """Metric to its value, or to the reason why it has none."""
    found, missing = {}, {}
    for metric in metrics:
        try:
            found[metric.name] = score(metric, answers, truth)
        except InvalidRequest as error:
            missing[metric.name] = error.detail
        except Exception as error:  # the function may be the user's, and expect answers that vary
            missing[metric.name] = sentence(error)
    return found, missing


def _intervals(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray, seed: int) -> dict[str, Interval]:
    found = {metric.name: interval(metric, answers, truth, seed=seed) for metric in metrics}
    return {name: one for name, one in found.items() if one}
