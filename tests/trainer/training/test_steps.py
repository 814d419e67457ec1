"""What a recipe asks of its frame before anything is fitted."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from modelmill.declare.declarations import Entity, Model
from modelmill.declare.definitions import Definitions
from modelmill.declare.splits import by_group
from services.trainer.training.frame import Frame
from services.trainer.training.split import Split, make_folds
from services.trainer.training.steps import fold_constraints

UNUSED = cast(Definitions, None)


def test_rows_without_a_group_are_one_group_in_the_folds_of_a_search_too() -> None:
    recipe = Model(
        "m",
        entities=[Entity("user", key="user_id")],
        features=["x"],
        label="y",
        estimator=object,
        split=by_group("team", 0.25),
    )
    teams = pd.Series(["a", None, "b", None, "c", "a"] * 4, dtype=object)
    rows = pd.DataFrame({"x": np.arange(24.0)})
    frame = Frame(rows, np.zeros(24), pd.DataFrame({"team": teams}), np.arange(24), 0, "")
    constraints = fold_constraints(UNUSED, recipe, frame, Split(np.arange(24), np.arange(0), "none"), classes=False)
    made = make_folds(2, rows, frame.label, constraints, seed=0)
    for fitted, scored in made.pairs:
        assert not _teams(teams, fitted) & _teams(teams, scored)


def _teams(teams: pd.Series, rows: np.ndarray) -> set[Any]:
    return set(teams.iloc[rows].fillna("none"))
