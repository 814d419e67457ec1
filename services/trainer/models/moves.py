"""Moves of aliases as people ask for them: what must not go live is refused, with the reason and the way out."""

from __future__ import annotations

from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict, GatesFailed, InvalidRequest
from modelmill.packages import package
from modelmill.state.registry import CHAMPION, AliasMove, Registry, Version
from modelmill.storage import Storage


class Moves:
    """Promotes, rolls back and deletes, in `registry`, what is whole in `storage`."""

    def __init__(self, registry: Registry, storage: Storage) -> None:
        self.registry = registry
        self.storage = storage

    def promote(
        self, model: str, version: int, *, alias: str, by: str, reason: str, expected: int | None, force: bool
    ) -> AliasMove:
        """Let `alias` name a version, whose package is read first, so that no broken one is ever served.

        Raises:
            UnknownName: for a version that does not exist.
            Pruned, PackageError: for one whose package is gone or broken.
            GatesFailed: for one that failed a gate and is to be champion, unless `force`.
            InvalidRequest: for `force` without a reason.
            AliasMoved: where the alias names another version than the expected one.
        """
        if force and not reason.strip():
            raise InvalidRequest("field 'force' is true without a 'reason'; say why the gates are overruled")
        found = self.registry.version(model, version)
        failed = found.failed if alias == CHAMPION else {}
        if failed and not force:
            raise GatesFailed(model, version, failed)
        self._require_whole(found)
        return self.registry.promote(
            model, version, alias=alias, by=by, reason=reason, expected=expected, forced=list(failed)
        )

    def rollback(
        self,
        definitions: Definitions,
        model: str,
        *,
        alias: str,
        by: str,
        reason: str,
        to: int | None,
        expected: int | None,
        force: bool,
    ) -> AliasMove:
        """Let `alias` name the version before, or `to`, whose package is read first.

        Raises:
            Conflict: where there is no such version; or where, without `force`, what it is served from is not stored.
            Pruned, PackageError: where its package is gone or broken.
            AliasMoved: where the alias names another version than the expected one.
        """
        stack = self.registry.stacks(model).get(alias, [])
        target = to if to is not None else stack[-2] if len(stack) > 1 else None
        if target in stack[:-1]:
            assert target is not None
            found = self.registry.version(model, target)
            self._require_whole(found)
            gone = self._not_stored(definitions, found)
            if gone and alias == CHAMPION and not force:
                raise Conflict(
                    f"{model!r} version {target} is served from {', '.join(gone)}, which the feature store does not"
                    " hold any more; it computes them again once the version is live, and until then requests for it"
                    " fail. Force the rollback if that is what you want",
                    model=model,
                    version=target,
                    gone=gone,
                )
        return self.registry.rollback(model, alias=alias, by=by, reason=reason, to=to, expected=expected)

    def _require_whole(self, version: Version) -> None:
        version.require_package()
        package.read(self.storage, version.package)

    def _not_stored(self, definitions: Definitions, version: Version) -> list[str]:
        """What a version is served from and neither the definitions nor any live version keeps up to date."""
        known = {f"{name}.{field}" for name in definitions.sources for field in definitions.derived(name)} | {
            f"{name}.{group.name}"
            for name, source in definitions.sources.items()
            for group in definitions.tile_groups(source)
        }
        known |= {field for live in self.registry.live_versions() for field in live.fields}
        return [field for field in version.fields if "@" in field and field not in known]
