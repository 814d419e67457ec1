"""Models: what is known of each, how people move their aliases, and which old versions leave the storage."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from modelmill.declare import splits
from modelmill.declare.declarations import KEEP
from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict, GatesFailed, InvalidRequest, UnknownName
from modelmill.packages import package
from modelmill.state import keys
from modelmill.state.registry import CHAMPION, AliasMove, Registry, Version
from modelmill.state.runs import code_file, folder, modules_folder
from modelmill.storage import Storage

MAX_MOVES = 100
"""Moves of aliases that are shown with a model."""


class Overview:
    """The registry beside the definitions."""

    def __init__(self, registry: Registry, storage: Storage) -> None:
        self.registry = registry
        self.storage = storage

    def models(self, definitions: Definitions) -> list[dict[str, Any]]:
        """Every model in brief: policy and schedules where it is declared, aliases and newest version."""
        return [self._brief(definitions, name) for name in self._names(definitions)]

    def model(self, definitions: Definitions, name: str) -> dict[str, Any]:
        """All about a model: its recipe, its newest versions, aliases and their newest moves.

        Raises:
            UnknownName: for a model that is neither declared nor trained.
        """
        self.require(definitions, name)
        recipe = definitions.models.get(name)
        return {
            **self._brief(definitions, name),
            "label": recipe.label if recipe else None,
            "entities": [entity.name for entity in recipe.entities] if recipe else [],
            "features": list(recipe.features) if recipe else [],
            "inputs": list(recipe.inputs) if recipe else [],
            "metrics": [metric.name for metric in recipe.metrics] if recipe else [],
            "segments": list(recipe.segments) if recipe else [],
            "description": recipe.about.description if recipe else "",
            "owner": recipe.about.owner if recipe else "",
            "tags": list(recipe.about.tags) if recipe else [],
            "limits": recipe.limits if recipe else "",
            "split": splits.described(recipe.split) if recipe else "",
            "search": str(recipe.search) if recipe else "",
            "versions": [asdict(version) for version in self.registry.versions(name)],
            "history": [asdict(move) for move in self.registry.history(name)[-MAX_MOVES:]],
        }

    def require(self, definitions: Definitions, name: str) -> None:
        """Raise `UnknownName` for a model that is neither declared nor trained."""
        names = self._names(definitions)
        if name not in names:
            raise UnknownName("model", name, names)

    def _names(self, definitions: Definitions) -> list[str]:
        return sorted({*definitions.models, *self.registry.models()})

    def _brief(self, definitions: Definitions, name: str) -> dict[str, Any]:
        recipe = definitions.models.get(name)
        newest = self.registry.versions(name, limit=1)
        return {
            "name": name,
            "declared": recipe is not None,
            "metric": recipe.metric if recipe else None,
            "promote": recipe.promote if recipe else None,
            "gates": [str(gate) for gate in recipe.gates] if recipe else [],
            "train": [str(schedule) for schedule in recipe.train] if recipe else [],
            "aliases": self.registry.aliases(name),
            "latest": newest[0].version if newest else None,
        }


# --- moves of aliases as people ask for them: what must not go live is refused, with the reason and the way out


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


# --- old versions leave the storage: packages, and files of runs. Records, and so numbers, stay, and so does the code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """A version that goes."""

    version: int
    run: str
    bytes: int
    """What goes of its package and its run's files takes in the storage."""


@dataclass(frozen=True)
class Pruning:
    """What was pruned, or would be."""

    model: str
    keep: int
    dry_run: bool
    removed: list[Removal]
    kept: dict[str, str] = field(default_factory=dict)
    """Version to why it stays."""

    @property
    def bytes(self) -> int:
        """What all that goes takes together."""
        return sum(removal.bytes for removal in self.removed)


class Retention:
    """Prunes versions of `registry` from `storage`."""

    def __init__(self, registry: Registry, storage: Storage) -> None:
        self.registry = registry
        self.storage = storage

    def prune(self, model: str, keep: int = KEEP, *, by: str, dry_run: bool = False) -> Pruning:
        """Remove the files of all versions that are not to be kept, those of an interrupted pruning included.

        Raises:
            UnknownName: for an unknown model.
        """
        plan = self.registry.prune(model, keep, self._needed(model), by=by, dry_run=dry_run)
        leaving = self.registry.pruned_with_files(model)
        if dry_run:
            leaving += [self.registry.version(model, number) for number in plan.pruned]
        removed = [self._remove(version, dry_run=dry_run) for version in leaving]
        return Pruning(model, keep, dry_run, removed, {str(number): why for number, why in plan.kept.items()})

    def after_registration(self, model: str, keep: int) -> None:
        """Prune after a new version; whatever fails is tried again after the next one."""
        try:
            if self.registry.stored(model) > keep:
                self.prune(model, keep, by="trainer")
        except Exception as error:
            log.warning("cannot prune %s, trying after its next version: %s", model, error)

    def _needed(self, model: str) -> dict[int, str]:
        """Versions whose answers the monitor still counts: where one is asked about, it can still be explained."""
        windows = self.registry.redis.zrange(keys.monitor_minutes(model), 0, -1)
        answered = {int(window.partition(":")[0]) for window in windows}
        return dict.fromkeys(answered, "the monitor keeps windows of its predictions")

    def _remove(self, version: Version, *, dry_run: bool) -> Removal:
        package = self.storage.sizes(version.package) if version.package else {}
        files = self._files(version) if version.run else {}
        size = sum(package.values()) + sum(files.values())
        if not dry_run:
            if package:
                self.storage.remove_folder(version.package)
            for name in files:
                self.storage.remove(name)
            self.registry.record_removed(version, size)
        return Removal(version.version, version.run, size)

    def _files(self, version: Version) -> dict[str, int]:
        """Bytes of each file of its run that goes: all but the code, by which the run can be traced and repeated."""
        code = code_file(version.model, version.run), f"{modules_folder(version.model, version.run)}/"
        found = self.storage.sizes(folder(version.model, version.run))
        return {name: size for name, size in found.items() if not name.startswith(code)}
