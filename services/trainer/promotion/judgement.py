"""Whether a new version goes live: what each gate says of it beside the champion, and the policy of its model.

Nothing here predicts again but what measures latency.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd

from modelmill.declare.gates import (
    AtLeast,
    Gate,
    Improves,
    Judged,
    LatencyBelow,
    NoSegmentWorse,
    Parity,
    Policy,
    SizeBelow,
)
from modelmill.errors import InvalidRequest, printable, sentence
from modelmill.packages import package
from modelmill.state.aliases import CHALLENGER, CHAMPION
from services.trainer.evaluation.evaluation import MIN_SEGMENT_ROWS
from services.trainer.evaluation.metrics import paired, score
from services.trainer.promotion.contender import Contender, Incomparable


@dataclass(frozen=True)
class Evidence:
    """What gates are asked about."""

    candidate: Contender
    champion: Contender | Incomparable | None
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
    if gate.needs_champion and isinstance(champion, Incomparable):
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
    if isinstance(evidence.champion, Incomparable) and not evidence.champion.broken:
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


# --- whether a new version goes live: what each gate says, and the policy of the model


@dataclass(frozen=True)
class Verdict:
    """What one gate says."""

    gate: str
    """Its name, such as `improves_roc_auc`."""
    declared: str
    """What it asks for, such as `improves(roc_auc, by=0.002, confidence=0.95)`."""
    held: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)
    """Name to figure, such as `estimate`, `lo` and `hi`."""

    def __str__(self) -> str:
        return f"{'passed' if self.held else 'failed'}: {self.reason}"


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion by the deciding metric on the same held-out rows."""

    metric: str
    rows: int
    score: float
    """The candidate's, as it would be served; greater is better."""
    champion: int | None = None
    """Version of the champion; None where there is none yet."""
    champion_score: float | None = None
    """None where it cannot be compared."""
    obstacle: str = ""
    """Why it cannot be."""

    def __str__(self) -> str:
        figure = f"{self.metric} {self.score:.6g} on {self.rows} held-out rows"
        if self.champion is None:
            return f"{figure}; there is no champion yet"
        if self.champion_score is None:
            return f"{figure}; champion version {self.champion} cannot be compared: {self.obstacle}"
        return f"{figure}, champion version {self.champion} {self.champion_score:.6g} on the same rows"


@dataclass(frozen=True)
class Decision:
    """Whether a version is promoted, to what, and why, in words and figures."""

    promote: bool
    """Whether `alias` names the version from its registration on."""
    alias: str
    """`champion`, or `challenger`."""
    policy: str
    reason: str
    compared: Comparison
    verdicts: tuple[Verdict, ...] = ()

    @property
    def gates(self) -> dict[str, str]:
        """Gate to what it says, as it is kept with the run and the version."""
        return {verdict.gate: str(verdict) for verdict in self.verdicts}

    def to_dict(self) -> dict[str, Any]:
        """The decision as it is kept with the evaluation."""
        return asdict(self)


def decide(policy: Policy, compared: Comparison, verdicts: Sequence[Verdict]) -> Decision:
    """Decide about a version of which the gates say this.

    A first version becomes champion where it passes, also with `canary`: there is none that it could be tried beside.
    """
    failed = [verdict for verdict in verdicts if not verdict.held]
    canary = policy == "canary" and compared.champion is not None
    alias = CHALLENGER if canary else CHAMPION
    if failed:
        reasons = "; ".join(f"{verdict.gate} failed: {verdict.reason}" for verdict in failed)
        stated = f"not promoted, {reasons} ({compared})"
    elif policy == "manual":
        stated = f"waits for a person (promote=manual): {compared}; {_held(verdicts)}"
    else:
        to = f"to {CHALLENGER} " if canary else ""
        stated = f"promoted {to}({_held(verdicts)}): {compared}"
    promote = not failed and policy != "manual"
    return Decision(promote, alias, policy, stated, compared, tuple(verdicts))


def _held(verdicts: Sequence[Verdict]) -> str:
    """Why nothing is in the way; what each of many gates says is beside the reason, not in it."""
    if not verdicts:
        return "no gates are declared"
    if len(verdicts) == 1:
        return f"{verdicts[0].gate}: {verdicts[0].reason}"
    return f"all {len(verdicts)} gates hold"


# --- how long a packaged model takes for one row

MAX_LATENCY_CALLS = 200
MIN_LATENCY_CALLS = 20
LATENCY_BUDGET_SECONDS = 0.04
"""After which no further call begins, once there were the fewest."""
WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds of some calls with one row each."""

    calls: np.ndarray

    def quantile(self, share: float) -> float:
        """Milliseconds below which this share of the calls is."""
        return float(np.quantile(self.calls, share))

    def __str__(self) -> str:
        return f"median {self.quantile(0.5):.3g} ms, p99 {self.quantile(0.99):.3g} ms of {len(self.calls)} calls"


def measure(model: Any, rows: pd.DataFrame) -> Latency:
    """Ask `model` about one row at a time; making a row into what the model takes is counted too."""
    singles = [rows.iloc[[number]] for number in range(min(len(rows), MIN_LATENCY_CALLS))]
    for row in singles[:WARM_UP]:
        model.predict(row)
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < MIN_LATENCY_CALLS or (
        len(took) < MAX_LATENCY_CALLS and time.perf_counter() - begun < LATENCY_BUDGET_SECONDS
    ):
        row = singles[len(took) % len(singles)]
        started = time.perf_counter()
        model.predict(row)
        took.append((time.perf_counter() - started) * 1000)
    return Latency(np.array(took))
