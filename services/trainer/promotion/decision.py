"""Whether a new version goes live: what each gate says, and the policy of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from modelmill.declare.gates import Policy
from modelmill.state.aliases import CHALLENGER, CHAMPION


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
