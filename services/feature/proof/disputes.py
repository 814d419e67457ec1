"""Whether values that are not as expected were seen while rows of their entity were being ingested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.definitions import Definitions
from modelmill.state.events import iso
from modelmill.storage import Storage
from services.feature.intake.validate import EVENT_TIME
from services.feature.proof.in_flight import Ingests, Sighting, candidates
from services.feature.proof.known import Group
from services.feature.proof.served import text_of
from services.feature.store import history
from services.feature.store.history import INGEST_TIME
from services.feature.store.snapshots import Snapshot


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
