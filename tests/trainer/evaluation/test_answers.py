"""What a model says is asked for once, and scored as the model itself would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelmill.errors import InvalidRequest
from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Answers, StoredAnswers, label_columns, task_of
from services.trainer.packaging.graph import Graph, GraphClassifier
from services.trainer.packaging.packing import pack

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(200, 3)), columns=["a", "b", "c"])
THREE = np.array(["x", "y", "z"], object)[np.digitize(ROWS["a"] + 0.3 * ROWS["b"], [-0.4, 0.5])]
TWO = (ROWS["a"] > 0.1 * RANDOM.normal(size=200)).to_numpy().astype(int)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=5),
        RidgeClassifier(),
        DecisionTreeClassifier(max_depth=3),
        DummyClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("label", [TWO, THREE], ids=["two", "three"])
def test_a_scorer_gives_the_stored_answers_of_a_classifier_what_it_gives_the_classifier(
    estimator: Any, label: np.ndarray
) -> None:
    estimator.fit(ROWS, label)
    answers = Answers.of(estimator, ROWS)
    assert (answers.predicted == estimator.predict(ROWS)).all()
    for name in ("accuracy", "f1_macro"):
        stored = get_scorer(name)(StoredAnswers(answers.outputs[0]), np.arange(200), label)
        assert stored == get_scorer(name)(estimator, ROWS, label)
    if label is TWO:
        stored = get_scorer("roc_auc")(StoredAnswers(answers.outputs[0]), np.arange(200), label)
        assert stored == pytest.approx(get_scorer("roc_auc")(estimator, ROWS, label))


def test_a_regressor_answers_numbers() -> None:
    estimator = LinearRegression().fit(ROWS, ROWS["a"] * 2)
    answers = Answers.of(estimator, ROWS)
    assert (answers.task, answers.outputs[0].probabilities) == ("regression", None)
    stored = get_scorer("r2")(StoredAnswers(answers.outputs[0]), np.arange(200), ROWS["a"])
    assert stored == estimator.score(ROWS, ROWS["a"])


def test_several_labels_are_several_outputs() -> None:
    both = np.column_stack([TWO, TWO + np.arange(200) % 2])
    answers = Answers.of(RandomForestClassifier(5, random_state=0).fit(ROWS, both), ROWS)
    assert [output.probabilities.shape for output in answers.outputs if output.probabilities is not None] == [
        (200, 2), (200, 3),
    ]  # fmt: skip
    assert answers.predicted.shape == (200, 2)
    assert [column.tolist() for column in label_columns(both)] == [both[:, 0].tolist(), both[:, 1].tolist()]


def test_several_numbers_are_several_outputs() -> None:
    both = np.column_stack([ROWS["a"], ROWS["b"]])
    answers = Answers.of(LinearRegression().fit(ROWS, both), ROWS)
    np.testing.assert_allclose(answers.predicted, both, atol=1e-12)


def test_some_of_the_rows_are_taken_by_a_mask_or_by_numbers() -> None:
    answers = Answers.of(LogisticRegression().fit(ROWS, TWO), ROWS)
    some = answers.rows(TWO == 1)
    assert len(some) == TWO.sum()
    assert some.outputs[0].probabilities is not None
    assert some.outputs[0].probabilities.shape == (TWO.sum(), 2)
    assert (answers.rows(np.array([3, 3])).predicted == answers.predicted[3]).all()


class Asked(LogisticRegression):  # type: ignore[misc]
    """Counts the rows it is asked for labels of."""

    rows = 0

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        type(self).rows += len(rows)
        return super().predict(rows)


def test_labels_that_follow_from_probabilities_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Asked, "rows", 0)
    Asked.__name__ = "LogisticRegression"
    Answers.of(Asked().fit(ROWS, TWO), ROWS)
    assert Asked.rows < 60


def test_a_label_between_equal_probabilities_is_the_estimators_own() -> None:
    tied = HistGradientBoostingClassifier(max_iter=1).fit(np.zeros((40, 1)), np.arange(40) % 2)
    answers = Answers.of(tied, pd.DataFrame(np.zeros((80, 1))))
    assert answers.outputs[0].probabilities is not None
    assert answers.outputs[0].probabilities[79].tolist() == [0.5, 0.5]
    assert answers.predicted[79] == tied.predict(np.zeros((1, 1)))[0]


class Stubborn(LogisticRegression):  # type: ignore[misc]
    """Says class 0 whatever it finds more probable."""

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return np.zeros(len(rows), int)


def test_a_classifier_that_only_has_a_known_name_is_asked_for_all_labels() -> None:
    Stubborn.__name__ = "LogisticRegression"
    assert not Answers.of(Stubborn().fit(ROWS, TWO), ROWS).predicted.any()


def test_a_packaged_graph_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = LogisticRegression().fit(ROWS, TWO)
    made = pack(estimator, [Input(name, "float", False) for name in ROWS], ROWS, Answers.of(estimator, ROWS))
    runs = []
    real = Graph.run
    monkeypatch.setattr(Graph, "run", lambda graph, rows: runs.append(len(rows)) or real(graph, rows))
    answers = Answers.of(GraphClassifier(made.graph, [0, 1]), ROWS)
    assert runs == [200]
    assert (answers.predicted == estimator.predict(ROWS)).all()
    np.testing.assert_allclose(answers.outputs[0].probabilities, estimator.predict_proba(ROWS), atol=1e-5)


def test_what_is_no_classifier_and_no_regressor_has_no_task() -> None:
    assert task_of(DummyClassifier()) == "classification"
    with pytest.raises(InvalidRequest, match="neither a classifier nor a regressor"):
        task_of(BaseEstimator())
