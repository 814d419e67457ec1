"""Compare the features that predictions were served with, bit for bit, with what the history says was known then.

The predictions of each version become a spine in a file; what was known at the time of each is joined to it from the
version's own columns; both are compared as JSON texts, some thousands of rows at a time. Where they differ, the rows
that were being ingested at that moment are looked at: a prediction may have seen those or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.columns.types import Scalar
from modelmill.declare import applied
from modelmill.declare.definitions import Definitions, FeatureRef, model_features
from modelmill.errors import DefinitionsError, UnknownName
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionServed
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from modelmill.times import iso
from services.feature.frames.spines import Spine
from services.feature.proof.receipts import last_erasure, was_forgotten
from services.feature.proof.served import (
    AT,
    ID,
    ROW,
    SINCE,
    UNTIL,
    Group,
    Ingests,
    Known,
    Log,
    Sighting,
    Table,
    Values,
    candidates,
    column_of,
    ingests,
    text_of,
    together,
)
from services.feature.rows.schema import EVENT_TIME
from services.feature.store import history
from services.feature.store.history import INGEST_TIME
from services.feature.store.snapshots import Snapshot

MAX_LISTED_DIFFERENCES = 20
"""Differences that an audit describes; the others are counted."""


@dataclass(frozen=True)
class Difference:
    """One value that was served and is not what the history says. Values are JSON texts."""

    prediction: str
    row: int
    """Of the prediction, counted from 0."""
    feature: str
    served: str
    expected: str
    event_time: str | None
    ingest_time: str | None
    """Of the row that the expected value comes from, if it is one."""


@dataclass
class Audit:
    """What an audit found."""

    model: str
    since: str
    until: str
    predictions: int = 0
    """Predictions of the model in that time."""
    rows: int = 0
    """Rows of these of which values were compared."""
    values: int = 0
    equal: int = 0
    in_flight: int = 0
    """Values that are explained by a row that was being ingested at that moment."""
    differences: int = 0
    first: list[Difference] = field(default_factory=list)
    """The first of the differences."""
    not_auditable: dict[str, int] = field(default_factory=dict)
    """Why predictions, or values of them, could not be compared, and how many."""

    def pass_by(self, reason: str, count: int) -> None:
        """Count predictions or values that cannot be compared."""
        self.not_auditable[reason] = self.not_auditable.get(reason, 0) + count


def audit(redis: Redis, storage: Storage, model: str, since: datetime) -> Audit:
    """Compare the predictions of `model` from `since` until now.

    Raises:
        UnknownName: for a model that is neither declared nor trained.
    """
    registry = Registry(redis)
    registry.require_model(model)
    log = Log.until_now(redis, model, since)
    found = Audit(model, iso(since), iso(datetime.now(UTC)))
    for version, count in sorted(log.versions().items()):
        found.predictions += count
        try:
            definitions, refs = pinned(redis, registry, model, version)
        except (UnknownName, DefinitionsError) as error:
            found.pass_by(f"predictions of version {version}, which is gone: {error}", count)
            continue
        if not refs:
            found.pass_by(f"predictions of version {version}, which records no stored features", count)
            continue
        recipe = definitions.model(model)
        _Comparison(redis, storage, definitions, refs, recipe.defaults, found).run(log.of_version(version))
    return found


def pinned(redis: Redis, registry: Registry, model: str, version: int) -> tuple[Definitions, list[FeatureRef]]:
    """The definitions that a version was trained with, and its stored features: columns, and aggregates by tiles.

    Raises:
        UnknownName: where the version, or its definitions, are not there any more.
        DefinitionsError: where the definitions cannot be run any more.
    """
    record = registry.version(model, version)
    definitions = applied.load(redis, record.definitions)
    refs = model_features(definitions, definitions.model(model)).stored

    def field_of(ref: FeatureRef) -> str:
        return definitions.tile_group(ref.aggregate).name if ref.aggregate else ref.field

    return definitions, [ref for ref in refs if f"{ref.source}.{field_of(ref)}" in record.fields]


class _Comparison:
    """Compares the predictions of one version and adds what it finds to an audit."""

    def __init__(
        self,
        redis: Redis,
        storage: Storage,
        definitions: Definitions,
        refs: Sequence[FeatureRef],
        defaults: Mapping[str, Scalar],
        found: Audit,
    ) -> None:
        self._redis = redis
        self._storage = storage
        self._definitions = definitions
        self._refs = refs
        self._groups = together(refs)
        self._defaults = {name: text_of(value) for name, value in defaults.items()}
        self._found = found

    def run(self, events: Iterator[PredictionServed]) -> None:
        """Compare all of them."""
        table = Table(self._definitions, self._refs)
        with ExitStack() as stack:
            spine = stack.enter_context(Spine(table.schema, AT, table.batches(events)))
            for reason, count in table.passed.items():
                self._found.pass_by(f"predictions: {reason}", count)
            if not spine.rows:
                return
            since = datetime.fromisoformat(self._found.since)
            sources = {group.source for group in self._groups}
            going_on, self._known_since = ingests(self._redis, sources, since)
            known = Known(self._storage, self._definitions, self._groups, self._defaults, spine, stack)
            first = 0
            for rows in spine.batches():
                self._compare(rows, known.of_rows(first, rows), going_on)
                first += rows.num_rows

    def _compare(self, rows: pa.RecordBatch, expected: Values, going_on: Mapping[str, Ingests]) -> None:
        compared = np.zeros(rows.num_rows, np.bool_)
        for group in self._groups:
            differing = np.zeros(rows.num_rows, np.bool_)
            texts: dict[str, list[str]] = {}
            for ref in group.refs:
                served = rows[column_of(ref)]
                texts[ref.name] = expected.texts(ref, served)
                unequal = pc.not_equal(served, pa.array(texts[ref.name], pa.string()))
                wrong = pc.fill_null(unequal, False).to_numpy(False)
                asked = served.is_valid().to_numpy(False)
                compared |= asked
                differing |= wrong
                self._found.values += int(asked.sum())
                self._found.equal += int((asked & ~wrong).sum())
            if differing.any():
                self._settle(group, rows, np.flatnonzero(differing).tolist(), texts, expected, going_on[group.source])
        self._found.rows += int(compared.sum())

    def _settle(
        self,
        group: Group,
        rows: pa.RecordBatch,
        positions: Sequence[int],
        texts: Mapping[str, Sequence[str]],
        expected: Values,
        going_on: Ingests,
    ) -> None:
        """Sort out the rows at these positions, whose values of one group are not all as expected."""
        disputes = [self._dispute(group, rows, position) for position in positions]
        excused = explained(self._storage, self._definitions, group, disputes, going_on, self._defaults)
        erased = last_erasure(self._redis, group.source) if group.windowed else ""
        for position, dispute, is_explained in zip(positions, disputes, excused, strict=True):
            wrong = {n: texts[n][position] for n, served in dispute.served.items() if served != texts[n][position]}
            if is_explained:
                self._found.in_flight += len(wrong)
            elif dispute.since < self._known_since:
                self._found.pass_by("values: events of the ingests of that time are no longer kept", len(wrong))
            elif was_forgotten(self._redis, group.entity, dispute.key, since=dispute.at):
                self._found.pass_by("values: the entity was forgotten since", len(wrong))
            elif dispute.at <= erased:
                self._found.pass_by(f"values: rows of source {group.source!r} were forgotten since", len(wrong))
            else:
                self._differ(rows, position, dispute, wrong, expected.times(group, position))

    def _dispute(self, group: Group, rows: pa.RecordBatch, position: int) -> Dispute:
        served = {ref.name: rows[column_of(ref)][position].as_py() for ref in group.refs}
        since, at, until = (iso(rows[name][position].as_py()) for name in (SINCE, AT, UNTIL))
        key = rows[self._definitions.entity(group.entity).key][position].as_py()
        return Dispute(key, since, at, until, {name: text for name, text in served.items() if text is not None})

    def _differ(
        self,
        rows: pa.RecordBatch,
        position: int,
        dispute: Dispute,
        wrong: Mapping[str, str],
        times: tuple[datetime | None, datetime | None],
    ) -> None:
        self._found.differences += len(wrong)
        event, ingest = (iso(time) if time else None for time in times)
        for name, text in list(wrong.items())[: MAX_LISTED_DIFFERENCES - len(self._found.first)]:
            prediction, row = (rows[column][position].as_py() for column in (ID, ROW))
            self._found.first.append(Difference(prediction, row, name, dispute.served[name], text, event, ingest))


# --- whether values that are not as expected were seen while rows of their entity were being ingested.


@dataclass(frozen=True)
class Dispute:
    """The values of one source in one row of a prediction, of which one is not as expected. Times are ISO texts."""

    key: str
    since: str
    at: str
    until: str
    """The features were read between `since` and `until`, and their ages count by `at`."""
    served: Mapping[str, str]
    """Feature to its value as JSON; only those that are compared."""


def explained(
    storage: Storage,
    definitions: Definitions,
    group: Group,
    disputes: Sequence[Dispute],
    going_on: Ingests,
    defaults: Mapping[str, str],
) -> list[bool]:
    """For each dispute about the features of `group`, whether rows that were being ingested explain it.

    An entity's values of one source come online together, so those of a prediction have to be, as a whole, those of a
    row that it may have seen. Tiles of aggregates do not: that any row of the entity was coming explains them.
    """
    rows = _rows(storage, definitions, group, {dispute.key for dispute in disputes})
    max_age = definitions.source(group.source).max_age

    def saw(dispute: Dispute, candidate: Sighting | None) -> bool:
        if candidate is None:
            return all(text in ("null", defaults.get(name)) for name, text in dispute.served.items())
        values = rows[dispute.key][candidate]
        if max_age is not None and _seconds(candidate.event, dispute.at) > max_age:
            values = {}
        return all(text == text_of(values.get(name)) for name, text in dispute.served.items())

    def is_explained(dispute: Dispute) -> bool:
        own, since, until = rows[dispute.key], dispute.since, dispute.until
        if group.windowed:
            return any(going_on.around(row.ingested, since, until) for row in own)
        return any(saw(dispute, candidate) for candidate in candidates(own, going_on, since, until))

    return [is_explained(dispute) for dispute in disputes]


def _rows(
    storage: Storage, definitions: Definitions, group: Group, wanted: set[str]
) -> Mapping[str, dict[Sighting, dict[str, Any]]]:
    """Key to all rows of it in the history of a group's source, with the values that are served by feature."""
    source, key = definitions.source(group.source), definitions.entity(group.entity).key
    refs = [] if group.windowed else group.refs
    columns = list(dict.fromkeys([key, EVENT_TIME, INGEST_TIME, *(ref.field for ref in refs)]))
    snapshot = Snapshot(storage, history.schema(definitions, source), source.name)
    found: defaultdict[str, dict[Sighting, dict[str, Any]]] = defaultdict(dict)
    position = 0
    for batch in snapshot.batches(columns, pc.is_in(pc.field(key), pa.array(sorted(wanted), pa.string()))):
        for row in batch.to_pylist():
            position += 1
            sighting = Sighting(iso(row[EVENT_TIME]), iso(row[INGEST_TIME]), position)
            found[row[key]][sighting] = {ref.name: row[ref.field] for ref in refs}
    return found


def _seconds(event: str, at: str) -> float:
    return (datetime.fromisoformat(at) - datetime.fromisoformat(event)).total_seconds()
