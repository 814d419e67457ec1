"""The definitions that were applied, as Redis keeps them: code runs only if an operator has applied it, or has started
the trainer with it before anything was applied. None is ever dropped: runs name them.

Whoever needs the definitions in force, or those that a version was trained with, takes them from here and not from the
file, which may hold something that is still being applied, or nothing that ever was. With the texts, of the file and of
the modules that it imports, goes the version of each function: whoever runs them and finds another one refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load_code
from modelmill.declare.user_code import UserCode
from modelmill.errors import DefinitionsError, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.times import utc_now

KEPT_LOADED = 32
"""Definitions files that a process keeps loaded."""
MODULE, VERSION = "module.", "version."
"""Before the path of a module, and the name of a function, in what is kept."""


def keep(redis: Redis, definitions: Definitions) -> None:
    """Keep the code of definitions that are being applied.

    Raises:
        DefinitionsError: where it was kept with other versions of its functions.
    """
    require_versions(definitions, versions(redis, definitions.fingerprint))
    fields = {"text": definitions.code.text, "path": str(definitions.path), "applied": utc_now()}
    fields |= {f"{MODULE}{name}": text for name, text in definitions.code.modules.items()}
    fields |= {f"{VERSION}{name}": function.version for name, function in definitions.functions().items()}
    redis.hset(keys.definitions_text(definitions.fingerprint), mapping=fields)


def keep_once(redis: Redis, definitions: Definitions) -> None:
    """Keep the code of definitions that are trained with, unless it is kept already."""
    if not redis.exists(keys.definitions_text(definitions.fingerprint)):
        keep(redis, definitions)


def in_force(redis: Redis) -> Definitions | None:
    """The definitions in force; None before the first were applied."""
    fingerprint = redis.hget(keys.DEFINITIONS, "fingerprint")
    return load(redis, fingerprint) if fingerprint else None


def load(redis: Redis, fingerprint: str) -> Definitions:
    """The definitions with this fingerprint.

    Raises:
        UnknownName: where they were never applied.
        DefinitionsError: where the code cannot be run any more, for instance for lack of a package, or a function has
            become another one.
    """
    kept: dict[str, str] = redis.hgetall(keys.definitions_text(fingerprint))
    if "text" not in kept:
        raise UnknownName("definitions", fingerprint, [])
    definitions = _loaded(kept["text"], kept["path"], tuple(_under(MODULE, kept).items()))
    require_versions(definitions, _under(VERSION, kept))
    return definitions


def versions(redis: Redis, fingerprint: str) -> dict[str, str]:
    """The versions of functions that are kept with definitions; none where these are not."""
    return _under(VERSION, redis.hgetall(keys.definitions_text(fingerprint)))


def require_versions(definitions: Definitions, elsewhere: Mapping[str, str]) -> None:
    """Refuse functions that are other versions in this process than in another one, by the very same texts.

    Raises:
        DefinitionsError: for the first of them.
    """
    for name, function in definitions.functions().items():
        if (other := elsewhere.get(name, function.version)) != function.version:
            raise DefinitionsError(
                function.file,
                function.line,
                f"{function.kind} {function.name!r} is version {function.version} in this process and {other} in"
                " another one, by the same text: it uses a value that is made anew in each, by a time, a random number,"
                " a file, the environment, the order of a set or a package's version; write it down, or sort it",
            )


def _under(prefix: str, kept: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): text for name, text in kept.items() if name.startswith(prefix)}


@lru_cache(maxsize=KEPT_LOADED)
def _loaded(text: str, path: str, modules: tuple[tuple[str, str], ...]) -> Definitions:
    return load_code(UserCode(Path(path), text, dict(modules)))
