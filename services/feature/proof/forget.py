"""Forget an entity: erase all that is stored of it, and keep a receipt that does not say who it was.

The order is chosen so that a forget that is killed anywhere is brought to its end by calling it again, and nothing that
is erased comes back meanwhile:

1. wait until every ingest that had begun has ended, so that no row of it is on its way;
2. with definitions and histories locked, against all who rewrite them: count, and keep the receipt; make the tiles
   anew that hold its rows, as long as the history tells which these are; then erase history, and the online store after
   it, so that nothing that is read from history can bring it online again;
3. quarantine, predictions, statistics, from which nothing is ever restored;
4. the receipt and its event, in one transaction.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Event as Flag

from modelmill.errors import Conflict, InvalidRequest
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from modelmill.times import moment, utc_now
from services.feature.definitions.catalogue import Catalogue
from services.feature.proof import erasure, receipts
from services.feature.proof.erasure import Groups, Target
from services.feature.proof.receipts import Counts, Receipt
from services.feature.store import history, journal, tile_groups
from services.feature.store.backfill import HISTORY_WAIT_SECONDS
from services.feature.store.journal import alone
from services.feature.upkeep.compaction import remove_superseded
from services.feature.upkeep.statistics import StatisticsFiles, folder

log = logging.getLogger(__name__)

INGEST_WAIT_SECONDS = 10.0
"""Seconds to wait for ingests that have begun."""
POLL_SECONDS = 0.05
"""Seconds between two looks at them."""


def forget(
    catalogue: Catalogue,
    files: StatisticsFiles,
    entity: str,
    key: str,
    *,
    by: str = "",
    reason: str = "",
    wait: float = INGEST_WAIT_SECONDS,
) -> Receipt:
    """Erase all that came in until now about the entity with this key; where nothing was left, the former receipt.

    Raises:
        UnknownName: for an undeclared entity.
        InvalidRequest: where `by` or `reason` name the key, which the receipt must not.
        Conflict: where ingests that may hold rows of it have not ended after `wait` seconds, others are applying
            definitions or rewriting the history for longer than `HISTORY_WAIT_SECONDS`, or tiles are not filled yet;
            nothing was erased. Or as `tile_groups.refill`: then only some tiles were made anew.
    """
    redis, definitions = catalogue.redis, catalogue.definitions
    target = Target(definitions.entity(entity), key, _now(redis, definitions.sources))
    for name, text in {"by": by, "reason": reason}.items():
        if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text):
            raise InvalidRequest(f"{name} is {text!r}; expected a text without the key, since the receipt keeps it")
    sources = erasure.sources_about(catalogue.storage, definitions, target.entity)
    _wait_for_ingests(redis, catalogue.storage, sources, target, wait)
    with (
        alone(redis, keys.DEFINITIONS_LOCK, "applying definitions", patience=HISTORY_WAIT_SECONDS),
        _locked(redis, sources) as still_alone,
    ):
        catalogue.refresh()
        groups = {source: catalogue.state.groups.get(source, {}).keys() for source in sources}
        _require_filled(redis, groups)
        fed = erasure.fed(redis, catalogue.storage, groups, target)
        tiles = sum(map(len, [*fed.values(), erasure.former_tiles(redis, target, groups)]))
        counts = _found(catalogue, sources, target, tiles)
        digest = receipts.digest_of(key)
        former = receipts.read(redis, entity, digest)
        if counts.empty and former is not None and former.ended:
            return former
        receipt = Receipt(entity, digest, by, reason, utc_now(), counts).begin(redis)
        for group, entities in fed.items():
            tile_groups.refill(redis, catalogue.storage, group, entities, target.rows, target.entity.key)
        for source in sources:
            _erase_history(catalogue.storage, source, target, still_alone)
        erasure.online_fields(redis, definitions, catalogue.state.computed, target, erase=True)
        remove_tiles(redis, target, groups)
    for source in sources:
        stream = keys.rejected(source)
        erasure.remove_entries(redis, stream, erasure.quarantined(redis, source, target))
        erasure.remove_reasons(redis, source, target)
        files.drop_stale(source)
    erasure.remove_entries(redis, keys.EVENTS_PREDICTIONS, erasure.predictions(redis, target))
    receipt = receipt.end(redis)
    log.info("forgot the %s with digest %s: %s", entity, digest[:8], receipt.counts)
    return receipt


def remove_tiles(redis: Redis, target: Target, groups: Groups) -> None:
    """Remove the tiles of the entity's own aggregates of former declarations; those of these groups were made anew."""
    if found := erasure.former_tiles(redis, target, groups):
        redis.unlink(*found)


def _now(redis: Redis, sources: Iterable[str]) -> datetime:
    """A moment that is after every ingest time that was given out."""
    seconds, microseconds = redis.time()
    clocks = [int(redis.get(keys.ingest_clock(source)) or 0) for source in sources]
    return moment(max(seconds * 1_000_000 + microseconds, *clocks, 0))


def _wait_for_ingests(redis: Redis, storage: Storage, sources: Sequence[str], target: Target, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for source in sources:
        while open_ones := _open_ingests(redis, storage, source, target):
            if time.monotonic() > deadline:
                raise Conflict(
                    f"{open_ones} ingests into source {source!r} that have begun may hold rows of this"
                    f" {target.entity.name} and have not ended; nothing was erased, try again later"
                )
            Flag().wait(POLL_SECONDS)


def _open_ingests(redis: Redis, storage: Storage, source: str, target: Target) -> int:
    """How many ingests go on that began before and may hold rows of the entity: those in the history tell."""
    count = 0
    for entry in journal.open_entries(redis, source, older_than=-1):
        if entry.ingested <= target.until:
            name = history.holding(storage, source, entry.ingested)
            count += name is None or erasure.rows_in(storage, name, target) > 0
    return count


def _require_filled(redis: Redis, groups: Groups) -> None:
    """Raise `Conflict` where tiles are being filled, or that was killed: a filling counts the rows that it has done."""
    for source, of_source in groups.items():
        if not all(tile_groups.is_filled(redis, group) for group in of_source):
            raise Conflict(
                f"the tiles of aggregates of source {source!r} are not filled yet; try again later, and where that was"
                " killed, apply the definitions or rebuild the online store first"
            )


@contextmanager
def _locked(redis: Redis, sources: Sequence[str]) -> Iterator[Callable[[], bool]]:
    """Hold the locks of all these histories; yields what says whether they are still held."""
    with ExitStack() as stack:
        held = [
            stack.enter_context(
                alone(redis, keys.history_lock(name), f"rewriting {name}", patience=HISTORY_WAIT_SECONDS)
            )
            for name in sorted(sources)  # all in one order, so that nobody waits in a circle
        ]
        yield lambda: all(one() for one in held)


def _found(catalogue: Catalogue, sources: Sequence[str], target: Target, tiles: int) -> Counts:
    """What there is of the entity now."""
    redis, storage = catalogue.redis, catalogue.storage
    rows: dict[str, int] = {}
    files: dict[str, int] = {}
    quarantined: dict[str, int] = {}
    for source in sources:
        remove_superseded(storage, source)
        in_files = [erasure.rows_in(storage, name, target) for name in history.names(storage, source)]
        rows[source], files[source] = sum(in_files), sum(count > 0 for count in in_files)
        quarantined[source] = sum(1 for _ in erasure.quarantined(redis, source, target))
    return Counts(
        rows=_positive(rows),
        files=_positive(files),
        quarantined=_positive(quarantined),
        fields=erasure.online_fields(redis, catalogue.definitions, catalogue.state.computed, target, erase=False),
        tiles=tiles,
        predictions=sum(1 for _ in erasure.predictions(redis, target)),
    )


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _erase_history(storage: Storage, source: str, target: Target, still_alone: Callable[[], bool]) -> None:
    for name in history.names(storage, source):
        if erasure.rows_in(storage, name, target):
            erasure.rewrite(storage, name, target, still_alone)
    # What is half written and older was left by processes that were killed: all ingests of that time have ended.
    for place in (history.folder(source), folder(source)):
        storage.remove_temporary(place, target.until.astimezone(UTC))
