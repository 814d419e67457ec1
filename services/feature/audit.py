"""Compare the features that predictions were served with, bit for bit, with what the history says was known then.

The predictions of each version become a spine in a file; what was known at the time of each is joined to it from the
version's own columns; both are compared as JSON texts, some thousands of rows at a time. Where they differ, the rows
that were being ingested at that moment are looked at: a prediction may have seen those or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import applied
from modelmill.connections import Redis
from modelmill.declarations import Column
from modelmill.definitions import Definitions, FeatureRef
from modelmill.errors import DefinitionsError, UnknownName
from modelmill.events import PredictionServed, iso
from modelmill.registry import Registry
from modelmill.storage import Storage
from services.feature.disputes import Dispute, explained
from services.feature.history import INGEST_TIME
from services.feature.in_flight import Ingests, ingests
from services.feature.joins import Join, status_of
from services.feature.receipts import was_forgotten
from services.feature.served import AT, ID, ROW, SINCE, UNTIL, Log, Table, column_of, text_of
from services.feature.spines import Spine
from services.feature.validate import EVENT_TIME
from services.feature.visibility import AsOf

LISTED = 20
"""Differences that an audit describes; the others are counted."""
KNOWN: AsOf = "known"


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
    """Of the row that the expected value comes from, if there is one."""


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
    not_auditable: Counter[str] = field(default_factory=Counter)
    """Why predictions, or values of them, could not be compared, and how many."""


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
            found.not_auditable[f"predictions of version {version}, which is gone: {error}"] += count
            continue
        if not refs:
            found.not_auditable[f"predictions of version {version}, which records no stored features"] += count
            continue
        recipe = definitions.model(model)
        _Comparison(redis, storage, definitions, refs, recipe.defaults, found).run(log.of_version(version))
    return found


def pinned(redis: Redis, registry: Registry, model: str, version: int) -> tuple[Definitions, list[FeatureRef]]:
    """The definitions that a version was trained with, and those of its features that it is served from history's
    columns.

    Raises:
        UnknownName: where the version, or its definitions, are not there any more.
        DefinitionsError: where the definitions cannot be run any more.
    """
    record = registry.version(model, version)
    definitions = applied.load(redis, record.definitions)
    recipe = definitions.model(model)
    refs = definitions.resolve([entity.name for entity in recipe.entities], recipe.features)
    stored = [ref for ref in refs if ref.aggregate is None and f"{ref.source}.{ref.field}" in record.fields]
    return definitions, stored


class _Comparison:
    """Compares the predictions of one version and adds what it finds to an audit."""

    def __init__(
        self,
        redis: Redis,
        storage: Storage,
        definitions: Definitions,
        refs: Sequence[FeatureRef],
        defaults: Any,
        found: Audit,
    ) -> None:
        self._redis = redis
        self._storage = storage
        self._definitions = definitions
        self._refs = refs
        self._defaults = {name: text_of(value) for name, value in defaults.items()}
        self._found = found
        self._sources = {ref.source: [r for r in refs if r.source == ref.source] for ref in refs}

    def run(self, events: Iterator[PredictionServed]) -> None:
        """Compare all of them."""
        table = Table(self._definitions, self._refs)
        with ExitStack() as stack:
            spine = stack.enter_context(Spine(table.schema, AT, table.batches(events)))
            for reason, count in table.passed.items():
                self._found.not_auditable[f"predictions: {reason}"] += count
            if not spine.rows:
                return
            since = datetime.fromisoformat(self._found.since)
            going_on, self._known_since = ingests(self._redis, self._sources, since)
            joins = [stack.enter_context(closing(self._join(refs, spine))) for refs in self._sources.values()]
            first = 0
            for rows in spine.batches():
                expected: dict[str, pa.Array] = {}
                for join in joins:
                    expected |= join.columns(first, rows.num_rows)
                self._compare(rows, expected, going_on)
                first += rows.num_rows

    def _join(self, refs: Sequence[FeatureRef], spine: Spine) -> Join:
        """What is known of one source, and of which row it is."""
        times = [
            replace(refs[0], name=_beside(refs[0].source, name), column=Column(name, "time", True), field=name)
            for name in (EVENT_TIME, INGEST_TIME)
        ]
        return Join(self._storage, self._definitions, [*refs, *times], spine, as_of=KNOWN, detail=True)

    def _compare(self, rows: pa.RecordBatch, expected: dict[str, pa.Array], going_on: dict[str, Ingests]) -> None:
        there = self._entities_there(expected, rows.num_rows)
        compared = np.zeros(rows.num_rows, np.bool_)
        for source, refs in self._sources.items():
            differing = np.zeros(rows.num_rows, np.bool_)
            texts: dict[str, list[str]] = {}
            for ref in refs:
                served = rows[column_of(ref)]
                texts[ref.name] = self._texts(ref, expected[ref.name], there[ref.entity])
                wrong = pc.fill_null(pc.not_equal(served, pa.array(texts[ref.name], pa.string())), False).to_numpy(
                    False
                )
                asked = served.is_valid().to_numpy(False)
                compared |= asked
                differing |= wrong
                self._found.values += int(asked.sum())
                self._found.equal += int((asked & ~wrong).sum())
            if differing.any():
                self._dispute(source, rows, np.flatnonzero(differing), texts, expected, going_on[source])
        self._found.rows += int(compared.sum())

    def _entities_there(self, expected: dict[str, pa.Array], count: int) -> dict[str, np.ndarray]:
        """Entity to [n] whether any row of it was visible, be it expired: otherwise defaults stand for it."""
        there = {ref.entity: np.zeros(count, np.bool_) for ref in self._refs}
        for source, refs in self._sources.items():
            there[refs[0].entity] |= expected[_beside(source, EVENT_TIME)].is_valid().to_numpy(False)
            there[refs[0].entity] |= pc.equal(expected[status_of(refs[0].name)], "expired").to_numpy(False)
        return there

    def _texts(self, ref: FeatureRef, values: pa.Array, there: np.ndarray) -> list[str]:
        texts = [text_of(value) for value in values.to_pylist()]
        default = self._defaults.get(ref.name)
        if default is None:
            return texts
        return [text if known else default for text, known in zip(texts, there.tolist(), strict=True)]

    def _dispute(
        self,
        source: str,
        rows: pa.RecordBatch,
        positions: np.ndarray,
        texts: dict[str, list[str]],
        expected: dict[str, pa.Array],
        going_on: Ingests,
    ) -> None:
        """Sort out the rows whose values of one source are not all as expected."""
        refs = self._sources[source]
        key = self._definitions.entity(refs[0].entity).key
        disputes = []
        for position in positions.tolist():
            served = {ref.name: rows[column_of(ref)][position].as_py() for ref in refs}
            disputes.append(
                Dispute(
                    key=rows[key][position].as_py(),
                    since=iso(rows[SINCE][position].as_py()),
                    at=iso(rows[AT][position].as_py()),
                    until=iso(rows[UNTIL][position].as_py()),
                    served={name: text for name, text in served.items() if text is not None},
                )
            )
        by_row = explained(self._storage, self._definitions, refs, disputes, going_on, self._defaults)
        for position, dispute, is_explained in zip(positions.tolist(), disputes, by_row, strict=True):
            wrong = [name for name, text in dispute.served.items() if text != texts[name][position]]
            if is_explained:
                self._found.in_flight += len(wrong)
            elif dispute.since < self._known_since:
                self._found.not_auditable["values: events of the ingests of that time are no longer kept"] += len(wrong)
            elif was_forgotten(self._redis, refs[0].entity, dispute.key, since=dispute.at):
                self._found.not_auditable["values: the entity was forgotten since"] += len(wrong)
            else:
                self._differ(source, rows, position, dispute, {name: texts[name][position] for name in wrong}, expected)

    def _differ(
        self,
        source: str,
        rows: pa.RecordBatch,
        position: int,
        dispute: Dispute,
        wrong: dict[str, str],
        expected: dict[str, pa.Array],
    ) -> None:
        event, ingested = (expected[_beside(source, name)][position].as_py() for name in (EVENT_TIME, INGEST_TIME))
        for name, text in wrong.items():
            self._found.differences += 1
            if len(self._found.first) < LISTED:
                self._found.first.append(
                    Difference(
                        rows[ID][position].as_py(),
                        rows[ROW][position].as_py(),
                        name,
                        dispute.served[name],
                        text,
                        iso(event) if event else None,
                        iso(ingested) if ingested else None,
                    )
                )


def _beside(source: str, column: str) -> str:
    """What a time of the row of a source is called among the joined values."""
    return f"{source}:{column}"
