"""The definitions files that were applied, as Redis keeps them: code runs only if an operator has applied it.

Whoever needs the definitions in force, or those that a version was trained with, takes them from here and not from the
file, which may hold something that is still being applied, or nothing that ever was.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from redis.client import Pipeline

from modelmill import keys
from modelmill.connections import Redis
from modelmill.definitions import Definitions
from modelmill.definitions_file import load_text
from modelmill.errors import UnknownName
from modelmill.events import utc_now

KEPT_LOADED = 32
"""Definitions files that a process keeps loaded."""


def keep(pipe: Redis | Pipeline, definitions: Definitions) -> None:
    """Keep the text of a file that is being applied."""
    fields = {"text": definitions.text, "path": str(definitions.path), "applied": utc_now()}
    pipe.hset(keys.definitions_text(definitions.fingerprint), mapping=fields)


def in_force(redis: Redis) -> Definitions | None:
    """The definitions in force; None before the first were applied."""
    fingerprint = redis.hget(keys.DEFINITIONS, "fingerprint")
    return load(redis, fingerprint) if fingerprint else None


def load(redis: Redis, fingerprint: str) -> Definitions:
    """The definitions with this fingerprint.

    Raises:
        UnknownName: where they were never applied.
        DefinitionsError: where the text cannot be run any more, for instance for lack of a package.
    """
    text, path = redis.hmget(keys.definitions_text(fingerprint), "text", "path")
    if text is None:
        raise UnknownName("definitions", fingerprint, [])
    return _loaded(text, path)


@lru_cache(maxsize=KEPT_LOADED)
def _loaded(text: str, path: str) -> Definitions:
    return load_text(Path(path), text.encode())
