"""Write docs/estimators.md: how each classifier and regressor of scikit-learn is packaged, found out by packaging it.

Every one is fitted with its own defaults, but for arguments that it cannot do without, on 200 rows of four numbers and
packaged as a training does, with 100 other rows to compare answers on. Takes half a minute: `make docs`, or
`python -m docs.estimators`.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import all_estimators

from docs.generate import FOLDER, NOTE
from modelmill.errors import InvalidRequest
from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging.packing import pack

PAGE = FOLDER / "estimators.md"
Kind = Literal["classifier", "regressor"]
INSIDE = {"classifier": LogisticRegression(), "regressor": Ridge()}
"""What an estimator that is made of others is made of."""
WIDE_ENOUGH = {"radius": 5.0}
"""With its own radius some of the rows would have no neighbours."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "RadiusNeighborsClassifier": WIDE_ENOUGH,
    "RadiusNeighborsRegressor": WIDE_ENOUGH,
    "SelfTrainingClassifier": {"estimator": INSIDE["classifier"]},
}
INPUTS = {"IsotonicRegression": ["a"]}
"""Which columns an estimator can take, where not all."""
ROWS, FITTED = 300, 200
LONGEST_REASON = 160

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame(
    {  # none below zero, and two whole ones, for those that take counts or categories
        "a": RANDOM.integers(0, 10, ROWS).astype(float),
        "b": 10 * RANDOM.random(ROWS),
        "c": RANDOM.integers(0, 3, ROWS).astype(float),
        "d": 10 * RANDOM.random(ROWS),
    }
)
AMOUNT = (NUMBERS["a"] + NUMBERS["b"] / 2 + NUMBERS["c"] + RANDOM.random(ROWS) + 0.5).to_numpy()
LABELS = {
    "classifier": (np.median(AMOUNT) < AMOUNT).astype(int),
    "regressor": AMOUNT,
}


@dataclass(frozen=True)
class Outcome:
    """What became of one estimator."""

    name: str
    served: str
    """What serves it: `ONNX float32`, `ONNX float64`, `scikit-learn`, or `nothing`."""
    difference: str
    """The largest difference from the estimator's own answers, as text."""
    reason: str
    """Why it is not ONNX."""


def surveyed(kind: Kind) -> Iterator[Outcome]:
    """What becomes of each estimator of a kind, in the order of their names."""
    for name, made in all_estimators(kind):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about convergence and what will be deprecated
            yield _outcome(name, made, kind)


def _outcome(name: str, made: Any, kind: Kind) -> Outcome:
    columns = INPUTS.get(name, list(NUMBERS.columns))
    try:
        estimator = _fitted(made(**_arguments(name, made, kind)), NUMBERS[columns][:FITTED], LABELS[kind][:FITTED])
        rows = NUMBERS[columns][FITTED:]
        packed = pack(estimator, [Input(c, "float", False) for c in columns], rows, Answers.of(estimator, rows))
    except InvalidRequest as error:
        return Outcome(name, "nothing", "", _short(error.detail))
    served = f"ONNX {packed.tensor_dtype}" if packed.runtime == "onnx" else "scikit-learn"
    difference = packed.parity.max_relative_difference
    return Outcome(name, served, f"{difference:.0e}" if difference else "0", _short(packed.runtime_reason))


def _arguments(name: str, made: Any, kind: Kind) -> dict[str, Any]:
    parameters = inspect.signature(made).parameters
    needed = {p for p, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    arguments = dict(ARGUMENTS.get(name, {}))
    if "estimator" in needed:
        arguments["estimator"] = INSIDE[kind]
    if "estimators" in needed:
        arguments["estimators"] = [("one", INSIDE[kind])]
    if "random_state" in parameters:
        arguments["random_state"] = 0
    return arguments


def _fitted(estimator: Any, rows: pd.DataFrame, label: np.ndarray) -> Any:
    """With one label, or with two where it wants several."""
    try:
        return estimator.fit(rows, label)
    except (ValueError, IndexError):
        return estimator.fit(rows, np.column_stack([label, label[::-1]]))


def _short(reason: str) -> str:
    """The first of the reasons, as a cell of a table holds it."""
    first = " ".join(reason.split("; ")[0].split()).replace("|", "\\|").replace("<", "&lt;")
    return first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}..."


def table(outcomes: list[Outcome]) -> str:
    """Outcomes as a table in Markdown."""
    rows = ["| estimator | served by | difference | why not ONNX |", "| --- | --- | --- | --- |"]
    rows += [f"| `{one.name}` | {one.served} | {one.difference} | {one.reason} |" for one in outcomes]
    return "\n".join(rows)


def outcomes_on(page: str) -> dict[str, str]:
    """Estimator to what serves it, as a page says."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, flags=re.MULTILINE))


def rendered(classifiers: list[Outcome], regressors: list[Outcome]) -> str:
    """The page."""
    served = [one.served for one in (*classifiers, *regressors)]
    onnx = sum(one.startswith("ONNX") for one in served)
    parts = [
        "# Which estimators can be served",
        NOTE,
        f"All of scikit-learn {sklearn.__version__}: {onnx} are served as ONNX, {served.count('scikit-learn')} by"
        f" scikit-learn, {served.count('nothing')} by nothing. What decides is said under"
        " [packages](training.md#packages), and what it means for an answer under [predictions](predictions.md).",
        "Each was fitted with its own defaults on 200 rows of four numbers (a classifier with the labels 0 and 1) and"
        " compared with its package on 100 others. *Difference* is the largest one of a probability, or of a number"
        " relative to the spread of all, on the held-out rows. Other parameters, text as a label, or other data may"
        " end otherwise; a training finds out and its run says so.",
        "## Classifiers",
        table(classifiers),
        "## Regressors",
        table(regressors),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(rendered(list(surveyed("classifier")), list(surveyed("regressor"))))


if __name__ == "__main__":
    main()
