"""What each row counts in a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from modelmill.declare.splits import Weighting
from modelmill.errors import InvalidRequest
from services.trainer.training.rows import Rows

RANDOM = np.random.default_rng(0)
INPUTS = pd.DataFrame({"a": RANDOM.normal(size=100), "b": RANDOM.normal(size=100)})
LABEL = (INPUTS["a"] + RANDOM.normal(size=100) > 0.8).to_numpy().astype(int)
WEIGHT = RANDOM.integers(0, 3, 100).astype(float)


def rows(sample_weight: Any = None, class_weight: Any = None, weight: Any = None) -> Rows:
    return Rows(INPUTS, LABEL, Weighting.of(sample_weight, class_weight), weight)


def test_rows_without_weights_are_fitted_as_they_are() -> None:
    found, plain = rows().fit(LogisticRegression()), LogisticRegression().fit(INPUTS, LABEL)
    np.testing.assert_array_equal(found.coef_, plain.coef_)


def test_a_weight_of_two_counts_as_two_rows() -> None:
    twice = np.repeat(np.arange(100), WEIGHT.astype(int))
    found = rows("w", weight=WEIGHT).fit(LogisticRegression())
    again = LogisticRegression().fit(INPUTS.iloc[twice], LABEL[twice])
    np.testing.assert_allclose(found.coef_, again.coef_, atol=1e-4)


def test_the_last_step_of_a_pipeline_gets_the_weights() -> None:
    found = rows("w", weight=WEIGHT).fit(make_pipeline(StandardScaler(), LogisticRegression()))
    plain = make_pipeline(StandardScaler(), LogisticRegression())
    plain.fit(INPUTS, LABEL, logisticregression__sample_weight=WEIGHT)
    np.testing.assert_array_equal(found[-1].coef_, plain[-1].coef_)


def test_rows_count_by_their_class() -> None:
    np.testing.assert_array_equal(rows(class_weight={1: 3}).weights(), np.where(LABEL == 1, 3, 1))
    np.testing.assert_allclose(rows(class_weight="balanced").weights(), compute_sample_weight("balanced", LABEL))


def test_both_weights_multiply_and_go_with_their_rows() -> None:
    some = np.array([3, 1, 4])
    found = rows("w", {1: 3}, WEIGHT).take(some).weights()
    np.testing.assert_array_equal(found, (WEIGHT * np.where(LABEL == 1, 3, 1))[some])


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_weight_is_a_number_of_at_least_0(wrong: float) -> None:
    weight = WEIGHT.copy()
    weight[7] = wrong
    with pytest.raises(InvalidRequest, match=f"sample_weight 'w' is {wrong} in 1 of 100 rows; expected a number"):
        rows("w", weight=weight).fit(LogisticRegression())


def test_a_class_that_no_row_has_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"class_weight names 'yes', which no row has; classes: \[0, 1\]"):
        rows(class_weight={"yes": 2}).weights()


def test_an_estimator_that_takes_no_weights_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="estimator KNeighborsClassifier takes no weights of rows"):
        rows(class_weight="balanced").fit(KNeighborsClassifier())


def test_class_weights_of_a_regressor_are_refused() -> None:
    """Each number would be a class of its own."""
    for regressor in (Ridge(), make_pipeline(StandardScaler(), Ridge())):
        with pytest.raises(InvalidRequest, match="a regressor knows no classes"):
            rows(class_weight="balanced").fit(regressor)
