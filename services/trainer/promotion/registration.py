"""From a package to a numbered version, and maybe to the champion."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from modelmill import package
from modelmill.declarations import Model
from modelmill.errors import Conflict, InvalidRequest, RunEnded
from modelmill.package import Manifest
from modelmill.registry import CHAMPION, Registry, Version
from modelmill.runs import Run
from modelmill.storage import Storage
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.metrics import score
from services.trainer.evaluation.segments import Parts
from services.trainer.jobs.run_record import sentence
from services.trainer.packaging.graph import packaged
from services.trainer.promotion.decision import Champion, Decision, decide

TRIES = 5
"""How often a decision is made again because the champion changed meanwhile."""


@dataclass(frozen=True)
class HeldOut:
    """The rows on which challenger and champion are compared, and the recipe that says how."""

    recipe: Model
    rows: pd.DataFrame
    label: np.ndarray
    """[n] or [n, outputs]"""
    segments: Mapping[str, Parts] = field(default_factory=dict)
    """Column to how it parts the rows."""

    def answers(self, manifest: Manifest, content: bytes) -> Answers:
        """What a packaged model says of the rows, answering as it would be served."""
        return Answers.of(packaged(manifest, content, self.recipe.trusted), self.rows)

    def score(self, answers: Answers) -> float:
        """The recipe's metric of these answers."""
        return score(self.recipe.metrics[0], answers, self.label)


def register(
    registry: Registry, storage: Storage, run: Run, manifest: Manifest, held_out: HeldOut
) -> tuple[Version, Decision]:
    """Register the package of `run` and promote it if the recipe's policy says so, in one transaction.

    Raises:
        RunEnded: where the run was closed meanwhile.
        Conflict: where the champion changed at each of `TRIES` tries.
    """
    recipe = held_out.recipe
    begun = time.perf_counter()
    try:
        score = held_out.score(held_out.answers(*package.read(storage, run.package)))
    except InvalidRequest:  # the graph lacks what the metric needs, such as the distances of a support vector machine
        score = run.metrics[recipe.metric]
    tries = 0
    while True:
        champion = standing(registry, storage, manifest, held_out)
        decision = decide(recipe.promote, recipe.metric, score, len(held_out.rows), champion)
        try:
            version = registry.register(
                replace(
                    run, decision=decision.reason, seconds={**run.seconds, "register": time.perf_counter() - begun}
                ),
                run.package,
                promote=decision.promote,
                champion=champion.version if champion else None,
            )
            return version, decision
        except RunEnded:
            raise
        except Conflict:
            tries += 1
            if tries == TRIES:
                raise


def standing(registry: Registry, storage: Storage, challenger: Manifest, held_out: HeldOut) -> Champion | None:
    """The present champion and its score on the held-out rows, or why it has none."""
    number = registry.aliases(challenger.model).get(CHAMPION)
    if number is None:
        return None
    try:
        manifest, content = package.read(storage, registry.version(challenger.model, number).package)
        packaged(manifest, content, held_out.recipe.trusted)
    except Exception as error:  # ONNX Runtime's errors have no common root
        return Champion(number, None, sentence(error), broken=True)
    gone = {item.name for item in manifest.inputs} - set(held_out.rows.columns)
    if gone:
        return Champion(number, None, f"it takes {', '.join(sorted(gone))}, which the model no longer declares")
    if (manifest.label, manifest.task) != (challenger.label, challenger.task):
        return Champion(number, None, f"it predicts {manifest.label!r} by {manifest.task}")
    try:
        return Champion(number, held_out.score(held_out.answers(manifest, content)))
    except Exception as error:
        return Champion(number, None, sentence(error))
