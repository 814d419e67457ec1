"""What runs that ended without a version have left in the storage: their packages, what the workers of a search shared,
and files that were never finished.

A process that was killed cleans nothing up, and one that was stopped and woke late may write a file after its run was
closed. So it is looked for again and again.
"""

from __future__ import annotations

import logging
import posixpath
from datetime import UTC, datetime, timedelta

from modelmill.packages import package
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.training import sharing

log = logging.getLogger(__name__)

PACKAGES = posixpath.dirname(posixpath.dirname(package.location("model", "run")))
RUNS = "runs"
UNSUCCESSFUL = ("failed", "cancelled", "lost")
UNFINISHED = timedelta(minutes=30)
"""Age at which an unfinished file belongs to nobody any more: none takes so long to write."""


def sweep(registry: Registry, storage: Storage) -> None:
    """Remove the packages of ended runs that have no version, and files that were never finished."""
    for folder in _orphans(registry, _packages(storage)):
        storage.files.rm(storage.path(folder), recursive=True)
        log.warning("removed %s: its run ended without a version", folder)
    sharing.sweep(storage, registry)
    before = datetime.now(UTC) - UNFINISHED
    for folder in (PACKAGES, RUNS):
        if removed := storage.remove_temporary(folder, before):
            log.warning("removed %d files below %s that were never finished", removed, folder)


def _packages(storage: Storage) -> list[str]:
    """The folders of all packages."""
    root = storage.path(PACKAGES)
    if not storage.files.exists(root):
        return []
    storage.files.invalidate_cache(root)
    found = storage.files.find(root, maxdepth=2, withdirs=True)
    names = (str(path)[len(storage.root) + 1 :] for path in found)
    return sorted(name for name in names if name.count("/") == 2 and storage.files.isdir(storage.path(name)))


def _orphans(registry: Registry, folders: list[str]) -> list[str]:
    """The folders of runs that have ended without a version; of what is no run we know nothing."""
    with registry.redis.pipeline(transaction=False) as pipe:
        for folder in folders:
            pipe.hmget(keys.run(posixpath.basename(folder)), "status", "version")
        found = zip(folders, pipe.execute(), strict=True)
    return [folder for folder, (status, version) in found if status in UNSUCCESSFUL and not version]
