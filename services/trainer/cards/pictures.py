"""The figures of an evaluation as pictures, each with its caption and its data as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from modelmill import drawing
from modelmill.drawing import Axis, Chart, Series

MAX_TABLE_ROWS = 11
"""Rows of the table beside a curve."""


@dataclass(frozen=True)
class Table:
    """Figures in rows, the first column their names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A chart of one label."""

    title: str
    svg: Markup
    caption: str
    table: Table
    legend: Sequence[str] = ()
    """Names of the series, in the order of their colours; empty where there is one."""
    wide: bool = False


def pictures(figures: Mapping[str, Mapping[str, Any]]) -> list[Picture]:
    """All pictures of `Evaluation.figures`; of several labels each says which."""
    found: list[Picture] = []
    for label, of_label in figures.items():
        beside = f" of {label}" if len(figures) > 1 else ""
        for name, data in of_label.items():
            found += PICTURES[name](data, beside)
    return found


def importances(importance: Mapping[str, Any], most: int = 30) -> Picture | None:
    """The inputs by how much the metric falls where they are shuffled."""
    inputs = importance.get("inputs")
    if not inputs:
        return None
    values = [(name, one["mean"], one["spread"]) for name, one in inputs.items()][:most]
    metric, first = importance["metric"], values[0]
    caption = (
        f"How much {metric} falls where the values of an input are shuffled among {drawing.number(importance['rows'])}"
        f" held-out rows; mean and standard deviation of {importance['repeats']} repetitions. Without shuffling it is"
        f" {drawing.number(importance['score'])} on these rows. Inputs that tell the same share their importance."
    )
    if len(inputs) > most:
        caption += f" The first {most} of {len(inputs)} inputs."
    about = f"Bars of {len(values)} inputs; the longest is {first[0]} with {drawing.number(first[1])}."
    rows = [(name, drawing.number(mean), drawing.number(spread)) for name, mean, spread in values]
    title = "Permutation importance"
    svg = drawing.bars(title, about, values, f"fall of {metric}")
    return Picture(title, svg, caption, Table(["input", f"fall of {metric}", "standard deviation"], rows), wide=True)


def _confusion(data: Mapping[str, Any], beside: str) -> Iterator[Picture]:
    labels, counts = data["labels"], data["counts"]
    total = sum(map(sum, counts))
    right = sum(counts[at][at] for at in range(len(labels)))
    title = f"Confusion matrix{beside}"
    agreeing = f"{drawing.number(right)} of {drawing.number(total)} rows"
    about = f"{agreeing} are on the diagonal, where prediction and truth agree."
    rows = [(label, *map(drawing.number, of_label)) for label, of_label in zip(labels, counts, strict=True)]
    svg = drawing.heat_map(title, about, labels, counts)
    caption = "Rows are true classes, columns predicted ones; percentages and shades are shares of the true class."
    yield Picture(title, svg, caption, Table(["true \N{RIGHTWARDS ARROW} predicted", *labels], rows))


def _curves(
    data: Mapping[str, Any], title: str, axes: tuple[Axis, Axis], about: str, area: str
) -> tuple[Chart, str, Table, list[str]]:
    series = [Series(name, one["x"], one["y"]) for name, one in data.items()]
    areas = f"{area} {_of_classes({name: one['area'] for name, one in data.items()})}"
    chart = Chart.empty(title, f"{about} {areas}.", *axes)
    rows = [
        (drawing.number(x, 3), *(drawing.number(_height(one, x), 3) for one in data.values()))
        for x in (step / (MAX_TABLE_ROWS - 1) for step in range(MAX_TABLE_ROWS))
    ]
    table = Table([axes[0].name, *(f"{axes[1].name}, class {name}" for name in data)], rows)
    return chart.draw(series), areas, table, list(data) if len(data) > 1 else []


def _roc(data: Mapping[str, Any], beside: str) -> Iterator[Picture]:
    title = f"ROC curve{beside}"
    axes = Axis("false positive rate", 0, 1), Axis("true positive rate", 0, 1)
    chart, areas, table, legend = _curves(data, title, axes, "True against false positive rate.", "Area")
    chart.reference((0, 0), (1, 1))
    caption = f"{areas}; the dashed line is chance."
    yield Picture(title, chart.markup(), caption, table, legend)


def _precision_recall(data: Mapping[str, Any], beside: str) -> Iterator[Picture]:
    title = f"Precision and recall{beside}"
    axes = Axis("recall", 0, 1), Axis("precision", 0, 1)
    chart, areas, table, legend = _curves(data, title, axes, "Precision by recall.", "Average precision")
    caption = f"{areas}."
    if not legend:
        ((_, one),) = data.items()
        chart.reference((0, one["share"]), (1, one["share"]))
        caption = f"{areas}; the dashed line is its share of the rows, {drawing.share(one['share'])}."
    yield Picture(title, chart.markup(), caption, table, legend)


def _calibration(data: Mapping[str, Any], beside: str) -> Iterator[Picture]:
    title = f"Calibration{beside}"
    off = _of_classes({name: one["error"] for name, one in data.items()}, 2)
    chart = Chart.empty(
        title,
        f"Share that came true by predicted probability. Mean distance {off}.",
        Axis("predicted probability", 0, 1),
        Axis("share that came true", 0, 1),
    )
    chart.reference((0, 0), (1, 1)).draw(
        [Series(n, one["predicted"], one["observed"], "dotted") for n, one in data.items()]
    )
    rows = [
        (f"{name}, {at + 1}", *map(drawing.number, (predicted, observed, count)))
        for name, one in data.items()
        for at, (predicted, observed, count) in enumerate(
            zip(one["predicted"], one["observed"], one["rows"], strict=True)
        )
    ]
    caption = (
        "Groups of equally many rows by predicted probability; on the dashed line it came true as often as was said."
        f" On average the two are {off} apart."
    )
    table = Table(["class, group", "predicted probability", "came true", "rows"], rows)
    yield Picture(title, chart.markup(), caption, table, list(data) if len(data) > 1 else [])


def _residuals(data: Mapping[str, Any], beside: str) -> Iterator[Picture]:
    predicted, true, bands = data["predicted"], data["true"], data["bands"]
    title, both = f"Predicted and true{beside}", [*predicted, *true]
    chart = Chart.empty(
        title, "True numbers by predicted ones.", Axis.around("predicted", both), Axis.around("true", both)
    )
    lo, hi = min(both), max(both)
    chart.reference((lo, lo), (hi, hi)).draw([Series("rows", predicted, true, "dots")])
    picked = range(0, len(predicted), max(1, len(predicted) // MAX_TABLE_ROWS))
    rows = [(drawing.number(predicted[at]), drawing.number(true[at])) for at in picked]
    caption = f"{len(predicted)} held-out rows, evenly by rank; on the dashed line the prediction is right."
    yield Picture(title, chart.markup(), caption, Table(["predicted", "true"], rows))
    yield _bands(bands, beside)
    yield _histogram(data["histogram"], beside)


def _bands(bands: Mapping[str, Any], beside: str) -> Picture:
    title, x = f"Residuals by prediction{beside}", bands["predicted"]
    chart = Chart.empty(
        title,
        "Median of true minus predicted with the middle 80 %, by predicted number.",
        Axis.around("predicted", x),
        Axis.around("true \N{MINUS SIGN} predicted", [*bands["low"], *bands["high"]], 0.0),
    )
    chart.band(x, bands["low"], bands["high"]).reference((min(x), 0), (max(x), 0))
    chart.draw([Series("median", x, bands["middle"], "dotted")])
    columns = ("predicted", "low", "middle", "high", "rows")
    rows = [tuple(map(drawing.number, row)) for row in zip(*(bands[name] for name in columns), strict=True)]
    caption = (
        "Groups of equally many rows by prediction: the median of true minus predicted, shaded between the 10th and the"
        " 90th percentile."
    )
    return Picture(title, chart.markup(), caption, Table(["predicted", "10 %", "median", "90 %", "rows"], rows))


def _histogram(histogram: Mapping[str, Any], beside: str) -> Picture:
    edges, counts, title = histogram["edges"], histogram["counts"], f"Residuals{beside}"
    axes = Axis("true \N{MINUS SIGN} predicted", edges[0], edges[-1]), Axis("rows", 0, max(counts) * 1.05 or 1)
    chart = Chart.empty(title, "Histogram of true minus predicted.", *axes).columns(edges, counts)
    if edges[0] < 0 < edges[-1]:
        chart.reference((0, 0), (0, axes[1].hi))
    rows = [
        (f"{drawing.number(lo, 3)} to {drawing.number(hi, 3)}", drawing.number(times))
        for lo, hi, times in zip(edges, edges[1:], counts, strict=False)
    ]
    caption = "How often a prediction is off by how much; the most extreme hundredth on each side is left out."
    return Picture(title, chart.markup(), caption, Table(["true \N{MINUS SIGN} predicted", "rows"], rows))


PICTURES: dict[str, Callable[[Mapping[str, Any], str], Iterator[Picture]]] = {
    "confusion": _confusion,
    "roc": _roc,
    "precision_recall": _precision_recall,
    "calibration": _calibration,
    "residuals": _residuals,
}


def _of_classes(values: Mapping[str, float], digits: int = 4) -> str:
    """A value, or with several classes each one's."""
    texts = {name: drawing.number(value, digits) for name, value in values.items()}
    return next(iter(texts.values())) if len(texts) == 1 else ", ".join(f"{text} for {n}" for n, text in texts.items())


def _height(curve: Mapping[str, Sequence[float]], x: float) -> float:
    """Where a curve is at `x`, by the line between its points."""
    xs, ys = curve["x"], curve["y"]
    for at in range(1, len(xs)):
        if xs[at] >= x:
            part = (x - xs[at - 1]) / (xs[at] - xs[at - 1]) if xs[at] > xs[at - 1] else 1.0
            return ys[at - 1] + (ys[at] - ys[at - 1]) * min(max(part, 0.0), 1.0)
    return ys[-1]
