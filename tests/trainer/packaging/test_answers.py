"""What is served answers as the estimator does on every value that its inputs allow, or refuses by instance and field.

Packaged as a training does, loaded and asked as the predictor does; the oracle is the estimator itself, on values that
have nothing to do with those that packaging tries.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
)

from modelmill.errors import InvalidRequest
from modelmill.packages.package import Input
from services.predictor.inference import ServedModel, infer
from services.predictor.instances import parse
from services.predictor.loading import warmed_up
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.packing import example, one_row, pack
from tests.predictor.packages import manifest

ROWS, FITTED, ASKED = 400, 300, 100
NUMBERS = [Input("a", "float", False), Input("b", "float", True), Input("n", "int", False), Input("on", "bool", False)]
TEXT = [*NUMBERS, Input("city", "str", True)]


def frame(inputs: list[Input], seed: int, *, missing: bool, far: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "a": random.normal(size=ROWS).round(3) + (1.7e9 if far else 0),
            "b": 100 * random.normal(size=ROWS),
            "n": random.integers(0, 20, ROWS).astype(float),
            "on": random.integers(0, 2, ROWS).astype(float),
            "city": pd.Series(random.choice(["EWR", "JFK", "LGA"], ROWS), dtype=object),
        }
    )[[item.name for item in inputs]]
    if missing:  # among the rows to fit on alone
        rows.loc[: FITTED - 1, "b"] = rows["b"][:FITTED].where(random.random(FITTED) > 0.13)
    return rows


def amount(rows: pd.DataFrame, *, far: bool) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=ROWS)
    found = rows["a"] - rows["a"].mean() + rows["b"].fillna(90) / 100 + rows["n"] / 10 + rows["on"] + noise / 5
    return (found + (1.7e9 if far else 0)).to_numpy()


def instances(inputs: list[Input], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One or two values each that no row holds, and the rest of a row."""
    random = np.random.default_rng(2)
    kinds = {
        "float": lambda own: random.choice(
            [own, 0.0, -0.0, random.choice([-1, 1]) * 10 ** random.uniform(-300, 300), 10 ** random.uniform(3, 12),
             np.nextafter(own, np.inf), float(np.float32(own)), 2.0 ** random.integers(1, 60) + 1]
        ),
        "int": lambda own: int(random.choice([own, 0, -1, random.integers(-(10**6), 10**6), 2**24 + 1, 2**53 + 1])),
        "bool": lambda own: bool(random.integers(0, 2)),
        "str": lambda own: random.choice([own, "", "ewr", "Zürich", "EWR "]),
    }  # fmt: skip
    found = []
    for number in range(ASKED):
        values = example([*inputs], rows.iloc[[number % len(rows)]])
        for item in random.choice(np.array(inputs, object), random.integers(1, 3)):
            missing = item.nullable and random.random() < 0.4
            values[item.name] = None if missing else kinds[item.dtype](rows[item.name].iloc[number % len(rows)])
        found.append({name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()})
    return found


def served(estimator: Any, inputs: list[Input], rows: pd.DataFrame) -> ServedModel:
    """As a training packs it, and the predictor loads it."""
    held_out = rows[FITTED:].reset_index(drop=True)
    packed = pack(estimator, inputs, held_out, Answers.of(estimator, held_out))
    classes = estimator.classes_.tolist() if hasattr(estimator, "classes_") else []
    described = manifest(
        entities={},
        inputs=[Input(i.name, i.dtype, i.nullable and i.name not in packed.required) for i in inputs],
        task="classification" if classes else "regression",
        classes=classes,
        layout=packed.layout,
        tensor_dtype=packed.tensor_dtype,
        runtime=packed.runtime,
        example=example(inputs, one_row(held_out)),
    )
    return warmed_up("m", 1, described, packed.graph.session)


def own_answer(estimator: Any, inputs: list[Input], values: dict[str, Any]) -> tuple[Any, np.ndarray] | None:
    """The estimator's label and probabilities, or its number, or that it has none."""
    columns = {}
    for item in inputs:
        value = values[item.name]
        if item.dtype == "str":
            columns[item.name] = pd.Series([value or ""], dtype=object)
        else:
            columns[item.name] = pd.Series([np.nan if value is None else float(value)])
    row = pd.DataFrame(columns)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            label = estimator.predict(row).ravel()[0]
            numbers = estimator.predict_proba(row)[0] if hasattr(estimator, "predict_proba") else np.array([])
    except Exception:
        return None
    number = label if isinstance(label, float) else 0.0
    return (label, numbers) if np.isfinite([*numbers, number]).all() else None


def check(estimator: Any, inputs: list[Input], *, missing: bool, far: bool, classify: bool) -> None:
    rows = frame(inputs, 0, missing=missing, far=far)
    label: Any = amount(rows, far=far)
    if classify:
        label = np.where(label > np.median(label), "yes", "no").astype(object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bins that are too narrow, and steps that are too few
        try:
            estimator.fit(rows[:FITTED], label[:FITTED])
        except ValueError:
            assert missing
            rows = frame(inputs, 0, missing=False, far=far)
            estimator.fit(rows[:FITTED], label[:FITTED])
    model = served(estimator, inputs, rows)
    spread = 1 if classify else estimator.predict(rows[FITTED:]).std()
    middle = 0 if classify else estimator.predict(rows[FITTED:]).mean()
    answered = 0
    for values in instances(inputs, rows[FITTED:]):
        own, given = own_answer(estimator, inputs, values), answer(model, values)
        if isinstance(given, InvalidRequest):
            too_large = model.manifest.tensor_dtype == "float32" and "the largest float32" in given.detail
            assert own is None or too_large, (values, own, given.detail)
            assert given.fields["field"] in values
            continue
        answered += 1
        assert own is not None, (values, given)
        if not classify:
            assert abs(given.predictions[0] - own[0]) <= 2e-4 * max(spread, abs(own[0] - middle)), (values, given, own)
        else:
            if given.probabilities is not None:
                np.testing.assert_allclose(
                    list(given.probabilities[0].values()), own[1], atol=2e-5, err_msg=str(values)
                )
            assert given.predictions[0] == own[0] or (len(own[1]) and np.ptp(own[1]) < 2e-5), (values, given, own)
    assert answered > ASKED / 5


def answer(model: ServedModel, values: dict[str, Any]) -> Any:
    """As a request is answered, or the error that refuses it."""
    try:
        asked = parse(values, model.signature, 10)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return infer(model, [[asked.given[position] for position in range(len(model.signature.inputs))]])
    except InvalidRequest as error:
        return error


def codes(encoder: Any) -> Any:
    return make_column_transformer((encoder, ["city"]), remainder="passthrough")


KNOWN = OneHotEncoder(handle_unknown="ignore")
CLASSIFIERS: dict[str, Any] = {
    "forest": ensemble.RandomForestClassifier(21, max_depth=6, random_state=0),
    "extra trees": ensemble.ExtraTreesClassifier(21, max_depth=6, random_state=0),
    "tree": tree.DecisionTreeClassifier(max_depth=6, random_state=0),
    "bagging": ensemble.BaggingClassifier(n_estimators=7, random_state=0),
    "boosting": ensemble.HistGradientBoostingClassifier(max_iter=20),
    "gradient boosting": ensemble.GradientBoostingClassifier(n_estimators=20),
    "ada": ensemble.AdaBoostClassifier(n_estimators=10, random_state=0),
    "scaled forest": make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(21, max_depth=6, random_state=0)),
    "logistic": make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
    "imputed logistic": make_pipeline(
        SimpleImputer(add_indicator=True), linear_model.LogisticRegression(max_iter=10_000)
    ),
    "neighbours": neighbors.KNeighborsClassifier(),
    "bayes": naive_bayes.GaussianNB(),
    "vectors": make_pipeline(StandardScaler(), svm.SVC()),
    "network": make_pipeline(StandardScaler(), neural_network.MLPClassifier((8,), max_iter=500, random_state=0)),
    "power": make_pipeline(PowerTransformer(), linear_model.LogisticRegression()),
    "bins": make_pipeline(
        KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), linear_model.LogisticRegression()
    ),
}
MIXED: dict[str, Any] = {
    "one-hot": make_pipeline(codes(OneHotEncoder()), SimpleImputer(), linear_model.LogisticRegression(max_iter=10_000)),
    "one-hot boosting": make_pipeline(codes(KNOWN), ensemble.HistGradientBoostingClassifier(max_iter=20)),
    "ordinal": make_pipeline(codes(OrdinalEncoder()), ensemble.HistGradientBoostingClassifier(max_iter=20)),
    "codes in a forest": make_pipeline(
        codes(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        ensemble.RandomForestClassifier(21, max_depth=6, random_state=0),
    ),
}
REGRESSORS: dict[str, Any] = {
    "forest": ensemble.RandomForestRegressor(20, max_depth=6, random_state=0),
    "boosting": ensemble.HistGradientBoostingRegressor(max_iter=20),
    "ridge": linear_model.Ridge(),
    "polynomial": make_pipeline(StandardScaler(), PolynomialFeatures(2), linear_model.Ridge()),
    "neighbours": neighbors.KNeighborsRegressor(),
    "vectors": make_pipeline(StandardScaler(), svm.SVR()),
    "logged": TransformedTargetRegressor(linear_model.Ridge(), transformer=StandardScaler()),
}


@pytest.mark.parametrize("name", ["forest", "logistic"])
def test_a_classifier_with_missing_values_answers_as_the_estimator_or_refuses(name: str) -> None:
    check(CLASSIFIERS[name], NUMBERS, missing=True, far=False, classify=True)


def test_a_regression_far_from_zero_answers_as_the_estimator_or_refuses() -> None:
    check(REGRESSORS["ridge"], NUMBERS, missing=False, far=True, classify=False)


@pytest.mark.slow
@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
class TestZoo:
    @pytest.mark.parametrize("name", CLASSIFIERS)
    def test_of_numbers_answers_as_the_estimator_or_refuses(self, name: str, missing: bool, far: bool) -> None:
        check(CLASSIFIERS[name], NUMBERS, missing=missing, far=far, classify=True)

    @pytest.mark.parametrize("name", MIXED)
    def test_of_texts_answers_as_the_estimator_or_refuses(self, name: str, missing: bool, far: bool) -> None:
        check(MIXED[name], TEXT, missing=missing, far=far, classify=True)

    @pytest.mark.parametrize("name", REGRESSORS)
    def test_of_amounts_answers_as_the_estimator_or_refuses(self, name: str, missing: bool, far: bool) -> None:
        check(REGRESSORS[name], NUMBERS, missing=missing, far=far, classify=False)
