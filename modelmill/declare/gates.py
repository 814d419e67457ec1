"""What a new version must show before it goes live: declared with the model, and all must hold.

    Model(..., gates=[improves("roc_auc", by=0.002), at_least("accuracy", 0.8), latency_below(ms=2)])

A gate here only says what is asked for; the trainer measures it. A user's function is a gate too: it gets the candidate
and the champion (None where there is none yet) and returns whether it is content, or that and a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from modelmill.declare.metrics import Metric

Policy = Literal["auto", "manual", "canary"]


@dataclass(frozen=True)
class Improves:
    """Better than the champion on the same held-out rows by more than `by`, in the share `confidence` of resamples."""

    metric: Metric
    by: float = 0.0
    confidence: float = 0.95
    needs_champion: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What it is called in the run: `improves_roc_auc`."""
        return f"improves_{self.metric}"

    def __str__(self) -> str:
        return f"improves({self.metric}, by={self.by:g}, confidence={self.confidence:g})"


@dataclass(frozen=True)
class AtLeast:
    """The metric on the held-out rows is not below `least`."""

    metric: Metric
    least: float
    needs_champion: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What it is called in the run: `at_least_accuracy`."""
        return f"at_least_{self.metric}"

    def __str__(self) -> str:
        return f"at_least({self.metric}, {self.least:g})"


@dataclass(frozen=True)
class NoSegmentWorse:
    """In no segment is the metric below the champion's by more than `than`."""

    metric: Metric
    than: float
    needs_champion: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What it is called in the run: `no_segment_worse_roc_auc`."""
        return f"no_segment_worse_{self.metric}"

    def __str__(self) -> str:
        return f"no_segment_worse({self.metric}, than={self.than:g})"


@dataclass(frozen=True)
class LatencyBelow:
    """The packaged model answers one row in less than `ms`, in the share `quantile` of the calls."""

    ms: float
    quantile: float = 0.5
    needs_champion: ClassVar[bool] = False
    name: ClassVar[str] = "latency_below"

    def __str__(self) -> str:
        return f"latency_below(ms={self.ms:g}, quantile={self.quantile:g})"


@dataclass(frozen=True)
class SizeBelow:
    """The package's files together are smaller than `mb` millions of bytes."""

    mb: float
    needs_champion: ClassVar[bool] = False
    name: ClassVar[str] = "size_below"

    def __str__(self) -> str:
        return f"size_below(mb={self.mb:g})"


@dataclass(frozen=True)
class Parity:
    """The packaged model answers the held-out rows as the estimator does, up to `tolerance`."""

    tolerance: float
    needs_champion: ClassVar[bool] = False
    name: ClassVar[str] = "parity"

    def __str__(self) -> str:
        return f"parity({self.tolerance:g})"


@dataclass(frozen=True)
class Judged:
    """What a user's function says of the two."""

    function: Callable[..., Any]
    needs_champion: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def __str__(self) -> str:
        return f"{self.name}()"


Gate = Improves | AtLeast | NoSegmentWorse | LatencyBelow | SizeBelow | Parity | Judged


def improves(metric: str | Callable[..., Any], by: float = 0.0, confidence: float = 0.95) -> Improves:
    """Better than the champion, both scored on the same held-out rows by the packages that would serve.

    The two are compared on resamples of these rows (a paired bootstrap): in the share `confidence` of them the
    candidate must be better by more than `by`.
    """
    _require("improves", "by", by, _is_number(by) and by >= 0, "a number, at least 0")
    _require("improves", "confidence", confidence, _is_share(confidence), "a share between 0.5 and 1")
    return Improves(_metric("improves", metric), by, confidence)


def at_least(metric: str | Callable[..., Any], least: float) -> AtLeast:
    """The metric on the held-out rows is `least` or more. Of losses such as `neg_log_loss`, too, greater is better."""
    _require("at_least", "least", least, _is_number(least), "a number")
    return AtLeast(_metric("at_least", metric), least)


def no_segment_worse(metric: str | Callable[..., Any], than: float) -> NoSegmentWorse:
    """In none of the model's `segments` is the metric below the champion's on the same rows by more than `than`."""
    _require("no_segment_worse", "than", than, _is_number(than) and than >= 0, "a number, at least 0")
    return NoSegmentWorse(_metric("no_segment_worse", metric), than)


def latency_below(ms: float, quantile: float = 0.5) -> LatencyBelow:
    """The packaged model answers one row in less than `ms` milliseconds, measured by the trainer in one thread.

    That is about the median of the calls; `quantile=0.99` is about the slowest of a hundred, and fails where the
    machine that trains is busy with something else.
    """
    _require("latency_below", "ms", ms, _is_number(ms) and ms > 0, "milliseconds above 0")
    _require("latency_below", "quantile", quantile, _is_number(quantile) and 0 < quantile < 1, "a share of the calls")
    return LatencyBelow(ms, quantile)


def size_below(mb: float) -> SizeBelow:
    """The package is smaller than `mb` megabytes, a million bytes each."""
    _require("size_below", "mb", mb, _is_number(mb) and mb > 0, "megabytes above 0")
    return SizeBelow(mb)


def parity(tolerance: float) -> Parity:
    """The packaged model answers each held-out row as the fitted estimator does.

    Probabilities differ by `tolerance` at most, numbers by `tolerance` of the larger of the number and the spread of
    all; labels are equal. An estimator whose ONNX graph is further off is packaged to be served by scikit-learn.
    """
    _require("parity", "tolerance", tolerance, _is_number(tolerance) and tolerance >= 0, "a number, at least 0")
    return Parity(tolerance)


def gates_of(given: Any, metric: Metric, segments: Sequence[str]) -> tuple[Gate, ...]:
    """The gates of a model: those `given`, or where none are, that its `metric` improves.

    Raises:
        ValueError: for what is no gate, for two of one name, and for gates on segments that the model does not have.
    """
    if given is None:
        return (Improves(metric),)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"gates={given!r}; expected a list such as [improves({str(metric)!r})]")
    found: dict[str, Gate] = {}
    for one in given:
        gate = _gate(one)
        if found.setdefault(gate.name, gate) is not gate:
            raise ValueError(f"gates: two are named {gate.name!r}; leave one out")
        if isinstance(gate, NoSegmentWorse) and not segments:
            raise ValueError(f"gate {gate}: the model has no segments; add segments=[...] with columns")
    return tuple(found.values())


def metrics_of(gates: Sequence[Gate]) -> list[Metric]:
    """The metrics that gates look at."""
    return [gate.metric for gate in gates if isinstance(gate, Improves | AtLeast | NoSegmentWorse)]


def policy_of(promote: Any) -> Policy:
    """What happens to a version of which all gates hold.

    Raises:
        ValueError: for anything else.
    """
    if promote not in get_args(Policy):
        raise ValueError(f"promote={promote!r}; expected one of {', '.join(get_args(Policy))}")
    policy: Policy = promote
    return policy


def _gate(given: Any) -> Gate:
    if isinstance(given, Gate):
        return given
    if callable(given) and str(getattr(given, "__name__", "")).isidentifier() and not isinstance(given, type):
        if given in (improves, at_least, no_segment_worse, latency_below, size_below, parity):
            raise ValueError(f"gate {given.__name__}: expected what it asks for too, as in {given.__name__}(...)")
        return Judged(given)
    raise ValueError(
        f"gate {given!r}: expected improves(...), at_least(...), no_segment_worse(...), latency_below(...),"
        " size_below(...), parity(...), or a named function(candidate, champion)"
    )


def _metric(gate: str, given: Any) -> Metric:
    try:
        return Metric.of(given)
    except ValueError as error:
        raise ValueError(f"gate {gate}: {error}") from None


def _require(gate: str, name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"gate {gate}: {name}={value!r}; expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0.5 <= value < 1
