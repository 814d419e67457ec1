"""Weights of rows reach every estimator that predicts, however deep it is inside others, or are refused."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer
from sklearn.linear_model import (
    BayesianRidge,
    LogisticRegression,
    LogisticRegressionCV,
    RANSACRegressor,
    Ridge,
    RidgeCV,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MaxAbsScaler, StandardScaler, TargetEncoder
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from modelmill.declare.splits import Weighting
from modelmill.declare.trusted_types import TRUSTED
from modelmill.errors import InvalidRequest
from services.trainer.training.rows import Rows

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.permutation(np.arange(1, 61)) / 8
INPUTS = pd.DataFrame({"a": WEIGHT, "b": -WEIGHT, "c": WEIGHT})
"""Each row says its weight in each of its columns."""
CLASS = (WEIGHT + RANDOM.normal(size=60) * 2 > 4).astype(int)
CLASSES = np.stack([CLASS, RANDOM.permutation(CLASS)], axis=1)
NUMBER = WEIGHT + RANDOM.normal(size=60)
NUMBERS = np.stack([NUMBER, -NUMBER], axis=1)
SEEN: list[bool] = []
"""Of each fit of a witness whether it was as it should be."""


class Witness:
    def fit(self, inputs: Any, label: Any, sample_weight: Any = None, check_input: bool = True) -> Any:
        columns = np.abs(np.asarray(inputs)).T
        SEEN.append(sample_weight is not None and any(np.array_equal(column, sample_weight) for column in columns))
        return super().fit(inputs, label, sample_weight)  # type: ignore[misc]


class WitnessClassifier(Witness, DecisionTreeClassifier): ...  # type: ignore[misc]


class WitnessRegressor(Witness, Ridge): ...  # type: ignore[misc]


class Unweighed(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Prepares columns, and could weigh rows."""

    def fit(self, inputs: Any, label: Any = None, sample_weight: Any = None) -> Any:
        SEEN.append(sample_weight is None)
        return self

    def transform(self, inputs: Any) -> Any:
        return inputs


Meta = Callable[[Any], Any]
CLASSIFIERS: dict[str, Meta] = {
    "Pipeline": lambda one: make_pipeline(Unweighed(), one),
    "VotingClassifier": lambda one: VotingClassifier(
        [("one", one), ("other", WitnessClassifier(max_depth=2))], voting="soft"
    ),
    "StackingClassifier": lambda one: StackingClassifier(
        [("one", one)], WitnessClassifier(), cv=2, passthrough=True, stack_method="predict"
    ),
    "GridSearchCV": lambda one: GridSearchCV(FixedThresholdClassifier(one), {"pos_label": [0, 1]}, cv=2),
    "RandomizedSearchCV": lambda one: RandomizedSearchCV(
        FixedThresholdClassifier(one), {"pos_label": [0, 1]}, cv=2, n_iter=1, scoring={"f1": "f1"}, refit="f1"
    ),
    "CalibratedClassifierCV": lambda one: CalibratedClassifierCV(one, cv=2),
    "FixedThresholdClassifier": lambda one: FixedThresholdClassifier(one),
    "TunedThresholdClassifierCV": lambda one: TunedThresholdClassifierCV(one, cv=2, thresholds=3),
    "OneVsRestClassifier": lambda one: OneVsRestClassifier(one),
    "OneVsOneClassifier": lambda one: OneVsOneClassifier(one),
    "OutputCodeClassifier": lambda one: OutputCodeClassifier(one, random_state=0),
}
REGRESSORS: dict[str, Meta] = {
    "Pipeline": lambda one: make_pipeline(Unweighed(), one),
    "VotingRegressor": lambda one: VotingRegressor([("one", one), ("other", WitnessRegressor(alpha=2))]),
    "StackingRegressor": lambda one: StackingRegressor([("one", one)], WitnessRegressor(), cv=2, passthrough=True),
    "GridSearchCV": lambda one: GridSearchCV(
        TransformedTargetRegressor(one), {"check_inverse": [True, False]}, cv=2, scoring="neg_max_error"
    ),
    "TransformedTargetRegressor": lambda one: TransformedTargetRegressor(one, transformer=StandardScaler()),
}
RANKED: dict[str, Meta] = {"RFE": RFE, "RFECV": lambda one: RFECV(one, cv=2)}
SEVERAL: dict[str, tuple[Meta, type, np.ndarray]] = {
    "MultiOutputClassifier": (MultiOutputClassifier, WitnessClassifier, CLASSES),
    "ClassifierChain": (ClassifierChain, WitnessClassifier, CLASSES),
    "MultiOutputRegressor": (MultiOutputRegressor, WitnessRegressor, NUMBERS),
    "RegressorChain": (RegressorChain, WitnessRegressor, NUMBERS),
}
OTHERS = {
    "BaggingClassifier", "BaggingRegressor", "AdaBoostClassifier", "AdaBoostRegressor", "RANSACRegressor",
    "SelfTrainingClassifier",
}  # fmt: skip
"""With tests of their own below."""


def fitted(estimator: Any, label: np.ndarray, weight: np.ndarray = WEIGHT) -> Any:
    SEEN.clear()
    return Rows(INPUTS, label, Weighting.of("w", None), weight).fit(estimator)


def test_every_estimator_of_scikit_learn_that_is_made_of_others_is_tested_here() -> None:
    made_of_others = {"estimator", "estimators", "regressor", "steps"}
    found = {
        name
        for name, kind in all_estimators()
        if made_of_others & set(inspect.signature(kind).parameters) and hasattr(kind, "predict")
    }
    assert found == {*CLASSIFIERS, *REGRESSORS, *RANKED, *SEVERAL, *OTHERS}


@pytest.mark.parametrize("outer", CLASSIFIERS)
def test_a_classifier_in_two_others_is_fitted_with_the_weights_of_its_rows(outer: str) -> None:
    for inner in CLASSIFIERS.keys() - {"OneVsOneClassifier", "OutputCodeClassifier"}:  # which tell no probabilities
        one = CLASSIFIERS[outer](CLASSIFIERS[inner](make_pipeline(Unweighed(), WitnessClassifier())))
        fitted(one, CLASS)
        assert SEEN
        assert all(SEEN), one


@pytest.mark.parametrize("outer", REGRESSORS)
def test_a_regressor_in_two_others_is_fitted_with_the_weights_of_its_rows(outer: str) -> None:
    for inner in REGRESSORS.values():
        one = REGRESSORS[outer](inner(make_pipeline(Unweighed(), WitnessRegressor())))
        fitted(one, NUMBER)
        assert SEEN
        assert all(SEEN), one


@pytest.mark.parametrize(("meta", "one"), [*product(RANKED, [WitnessClassifier(), WitnessRegressor()])])
def test_an_estimator_that_ranks_columns_is_fitted_with_the_weights_of_its_rows(meta: str, one: Any) -> None:
    metas, label = (CLASSIFIERS, CLASS) if is_classifier(one) else (REGRESSORS, NUMBER)
    for outer in ("Pipeline", "GridSearchCV"):
        fitted(metas[outer](RANKED[meta](one)), label)
        assert SEEN
        assert all(SEEN)


@pytest.mark.parametrize("meta", SEVERAL)
def test_an_estimator_of_several_labels_is_fitted_with_the_weights_of_its_rows(meta: str) -> None:
    outer, base, labels = SEVERAL[meta]
    for one in (base(), make_pipeline(Unweighed(), base()), GridSearchCV(base(), {"random_state": [0, 1]}, cv=2)):
        fitted(make_pipeline(Unweighed(), outer(one)), labels)
        assert SEEN
        assert all(SEEN)


class UnweighedClassifier(LogisticRegression):  # type: ignore[misc]
    def fit(self, inputs: Any, label: Any, sample_weight: Any = None) -> Any:
        SEEN.append(sample_weight is None)
        return super().fit(inputs, label, sample_weight)


@pytest.mark.parametrize(
    "step",
    [
        ColumnTransformer(
            [("one", Unweighed(), ["a"]), ("other", make_pipeline(Unweighed(), StandardScaler()), ["b"])]
        ),
        FeatureUnion([("one", Unweighed()), ("other", KBinsDiscretizer(encode="ordinal", strategy="uniform"))]),
        SelectFromModel(UnweighedClassifier(), max_features=1),
        RFE(UnweighedClassifier()),
        RFECV(UnweighedClassifier(), cv=2),
        SequentialFeatureSelector(UnweighedClassifier(), cv=2),
        SequentialFeatureSelector(UnweighedClassifier(), cv=2, scoring="f1"),
        IterativeImputer(BayesianRidge(), max_iter=1, tol=1e9),
        KMeans(2, random_state=0),
        VotingClassifier([("one", UnweighedClassifier())], flatten_transform=True),
        StackingClassifier([("one", UnweighedClassifier())], UnweighedClassifier(), cv=2),
    ],
    ids=lambda step: type(step).__name__,
)
def test_steps_that_prepare_columns_are_fitted_on_all_rows_alike(step: Any) -> None:
    last = VotingClassifier([("one", LogisticRegression()), ("other", DecisionTreeClassifier(max_depth=2))])
    found = fitted(Pipeline([("step", step), ("last", last)]), CLASS)
    assert all(SEEN)
    np.testing.assert_array_equal(found[0].transform(INPUTS), clone(step).fit(INPUTS, CLASS).transform(INPUTS))


def test_estimators_that_a_grid_puts_in_the_place_of_others_are_fitted_with_the_weights() -> None:
    pipeline = Pipeline([("prepare", "passthrough"), ("one", DecisionTreeClassifier())])
    grid = {"prepare": [Unweighed()], "one": [WitnessClassifier(), make_pipeline(Unweighed(), WitnessClassifier())]}
    fitted(GridSearchCV(pipeline, grid, cv=2), CLASS)
    assert len(SEEN) > 8
    assert all(SEEN)
    with pytest.raises(InvalidRequest, match="KNeighborsClassifier in GridSearchCV takes no weights"):
        fitted(GridSearchCV(pipeline, [{"one": [WitnessClassifier(), KNeighborsClassifier()]}], cv=2), CLASS)


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator does not appear to accept sample_weight")
@pytest.mark.parametrize(
    ("estimator", "label"),
    [
        (VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(random_state=0))]), CLASS),
        (StackingClassifier([("a", LogisticRegression())]), CLASS),
        (StackingRegressor([("a", Ridge())]), NUMBER),
        (VotingClassifier([("a", StackingClassifier([("b", LogisticRegression())]))], voting="soft"), CLASS),
        (GridSearchCV(StackingClassifier([("a", LogisticRegression())]), {"cv": [2, 3]}), CLASS),
        (VotingRegressor([("a", TransformedTargetRegressor()), ("b", StackingRegressor([("c", Ridge())]))]), NUMBER),
        (VotingClassifier([("a", CalibratedClassifierCV()), ("b", LogisticRegression())], voting="soft"), CLASS),
        (GridSearchCV(LogisticRegression(), {"C": [0.01, 1]}), CLASS),
        (GridSearchCV(LogisticRegression(), {"C": [0.01, 1]}, scoring="neg_log_loss"), CLASS),
        (CalibratedClassifierCV(LogisticRegression()), CLASS),
        (CalibratedClassifierCV(), CLASS),
        (CalibratedClassifierCV(FrozenEstimator(LogisticRegression().fit(INPUTS, CLASS))), CLASS),
        (TransformedTargetRegressor(Ridge()), NUMBER),
        (TransformedTargetRegressor(), NUMBER),
        (BaggingClassifier(LogisticRegression(), random_state=0), CLASS),
        (BaggingRegressor(random_state=0), NUMBER),
        (BaggingClassifier(KNeighborsClassifier(3), random_state=0), CLASS),
        (BaggingRegressor(make_pipeline(MaxAbsScaler(), Ridge()), random_state=0), NUMBER),
        (VotingClassifier([("a", BaggingClassifier(LogisticRegression(), random_state=0))], voting="soft"), CLASS),
        (AdaBoostClassifier(random_state=0), CLASS),
        (AdaBoostRegressor(random_state=0), NUMBER),
        (MultiOutputClassifier(LogisticRegression()), CLASSES),
        (RANSACRegressor(random_state=0), NUMBER),
        (RidgeCV(), NUMBER),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_fit_is_that_of_scikit_learn_given_the_weights(estimator: Any, label: np.ndarray) -> None:
    def answers(one: Any) -> Any:
        return one.predict_proba(INPUTS) if hasattr(one, "predict_proba") else one.predict(INPUTS)

    expected = answers(estimator.fit(INPUTS, label, sample_weight=WEIGHT))
    plain = answers(estimator.fit(INPUTS, label))
    np.testing.assert_allclose(answers(fitted(estimator, label)), expected)
    assert not np.allclose(plain, expected)


def test_classes_have_their_weight_in_every_estimator_of_an_ensemble() -> None:
    def ensemble(**weighing: Any) -> Any:
        one = make_pipeline(MaxAbsScaler(), LogisticRegression(**weighing))
        return VotingClassifier([("a", one), ("b", DecisionTreeClassifier(max_depth=2, **weighing))], voting="soft")

    found = Rows(INPUTS, CLASS, Weighting.of(None, {1: 5})).fit(ensemble())
    expected = ensemble(class_weight={1: 5}).fit(INPUTS, CLASS)
    np.testing.assert_allclose(found.predict_proba(INPUTS), expected.predict_proba(INPUTS))


@pytest.mark.parametrize("enabled", [False, True])
def test_a_weighted_fit_leaves_the_configuration_and_nothing_of_it_in_what_is_packaged(enabled: bool) -> None:
    members = [("a", LogisticRegression()), ("b", make_pipeline(MaxAbsScaler(), DecisionTreeClassifier()))]
    for inside in (VotingClassifier(members, voting="soft"), make_pipeline(MaxAbsScaler(), LogisticRegression())):
        whole = GridSearchCV(CalibratedClassifierCV(inside, cv=2), {"method": ["sigmoid"]}, cv=2, scoring="f1")
        with config_context(enable_metadata_routing=enabled):
            found = fitted(whole, CLASS)
            fitted(make_pipeline(MaxAbsScaler(), LogisticRegression()), CLASS)
            assert get_config()["enable_metadata_routing"] is enabled
        assert b"_metadata_request" not in pickle.dumps(found)
        loaded = skops.io.loads(skops.io.dumps(found), trusted=list(TRUSTED))
        np.testing.assert_array_equal(loaded.predict_proba(INPUTS), found.predict_proba(INPUTS))
        assert whole.scoring == "f1"


KNN, PIPE = KNeighborsClassifier(), make_pipeline(MaxAbsScaler(), Ridge())


@pytest.mark.parametrize(
    ("estimator", "label", "named"),
    [
        (make_pipeline(MaxAbsScaler(), KNN), CLASS, "KNeighborsClassifier"),
        (
            VotingClassifier([("a", LogisticRegression()), ("b", KNN)]),
            CLASS,
            "KNeighborsClassifier in VotingClassifier",
        ),
        (StackingClassifier([("a", LogisticRegression())], KNN), CLASS, "KNeighborsClassifier in StackingClassifier"),
        (
            CalibratedClassifierCV(VotingClassifier([("a", make_pipeline(MaxAbsScaler(), KNN))])),
            CLASS,
            "KNeighborsClassifier in CalibratedClassifierCV",
        ),
        (SelfTrainingClassifier(LogisticRegression()), CLASS, "SelfTrainingClassifier"),
        (ClassifierChain(LogisticRegression(), cv=2), CLASSES, "ClassifierChain with cv"),
        (RegressorChain(Ridge(), cv=2), NUMBERS, "RegressorChain with cv"),
        (RANSACRegressor(PIPE), NUMBER, "RANSACRegressor"),
        (VotingRegressor([("a", RANSACRegressor())]), NUMBER, "RANSACRegressor in VotingRegressor"),
        (
            make_pipeline(TargetEncoder(), CalibratedClassifierCV(LogisticRegression())),
            CLASS,
            "TargetEncoder in Pipeline cannot be fitted where",
        ),
        (VotingClassifier([("a", BaggingClassifier())]), CLASS, "BaggingClassifier in VotingClassifier"),
        (VotingClassifier([("a", AdaBoostClassifier())]), CLASS, "AdaBoostClassifier in VotingClassifier"),
    ],
)
def test_a_part_that_would_be_fitted_without_weights_is_refused_by_name(
    estimator: Any, label: np.ndarray, named: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^estimator {named} .*; leave out sample_weight and class_weight$"):
        fitted(estimator, label)


def test_a_search_in_an_ensemble_scores_with_weights_too() -> None:
    one = LogisticRegressionCV(Cs=3, cv=2, l1_ratios=(0,), use_legacy_attributes=False, scoring="neg_log_loss")
    found = fitted(VotingClassifier([("one", one)]), CLASS).estimators_[0]
    with config_context(enable_metadata_routing=True):
        one.scoring = "neg_log_loss"
    np.testing.assert_allclose(found.coef_, one.fit(INPUTS, CLASS, WEIGHT).coef_)
