"""Old versions leave the storage: packages, and files of runs. Records, and so numbers, stay, and so does the code."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from modelmill.declare.declarations import KEEP
from modelmill.state import keys
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import code_file, folder, modules_folder
from modelmill.storage import Storage

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
        leaving = self.registry.leaving(model)
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
            self.registry.left(version, size)
        return Removal(version.version, version.run, size)

    def _files(self, version: Version) -> dict[str, int]:
        """Bytes of each file of its run that goes: all but the code, by which the run can be traced and repeated."""
        code = code_file(version.model, version.run), f"{modules_folder(version.model, version.run)}/"
        found = self.storage.sizes(folder(version.model, version.run))
        return {name: size for name, size in found.items() if not name.startswith(code)}
