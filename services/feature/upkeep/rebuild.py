"""Restore the online store from history: emptied, or damaged, it holds afterwards what it held before.

In the background, a history file at a time. An older row never overwrites a newer one, so rows may come in meanwhile,
and what is done twice changes nothing. How far it is stands in Redis: killed anywhere, it goes on from there when the
service starts or when it is asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Event as Flag
from threading import Thread

import pyarrow as pa

from modelmill.declare.declarations import Feature, Source
from modelmill.errors import Conflict, ModelmillError
from modelmill.state import keys
from modelmill.state.connections import AWAY, Redis
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.feature.definitions.catalogue import Catalogue
from services.feature.intake.ingest import finish
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME
from services.feature.store import history, journal, online, tile_groups
from services.feature.store.backfill import HISTORY_WAIT_SECONDS
from services.feature.store.history import FileSpan
from services.feature.store.journal import LEASE_SECONDS, alone

log = logging.getLogger(__name__)

RUNNING = "running"
COUNTS = ("rows", "total")
OF_THE_DEAD = 1.5 * LEASE_SECONDS
"""Seconds in which the lock of a process that was killed has expired."""


def begin(catalogue: Catalogue, entity: str | None = None) -> dict[str, str | int]:
    """Start a rebuild of one entity, or of all, in the background and return its state; one that was killed goes on.

    Raises:
        UnknownName: for an undeclared entity.
        Conflict: where one is running.
    """
    if entity is not None:
        catalogue.definitions.entity(entity)
    redis = catalogue.redis
    if redis.exists(keys.REBUILD_LOCK):
        raise Conflict("others are rebuilding the online store at this moment; GET /rebuild tells how far they are")
    before = read(redis)
    if before.get("state") != RUNNING or before["entity"] != (entity or ""):
        _record_begin(redis, entity or "")
    Thread(target=resume, args=(catalogue, 0.0), name="rebuild", daemon=True).start()
    return read(redis)


def resume(catalogue: Catalogue, patience: float = OF_THE_DEAD) -> None:
    """Go on with a rebuild that has begun and not ended, if nobody else does; a failure is told by `read`."""
    try:
        if catalogue.redis.hget(keys.REBUILD, "state") == RUNNING:
            rebuild(catalogue, patience=patience)
    except Conflict as error:
        log.info("%s", error)
    except (ModelmillError, *AWAY) as error:
        log.error("the online store is not rebuilt: %s", error)
    except Exception:
        log.exception("the online store is not rebuilt")


def rebuild(catalogue: Catalogue, *, patience: float = 0.0) -> None:
    """Do what is left of the rebuild that was begun last.

    Raises:
        Conflict: where others do it for longer than `patience` seconds, or are rewriting the history for longer than
            `HISTORY_WAIT_SECONDS`.
    """
    redis = catalogue.redis
    with alone(redis, keys.REBUILD_LOCK, "rebuilding the online store", patience=patience):
        state = redis.hgetall(keys.REBUILD)
        if state.get("state") != RUNNING:
            return
        try:
            for source in _sources(catalogue, state["entity"]):
                _restore(catalogue, source, state.get(_position(source), ""))
            for source in catalogue.definitions.sources.values():
                _refill(catalogue, source, state["entity"], state)
        except Exception as error:
            redis.hset(keys.REBUILD, mapping={"state": "failed", "error": str(error), "ended": utc_now()})
            raise
        redis.hset(keys.REBUILD, mapping={"state": "done", "ended": utc_now()})


def read(redis: Redis) -> dict[str, str | int]:
    """The last rebuild: state (running, done or failed), rows done and in all, times, error."""
    found: dict[str, str] = redis.hgetall(keys.REBUILD)
    return {
        name: int(text) if name in COUNTS else text for name, text in found.items() if not name.startswith("position.")
    }


def restore_rows(redis: Redis, source: Source, computed: Mapping[str, Feature], table: pa.Table) -> None:
    """Put online what rows of history, with all their columns, say of entities: values of the newest of each."""
    if source.entity is not None:
        stored = [name for name in table.column_names if name in source.columns or name in computed]
        beside = [source.entity.key, EVENT_TIME, history.INGEST_TIME, FAILED]
        fields = dict.fromkeys([*stored, *source.columns])
        online.write(redis, source, list(fields), table.select([*beside, *stored]))


def _record_begin(redis: Redis, entity: str) -> None:
    begun = {"state": RUNNING, "entity": entity, "started": utc_now(), "ended": "", "error": "", "rows": 0, "total": 0}
    with redis.pipeline() as pipe:
        pipe.delete(keys.REBUILD)
        pipe.hset(keys.REBUILD, mapping=begun)
        pipe.execute()


def _sources(catalogue: Catalogue, entity: str) -> list[Source]:
    """The sources that say something online about the entity, or about any."""
    sources = catalogue.definitions.sources.values()
    return [source for source in sources if source.entity is not None and entity in ("", source.entity.name)]


def _position(source: Source) -> str:
    """Field of the state: the last ingest time of a source that is online again."""
    return f"position.{source.name}"


def _restore(catalogue: Catalogue, source: Source, position: str) -> None:
    redis, storage = catalogue.redis, catalogue.storage
    if not position:
        total = history.reading(storage, source.name, lambda names: sum(history.count_rows(storage, n) for n in names))
        redis.hincrby(keys.REBUILD, "total", total)
    while (name := _next(storage, source, position)) is not None:
        # Rows that are erased meanwhile must not come online after that: erasing takes the same lock.
        with alone(redis, keys.history_lock(source.name), f"rewriting {source.name}", patience=HISTORY_WAIT_SECONDS):
            try:
                table = history.read_whole(storage, name)
            except FileNotFoundError:  # compacted or emptied meanwhile
                continue
            restore_rows(redis, source, catalogue.state.computed[source.name], table)
        position = FileSpan.of(name).last
        with redis.pipeline() as pipe:
            pipe.hset(keys.REBUILD, _position(source), position)
            pipe.hincrby(keys.REBUILD, "rows", table.num_rows)
            pipe.execute()


def _refill(catalogue: Catalogue, source: Source, entity: str, state: Mapping[str, str]) -> None:
    """Empty the tiles of a source's aggregates and fill them again; where that was killed, go on filling."""
    groups = [g for g in catalogue.state.groups.get(source.name, {}) if entity in ("", g.entity)]
    field = f"position.tiles.{source.name}"
    redis = catalogue.redis
    if groups and field not in state:
        # Who erases rows holds the same lock, and erases none while groups are not filled: they would come back here.
        with alone(redis, keys.history_lock(source.name), f"rewriting {source.name}", patience=HISTORY_WAIT_SECONDS):
            tile_groups.restart(redis, source.name, groups)
        redis.hset(keys.REBUILD, field, "emptied")
    for group in groups:
        tile_groups.fill(redis, catalogue.storage, group, lambda _: None)


def _next(storage: Storage, source: Source, position: str) -> str | None:
    """The first file with rows that came in after `position`, at the moment."""
    for name in history.names(storage, source.name):
        if FileSpan.of(name).last > position:
            return name
    return None


# --- bring ingest requests to their end that were begun and left: their sender gave up, or their service was killed.

ABANDONED = 30.0
"""Seconds after its begin from which a request is taken for abandoned; harmless if it is not."""
RECOVERY_SECONDS = 5.0
"""Seconds between two looks."""


def watch(catalogue: Catalogue, stop: Flag) -> None:
    """Look for abandoned requests until `stop` is set."""
    while not stop.wait(RECOVERY_SECONDS):
        try:
            recover(catalogue)
        except AWAY:
            continue
        except Exception:
            log.exception("cannot finish abandoned ingest requests, trying again")


def recover(catalogue: Catalogue, *, older_than: float = ABANDONED) -> int:
    """Finish the requests whose rows are in the history, and drop those of which nothing is; return how many."""
    redis, storage, state = catalogue.redis, catalogue.storage, catalogue.state
    done = 0
    for source in state.definitions.sources.values():
        for entry in journal.open_entries(redis, source.name, older_than=older_than):
            name = history.holding(storage, source.name, entry.ingested)
            if name is None:
                journal.drop(redis, entry)
            else:
                finish(catalogue, state, source, entry, name, history.rows_of(storage, name, entry.ingested))
            done += 1
            log.warning("%s a request to %s that was left", "dropped" if name is None else "finished", source.name)
    return done
