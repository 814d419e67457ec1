"""LightGBM's estimators become ONNX graphs, by themselves and in pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.convert import convert
from services.trainer.packaging.graph import OwnAnswers, Tolerance
from services.trainer.packaging.probes import prove
from services.trainer.packaging.trees import opset

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(400, 3)), columns=["a", "b", "c"])
ROWS.iloc[::7, 1] = np.nan
YES = (ROWS["a"] > 0).to_numpy()
THREE = np.array(["low", "middle", "high"], dtype=object)[np.digitize(ROWS["a"], [-0.5, 0.5])]
SMALL: dict[str, Any] = {"n_estimators": 10, "n_jobs": 1, "verbose": -1}


@pytest.mark.parametrize(
    "estimator, label",
    [
        (LGBMClassifier(**SMALL), YES),
        (LGBMClassifier(**SMALL), THREE),
        (make_pipeline(SimpleImputer().set_output(transform="pandas"), LGBMClassifier(**SMALL)), YES),
        (LGBMRegressor(**SMALL), 1000 * ROWS["a"].to_numpy()),
    ],
    ids=["two classes", "three classes", "pipeline", "numbers"],
)
def test_its_graphs_answer_as_the_estimator(estimator: Any, label: np.ndarray) -> None:
    estimator.fit(ROWS[:300], label[:300])
    held_out = ROWS[300:]
    inputs = [Input(name, "float", True) for name in ROWS]
    proof = prove(estimator, inputs, held_out, OwnAnswers.of(Answers.of(estimator, held_out)))
    converted = convert(estimator, inputs, proof, Tolerance())
    held = converted.graph.holds(proof.rows)
    assert not proof.own.rows(held).differing(converted.graph.run(proof.rows[held]), Tolerance()).any()


def test_other_estimators_keep_the_newest_operators() -> None:
    assert opset(make_pipeline(SimpleImputer(), LogisticRegression())) is None
