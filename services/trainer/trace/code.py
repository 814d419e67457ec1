"""The code that a run was made by, kept beside the run: the definitions file, and what it imports of the user's own.

So a work tree that nobody committed can be repeated, too. Installed packages are not kept; their versions are recorded.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from threadpoolctl import threadpool_info

from modelmill import applied
from modelmill.connections import Redis
from modelmill.definitions import Definitions
from modelmill.definitions_file import load_text
from modelmill.errors import Conflict, UnknownName
from modelmill.runs import Run, code_file, modules_folder
from modelmill.storage import Storage
from services.trainer.jobs.run_record import package_versions

OURS = ("modelmill", "services")
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@dataclass(frozen=True)
class Surroundings:
    """What a run was made with beside its definitions; the names are those of `Run`."""

    modules: dict[str, str]
    packages: dict[str, str]
    machine: str


def surroundings(definitions: Definitions) -> Surroundings:
    """What a run would be made with now."""
    return Surroundings(
        {name: hashlib.sha256(content).hexdigest() for name, content in own_modules(definitions.text).items()},
        package_versions() | imported_versions(definitions.text),
        machine(),
    )


def keep(redis: Redis, storage: Storage, run: Run, definitions: Definitions) -> None:
    """Keep the code of `run` under its fingerprint in Redis and beside the run in the storage."""
    applied.keep_once(redis, definitions)
    storage.write(code_file(run.model, run.id), definitions.text.encode())
    for name, content in own_modules(definitions.text).items():
        storage.write(f"{modules_folder(run.model, run.id)}/{name}", content)


def recorded(redis: Redis, storage: Storage, run: Run, path: Path) -> Definitions:
    """The definitions that a run was made by; into Redis, where they lack, they come back from the storage.

    Raises:
        Conflict: where they are in neither place, or the file is not what it was.
        DefinitionsError: where they cannot be run any more, for instance for lack of a package.
    """
    try:
        return applied.load(redis, run.definitions)
    except UnknownName:
        pass
    name = code_file(run.model, run.id)
    try:
        text = storage.read(name)
    except FileNotFoundError:
        raise Conflict(f"the code of run {run.id} is kept no more: there is no {name}", run=run.id) from None
    if hashlib.sha256(text).hexdigest() != run.definitions:
        raise Conflict(f"{name} differs from the SHA-256 that run {run.id} has recorded", run=run.id)
    definitions = load_text(path, text)
    applied.keep_once(redis, definitions)
    return definitions


def machine() -> str:
    """The machine as a run records it: numbers may be added up in another order on another one."""
    threads = {str(one["user_api"]): int(one["num_threads"]) for one in threadpool_info()}
    used = ", ".join(f"{count} {api}" for api, count in sorted(threads.items()))
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, threads: {used or 1}"


def imported_versions(text: str) -> dict[str, str]:
    """Installed packages that a definitions file imports by their own names, to their versions."""
    found = {}
    for name in sorted({module.partition(".")[0] for module in _imports(text, "")} - set(OURS)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # part of Python, the user's own, or installed under another name
            continue
    return found


def own_modules(text: str) -> dict[str, bytes]:
    """The files that a definitions file imports, directly or by way of others, beside what is installed.

    By path, relative to where Python looks for them: `features/text.py`.
    """
    found: dict[str, bytes] = {}
    pending = list(_imports(text, ""))
    while pending:
        for name, path in _files(pending.pop()):
            if name not in found:
                found[name] = path.read_bytes()
                package = name.removesuffix(".py").replace("/", ".").rpartition(".")[0]
                pending += _imports(found[name].decode(), package)
    return dict(sorted(found.items()))


def _imports(text: str, package: str) -> Iterator[str]:
    """The modules that code of a module in `package` may import, by full name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a module of it, or what it holds


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """The files of a module and of the packages that it lies in, if they are the user's own."""
    parts = module.split(".")
    place = _place(parts[0])
    if place is None:
        return
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        for file in (f"{name}/__init__.py", f"{name}.py"):
            if (place / file).is_file():
                yield file, place / file


def _place(name: str) -> Path | None:
    """The folder in which Python finds a module of the user's own."""
    if not name or name in OURS:
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a module that was made by hand says nothing of itself
        return None
    if spec is None:
        return None
    origin = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or []), None)
    if origin is None:
        return None
    path = Path(origin).absolute()
    if any(path.is_relative_to(installed) for installed in INSTALLED):
        return None
    return path.parent.parent if path.name == "__init__.py" else path.parent
