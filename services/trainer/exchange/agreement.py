"""Whether a model that was trained elsewhere is what the definitions declare: its inputs, its task, its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelmill.columns.types import Column
from modelmill.errors import InvalidRequest
from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Task

NUMBERS = ("double", "float", "long", "integer")
TYPES = {"float": NUMBERS, "int": NUMBERS, "bool": ("boolean", *NUMBERS), "str": ("string",)}
"""Declared type to what MLflow may call it; all numbers are fed to a model as floating-point numbers."""


def require_names(what: str, names: Sequence[str], model: str, inputs: Sequence[Input]) -> None:
    """Refuse a model that takes other columns than the declared ones, or takes them in another order.

    Raises:
        InvalidRequest: naming the columns.
    """
    declared = [item.name for item in inputs]
    if list(names) == declared:
        return
    lacking = [name for name in declared if name not in names]
    unknown = [name for name in names if name not in declared]
    if lacking or unknown:
        wrong = " and ".join(
            [f"does not take {_listed(lacking)}"] * bool(lacking)
            + [f"takes {_listed(unknown)}, not declared"] * bool(unknown)
        )
        raise InvalidRequest(f"{what} {wrong}; model {model!r} declares {_listed(declared)}")
    raise InvalidRequest(
        f"{what} takes its columns in the order {_listed(names)}; model {model!r} declares {_listed(declared)}: declare"
        " them in its order, features before request inputs, or train it in this one"
    )


def require_count(what: str, count: int, model: str, inputs: Sequence[Input]) -> None:
    """Refuse a model that takes another number of columns than are declared."""
    if count != len(inputs):
        raise InvalidRequest(
            f"{what} takes {count} columns; model {model!r} declares {len(inputs)}:"
            f" {_listed([item.name for item in inputs])}"
        )


def require_types(columns: Mapping[str, str], model: str, inputs: Sequence[Input]) -> None:
    """Refuse a signature, name to MLflow's type, that does not agree with the declared inputs.

    Raises:
        InvalidRequest: naming the column and both types.
    """
    require_names("its signature", list(columns), model, inputs)
    for item in inputs:
        if columns[item.name] not in TYPES[item.dtype]:
            raise InvalidRequest(
                f"its signature has column {item.name!r} as {columns[item.name]}; model {model!r} declares"
                f" {item.dtype}, which is {' or '.join(TYPES[item.dtype])}"
            )


def require_task(task: Task, declared: Task, model: str) -> None:
    """Refuse a classifier for a model that is declared with a regressor, and the other way round."""
    if task != declared:
        raise InvalidRequest(f"the file holds a model for {task}; model {model!r} is declared for {declared}")


def as_labels(classes: Sequence[Any], label: Column, model: str) -> list[Any]:
    """The classes as values of the declared label's type.

    Raises:
        InvalidRequest: for classes of another type.
    """
    kinds = {"int": (int,), "float": (int, float), "bool": (bool, int), "str": (str,)}[label.dtype]
    fit = all(isinstance(c, kinds) and (label.dtype == "bool" or not isinstance(c, bool)) for c in classes)
    if label.dtype == "bool":
        fit = fit and set(classes) <= {0, 1}
    if not fit or len(set(classes)) != len(classes):
        raise InvalidRequest(
            f"its classes are {_listed(classes)}; the label {label.name!r} of model {model!r} is {label.dtype}"
        )
    convert = {"int": int, "float": float, "bool": bool, "str": str}[label.dtype]
    return [convert(c) for c in classes]


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:20])
    return f"{shown} and {len(values) - 20} more" if len(values) > 20 else shown
