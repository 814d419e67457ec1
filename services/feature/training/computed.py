"""Request-time features in a training frame: computed from its other columns, row by row, as the predictor does."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import let_stop
from modelmill.declare.definitions import ComputedRef
from modelmill.errors import InvalidRequest
from services.feature.intake.validate import ARROW
from services.feature.training.joins import status_of
from services.feature.training.spines import Spine

AUXILIARY = "_need."
"""Begins the names of columns that are joined only to compute others, and that the frame leaves out."""


class Computed:
    """The column of one request-time feature and, if asked for, of its status.

    Args:
        ref: the feature, as the model uses it.
        columns: name of each of its needs to the column that holds it.
        detail: whether its status is wanted.

    A value is missing where a need without a value may not lack one; it has failed where its function did.
    """

    def __init__(self, ref: ComputedRef, columns: Mapping[str, str], *, detail: bool) -> None:
        self._feature = ref.feature
        self._needs = {need: (columns[needed.name], needed.column) for need, needed in ref.needs.items()}
        self._detail = detail

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that it adds to a frame."""
        value = pa.field(self._feature.name, ARROW[self._feature.column.dtype])
        return [value, *([pa.field(status_of(self._feature.name), pa.string())] if self._detail else [])]

    def columns(self, found: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Its columns for the rows whose other columns are `found`."""
        needs = [typed(found[name], column.dtype).to_pylist() for name, column in self._needs.values()]
        required = [position for position, (_, column) in enumerate(self._needs.values()) if not column.nullable]
        values, statuses = [], []
        for row in zip(*needs, strict=True):
            value, status = None, "missing"
            if all(row[position] is not None for position in required):
                try:
                    value = self._feature.compute(dict(zip(self._needs, row, strict=True)))
                    status = "missing" if value is None else "present"
                except BaseException as error:
                    let_stop(error)
                    status = "failed"
            values.append(value)
            statuses.append(status)
        columns = [pa.array(values, ARROW[self._feature.column.dtype])]
        if self._detail:
            columns.append(pa.array(statuses, pa.string()))
        return {field.name: column for field, column in zip(self.fields, columns, strict=True)}


def check_given(spine: Spine, ref: ComputedRef) -> None:
    """Require of an uploaded spine that it has the request inputs that a feature is computed from, in their types.

    Raises:
        InvalidRequest: naming the column.
    """
    for need in ref.needs.values():
        if not need.given:
            continue
        what = f"{ref.feature.kind} {ref.feature.name!r}"
        if need.name not in spine.schema.names:
            raise InvalidRequest(f"column {need.name!r} is missing; {what} is computed from it", column=need.name)
        if spine.schema.field(need.name).type == ARROW[need.column.dtype]:
            continue
        try:
            for batch in spine.batches([need.name]):
                typed(batch[need.name], need.column.dtype)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            expected = need.column.dtype
            raise InvalidRequest(
                f"column {need.name!r} holds what is no {expected}, from which {what} is computed: {error}",
                column=need.name,
            ) from None


def typed(values: pa.Array, dtype: str) -> pa.Array:
    """A column as its declared type; NaN is missing, as it is in a request, which cannot tell it."""
    found = values.cast(ARROW[dtype])
    return pc.if_else(pc.is_nan(found), None, found) if dtype == "float" else found
