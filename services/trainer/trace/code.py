"""The code that a run was made by, kept beside the run: the definitions file, and what it imports of the user's own.

So a work tree that nobody committed can be repeated, too, and Redis may lose it. Installed packages are not kept; their
versions are recorded.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

from modelmill.declare import applied
from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load, load_code
from modelmill.declare.user_code import OURS, UserCode, imports, sha256
from modelmill.errors import Conflict, UnknownName
from modelmill.state.connections import Redis
from modelmill.state.runs import Run, code_file, modules_folder
from modelmill.storage import Storage
from services.trainer.jobs.run_record import package_versions


@dataclass(frozen=True)
class Surroundings:
    """What a run was made with beside its definitions; the names are those of `Run`."""

    modules: dict[str, str]
    packages: dict[str, str]
    machine: str


def surroundings(definitions: Definitions) -> Surroundings:
    """What a run would be made with now."""
    return Surroundings(
        {name: sha256(text) for name, text in definitions.code.modules.items()},
        package_versions() | imported_versions(definitions.code),
        machine(),
    )


def keep(redis: Redis, storage: Storage, run: Run, definitions: Definitions) -> None:
    """Keep the code of `run` under its fingerprint in Redis and beside the run in the storage."""
    applied.keep_once(redis, definitions)
    storage.write(code_file(run.model, run.id), definitions.code.text.encode())
    for name, text in definitions.code.modules.items():
        storage.write(f"{modules_folder(run.model, run.id)}/{name}", text.encode())


def to_work_by(redis: Redis, path: Path) -> Definitions:
    """The definitions in force, or those at `path` before any were applied, for a process that works by no others.

    Raises:
        DefinitionsError: where they cannot be run.
    """
    definitions = applied.in_force(redis) or load(path)
    applied.keep_once(redis, definitions)
    definitions.code.install()
    return definitions


def recorded(redis: Redis, storage: Storage, run: Run, path: Path) -> Definitions:
    """The definitions that a run was made by, for a process that works by no others.

    Into Redis, where they lack, they come back from the storage.

    Raises:
        Conflict: where they are in neither place, or the file is not what it was.
        DefinitionsError: where they cannot be run any more, for instance for lack of a package.
    """
    try:
        definitions = applied.load(redis, run.definitions)
    except UnknownName:
        definitions = load_code(_stored(storage, run, path))
        applied.keep_once(redis, definitions)
    definitions.code.install()
    return definitions


def _stored(storage: Storage, run: Run, path: Path) -> UserCode:
    name, folder = code_file(run.model, run.id), modules_folder(run.model, run.id)
    try:
        modules = {module: storage.read(f"{folder}/{module}").decode() for module in run.modules}
        code = UserCode(path, storage.read(name).decode(), modules)
    except FileNotFoundError as error:
        raise Conflict(f"the code of run {run.id} is kept no more: there is no {error}", run=run.id) from None
    if code.fingerprint != run.definitions:
        what = f"{name} or a module beside it" if modules else name
        raise Conflict(f"{what} differs from the SHA-256 that run {run.id} has recorded", run=run.id)
    return code


def machine() -> str:
    """The machine as a run records it: numbers may be added up in another order on another one."""
    threads = {str(one["user_api"]): int(one["num_threads"]) for one in threadpool_info()}
    used = ", ".join(f"{count} {api}" for api, count in sorted(threads.items()))
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, threads: {used or 1}"


def imported_versions(code: UserCode) -> dict[str, str]:
    """Installed packages that the user's code imports by their own names, to their versions."""
    found = {}
    imported = {name.partition(".")[0] for text in (code.text, *code.modules.values()) for name in imports(text, "")}
    for name in sorted(imported - set(OURS)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # part of Python, the user's own, or installed under another name
            continue
    return found
