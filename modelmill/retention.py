"""Which versions of a model stay in the storage, and why. Pure: what is known goes in, what is to be done comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelmill.aliases import ROLLBACKS, live


@dataclass(frozen=True)
class Held:
    """What is known of a model's versions."""

    stored: Sequence[int]
    """Versions whose packages are in the storage, in order."""
    aliases: Mapping[str, int]
    stacks: Mapping[str, Sequence[int]]
    """Alias to the versions that it was promoted to and not rolled back from, the present one last."""
    needed: Mapping[int, str]
    """Further versions that are not to go, and why."""


@dataclass(frozen=True)
class Plan:
    """What stays and what goes."""

    kept: Mapping[int, str]
    """Version to why it stays."""
    pruned: Sequence[int]
    """Versions that go, in order."""


def plan(held: Held, keep: int) -> Plan:
    """Keep the newest `keep` versions, what an alias names, what rolling one back returns to, and what is needed."""
    reasons = dict(held.needed)
    reasons |= dict.fromkeys(live(held.aliases, held.stacks), f"one of {ROLLBACKS} rollbacks returns to it")
    reasons |= dict.fromkeys(held.stored[max(0, len(held.stored) - keep) :], f"one of the newest {keep}")
    reasons |= {version: f"alias {alias} names it" for alias, version in held.aliases.items()}
    stored = set(held.stored)
    return Plan(
        {version: reason for version, reason in sorted(reasons.items()) if version in stored},
        [version for version in held.stored if version not in reasons],
    )
