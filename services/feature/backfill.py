"""Compute features for rows that were ingested before the feature was declared or changed."""

from __future__ import annotations

import logging

import pyarrow.parquet as pq

from modelmill.connections import Redis
from modelmill.declarations import Source
from modelmill.definitions import Definitions
from modelmill.storage import Storage
from services.feature import history, online
from services.feature.derive import FAILED, derive

log = logging.getLogger(__name__)


def backfill(redis: Redis, storage: Storage, definitions: Definitions) -> int:
    """Bring every history file up to the declared feature versions, and the online store with it; return the rows.

    A file is replaced atomically after its values are online, and is skipped once it is up to date: killed at any
    point, the next call goes on where this one stopped.
    """
    rows = 0
    for source in definitions.sources.values():
        for name in history.names(storage, source.name):
            rows += backfill_file(redis, storage, definitions, source, name)
    return rows


def backfill_file(redis: Redis, storage: Storage, definitions: Definitions, source: Source, name: str) -> int:
    """Bring one history file up to date; return its rows, or 0 where it was so already."""
    wanted = history.versions(definitions, source)
    stored = history.stored_versions(storage, name)
    stale = [feature for feature, version in wanted.items() if stored.get(feature) != version]
    if not stale:
        return 0
    schema = history.schema(definitions, source)
    with storage.files.open(storage.path(name)) as file:
        table = pq.read_table(file)
    inputs = [*(entity.key for entity in source.entities), *(c for c in source.columns if c in table.column_names)]
    table = table.select([c for c in schema.names if c in table.column_names and c not in wanted and c != FAILED])
    derived = derive(table, definitions.features[source.name], inputs)
    if source.entity is not None:
        online.write(redis, source, list(wanted), derived.table)
    columns = [column for column in schema.names if column in derived.table.column_names]
    history.write(storage, name, derived.table.select(columns), wanted)
    log.info("backfilled %s of %s rows in %s", ", ".join(stale), table.num_rows, name)
    return table.num_rows
