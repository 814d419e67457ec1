"""From which ingest time on new rows are added to a group's tiles, and the filling of a new group with earlier rows.

A group's start is an ingest time that no request has. Rows of requests with later ones are added as they come, by
whoever ingests them; rows with earlier ones by `fill`, from the history. So each row is added once, whatever happens
at the same time, and a filling that was killed goes on where it stopped: it takes the rows in the order of their
ingest, a slab at a time, and the group's hash in Redis tells how many tiles of which slab are added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from modelmill.windows import ROWS, TileGroup
from services.feature.aggregates import tile_store
from services.feature.aggregates.tile_batch import tile_batch
from services.feature.intake import journal
from services.feature.intake.validate import EVENT_TIME, TIME
from services.feature.store import history
from services.feature.store.history import INGEST_TIME
from services.feature.store.snapshots import Snapshot
from services.feature.training.spines import of_size

SLAB = 50_000
"""Rows that are added together."""
SCAN = 1000
"""Tiles' hashes that are removed in one step."""

Starts = Mapping[str, int]
"""Group to its start, microseconds since 1970."""


def announce(redis: Redis, groups: Iterable[TileGroup]) -> None:
    """Give each group its start, unless it has one."""
    for group in groups:
        if not redis.hexists(keys.tile_group(group.name), "start"):
            remove(redis, group.name)  # what a process left that had not heard that nothing reads it any more
            redis.hsetnx(keys.tile_group(group.name), "start", journal.tick(redis, group.source))


def start(redis: Redis, group: TileGroup) -> int | None:
    """The start of a group; None where it was never announced, or is gone."""
    found = redis.hget(keys.tile_group(group.name), "start")
    return None if found is None else int(found)


def is_filled(redis: Redis, group: TileGroup) -> bool:
    """Whether all rows from before its start are in the tiles of a group."""
    return bool(redis.hexists(keys.tile_group(group.name), "filled"))


def add_rows(redis: Redis, group: TileGroup, begin: int | None, marker: str, rows: pa.Table, ingested: int) -> None:
    """Add the rows of one request to the tiles of a group, once, unless they are for its filling to add.

    Raises:
        Conflict: where `marker`, the request's journal hash, is gone.
    """
    if begin is None or ingested <= begin:
        return
    if not tile_store.add(
        redis, group, marker, keys.tiles_field(group.name), tile_batch(group, rows, ingested), ingested
    ):
        raise Conflict("the request is no longer in the journal; send it again")


def fill(
    redis: Redis, storage: Storage, definitions: Definitions, group: TileGroup, tell: Callable[[int], None]
) -> None:
    """Add all rows from before the group's start to its tiles, unless that was done; `tell` hears how many are done.

    Raises:
        Conflict: where requests from before the start do not end within `journal.PATIENCE` seconds.
    """
    registered = redis.hgetall(keys.tile_group(group.name))
    if "filled" in registered:
        return
    begin = int(registered["start"])
    _await_earlier(redis, group, begin)
    source = definitions.source(group.source)
    snapshot = Snapshot(storage, history.schema(definitions, source), source.name)
    columns = [group.key, *(column for column, _ in group.dtypes if column != ROWS), EVENT_TIME, INGEST_TIME]
    earlier = pc.field(INGEST_TIME) <= pa.scalar(begin, TIME)
    done = int(registered.get("rows", 0))
    first = 0
    for batch in of_size(snapshot.batches(columns, earlier), SLAB):
        if first >= done:
            _add_slab(redis, group, first, pa.Table.from_batches([batch]), begin)
        first += batch.num_rows
        tell(first)
    with redis.pipeline() as pipe:
        pipe.delete(keys.tile_group(group.name))
        pipe.hset(keys.tile_group(group.name), mapping={"start": begin, "rows": first, "filled": 1})
        pipe.execute()


def restart(redis: Redis, source: str, groups: Collection[TileGroup]) -> None:
    """Empty groups of one source and give them a new start, so that `fill` adds all rows again.

    Meanwhile, for some seconds, the source takes no rows.

    Raises:
        Conflict: where requests that have begun do not end within `journal.PATIENCE` seconds.
    """
    if not groups:
        return
    with journal.paused(redis, source):
        for group in groups:
            remove(redis, group.name)
        announce(redis, groups)


def remove(redis: Redis, group: str) -> None:
    """Remove all tiles of a group that nothing reads any more, a step at a time."""
    redis.delete(keys.tile_group(group))
    step: list[str] = []
    for name in redis.scan_iter(match=keys.tiles(group, "*"), count=SCAN):
        step.append(name)
        if len(step) == SCAN:
            redis.unlink(*step)
            step.clear()
    if step:
        redis.unlink(*step)


def _add_slab(redis: Redis, group: TileGroup, first: int, rows: pa.Table, begin: int) -> None:
    registered = keys.tile_group(group.name)
    # Of its own for each slab: a process that was stopped amid one and wakes up late finds it done, and adds nothing.
    tile_store.add(redis, group, registered, f"slab {first}", tile_batch(group, rows, begin), begin)
    redis.hset(registered, "rows", first + rows.num_rows)


def _await_earlier(redis: Redis, group: TileGroup, begin: int) -> None:
    deadline = time.monotonic() + journal.PATIENCE
    while (oldest := journal.oldest_open(redis, group.source)) is not None and journal.micros(oldest) <= begin:
        if time.monotonic() > deadline:
            raise Conflict(f"requests to {group.source} that began before are still open; apply again later")
        time.sleep(0.1)
