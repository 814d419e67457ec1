"""The definitions in force in this process: loaded at the start, and again when they are applied."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event as Flag

from modelmill.declare import applied
from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.errors import ModelmillError
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, Redis
from modelmill.state.events import DefinitionsApplied

log = logging.getLogger(__name__)


class Recipes:
    """`definitions` is replaced as a whole; the file at `path` is read only as long as none was ever applied."""

    def __init__(self, redis: Redis, path: Path) -> None:
        self.redis = redis
        self.definitions: Definitions = applied.in_force(redis) or load(path)

    def follow(self, position: str, stop: Flag) -> None:
        """Take over what is applied; runs until `stop` is set."""
        for entries in bus.follow(self.redis, keys.EVENTS_FEATURES, position, stop):
            if any(isinstance(event, DefinitionsApplied) for _, event in entries):
                self._reload()

    def _reload(self) -> None:
        try:
            self.definitions = applied.in_force(self.redis) or self.definitions
            log.info("definitions %s are in force", self.definitions.fingerprint[:12])
        except (*AWAY, ModelmillError) as error:
            log.error("the former definitions stay in force: %s", error)
