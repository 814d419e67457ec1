"""Columns that a model's training frame carries beside features, inputs and labels: to split, part and weigh rows."""

from __future__ import annotations

from modelmill.declarations import Model
from modelmill.definitions import Definitions
from modelmill.errors import did_you_mean
from modelmill.splits import AtRandom, ByGroup, ByTime


def carried(definitions: Definitions, model: Model) -> list[str]:
    """Join keys and columns of the label's source that the frame of `model` holds for its split, segments and weights.

    For a split by the user's function these are all of them.

    Raises:
        ValueError: for a column that the model and its label's source do not have.
    """
    source = definitions.label_source(model)
    in_frame = {*model.features, *model.inputs}
    more = [*(entity.key for entity in source.entities), *(name for name in source.columns if name not in model.labels)]
    wanted = {f"segments: {column!r}": column for column in model.segments}
    if (weight := model.weighting.column) is not None:
        wanted[f"sample_weight: {weight!r}"] = weight
    if isinstance(model.split, ByGroup):
        wanted[f"split: {model.split}: {model.split.column!r}"] = model.split.column
    for where, column in wanted.items():
        if column not in in_frame and column not in more:
            near = did_you_mean(column, [*in_frame, *more])
            raise ValueError(
                f"{where} is no feature or input of the model, no join key and no column of source {source.name!r}"
                f" beside the label{near}"
            )
    whole = model.split is not None and not isinstance(model.split, ByTime | ByGroup | AtRandom)
    return [column for column in more if column not in in_frame and (whole or column in wanted.values())]
