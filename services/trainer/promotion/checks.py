"""What each gate says of a candidate beside the champion. Nothing here predicts again but what measures latency."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from modelmill.declare.gates import AtLeast, Gate, Improves, Judged, LatencyBelow, NoSegmentWorse, Parity, SizeBelow
from modelmill.errors import InvalidRequest, printable, sentence
from modelmill.packages import package
from services.trainer.evaluation.evaluation import MIN_SEGMENT_ROWS
from services.trainer.evaluation.metrics import paired, score
from services.trainer.promotion.contender import Contender, Obstacle
from services.trainer.promotion.decision import Verdict
from services.trainer.promotion.latency import measure


@dataclass(frozen=True)
class Evidence:
    """What gates are asked about."""

    candidate: Contender
    champion: Contender | Obstacle | None
    """None where there is none yet."""
    parity: package.Parity | None
    """How far the candidate is from the estimator that it was made of, where there was one to compare with."""

    @property
    def rival(self) -> Contender | None:
        """The champion, where it can be compared."""
        return self.champion if isinstance(self.champion, Contender) else None


Finding = tuple[bool, str, dict[str, float]]
"""Whether the gate holds, why, and the figures."""


def verdicts(gates: Sequence[Gate], evidence: Evidence) -> list[Verdict]:
    """What each gate says."""
    return [Verdict(gate.name, str(gate), *_finding(gate, evidence)) for gate in gates]


def _finding(gate: Gate, evidence: Evidence) -> Finding:
    champion = evidence.champion
    if gate.needs_champion and champion is None:
        return True, "there is no champion yet to compare with", {}
    if gate.needs_champion and isinstance(champion, Obstacle):
        if champion.broken:
            return True, f"champion version {champion.version} is broken, so there is none to compare with", {}
        return (
            False,
            f"champion version {champion.version} cannot be compared: {champion.reason}; promote by hand if it is good",
            {},
        )
    try:
        return check(gate, evidence)
    except InvalidRequest as error:
        return False, error.detail, {}


@singledispatch
def check(gate: Any, evidence: Evidence) -> Finding:
    """What one gate says where there is all that it needs.

    Raises:
        InvalidRequest: where a metric cannot be computed.
    """
    raise TypeError(f"gate {gate!r} is not known")


@check.register
def _(gate: Improves, evidence: Evidence) -> Finding:
    candidate, champion = evidence.candidate, evidence.rival
    assert champion is not None
    known = candidate.score(gate.metric), champion.score(gate.metric)
    found = paired(gate.metric, candidate.answers, champion.answers, candidate.label, known=known)
    share = found.share_above(gate.by)
    gap = found.estimate
    margin = f"more than {gate.by:g}" if gate.by else "any margin"
    said = (
        f"{'better' if gap > 0 else 'worse' if gap < 0 else 'equal'}{f' by {abs(gap):.4g}' if gap else ''},"
        f" and better by {margin} in {share:.1%} of {found.method}; asked for {100 * gate.confidence:.4g}%"
    )
    figures = {"estimate": gap, "lo": found.lo, "hi": found.hi, "share": share, "by": gate.by}
    return share >= gate.confidence, said, _finite(figures)


@check.register
def _(gate: AtLeast, evidence: Evidence) -> Finding:
    value = evidence.candidate.score(gate.metric)
    said = f"{gate.metric} {value:.6g}, asked for {gate.least:g}"
    return value >= gate.least, said, {"value": value, "least": gate.least}


@check.register
def _(gate: NoSegmentWorse, evidence: Evidence) -> Finding:
    candidate, champion = evidence.candidate, evidence.rival
    assert champion is not None
    gaps: list[tuple[float, str]] = []
    small = without = 0
    for column, parts in candidate.held_out.segments.items():
        for value, mask in parts.masks().items():
            if mask.sum() < MIN_SEGMENT_ROWS:
                small += 1
                continue
            try:
                own, other = (score(gate.metric, c.answers.rows(mask), c.label[mask]) for c in (candidate, champion))
            except InvalidRequest:
                without += 1
                continue
            gaps.append((own - other, f"{column}={value} ({mask.sum()} rows: {own:.6g}, champion {other:.6g})"))
    left_out = [f"{small} of less than {MIN_SEGMENT_ROWS} rows"] * bool(small) + [f"{without} without a value"] * bool(
        without
    )
    beside = f", left out {' and '.join(left_out)}" if left_out else ""
    if not gaps:
        return False, f"no segment can be compared{beside}", {}
    gap, where = min(gaps)
    what = f"worse by up to {-gap:.4g}" if gap < 0 else f"better by at least {gap:.4g}" if gap else "equal at worst"
    said = f"{what} in {where} of {len(gaps)} segments{beside}; asked for {gate.than:g} at most"
    return gap >= -gate.than, said, {"gap": gap, "than": gate.than, "segments": float(len(gaps))}


@check.register
def _(gate: LatencyBelow, evidence: Evidence) -> Finding:
    latency = measure(evidence.candidate.model, evidence.candidate.rows)
    value = latency.quantile(gate.quantile)
    figures = {"median": latency.quantile(0.5), "p99": latency.quantile(0.99), "calls": float(len(latency.calls))}
    said = f"{latency}; asked for p{gate.quantile * 100:g} below {gate.ms:g} ms"
    return value < gate.ms, said, figures


@check.register
def _(gate: SizeBelow, evidence: Evidence) -> Finding:
    size = evidence.candidate.size_mb
    return size < gate.mb, f"{size:.3g} MB, asked for less than {gate.mb:g} MB", {"mb": size}


@check.register
def _(gate: Parity, evidence: Evidence) -> Finding:
    found = evidence.parity
    if found is None:
        return False, "the package does not say how far its answers are from an estimator's", {}
    largest, other = found.max_relative_difference, found.labels_differing
    labels = f", {other:.3%} of the labels are others" if other else ""
    said = f"answers to {found.rows} rows differ by at most {largest:.3g}{labels}; asked for {gate.tolerance:g}"
    return largest <= gate.tolerance and not other, said, {"largest": largest, "labels_differing": other}


@check.register
def _(gate: Judged, evidence: Evidence) -> Finding:
    if isinstance(evidence.champion, Obstacle) and not evidence.champion.broken:
        reason = f"champion version {evidence.champion.version} cannot be compared: {evidence.champion.reason}"
        return False, f"{reason}; promote by hand if it is good", {}
    try:
        answer = gate.function(evidence.candidate, evidence.rival)
    except Exception as error:  # the user's own, which must not cost the version
        return False, f"{sentence(error)} ({_line(error)})", {}
    held, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    if not isinstance(held, bool | np.bool_) or not isinstance(reason, str):
        returned = printable(answer, 200, repr)
        return False, f"it returned {returned}; expected True or False, or (True or False, a reason)", {}
    return bool(held), printable(reason) or ("content" if held else "not content"), {}


def _line(error: Exception) -> str:
    """Where the user's function failed."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}
