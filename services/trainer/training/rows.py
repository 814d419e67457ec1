"""The rows that estimators are fitted on, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor, BaggingClassifier, BaggingRegressor
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegressionCV, RANSACRegressor
from sklearn.metrics import get_scorer
from sklearn.multioutput import ClassifierChain, RegressorChain
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metadata_routing import MetadataRequest, MetadataRouter, get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from modelmill.declare.splits import Weighting
from modelmill.errors import InvalidRequest

BOOSTING = (AdaBoostClassifier, AdaBoostRegressor)
"""Scikit-learn routes nothing to them."""
BY_THEMSELVES = (*BOOSTING, BaggingClassifier, BaggingRegressor)
"""They take weights whatever is inside: it gets theirs, or rows that were drawn by weight."""


@dataclass(frozen=True)
class Rows:
    """n labelled rows."""

    inputs: pd.DataFrame
    """[n, inputs]"""
    label: np.ndarray
    """[n], or [n, labels] where there are several."""
    weighting: Weighting = Weighting()  # noqa: RUF009  it is frozen
    weight: np.ndarray | None = None
    """[n] values of the weighting's column, if it has one."""

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, numbers: np.ndarray) -> Rows:
        """The rows of these numbers, in their order."""
        weight = None if self.weight is None else self.weight[numbers]
        return Rows(self.inputs.iloc[numbers], self.label[numbers], self.weighting, weight)

    def fit(self, estimator: Any) -> Any:
        """`estimator`, or a copy of it, fitted on all of them.

        Raises:
            InvalidRequest: where the rows have weights and a part of it takes none, or classes have and it knows no
                classes; whatever fitting raises is passed on.
        """
        if not self.weighting:
            return estimator.fit(self.inputs, self.label)
        if self.weighting.classes and is_regressor(estimator):
            raise InvalidRequest(
                "class_weight weighs the rows of a class, and a regressor knows no classes; name a column of weights"
                " as sample_weight instead"
            )
        step, last = _last_step(estimator)
        with config_context(enable_metadata_routing=True):
            by_itself = isinstance(last, BY_THEMSELVES) or not _inner(last)
            if not (by_itself and has_fit_parameter(last, "sample_weight")):
                asking = _asking(estimator)
                return _without_requests(asking.fit(self.inputs, self.label, sample_weight=self.weights()), set())
        with config_context(enable_metadata_routing=False):  # whatever the definitions file has set
            return estimator.fit(self.inputs, self.label, **{f"{step}sample_weight": self.weights()})

    def weights(self) -> np.ndarray:
        """[n] what each row counts, by its column times by its class.

        Raises:
            InvalidRequest: for a weight that is no number of at least 0, and for a class that no row has.
        """
        weights = np.ones(len(self)) if self.weight is None else self.weight.astype(np.float64)
        if (wrong := ~(weights >= 0) | np.isinf(weights)).any():  # NaN is not
            raise InvalidRequest(
                f"sample_weight {self.weighting.column!r} is {weights[wrong][0]} in {wrong.sum()} of {len(self)} rows;"
                " expected a number of at least 0"
            )
        if self.weighting.classes:
            weights = weights * self._class_weights()
        return weights

    def _class_weights(self) -> np.ndarray:
        classes = self.weighting.classes
        if isinstance(classes, str):
            balanced: np.ndarray = compute_sample_weight(classes, self.label)
            return balanced
        present = np.unique(self.label).tolist()
        if unknown := [name for name in classes if name not in present]:
            raise InvalidRequest(f"class_weight names {unknown[0]!r}, which no row has; classes: {present}")
        weights: np.ndarray = np.array([classes.get(name, 1.0) for name in self.label.reshape(-1).tolist()])
        product: np.ndarray = weights.reshape(len(self), -1).prod(axis=1)
        return product


def _last_step(estimator: Any) -> tuple[str, Any]:
    """What predicts at the end of a pipeline, however nested, and the prefix of its parameters."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    return prefix, estimator


def _inner(estimator: Any) -> list[Any]:
    """The estimators inside another that scikit-learn is to route weights to: those that predict.

    The steps before the last one of a pipeline prepare columns, all rows alike.
    """
    if isinstance(estimator, Pipeline):
        own = [estimator.steps[-1][1]]
    else:
        own = [part for name, part in estimator.get_params().items() if "__" not in name]
    # Asked of the type: what a stack or a search predicts by may not be there before it is fitted.
    inner = [part for part in [*own, *_alternatives(estimator)] if hasattr(type(part), "predict")]
    if not inner or isinstance(estimator, BOOSTING) or isinstance(_routing(estimator), MetadataRequest):
        return []
    return inner


def _routing(estimator: Any) -> MetadataRequest | MetadataRouter | None:
    """How scikit-learn routes weights to an estimator and what is inside; None where BOOSTING is in the way."""
    try:
        return get_routing_for_object(estimator)
    except NotImplementedError:
        return None


def _alternatives(search: Any) -> Iterator[Any]:
    """The estimators that a search of scikit-learn tries in the place of others."""
    grids = getattr(search, "param_grid", None) or getattr(search, "param_distributions", None) or []
    for grid in [grids] if isinstance(grids, Mapping) else grids:
        for values in grid.values():
            if isinstance(values, list | tuple | np.ndarray):
                yield from (value for value in values if hasattr(value, "get_params"))


def _parts(estimator: Any) -> Iterator[Any]:
    """An estimator, and every one in it."""
    for part in [estimator, *estimator.get_params().values()]:
        if hasattr(part, "get_params") and not isinstance(part, type):
            yield part
            for other in _alternatives(part):
                yield from _parts(other)


def _weighed(estimator: Any) -> Iterator[Any]:
    """An estimator and those in it that are to be fitted with weights, the innermost first."""
    for part in _inner(estimator):
        yield from _weighed(part)
    yield estimator


def _asking(estimator: Any) -> Any:
    """A copy of which every part that is to have weights asks for them, and no other.

    Raises:
        InvalidRequest: for a part that would be fitted without, or not at all.
    """
    asking = clone(estimator)
    weighed = list(_weighed(asking))
    ids = {id(part) for part in weighed}
    for part in _parts(asking):
        if isinstance(part, TargetEncoder):  # a KeyError for groups, in scikit-learn 1.9
            raise _refusal(part, estimator, "cannot be fitted where scikit-learn passes weights of rows on to others")
        for method in ("fit", "score"):
            ask = getattr(part, f"set_{method}_request", None)
            if ask is not None and "sample_weight" in signature(ask).parameters:
                ask(sample_weight=id(part) in ids)
    for part in _parts(asking):
        if isinstance(routing := _routing(part), MetadataRouter) and "scorer" in dict(routing):
            part.scoring = _scoring(part, part.scoring, weighed=id(part) in ids)
    for part in weighed:
        if why := _gap(part):
            raise _refusal(part, estimator, why)
    return asking


def _scoring(part: Any, scoring: Any, *, weighed: bool) -> Any:
    """The scorers of an estimator that searches by itself, each of which asks for weights if its metric takes them."""
    if scoring in (None, "warn") and isinstance(part, RFECV | LogisticRegressionCV):  # others score by their estimator
        scoring = "accuracy" if is_classifier(part) else "r2"
    if isinstance(scoring, Mapping):
        return {name: _scoring(part, one, weighed=weighed) for name, one in scoring.items()}
    if isinstance(scoring, list | tuple | set):
        return {name: _scoring(part, name, weighed=weighed) for name in scoring}
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
    if hasattr(scorer, "set_score_request"):
        scorer.set_score_request(sample_weight=weighed and "sample_weight" in signature(scorer._score_func).parameters)
    return scorer


def _gap(part: Any) -> str:
    """Why scikit-learn would fit it, inside another, without weights; empty where it does not."""
    if isinstance(part, ClassifierChain | RegressorChain) and part.cv is not None:
        return "with cv fits its folds without weights of rows"
    if isinstance(part, SelfTrainingClassifier):  # it gives the weights of all rows with some of them
        return "takes no weights of rows"
    if isinstance(part, RANSACRegressor):  # it asks for a signature, and routes nothing to its default
        takes = part.estimator is not None and has_fit_parameter(part.estimator, "sample_weight")
        return "" if takes else "passes no weights of rows on to what is in it"
    if (routing := _routing(part)) and routing.consumes("fit", ["sample_weight"]):
        return ""
    takes = has_fit_parameter(part, "sample_weight")
    return "takes weights of rows on its own alone" if takes else "takes no weights of rows"


def _refusal(part: Any, whole: Any, why: str) -> InvalidRequest:
    what = type(part).__name__ if type(part) is type(whole) else f"{type(part).__name__} in {type(whole).__name__}"
    return InvalidRequest(f"estimator {what} {why}; leave out sample_weight and class_weight")


def _without_requests(fitted: Any, seen: set[int]) -> Any:
    """A fitted estimator without what its parts have asked for: it refers to copies that are not fitted."""
    if id(fitted) in seen:
        return fitted
    seen.add(id(fitted))
    if isinstance(fitted, Mapping):
        inside = list(fitted.values())
    elif isinstance(fitted, list | tuple | set) or (isinstance(fitted, np.ndarray) and fitted.dtype == object):
        inside = list(np.ravel(fitted)) if isinstance(fitted, np.ndarray) else list(fitted)
    elif hasattr(fitted, "__dict__") and not isinstance(fitted, type | FunctionType | ModuleType):
        vars(fitted).pop("_metadata_request", None)
        inside = list(vars(fitted).values())
    else:
        inside = []
    for value in inside:
        _without_requests(value, seen)
    return fitted
