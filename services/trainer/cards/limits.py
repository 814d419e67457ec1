"""What a person should know before trusting a model: what it declares, and what its figures say."""

from __future__ import annotations

from collections.abc import Iterator

from modelmill.packages.package import required_words
from services.trainer.cards import words
from services.trainer.cards.known import Known
from services.trainer.evaluation.evaluation import MIN_SEGMENT_ROWS

MUCH_MISSING = 0.2
"""Share of missing values from which an input is mentioned."""
OFF = 0.05
"""Mean distance between predicted probability and what came true, from which it is mentioned."""
FEW_ROWS = 200
"""Held-out rows below which all figures are uncertain."""


def limits(known: Known) -> list[str]:
    """Sentences, what the model declares first."""
    return [*_declared(known), *_pruned(known), *_data(known), *_metrics(known), *_segments(known), *_package(known)]


def _declared(known: Known) -> Iterator[str]:
    if known.evaluation and (text := known.evaluation.purpose.get("limits")):
        yield text


def _pruned(known: Known) -> Iterator[str]:
    if known.pruned:
        yield f"It was pruned at {words.moment(known.pruned)}: its package, its figures and its segments are gone."


def _data(known: Known) -> Iterator[str]:
    run = known.run
    if run.data_end:
        yield f"Nothing that happened after {words.moment(run.data_end)} is known to it."
    if run.split.startswith("at random"):
        yield (
            "Rows were held out at random, so it was tested on times that it was trained on: how it does on later rows"
            " is not shown."
        )
    if run.rows_dropped:
        total = run.rows_train + run.rows_test + run.rows_dropped
        yield (
            f"{words.number(run.rows_dropped)} rows ({words.share(run.rows_dropped / total)}) without a label, or"
            " without a value that the model needs, were left out: it says nothing about such cases."
        )
    if known.evaluation:
        much = {
            name: one["missing"] for name, one in known.evaluation.features.items() if one["missing"] > MUCH_MISSING
        }
        if much:
            listed = ", ".join(f"{name} ({words.share(part)})" for name, part in much.items())
            yield f"Often missing in the rows it was trained on: {listed}."


def _metrics(known: Known) -> Iterator[str]:
    found = known.evaluation
    if found is None:
        return
    if found.rows < FEW_ROWS:
        yield f"Only {found.rows} rows were held out: every figure here is uncertain."
    base, interval = found.baseline.get(known.metric), found.intervals.get(known.metric)
    if base is not None and interval and interval.lo <= base:
        yield (
            f"It is not shown to be better than a model that knows only the labels: the interval of {known.metric}"
            f" reaches down to {words.number(interval.lo)}, such a model has {words.number(base)}."
        )
    for label, figures in found.figures.items():
        for name, one in figures.get("calibration", {}).items():
            if one["error"] > OFF:
                yield (
                    f"Its probabilities of {label} {name} are {words.number(one['error'], 2)} apart from what"
                    " came true, on average: take them for ranks, or calibrate them."
                )
    if found.intervals:
        yield "Intervals take rows as independent of each other; where they are not, they are too narrow."
    if found.importance.get("missing"):
        yield f"The importance of its inputs was not measured: {found.importance['missing']}."


def _segments(known: Known) -> Iterator[str]:
    found = known.evaluation
    for column, of_column in found.segments.items() if found else ():
        small = [name for name, one in of_column.items() if one.rows < MIN_SEGMENT_ROWS]
        if small:
            yield f"Fewer than {MIN_SEGMENT_ROWS} held-out rows, so no metrics, where {column} is {', '.join(small)}."
        without = [
            n for n, one in of_column.items() if one.rows >= MIN_SEGMENT_ROWS and known.metric not in one.metrics
        ]
        if without:
            yield f"{known.metric} has no value where {column} is {', '.join(without)}."
        whole = found.metrics.get(known.metric) if found else None
        worst = [
            f"{name} ({words.number(one.metrics[known.metric])})"
            for name, one in of_column.items()
            if known.metric in one.intervals and whole is not None and one.intervals[known.metric].hi < whole
        ]
        if worst:
            yield f"{known.metric} is shown to be lower than on all rows where {column} is {', '.join(worst)}."


def _package(known: Known) -> Iterator[str]:
    manifest = known.manifest
    if manifest is None:
        return
    if manifest.runtime == "skops":
        yield f"It is served by scikit-learn, which is slower than a graph: {manifest.runtime_reason.rstrip('.')}."
    if manifest.required:
        yield f"{required_words(manifest.required)}."
    if manifest.parity and manifest.parity.labels_differing:
        yield (
            f"Its package answers {words.share(manifest.parity.labels_differing)} of the held-out rows otherwise than"
            " the estimator."
        )
