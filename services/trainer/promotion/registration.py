"""From a package to a numbered version, and maybe to the champion."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelmill.declare.declarations import Model
from modelmill.declare.metrics import Metric
from modelmill.errors import Conflict, RunEnded, sentence
from modelmill.packages import package
from modelmill.packages.package import Manifest
from modelmill.state.registry import CHAMPION, Registry, Version
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.evaluation import evaluation as evaluations
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import Evaluation, HeldOut
from services.trainer.packaging.graph import packaged
from services.trainer.promotion.contender import Contender, Incomparable
from services.trainer.promotion.judgement import Comparison, Decision, Evidence, decide, verdicts

TRIES = 5
"""How often a decision is made again because the champion changed meanwhile."""


@dataclass(frozen=True)
class Candidate:
    """A packaged model that waits for its number, and what is asked of it."""

    recipe: Model
    run: Run
    manifest: Manifest
    held_out: HeldOut
    evaluation: Evaluation

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return self.held_out.metrics[0]


def register(registry: Registry, storage: Storage, candidate: Candidate) -> tuple[Version, Decision]:
    """Register the candidate's package and promote it if its gates and its policy say so, in one transaction.

    The decision is kept with the run, the version, the event, and the run's evaluation in the storage.

    Raises:
        RunEnded: where the run was closed meanwhile.
        Conflict: where the champion changed at each of `TRIES` tries.
    """
    begun = time.perf_counter()
    run = candidate.run
    model = packaged(registry.redis, *package.read(storage, run.package))
    own = contender(storage, candidate.held_out, None, run.package, model, other_scores=candidate.evaluation.metrics)
    champion: Contender | Incomparable | None = None
    tries = 0
    while True:
        champion = champion_contender(registry, storage, candidate, champion)
        decision = judge(candidate, own, champion)
        decided = replace(candidate.evaluation, decision=decision.to_dict())
        evaluations.write(storage, run.model, run.id, decided)
        seconds = {**run.seconds, "register": time.perf_counter() - begun}
        try:
            version = registry.register(
                replace(run, decision=decision.reason, gates=decision.gates, seconds=seconds),
                run.package,
                promote=decision.promote,
                champion=champion.version if champion else None,
                alias=decision.alias,
            )
            return version, decision
        except RunEnded:
            raise
        except Conflict:
            tries += 1
            if tries == TRIES:
                raise


def judge(candidate: Candidate, own: Contender, champion: Contender | Incomparable | None) -> Decision:
    """Ask the gates about the candidate beside the champion, and decide."""
    compared = Comparison(candidate.metric.name, len(own.rows), own.score(candidate.metric))
    if isinstance(champion, Incomparable):
        compared = replace(compared, champion=champion.version, obstacle=champion.reason)
    elif champion is not None:
        compared = replace(compared, champion=champion.version, champion_score=champion.score(candidate.metric))
    found = verdicts(candidate.recipe.gates, Evidence(own, champion, candidate.manifest.parity))
    return decide(candidate.recipe.promote, compared, found)


def contender(
    storage: Storage,
    held_out: HeldOut,
    version: int | None,
    folder: str,
    model: Any,
    other_scores: Mapping[str, float] | None = None,
) -> Contender:
    """The packaged `model` in `folder` with its answers to the held-out rows."""
    size = sum(storage.sizes(folder).values())
    return Contender(version, model, held_out, Answers.of(model, held_out.rows), size, other_scores or {})


def champion_contender(
    registry: Registry, storage: Storage, candidate: Candidate, before: Contender | Incomparable | None
) -> Contender | Incomparable | None:
    """The present champion, ready to be compared, or why it cannot be; `before` where it is still the same one.

    Raises:
        OSError: where the storage cannot be read for now.
    """
    name, held_out = candidate.run.model, candidate.held_out
    number = registry.aliases(name).get(CHAMPION)
    if number is None:
        return None
    if before is not None and before.version == number:
        return before
    folder = registry.version(name, number).package
    try:
        manifest, content = package.read(storage, folder)
        model = packaged(registry.redis, manifest, content)
    except OSError:  # the storage is away, which says nothing of the champion
        raise
    except Exception as error:  # ONNX Runtime's errors have no common root
        return Incomparable(number, sentence(error), broken=True)
    gone = {item.name for item in manifest.inputs} - set(held_out.rows.columns)
    if gone:
        return Incomparable(number, f"it takes {', '.join(sorted(gone))}, which the model no longer declares")
    if (manifest.label, manifest.task) != (candidate.manifest.label, candidate.manifest.task):
        return Incomparable(number, f"it predicts {manifest.label!r} by {manifest.task}")
    try:
        found = contender(storage, held_out, number, folder, model)
        found.score(candidate.metric)
    except Exception as error:
        return Incomparable(number, sentence(error))
    return found
