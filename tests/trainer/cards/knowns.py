"""Runs with real evaluations, to draw cards of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Entity
from modelmill.declare.metrics import Metric
from modelmill.packages.package import Input, Manifest, Parity
from modelmill.state.runs import Run
from services.trainer.cards.card import Known
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import HeldOut, evaluate, segmentation, with_card_data
from services.trainer.evaluation.importance import Fitted


def wine() -> Known:
    """A good classifier of three classes, tested on few rows."""
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    return _known("wine", estimator, load_wine(as_frame=True), "accuracy", segment="alcohol")


def progression() -> Known:
    """A regression."""
    return _known("progression", Ridge(), load_diabetes(as_frame=True), "r2", segment="sex")


def several() -> Known:
    """A regression of two labels."""
    data = load_diabetes(as_frame=True)
    truth = np.column_stack([data.target, data.data["bmi"] * 1000])
    return _known(
        "both", Ridge(), Bunch(data=data.data, target=truth), "r2", segment="sex", labels=("target", "weight")
    )


def _known(
    name: str, estimator: Any, data: Any, metric: str, segment: str, labels: Sequence[str] = ("target",)
) -> Known:
    rows, truth = data.data, np.asarray(data.target)
    order = np.random.default_rng(0).permutation(len(rows))
    tested, train = np.sort(order[: len(rows) // 3]), np.sort(order[len(rows) // 3 :])
    estimator.fit(rows.iloc[train], truth[train])
    answers = Answers.of(estimator, rows.iloc[tested])
    segments = {segment: segmentation(pd.Series(rows[segment].iloc[tested]))}
    split = f"at random, seed 0: {len(tested)} of {len(rows)} rows held out"
    held_out = HeldOut((Metric(metric),), rows.iloc[tested], truth[tested], tuple(labels), segments, split)
    recipe = Model(
        name,
        entities=[Entity("thing", key="thing_id")],
        features=list(rows.columns),
        label=list(labels),
        estimator=estimator,
        description=f"What {name} is for.",
        owner="the cellar",
        tags=["example", "small"],
        limits="Only what <b>grew</b> in one valley.",
    )
    fitted = Fitted(estimator, rows.iloc[tested], answers, 1.0, 1e-4)
    found = with_card_data(evaluate(held_out, answers, truth[train]), recipe, held_out, fitted, rows.iloc[train])
    run = Run(
        id="20260101T000000-abcdef",
        model=name,
        status="succeeded",
        version=3,
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:04Z",
        trigger="schedule",
        decision="promoted: there is no champion yet",
        estimator=repr(estimator),
        metric=metric,
        metrics=found.metrics,
        split=split,
        rows_train=len(train),
        rows_test=len(tested),
        rows_dropped=3,
        data_fingerprint="4f2e1a9c" * 8,
        data_start="2025-01-01T00:00:00Z",
        data_end="2025-12-31T12:00:00Z",
        params={"alpha": "1.0"},
        packages={"numpy": np.__version__},
        seconds={"fit": 0.25},
        peak_memory_mb=210.0,
    )
    return Known(run, found, _manifest(run, rows, answers), 12_345, ["champion"])


def _manifest(run: Run, rows: pd.DataFrame, answers: Answers) -> Manifest:
    return Manifest(
        model=run.model,
        run=run.id,
        task=answers.task,
        entities={"thing": "thing_id"},
        inputs=[Input(name, "float", False) for name in rows.columns],
        layout="matrix",
        tensor_dtype="float32",
        classes=answers.outputs[0].classes.tolist(),
        label="target",
        metrics=run.metrics,
        example={},
        parity=Parity(len(answers), 0.0, 1e-7, 1e-7),
    )
