"""What people say of versions and runs: tags, one value each, and notes, which are only ever added.

They are fields beside those that were recorded, `tags.stage` and `notes.2026-11-25T12:00:00.000000Z`, so that
`redis-cli HGETALL run:...` shows them and nothing that was recorded is ever written again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from redis.client import Pipeline

from modelmill import keys
from modelmill.connections import Redis
from modelmill.errors import InvalidRequest, NotFound
from modelmill.events import utc_now
from modelmill.runs import write_fields

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
MOST = 100
"""Tags, and notes, of one version or run."""


class Remarks:
    """Writes tags and notes in `redis` (a client that decodes to text); they are read with what they are about."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def tag_version(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Give a version these tags; an empty value takes the tag away.

        Raises:
            NotFound: for a version that does not exist.
            InvalidRequest: for a name that cannot be one, or more than `MOST` tags.
        """
        self._tag(_version(model, version), tags)

    def tag_run(self, run: str, tags: Mapping[str, str]) -> None:
        """Give a run these tags; an empty value takes the tag away.

        Raises:
            NotFound, InvalidRequest: as `tag_version` does.
        """
        self._tag(_run(run), tags)

    def note_version(self, model: str, version: int, text: str, *, by: str) -> None:
        """Add a note to a version.

        Raises:
            NotFound: for a version that does not exist.
            InvalidRequest: where it has `MOST` notes.
        """
        self._note(_version(model, version), text, by)

    def note_run(self, run: str, text: str, *, by: str) -> None:
        """Add a note to a run.

        Raises:
            NotFound, InvalidRequest: as `note_version` does.
        """
        self._note(_run(run), text, by)

    def _tag(self, of: _Subject, tags: Mapping[str, str]) -> None:
        for tag in tags:
            if not NAME.fullmatch(tag):
                raise InvalidRequest(
                    f"tag {tag!r}: expected letters, digits, _, . and -, not starting with a digit, at most 100"
                )

        def change(pipe: Pipeline) -> None:
            present = {field for field in _known(pipe, of) if field.startswith("tags.")}
            given = {f"tags.{tag}": value for tag, value in tags.items() if value}
            gone = [f"tags.{tag}" for tag, value in tags.items() if not value]
            _require_room(of, "tags", len((present | given.keys()) - set(gone)))
            pipe.multi()
            of.write(pipe, given, gone)

        self.redis.transaction(change, of.key)

    def _note(self, of: _Subject, text: str, by: str) -> None:
        def change(pipe: Pipeline) -> None:
            present = [field for field in _known(pipe, of) if field.startswith("notes.")]
            _require_room(of, "notes", len(present) + 1)
            pipe.multi()
            of.write(pipe, {f"notes.{utc_now()}": f"{by}: {text}" if by else text}, ())

        self.redis.transaction(change, of.key)


@dataclass(frozen=True)
class _Subject:
    """What is remarked on."""

    kind: str
    name: str
    key: str
    write: Callable[[Pipeline, Mapping[str, str], Collection[str]], None]
    """Writes fields and takes others away, on a pipeline that is in MULTI."""


def _version(model: str, version: int) -> _Subject:
    key = keys.version(model, version)

    def write(pipe: Pipeline, fields: Mapping[str, str], gone: Collection[str]) -> None:
        if fields:
            pipe.hset(key, mapping=fields)
        if gone:
            pipe.hdel(key, *gone)

    return _Subject("version", f"{model}@{version}", key, write)


def _run(run: str) -> _Subject:
    return _Subject("run", run, keys.run(run), lambda pipe, fields, gone: write_fields(pipe, run, fields, gone))


def _known(pipe: Pipeline, of: _Subject) -> list[str]:
    """The fields of the version or run; `pipe` watches its key."""
    fields: list[str] = pipe.hkeys(of.key)
    if not fields:
        raise NotFound(f"{of.kind} {of.name!r} is not known", **{of.kind: of.name})
    return fields


def _require_room(of: _Subject, what: str, count: int) -> None:
    if count > MOST:
        raise InvalidRequest(f"{of.kind} {of.name} would have {count} {what}; at most {MOST} are kept")
