"""Compute features for rows that were ingested before the feature was declared or changed."""

from __future__ import annotations

import logging

from modelmill.connections import Redis
from modelmill.declarations import Source
from modelmill.definitions import Definitions
from modelmill.storage import Storage
from services.feature import history, online
from services.feature.derive import FAILED, derive

log = logging.getLogger(__name__)


def backfill(redis: Redis, storage: Storage, definitions: Definitions) -> int:
    """Bring every history file up to the declared feature versions, and the online store with it; return the rows.

    A file is skipped once it is up to date: killed at any point, the next call goes on where this one stopped.
    """
    rows = 0
    for source in definitions.sources.values():
        wanted = history.versions(definitions, source)
        for name in history.names(storage, source.name) if wanted else ():
            stored = history.stored_versions(storage, name)
            if stale := [feature for feature, version in wanted.items() if stored.get(feature) != version]:
                rows += recompute(redis, storage, definitions, source, name)
                log.info("computed %s anew in %s", ", ".join(stale), name)
    return rows


def recompute(redis: Redis, storage: Storage, definitions: Definitions, source: Source, name: str) -> int:
    """Compute the derived features of one history file anew, write them online, replace the file; return its rows.

    The file comes last, so that it is not up to date before its values are online. Columns that are no longer
    declared stay in it.
    """
    wanted = history.versions(definitions, source)
    schema = history.schema(definitions, source)
    columns = [column for column in schema.names if column not in wanted and column != FAILED]
    table = history.read_files(storage, schema, [name], columns)
    inputs = [*(entity.key for entity in source.entities), *source.columns]
    derived = derive(table, definitions.features[source.name], inputs).table.select(schema.names)
    if source.entity is not None:
        online.write(redis, source, list(wanted), derived)
    former = history.undeclared(storage, schema, name)
    for column in former.column_names:
        derived = derived.append_column(column, former[column])
    history.write(storage, name, derived, wanted)
    return int(table.num_rows)
