"""What a model's recipe makes of the definitions and a frame, step by step: what a training, its repetition and the
judging of a model that was trained elsewhere have in common."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import httpx
import numpy as np
import pandas as pd
from sklearn.base import clone

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions, extra_columns
from modelmill.declare.gates import Parity, metrics_of
from modelmill.declare.splits import AtRandom, ByGroup, ByTime, SplitRule
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import HeldOut, segmentation
from services.trainer.evaluation.metrics import require_metrics, score
from services.trainer.packaging import packing as packaging
from services.trainer.packaging.graph import Tolerance
from services.trainer.settings import TrainerSettings
from services.trainer.training import frame as frames
from services.trainer.training.frame import Frame
from services.trainer.training.rows import Rows
from services.trainer.training.split import FoldConstraints, Split, require_classes, split
from services.trainer.training.study import Study, make_study

TLS = httpx.create_ssl_context()
"""Made once, before a worker forks: it takes a tenth of a second."""


@contextmanager
def frame_file(
    settings: TrainerSettings,
    definitions: Definitions,
    recipe: Model,
    *,
    start: str | None = None,
    end: str | None = None,
    known_until: Mapping[str, str] | None = None,
) -> Iterator[IO[bytes]]:
    """The frame of a model as the feature service sends it; raises what `frames.fetch` raises."""
    fingerprint = definitions.fingerprint
    with (
        httpx.Client(timeout=httpx.Timeout(10.0, read=settings.frame_timeout), verify=TLS) as http,
        frames.fetch(
            http, settings.feature_url, recipe.name, fingerprint, start=start, end=end, known_until=known_until
        ) as file,
    ):
        yield file


def read_frame(definitions: Definitions, recipe: Model, file: IO[bytes]) -> Frame:
    """The frame of a model that the feature service has sent."""
    columns = definitions.label_source(recipe).columns
    labels = [columns[name] for name in recipe.labels]
    return frames.read(file, packaging.signature(definitions, recipe).fed, labels, extra_columns(definitions, recipe))


def rows_of(recipe: Model, frame: Frame) -> Rows:
    """All rows of a frame, with their weights."""
    column = recipe.weighting.column
    weight = None if column is None else frame.column(column).to_numpy(np.float64, na_value=np.nan)
    return Rows(frame.inputs, frame.label, recipe.weighting, weight)


def study_of(recipe: Model) -> Study:
    """What a recipe fits or tries."""
    require_metrics([*recipe.metrics, *metrics_of(recipe.gates)])

    def judge(fitted: Any, rows: Rows) -> float:
        return score(recipe.metrics[0], Answers.of(fitted, rows.inputs), rows.label)

    return make_study(recipe, make_estimator, judge, recipe.seed)


def rule_of(definitions: Definitions, recipe: Model) -> SplitRule:
    """How rows are split: as the recipe says; where it says nothing, by time if the label's source has times."""
    return recipe.split or (ByTime() if definitions.label_source(recipe).event_time else AtRandom())


def fold_constraints(
    definitions: Definitions, recipe: Model, frame: Frame, parted: Split, *, classes: bool
) -> FoldConstraints:
    """What the folds of a search have to keep to: what the split keeps to."""
    rule = rule_of(definitions, recipe)
    if isinstance(rule, ByGroup):
        groups = frame.column(rule.column).iloc[parted.train]
        return FoldConstraints(False, classes, pd.factorize(groups, use_na_sentinel=False)[0])
    timed = not isinstance(rule, AtRandom) and bool(definitions.label_source(recipe).event_time)
    return FoldConstraints(timed or isinstance(rule, ByTime), classes)


def make_estimator(recipe: Model, made: Any) -> Any:
    """A fresh estimator of what a recipe declares as one: what its function returns, or a copy of its object.

    Raises:
        InvalidRequest: for what cannot be fitted.
    """
    if isinstance(made, type) or not hasattr(made, "fit"):
        made = made() if callable(made) else made
    if not hasattr(made, "fit") or not hasattr(made, "get_params"):
        raise InvalidRequest(
            f"model {recipe.name!r}: estimator is {made!r}; expected a scikit-learn estimator, or a function that"
            " returns one"
        )
    return seeded(clone(made), recipe.seed)


def tolerance_of(recipe: Model) -> Tolerance:
    """How far a graph may be off: as a gate asks, so that what it would not let pass is served by scikit-learn."""
    strict = [Tolerance.strict(gate.tolerance) for gate in recipe.gates if isinstance(gate, Parity)]
    return strict[0] if strict else Tolerance()


def split_frame(definitions: Definitions, recipe: Model, frame: Frame, *, classes: bool) -> Split:
    """Which rows of a frame to train on, as the recipe says.

    Raises:
        InvalidRequest: where that is not possible, and for labels that the estimator cannot be for.
    """
    parted = split(rule_of(definitions, recipe), frame, recipe.labels, classes=classes)
    if classes:
        require_classes(frame.label, parted)
    elif not np.issubdtype(frame.label.dtype, np.number):
        raise InvalidRequest(f"label {recipe.label!r} holds {frame.label.dtype}; a regressor needs numbers")
    return parted


def hold_out(recipe: Model, frame: Frame, parted: Split) -> HeldOut:
    """The rows that the model is evaluated on."""
    rows = parted.held_out
    segments = {column: segmentation(frame.column(column).iloc[rows]) for column in recipe.segments}
    inputs, label = frame.inputs.iloc[rows], frame.label[rows]
    return HeldOut(recipe.metrics, inputs, label, recipe.labels, segments, parted.description, recipe.seed)


# --- seeds, so that a training can be repeated


def seeded(estimator: Any, seed: int) -> Any:
    """`estimator` with `seed` for each `random_state`, its own or one inside it, that was left open."""
    open_ones = [
        name
        for name, value in estimator.get_params(deep=True).items()
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    return estimator.set_params(**dict.fromkeys(open_ones, seed))


def seed_process(seed: int) -> None:
    """Seed what is drawn from the generators of the process, as functions in a pipeline may do."""
    random.seed(seed)
    np.random.seed(seed)
