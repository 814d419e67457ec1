"""Training frames: the rows of a spine joined with the features that were visible at each row's time.

The rule is that of `visibility`. The frame has exactly the rows of the spine, in their order, and is put together chunk
by chunk: columns of the spine, and columns that parts prepared for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import let_stop
from modelmill.declare.declarations import Model
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, extra_columns, model_features
from modelmill.errors import InvalidRequest
from modelmill.storage import Storage
from services.feature.frames.aggregated import Aggregated
from services.feature.frames.joins import AsOf, Join, status_of
from services.feature.frames.spines import Spine, labelled
from services.feature.rows.schema import ARROW, EVENT_TIME
from services.feature.store.snapshots import Position, Snapshot

ORIGIN = b"origin"
"""In the metadata of a frame's schema: source to `known_until`, the position of its history, and `rows`, as JSON."""


class Part(Protocol):
    """Some columns of a frame, prepared for its spine."""

    @property
    def fields(self) -> list[pa.Field]:
        """The columns."""

    def columns(self, first: int, count: int) -> dict[str, pa.Array]:
        """Their values for `count` rows of the spine from number `first` on."""

    def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True)
class Wanted:
    """What a frame holds beside its spine."""

    refs: Sequence[FeatureRef]
    """The features, in the order of their columns."""
    as_of: AsOf = "event"
    detail: bool = False
    """Whether a column `{feature}.status` follows each feature."""
    computed: Sequence[ComputedRef] = ()
    """The features that are computed from others and from columns of the spine."""
    auxiliary: Sequence[FeatureRef] = ()
    """What only these need."""
    order: Sequence[str] = ()
    """The names of all features in the order of their columns, where it is not that of `refs`."""
    at: Mapping[str, Position] = field(default_factory=dict)
    """Source to the position of its history whose rows count; of others all do."""

    @classmethod
    def by(
        cls,
        definitions: Definitions,
        model: Model,
        as_of: AsOf = "event",
        *,
        detail: bool = False,
        at: Mapping[str, Position] | None = None,
    ) -> Self:
        """The features of a model."""
        features = model_features(definitions, model)
        return cls(features.stored, as_of, detail, features.computed, features.auxiliary, model.features, at or {})

    @property
    def names(self) -> list[str]:
        """The columns in their order."""
        features = self.order or [ref.name for ref in self.refs]
        return [name for one in features for name in (one, *([status_of(one)] if self.detail else []))]


class Frame:
    """A frame that is ready to be read, chunk by chunk; it owns its parts and its spine."""

    def __init__(
        self,
        spine: Spine,
        parts: Sequence[Part],
        names: Sequence[str],
        computed: Sequence[Computed] = (),
        origin: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._spine = spine
        self._parts = parts
        self._computed = computed
        fields = {field.name: field for field in spine.schema}
        fields |= {field.name: field for part in parts for field in part.fields}
        fields |= {field.name: field for one in computed for field in one.fields}
        metadata = {ORIGIN: orjson.dumps(origin)} if origin else None
        self.schema = pa.schema([fields[name] for name in names], metadata)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The frame's rows, some 100,000 at a time."""
        first = 0
        for rows in self._spine.batches():
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            for part in self._parts:
                columns |= part.columns(first, rows.num_rows)
            for one in self._computed:
                columns |= one.columns(columns)
            yield pa.record_batch([columns[name] for name in self.schema.names], self.schema)
            first += rows.num_rows

    def table(self) -> pa.Table:
        """The whole frame in memory."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def close(self) -> None:
        """Drop the files of its parts and its spine."""
        for part in self._parts:
            part.close()
        self._spine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def model_frame(
    storage: Storage,
    definitions: Definitions,
    model: Model,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: AsOf = "event",
    detail: bool = False,
    at: Mapping[str, Position] | None = None,
) -> Frame:
    """The frame of a model: `_event_time`, its features, its inputs, its labels, what it carries, by event time.

    Its spine is the rows of the label's source with start <= event time < end. With `at`, source to position, it is
    made of the rows of these positions alone, and says in its schema's metadata, under `ORIGIN`, how many those are.

    Raises:
        Conflict: where there are no such rows.
    """
    wanted = Wanted.by(definitions, model, as_of, detail=detail, at=at)
    spine = labelled(
        storage, definitions, model, start=start, end=end, at=wanted.at.get(definitions.label_source(model).name)
    )
    names = [EVENT_TIME, *wanted.names, *model.inputs, *model.labels, *extra_columns(definitions, model)]
    return _joined(storage, definitions, spine, wanted, names)


def spine_frame(storage: Storage, definitions: Definitions, spine: Spine, wanted: Wanted) -> Frame:
    """All columns of `spine`, then the features. The frame closes the spine.

    Raises:
        InvalidRequest: where the spine has a column of the name of a feature, or lacks one that a feature is computed
            from.
    """
    return _joined(storage, definitions, spine, wanted, [*spine.schema.names, *wanted.names])


def _joined(storage: Storage, definitions: Definitions, spine: Spine, wanted: Wanted, names: Sequence[str]) -> Frame:
    with ExitStack() as stack:
        stack.enter_context(spine)
        if twice := [name for name in names if names.count(name) > 1]:
            raise InvalidRequest(f"column {twice[0]!r} would be in the frame twice; rename it", column=twice[0])
        for one in wanted.computed:
            check_given(spine, one)
        auxiliary = [replace(ref, name=f"{AUXILIARY}{ref.name}") for ref in wanted.auxiliary]
        parts: list[Part] = []
        for refs in _together([*wanted.refs, *auxiliary]):
            kind = Join if refs[0].aggregate is None else Aggregated
            at = wanted.at.get(refs[0].source)
            part = kind(storage, definitions, refs, spine, as_of=wanted.as_of, detail=wanted.detail, at=at)
            stack.callback(part.close)
            parts.append(part)
        frame = Frame(spine, parts, names, _computed(wanted, auxiliary), _origin(storage, definitions, wanted))
        stack.pop_all()
    return frame


def _origin(storage: Storage, definitions: Definitions, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Source to the position that the frame was made at, and the rows of it."""
    return {
        name: {
            "known_until": str(at),
            "rows": Snapshot.of(storage, definitions, definitions.source(name), at).count(),
        }
        for name, at in wanted.at.items()
    }


def _computed(wanted: Wanted, auxiliary: Sequence[FeatureRef]) -> list[Computed]:
    joined = {ref.name: ref.name for ref in wanted.refs}
    joined |= {ref.name: own.name for ref, own in zip(wanted.auxiliary, auxiliary, strict=True)}
    return [
        Computed(
            ref, {need.name: joined.get(need.name, need.name) for need in ref.needs.values()}, detail=wanted.detail
        )
        for ref in wanted.computed
    ]


def _together(refs: Sequence[FeatureRef]) -> Iterator[list[FeatureRef]]:
    """The features that are read from the same rows: columns of a source, or aggregates of it by one entity."""

    def rows(ref: FeatureRef) -> tuple[str, str | None]:
        return ref.source, ref.entity if ref.aggregate else None

    for found in dict.fromkeys(map(rows, refs)):
        yield [ref for ref in refs if rows(ref) == found]


# --- request-time features in a training frame: computed from its other columns, row by row, as the predictor does.

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
