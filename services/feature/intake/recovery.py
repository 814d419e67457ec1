"""Bring ingest requests to their end that were begun and left: their sender gave up, or their service was killed."""

from __future__ import annotations

import logging
from threading import Event as Flag

from modelmill.state.connections import AWAY
from services.feature.definitions.catalogue import Catalogue
from services.feature.intake import journal
from services.feature.intake.ingest import finish
from services.feature.store import history

log = logging.getLogger(__name__)

ABANDONED = 30.0
"""Seconds after its begin from which a request is taken for abandoned; harmless if it is not."""
PACE = 5.0
"""Seconds between two looks."""


def watch(catalogue: Catalogue, stop: Flag) -> None:
    """Look for abandoned requests until `stop` is set."""
    while not stop.wait(PACE):
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
