"""What was known of a model's features at the times of a spine, as JSON texts beside the row that each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import Column
from modelmill.declare.definitions import Definitions, FeatureRef
from modelmill.storage import Storage
from services.feature.intake.validate import EVENT_TIME
from services.feature.proof.served import text_of
from services.feature.store.history import INGEST_TIME
from services.feature.training.aggregated import Aggregated
from services.feature.training.joins import Join, status_of
from services.feature.training.spines import Spine
from services.feature.training.visibility import AsOf

KNOWN: AsOf = "known"
EMPTY = ("null", "0")
"""What an aggregate is where its window has no rows, for which a default may stand."""


@dataclass(frozen=True)
class Group:
    """Features that are read together: columns of one source, or aggregates of it by one entity."""

    source: str
    entity: str
    refs: Sequence[FeatureRef]
    windowed: bool

    def time(self, column: str) -> str:
        """What a time of the row that columns come from is called among the values."""
        return f"{self.source}:{column}"


def together(refs: Sequence[FeatureRef]) -> list[Group]:
    """The groups of features."""
    found: dict[tuple[str, str, bool], list[FeatureRef]] = {}
    for ref in refs:
        found.setdefault((ref.source, ref.entity, ref.aggregate is not None), []).append(ref)
    return [Group(source, entity, own, windowed) for (source, entity, windowed), own in found.items()]


class Known:
    """What the rows of a spine with the columns of `served.Table` should have been served; lives on `stack`."""

    def __init__(
        self,
        storage: Storage,
        definitions: Definitions,
        groups: Sequence[Group],
        defaults: Mapping[str, str],
        spine: Spine,
        stack: ExitStack,
    ) -> None:
        self._groups = groups
        self._defaults = defaults
        self._parts: list[Join | Aggregated] = []
        for group in groups:
            if group.windowed:
                part: Join | Aggregated = Aggregated(storage, definitions, group.refs, spine, as_of=KNOWN)
            else:
                wanted = [*group.refs, *_times(group)]
                part = Join(storage, definitions, wanted, spine, as_of=KNOWN, detail=True)
            self._parts.append(stack.enter_context(closing(part)))

    def of_rows(self, first: int, rows: pa.RecordBatch) -> Values:
        """Of the spine's rows from number `first` on."""
        columns: dict[str, pa.Array] = {}
        for part in self._parts:
            columns |= part.columns(first, rows.num_rows)
        there = {group.entity: np.zeros(rows.num_rows, np.bool_) for group in self._groups}
        for group in self._groups:
            if not group.windowed:
                there[group.entity] |= columns[group.time(EVENT_TIME)].is_valid().to_numpy(False)
                there[group.entity] |= pc.equal(columns[status_of(group.refs[0].name)], "expired").to_numpy(False)
        return Values(columns, self._defaults, there)


@dataclass(frozen=True)
class Values:
    """What n rows should have been served."""

    columns: Mapping[str, pa.Array]
    defaults: Mapping[str, str]
    there: Mapping[str, np.ndarray]
    """Entity to [n] whether any row of it was visible, be it expired: otherwise defaults stand for it."""

    def texts(self, ref: FeatureRef, served: pa.Array) -> list[str]:
        """[n] a feature's values, with the defaults where these stand for them; `served` are [n] those served."""
        texts = [text_of(value) for value in self.columns[ref.name].to_pylist()]
        default = self.defaults.get(ref.name)
        if default is None:
            return texts
        if ref.aggregate is not None:  # it stands where no tile is there, also none of aggregates with longer windows
            both = zip(texts, served.to_pylist(), strict=True)
            return [default if text in EMPTY and other == default else text for text, other in both]
        known = self.there[ref.entity].tolist()
        return [text if is_there else default for text, is_there in zip(texts, known, strict=True)]

    def times(self, group: Group, position: int) -> tuple[datetime | None, datetime | None]:
        """Event and ingest time of the row that a group's values come from, if it is one."""
        if group.windowed:
            return None, None
        event, ingest = (self.columns[group.time(name)][position].as_py() for name in (EVENT_TIME, INGEST_TIME))
        return event, ingest


def _times(group: Group) -> list[FeatureRef]:
    """The times of a group's row, as if they were features."""
    return [
        replace(group.refs[0], name=group.time(name), column=Column(name, "time", True), field=name)
        for name in (EVENT_TIME, INGEST_TIME)
    ]
