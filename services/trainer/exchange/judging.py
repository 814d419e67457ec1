"""On which rows a model that was trained elsewhere is judged: those that a training of today would hold out.

They may well be among those that it was fitted on; nobody here can know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions
from modelmill.errors import InvalidRequest, RequestFailed, Unavailable
from modelmill.packages.package import Input
from services.trainer.evaluation.answers import Task
from services.trainer.promotion.contender import HeldOut
from services.trainer.settings import TrainerSettings
from services.trainer.training.frame import Frame
from services.trainer.training.split import Split
from services.trainer.training.steps import frame_file, hold_out, read_frame, split_frame

EMPTY: dict[str, Any] = {"float": 0.0, "int": 0.0, "bool": 0.0, "str": ""}
"""Type to the value of an input that no example gives."""


@dataclass(frozen=True)
class Court:
    """The labelled rows, and those of them that a model is judged on."""

    frame: Frame
    parted: Split
    held_out: HeldOut


def court(
    definitions: Definitions, recipe: Model, inputs: Sequence[Input], task: Task, settings: TrainerSettings
) -> Court | str:
    """The labelled rows and what is held out of them; or, in a sentence, why there are none."""
    try:
        with frame_file(settings, definitions, recipe) as file:
            frame = read_frame(definitions, recipe, file)
        parted = split_frame(definitions, recipe, frame, classes=task == "classification")
    except (InvalidRequest, RequestFailed, Unavailable) as error:
        return error.detail
    return Court(frame, parted, hold_out(recipe, frame, parted))


def one_row(inputs: Sequence[Input], example: dict[str, Any] | None) -> pd.DataFrame:
    """A row of `example`, in the place of the held-out ones; zero and the empty text where it gives nothing.

    Raises:
        InvalidRequest: for a value that is not of the input's type.
    """
    given = example or {}
    columns = {}
    for item in inputs:
        value = given.get(item.name, EMPTY[item.dtype])
        missing = value is None
        if not missing and isinstance(value, str) != (item.dtype == "str"):
            raise InvalidRequest(f"the example's {item.name!r} is {value!r}; expected {item.dtype}")
        if item.dtype == "str":
            columns[item.name] = np.array(["" if missing else value], np.object_)
        else:
            columns[item.name] = np.array([np.nan if missing else float(value)])
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})
