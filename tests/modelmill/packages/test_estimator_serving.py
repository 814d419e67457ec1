"""An estimator that is served itself answers as a graph would, and is made of reviewed types alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from modelmill.errors import UntrustedTypes
from modelmill.packages.estimator_serving import EstimatorSession, foreign_types, load_estimator
from modelmill.packages.package import MATRIX, Input, Tensor
from modelmill.packages.sessions import described
from tests.conftest import ROOT
from tests.own_types import Halved, doubled

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame({"a": RANDOM.normal(size=200), "b": RANDOM.normal(size=200)})
YES = (NUMBERS["a"] > 0).to_numpy()
INPUTS = [Input("a", "float", True), Input("b", "float", True)]
FEED = {MATRIX: NUMBERS.to_numpy()}
OWN = "tests.own_types.Halved"


def session(estimator: Any, label: Any = YES) -> EstimatorSession:
    """The session of an estimator that was fitted and went through a file."""
    return EstimatorSession(load_estimator(skops.io.dumps(estimator.fit(NUMBERS, label))), INPUTS, "matrix")


def test_a_classifier_gives_the_labels_and_probabilities_of_the_estimator() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=5)
    labels, probabilities = session(estimator).run(["label", "probabilities"], FEED)
    assert (labels == estimator.predict(NUMBERS)).all()
    assert (probabilities == estimator.predict_proba(NUMBERS)).all()


def test_a_regressor_gives_the_numbers_of_the_estimator() -> None:
    estimator = LinearRegression()
    [numbers] = session(estimator, NUMBERS["b"]).run(["variable"], FEED)
    assert (numbers == estimator.predict(NUMBERS)).all()


def test_text_arrives_as_it_was_in_training() -> None:
    rows = pd.DataFrame({"city": pd.Series(["EWR", ""] * 100, dtype=object), "a": NUMBERS["a"]})
    columns = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(rows, YES)
    served = EstimatorSession(estimator, [Input("city", "str", True), Input("a", "float", True)], "columns")
    feed = {name: rows[name].to_numpy().reshape(-1, 1) for name in rows}
    assert (served.run(["probabilities"], feed)[0] == estimator.predict_proba(rows)).all()


@pytest.mark.parametrize(
    "estimator, label, outputs",
    [
        (LogisticRegression(), YES, [Tensor("label", "bool", [-1]), Tensor("probabilities", "float64", [-1, 2])]),
        (
            LogisticRegression(),
            YES.astype(int),
            [Tensor("label", "int64", [-1]), Tensor("probabilities", "float64", [-1, 2])],
        ),
        (RidgeClassifier(), np.where(YES, "y", "n").astype(object), [Tensor("label", "str", [-1])]),
        (LinearRegression(), NUMBERS["b"], [Tensor("variable", "float64", [-1, 1])]),
    ],
    ids=["bool", "int", "text", "number"],
)
def test_it_is_described_as_a_graph_is(estimator: Any, label: Any, outputs: list[Tensor]) -> None:
    served = session(estimator, label)
    assert described(served.get_inputs()) == [Tensor("inputs", "float64", [-1, 2])]
    assert described(served.get_outputs()) == outputs


def test_no_estimator_starts_threads_for_a_request() -> None:
    forest = RandomForestClassifier(3, n_jobs=-1)
    served = session(VotingClassifier([("forest", forest), ("line", LogisticRegression())], voting="soft", n_jobs=2))
    assert served.estimator.n_jobs is None
    assert [one.n_jobs for one in served.estimator.estimators_] == [None, None]


def test_a_type_that_nobody_reviewed_is_refused_with_how_to_allow_it() -> None:
    content = skops.io.dumps(make_pipeline(Halved(), LogisticRegression()).fit(NUMBERS, YES))
    assert foreign_types(content) == [OWN]
    with pytest.raises(
        UntrustedTypes, match=r"reviewed: tests\.own_types\.Halved\. .* Model\(\.\.\., trusted=\['tests"
    ) as caught:
        load_estimator(content)
    assert caught.value.fields == {"types": [OWN]}


def test_a_type_that_the_user_trusts_is_loaded() -> None:
    estimator = make_pipeline(Halved(), LogisticRegression()).fit(NUMBERS, YES)
    assert isinstance(load_estimator(skops.io.dumps(estimator), [OWN]).steps[0][1], Halved)


def test_a_function_is_a_type_that_nobody_reviewed_as_well() -> None:
    content = skops.io.dumps(make_pipeline(FunctionTransformer(doubled), LogisticRegression()).fit(NUMBERS, YES))
    with pytest.raises(UntrustedTypes, match=r"tests\.own_types\.doubled"):
        load_estimator(content)


def test_a_module_is_not_imported_for_a_type_that_is_refused() -> None:
    """Importing runs a module's code, so it must not come before the check."""
    content = skops.io.dumps(make_pipeline(Halved(), LogisticRegression()).fit(NUMBERS, YES))
    program = (
        "import sys; from modelmill.errors import UntrustedTypes; from modelmill.packages.estimator_serving import load_estimator\n"
        "try: load_estimator(sys.stdin.buffer.read())\n"
        "except UntrustedTypes: print('tests.own_types' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"False\n"
