"""Whether a new version becomes champion: the model's policy, and both scores on the same held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

from modelmill.declarations import Policy


@dataclass(frozen=True)
class Champion:
    """The version that serves now, as far as it can be compared."""

    version: int
    score: float | None
    """By the model's metric, on the new version's held-out rows; None where it cannot be scored on them."""
    obstacle: str = ""
    """Why it cannot be."""
    broken: bool = False
    """Whether its package cannot be loaded at all."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in words and figures."""

    promote: bool
    reason: str


def decide(policy: Policy, metric: str, score: float, rows: int, champion: Champion | None) -> Decision:
    """Decide about a version with this `score` (greater is better) on so many held-out `rows`.

    `if_better` promotes only what is shown to be better: not an equal score, and not where the champion cannot be
    scored on the same rows, for instance because it takes inputs that the model no longer declares; then a person has
    to promote. A champion whose package cannot be loaded is no champion to keep.
    """
    figure = f"{metric} {score:.6g} on {rows} held-out rows"
    if champion is None:
        compared = f"{figure}; there is no champion yet"
    elif champion.score is None:
        compared = f"{figure}; champion version {champion.version} cannot be compared: {champion.obstacle}"
    else:
        compared = f"{figure}, champion version {champion.version} {champion.score:.6g} on the same rows"
    if policy == "manual":
        return Decision(False, f"waits for a person (policy manual): {compared}")
    if policy == "always":
        return Decision(True, f"promoted (policy always): {compared}")
    if champion is None or champion.broken:
        return Decision(True, f"promoted: {compared}")
    if champion.score is None:
        return Decision(False, f"not promoted: {compared}; promote it by hand if it is good")
    if score > champion.score:
        return Decision(True, f"promoted, being better: {compared}")
    return Decision(False, f"not promoted, not being better: {compared}")
