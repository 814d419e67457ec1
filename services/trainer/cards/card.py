"""From what is known of a run to the sections of its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from modelmill import drawing
from modelmill.drawing import Axis, spark, whisker
from modelmill.packages.package import Manifest, required_words
from modelmill.state.runs import Run
from services.trainer.cards.pictures import Picture, importances, pictures
from services.trainer.evaluation.evaluation import MIN_SEGMENT_ROWS, Evaluation, Segment
from services.trainer.evaluation.metrics import Interval

Facts = list[tuple[str, str]]
"""Names and what is said of each, empty ones left out."""


@dataclass(frozen=True)
class Known:
    """A run with what is kept beside it; what it did not come to is None."""

    run: Run
    evaluation: Evaluation | None = None
    manifest: Manifest | None = None
    size: int = 0
    """Bytes of the package's files."""
    aliases: list[str] = field(default_factory=list)
    """Those that name its version now."""
    pruned: str = ""
    """When its version was pruned; empty where it was not."""

    @property
    def metric(self) -> str:
        """The deciding one; empty where nothing was evaluated."""
        if self.run.metric:
            return self.run.metric
        return next(iter(self.evaluation.metrics), "") if self.evaluation else ""


@dataclass(frozen=True)
class Score:
    """A value with its interval, as a row of a table."""

    name: str
    value: str
    interval: str = ""
    reference: str = ""
    """What a model that knows only the labels has, or the number of rows."""
    picture: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Gate:
    """What a gate asked for and said."""

    declared: str
    held: bool
    reason: str
    figures: Facts


@dataclass(frozen=True)
class Feature:
    """An input and its values in the rows that the model was trained on."""

    name: str
    kind: str
    missing: str
    picture: Markup
    figures: Sequence[str]
    """Mean, least, lower quartile, median, upper quartile, greatest; empty for text."""
    values: str = ""
    """The most frequent ones of a text."""


@dataclass(frozen=True)
class Card:
    """The sections of a card, in words and pictures; what is empty is not shown."""

    title: str
    version: int | None
    status: str
    aliases: list[str]
    purpose: str
    owner: str
    tags: list[str]
    best: Score | None
    brief: Facts
    decision: str
    gates: list[Gate]
    metrics: list[Score]
    how: str
    """How the intervals were made."""
    outputs: list[tuple[str, list[str]]]
    """Label to its metrics, in the order of `metrics`."""
    pictures: list[Picture]
    importance: Picture | None
    segments: list[tuple[str, str, list[Score]]]
    """Column, what is to be known of its values, and the values."""
    features: list[Feature]
    data: Facts
    package: Facts
    limits: list[str]
    origin: Facts
    stages: Facts
    parameters: Facts
    packages: Facts
    error: str
    traceback: str

    @property
    def metric(self) -> str:
        """The deciding one."""
        return self.best.name if self.best else ""


def card(known: Known) -> Card:
    """The card of a run."""
    run, found = known.run, known.evaluation
    scores, purpose = list(_metrics(known)), found.purpose if found else {}
    return Card(
        title=run.model,
        version=run.version,
        status=run.status,
        aliases=known.aliases,
        purpose=purpose.get("description", ""),
        owner=purpose.get("owner", ""),
        tags=list(purpose.get("tags", ())),
        best=scores[0] if scores else None,
        brief=_brief(known),
        decision=run.decision,
        gates=[_gate(verdict) for verdict in found.decision.get("verdicts", ())] if found else [],
        metrics=scores,
        how=next((interval.method for interval in found.intervals.values()), "") if found else "",
        outputs=[
            (label, [drawing.number(of_label.get(name)) for name in found.metrics])
            for label, of_label in found.outputs.items()
        ]
        if found
        else [],
        pictures=pictures(found.figures) if found else [],
        importance=importances(found.importance) if found else None,
        segments=[(c, found.notes.get(c, ""), _segments(known, of)) for c, of in found.segments.items()]
        if found
        else [],
        features=_features(known),
        data=_data(known),
        package=_package(known),
        limits=limits(known),
        origin=_origin(known),
        stages=[(stage, drawing.seconds(taken)) for stage, taken in run.seconds.items()],
        parameters=sorted(run.params.items()),
        packages=sorted(run.packages.items()),
        error=run.error,
        traceback=run.traceback,
    )


def _facts(*facts: tuple[str, Any]) -> Facts:
    return [(name, str(value)) for name, value in facts if value not in ("", None, drawing.NONE)]


def _brief(known: Known) -> Facts:
    run = known.run
    return _facts(
        ("trained on", f"{drawing.number(run.rows_train)} rows" if run.rows_train else ""),
        ("held out", f"{drawing.number(run.rows_test)} rows" if run.rows_test else ""),
        ("data until", drawing.moment(run.data_end)[:10] if run.data_end else ""),
        ("predicts", known.manifest.label if known.manifest else ""),
        ("trained", drawing.moment(run.started)[:10]),
    )


def _metrics(known: Known) -> Iterator[Score]:
    found = known.evaluation
    if found is None:  # logged by hand, or of a former version
        yield from (Score(name, drawing.number(value)) for name, value in known.run.metrics.items())
        return
    for name, value in found.metrics.items():
        interval, base = found.intervals.get(name), found.baseline.get(name)
        held = [value, *([interval.lo, interval.hi] if interval else []), *([] if base is None else [base])]
        picture = whisker(Axis.around("", held), value, _ends(interval), base)
        yield Score(name, drawing.number(value), _interval(interval), drawing.number(base), picture)


def _segments(known: Known, of_column: Mapping[str, Segment]) -> list[Score]:
    metric, whole = known.metric, known.evaluation.metrics.get(known.metric) if known.evaluation else None
    ends = [(i.lo, i.hi) for one in of_column.values() if (i := one.intervals.get(metric))]
    values = [one.metrics[metric] for one in of_column.values() if metric in one.metrics]
    axis = Axis.around(
        "", [end for pair in ends for end in pair] + values + ([] if whole is None else [whole]) or [0.0]
    )
    rows = []
    for name, one in of_column.items():
        value, interval = one.metrics.get(metric), one.intervals.get(metric)
        if value is None:
            rows.append(Score(name, "", one.missing.get(metric, drawing.NONE), drawing.number(one.rows)))
            continue
        picture = whisker(axis, value, _ends(interval), whole)
        rows.append(Score(name, drawing.number(value), _interval(interval), drawing.number(one.rows), picture))
    return rows


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return (interval.lo, interval.hi) if interval else None


def _interval(interval: Interval | None) -> str:
    return f"{drawing.number(interval.lo)} to {drawing.number(interval.hi)}" if interval else ""


def _gate(verdict: Mapping[str, Any]) -> Gate:
    figures = [(name, drawing.number(value)) for name, value in verdict.get("figures", {}).items()]
    return Gate(verdict["declared"], verdict["held"], verdict["reason"], figures)


def _features(known: Known) -> list[Feature]:
    inputs = {item.name: item for item in known.manifest.inputs} if known.manifest else {}
    rows = []
    for name, one in known.evaluation.features.items() if known.evaluation else ():
        kind = inputs[name].dtype if name in inputs else ""
        quantiles = [one.get(at) for at in ("mean", "min", "q25", "median", "q75", "max")]
        rows.append(
            Feature(
                name,
                kind,
                drawing.share(one["missing"]),
                spark(one["histogram"]["counts"]) if "histogram" in one else Markup(),
                [drawing.number(value, 3) for value in quantiles] if "mean" in one else [],
                _values(one) if "values" in one else "",
            )
        )
    return rows


def _values(one: Mapping[str, Any]) -> str:
    said = ", ".join(f"{value} {drawing.share(part)}" for value, part in one["values"].items())
    more = one["different"] - len(one["values"])
    return f"{said} and {drawing.number(more)} more" if more else said


def _data(known: Known) -> Facts:
    run = known.run
    return _facts(
        (
            "event times",
            f"{drawing.moment(run.data_start)} to {drawing.moment(run.data_end)}" if run.data_start else "",
        ),
        ("rows trained on", drawing.number(run.rows_train) if run.rows_train else ""),
        ("rows held out", drawing.number(run.rows_test) if run.rows_test else ""),
        ("rows left out", drawing.number(run.rows_dropped) if run.data_fingerprint else ""),
        ("split", run.split),
        ("read from", ", ".join(run.fields)),
        ("fingerprint", run.data_fingerprint),
    )


def _package(known: Known) -> Facts:
    manifest = known.manifest
    if manifest is None:
        return []
    served = f"ONNX Runtime, {manifest.tensor_dtype}" if manifest.runtime == "onnx" else "scikit-learn"
    parity = manifest.parity
    same = (
        f"on {drawing.number(parity.rows)} held-out rows at most {drawing.number(parity.max_difference, 2)} apart from"
        f" the estimator, {drawing.share(parity.labels_differing)} other labels"
        if parity
        else ""
    )
    return _facts(
        ("served by", served),
        ("because", manifest.runtime_reason),
        ("answers", same),
        ("takes", ", ".join(f"{item.name} ({item.dtype}{'?' if item.nullable else ''})" for item in manifest.inputs)),
        ("classes", _classes(manifest)),
        ("size", f"{drawing.number(known.size / 1e6, 3)}{drawing.THIN}MB" if known.size else ""),
        ("trusts", ", ".join(manifest.trusted)),
        ("folder", known.run.package),
    )


def _classes(manifest: Manifest) -> str:
    if not manifest.labels:
        return ", ".join(map(str, manifest.classes))
    pairs = zip(manifest.labels, manifest.classes, strict=False)  # of a regression there are none
    return "; ".join(f"{label}: {', '.join(map(str, classes))}" for label, classes in pairs)


def _search(known: Known) -> str:
    run = known.run
    if run.parent:
        return f"trial {run.trial} of run {run.parent}"
    failed = f", of which {run.trials_failed} failed" if run.trials_failed else ""
    return f"the best of {run.trials} trials{failed}" if run.trials else ""


def _origin(known: Known) -> Facts:
    run = known.run
    return _facts(
        ("run", run.id),
        ("trigger", f"{run.trigger}{f', by {run.by}' if run.by else ''}"),
        ("as of", drawing.moment(run.as_of)),
        ("search", _search(known)),
        ("started", drawing.moment(run.started)),
        ("finished", drawing.moment(run.finished)),
        ("attempt", f"{run.attempt}, after: {run.retry_reason}" if run.attempt > 1 else ""),
        ("peak memory", f"{run.peak_memory_mb:.0f}{drawing.THIN}MB" if run.peak_memory_mb else ""),
        ("processor time", drawing.seconds(run.cpu_seconds) if run.cpu_seconds else ""),
        ("seed", str(run.seed)),
        ("git commit", run.git_commit),
        ("definitions", run.definitions),
        ("estimator", run.estimator),
    )


# --- what a person should know before trusting a model: what it declares, and what its figures say

MUCH_MISSING = 0.2
"""Share of missing values from which an input is mentioned."""
OFF = 0.05
"""Mean distance between predicted probability and what came true, from which it is mentioned."""
FEW_ROWS = 200
"""Held-out rows below which all figures are uncertain."""


def limits(known: Known) -> list[str]:
    """Sentences, what the model declares first."""
    return [
        *_declared(known),
        *_pruned(known),
        *_data_limits(known),
        *_metric_limits(known),
        *_segment_limits(known),
        *_package_limits(known),
    ]


def _declared(known: Known) -> Iterator[str]:
    if known.evaluation and (text := known.evaluation.purpose.get("limits")):
        yield text


def _pruned(known: Known) -> Iterator[str]:
    if known.pruned:
        yield f"It was pruned at {drawing.moment(known.pruned)}: its package, its figures and its segments are gone."


def _data_limits(known: Known) -> Iterator[str]:
    run = known.run
    if run.data_end:
        yield f"Nothing that happened after {drawing.moment(run.data_end)} is known to it."
    if run.split.startswith("at random"):
        yield (
            "Rows were held out at random, so it was tested on times that it was trained on: how it does on later rows"
            " is not shown."
        )
    if run.rows_dropped:
        total = run.rows_train + run.rows_test + run.rows_dropped
        yield (
            f"{drawing.number(run.rows_dropped)} rows ({drawing.share(run.rows_dropped / total)}) without a label, or"
            " without a value that the model needs, were left out: it says nothing about such cases."
        )
    if known.evaluation:
        much = {
            name: one["missing"] for name, one in known.evaluation.features.items() if one["missing"] > MUCH_MISSING
        }
        if much:
            listed = ", ".join(f"{name} ({drawing.share(part)})" for name, part in much.items())
            yield f"Often missing in the rows it was trained on: {listed}."


def _metric_limits(known: Known) -> Iterator[str]:
    found = known.evaluation
    if found is None:
        return
    if found.rows < FEW_ROWS:
        yield f"Only {found.rows} rows were held out: every figure here is uncertain."
    base, interval = found.baseline.get(known.metric), found.intervals.get(known.metric)
    if base is not None and interval and interval.lo <= base:
        yield (
            f"It is not shown to be better than a model that knows only the labels: the interval of {known.metric}"
            f" reaches down to {drawing.number(interval.lo)}, such a model has {drawing.number(base)}."
        )
    for label, figures in found.figures.items():
        for name, one in figures.get("calibration", {}).items():
            if one["error"] > OFF:
                yield (
                    f"Its probabilities of {label} {name} are {drawing.number(one['error'], 2)} apart from what"
                    " came true, on average: take them for ranks, or calibrate them."
                )
    if found.intervals:
        yield "Intervals take rows as independent of each other; where they are not, they are too narrow."
    if found.importance.get("missing"):
        yield f"The importance of its inputs was not measured: {found.importance['missing']}."


def _segment_limits(known: Known) -> Iterator[str]:
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
            f"{name} ({drawing.number(one.metrics[known.metric])})"
            for name, one in of_column.items()
            if known.metric in one.intervals and whole is not None and one.intervals[known.metric].hi < whole
        ]
        if worst:
            yield f"{known.metric} is shown to be lower than on all rows where {column} is {', '.join(worst)}."


def _package_limits(known: Known) -> Iterator[str]:
    manifest = known.manifest
    if manifest is None:
        return
    if manifest.runtime == "skops":
        yield f"It is served by scikit-learn, which is slower than a graph: {manifest.runtime_reason.rstrip('.')}."
    if manifest.required:
        yield f"{required_words(manifest.required)}."
    if manifest.parity and manifest.parity.labels_differing:
        yield (
            f"Its package answers {drawing.share(manifest.parity.labels_differing)} of the held-out rows otherwise than"
            " the estimator."
        )
