"""The definitions in force in this process: loaded at the start, and again when they are applied."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event as Flag

from modelmill import bus, keys
from modelmill.connections import Redis
from modelmill.definitions import Definitions, load
from modelmill.errors import DefinitionsError
from modelmill.events import DefinitionsApplied

log = logging.getLogger(__name__)


class Recipes:
    """`definitions` is replaced as a whole; a file with a mistake leaves the former ones in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.definitions: Definitions = load(path)

    def follow(self, redis: Redis, position: str, stop: Flag) -> None:
        """Load the file again whenever it has been applied; runs until `stop` is set."""
        for entries in bus.follow(redis, keys.EVENTS_FEATURES, position, stop):
            applied = [event for _, event in entries if isinstance(event, DefinitionsApplied)]
            if applied and applied[-1].fingerprint != self.definitions.fingerprint:
                self._reload()

    def _reload(self) -> None:
        try:
            self.definitions = load(self.path)
            log.info("definitions %s are in force", self.definitions.fingerprint[:12])
        except DefinitionsError as error:
            log.error("the former definitions stay in force: %s", error)
