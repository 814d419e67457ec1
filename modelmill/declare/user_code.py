"""The user's code: a definitions file and the modules of the user's own that it imports, kept as texts and run as one.

The texts are read from the disk once, where the file is checked or applied; all other processes run what was kept. Each
`UserCode` runs apart from every other: its modules are found by the imports of its own code alone, and lie in
`sys.modules` only while they are imported. So texts of several times, with modules of the same names, run side by side
in one process, and none gets what another has imported.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import hashlib
import importlib
import linecache
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

MODULE = "mill"
"""Name of the module that a definitions file is run as."""
OURS = ("modelmill", "services")
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
MAX_MODULE_BYTES = 2**20
"""Of all modules of one definitions file together: they are kept in Redis with each text that is applied."""

IMPORT_WAIT_SECONDS = 60.0
"""Seconds that an import waits for another thread in which definitions run."""

_alone = RLock()
"""Held while modules of the user's own are in `sys.modules`."""
_open: list[UserCode] = []
"""Whose modules are there now, innermost last."""
_folders: list[str] = []
"""Where those lie that are installed in this process."""


class UserCode(MetaPathFinder, Loader):
    """A definitions file and the modules that it imports; runs them, each once."""

    def __init__(self, path: Path, text: str, modules: Mapping[str, str]) -> None:
        self.path = path
        self.text = text
        self.modules = dict(sorted(modules.items()))
        """Path as a module's name has it, `features/text.py`, to text."""
        self.trees: dict[str, ast.Module] = {}
        """What has run by now, by the name of its module."""
        self._files = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in modules}
        self._files[MODULE] = ""
        self._tops = {name.partition(".")[0] for name in self._files}
        parts = [name.split(".") for name in self._files]
        self._names = {".".join(own[:count]) for own in parts for count in range(1, len(own) + 1)}
        self._loaded: dict[str, ModuleType] = {}
        self._others = 0
        """How many modules of other names there were when its own came into `sys.modules`."""
        self._builtins = {**vars(builtins), "__import__": self._import}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal: of the file, or where it imports modules of the user's own, of all of them."""
        own = sha256(self.text)
        if not self.modules:
            return own
        return sha256("\n".join([own, *(f"{sha256(text)} {name}" for name, text in self.modules.items())]))

    def run(self) -> None:
        """Run the definitions file; whatever it raises comes out."""
        self.module(MODULE)

    def module(self, name: str) -> ModuleType:
        """One of its modules, which is run if it has not been yet; whatever that raises comes out."""
        with self.importable():
            return importlib.import_module(name)

    def owns(self, name: str) -> bool:
        """Whether a module of this name is one of these, or of a package of these."""
        return name.partition(".")[0] in self._tops

    def text_of(self, module: str) -> str:
        """The text of one of its modules."""
        name = self._files[module]
        return self.modules[name] if name else self.text

    def runs_in(self, scope: Mapping[str, Any]) -> bool:
        """Whether these are the globals of one of its modules."""
        return scope.get("__loader__") is self and scope.get("__builtins__") is self._builtins

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let whatever imports by name, such as skops, find its modules inside the block."""
        if not _alone.acquire(timeout=IMPORT_WAIT_SECONDS):
            raise ImportError(
                f"other definitions have been running for {IMPORT_WAIT_SECONDS:.0f} s; import at the top of the file"
            )
        try:
            if _open and _open[-1] is self:
                yield
                return
            before = self._enter()
            try:
                yield
            finally:
                self._leave(before)
        finally:
            _alone.release()

    def install(self) -> None:
        """Make its modules those of this process for good, and of the processes that it starts.

        For a process that works by no other code: what was installed before is replaced.
        """
        with _alone:
            while _open:
                _open[-1]._leave({})
            self._enter()
            while _folders:
                sys.path.remove(folder := _folders.pop())
                shutil.rmtree(folder, ignore_errors=True)
            _folders.append(tempfile.mkdtemp(prefix="modelmill-code-"))
            atexit.register(shutil.rmtree, _folders[0], ignore_errors=True)
            for name, text in {**self.modules, f"{MODULE}.py": self.text}.items():
                file = Path(_folders[0], name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text.encode())
            sys.path.insert(0, _folders[0])  # processes that joblib starts import by path alone

    def _enter(self) -> dict[str, ModuleType]:
        before = self._take_out() if any(top in sys.modules for top in self._tops) else {}
        sys.modules.update(self._loaded)
        self._others = len(sys.modules) - len(self._loaded)
        sys.meta_path.insert(0, self)
        _open.append(self)
        return before

    def _leave(self, before: Mapping[str, ModuleType]) -> None:
        _open.remove(self)
        sys.meta_path.remove(self)
        known = [name for name in self._names if name in sys.modules]
        if len(sys.modules) - len(known) == self._others:  # nothing else was imported, or put there by hand
            self._loaded |= {name: sys.modules.pop(name) for name in known}
        else:
            self._loaded |= self._take_out()
        sys.modules.update(before)

    def _take_out(self) -> dict[str, ModuleType]:
        """All that is of a name of its own, taken out of `sys.modules`.

        It is worth avoiding in a process that was just forked: to look at a name copies the memory that it lies in.
        """
        return {name: sys.modules.pop(name) for name in list(sys.modules) if self.owns(name)}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an import statement in its code calls."""
        if not level and not self.owns(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if not level and (known := self._loaded.get(name)) and all(hasattr(known, one) for one in fromlist or ()):
            # Functions that import at each call need no lock.
            return known if fromlist else self._loaded[name.partition(".")[0]]
        with self.importable():
            return builtins.__import__(name, globals, locals, fromlist or (), level)

    # --- as the import system asks it

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname in self._files:
            file = self._files[fullname]
            where = str(self.path.parent / file if file else self.path)
            return spec_from_loader(fullname, self, origin=where, is_package=file.endswith("/__init__.py"))
        if any(name.startswith(f"{fullname}.") for name in self._files):
            return ModuleSpec(fullname, None, is_package=True)  # a folder without __init__.py
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        file, text = str(module.__spec__.origin), self.text_of(module.__name__)
        module.__file__ = file
        module.__dict__["__builtins__"] = self._builtins
        # Tracebacks are to show this text, whatever the file holds a moment later.
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        tree = ast.parse(text.encode(), file)
        code = compile(tree, file, "exec", dont_inherit=True)
        self.trees[module.__name__] = tree
        exec(code, module.__dict__)


def read(path: Path) -> UserCode:
    """The definitions file at `path` and what it imports of the user's own, as they are on the disk now.

    The user's own is what lies beside the file, or elsewhere where Python looks for modules, and is not installed.

    Raises:
        OSError: where the file cannot be read.
        ValueError: for what cannot be kept as text, or would be mistaken for another module.
    """
    text = path.read_bytes().decode()
    found: dict[str, str] = {}
    pending = [(module, MODULE) for module in imports(text, "")]
    while pending:
        module, importer = pending.pop()
        for name, file in _files_of(module, path, importer):
            if name not in found:
                found[name] = _text(file)
                own = name.removesuffix(".py").replace("/", ".")
                pending += [(other, own) for other in imports(found[name], own.rpartition(".")[0])]
    if (size := sum(len(text.encode()) for text in found.values())) > MAX_MODULE_BYTES:
        raise ValueError(
            f"imports modules of your own of {size:,} bytes, the largest {max(found, key=lambda n: len(found[n]))};"
            f" expected at most {MAX_MODULE_BYTES:,}: they are kept with each text that is applied. Install them as a"
            " package"
        )
    return UserCode(path, text, found)


def sha256(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def imports(text: str, package: str) -> Iterator[str]:
    """The modules that code of a module in `package` may import, by full name; none for what is no code."""
    try:
        tree = ast.parse(text.encode())
    except (SyntaxError, ValueError):  # which running it tells with its line
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a module of it, or what it holds


def _files_of(module: str, path: Path, importer: str) -> Iterator[tuple[str, Path]]:
    """The files of a module and of the packages that it lies in, if they are the user's own."""
    parts = module.split(".")
    place = _place(parts[0], path.parent)
    if place is None:
        return
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        for file in (f"{name}/__init__.py", f"{name}.py"):
            if not (place / file).is_file():
                continue
            if (place / file) == path or name == MODULE:
                raise ValueError(f"module {importer} imports {name}, the definitions file itself; import what both use")
            if parts[0] in sys.stdlib_module_names:
                raise ValueError(f"module {importer} imports {name}, and both Python and you have one; rename {file}")
            yield file, place / file


def _place(name: str, beside: Path) -> Path | None:
    """The folder in which a module of the user's own lies."""
    if not name or name in OURS:
        return None
    if (beside / f"{name}.py").is_file() or (beside / name / "__init__.py").is_file():
        return beside
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a module that was made by hand says nothing of itself
        return None
    if spec is None:
        return beside  # a folder without __init__.py, or nothing
    origin = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or []), None)
    if origin is None:
        return None
    file = Path(origin).absolute()
    if any(file.is_relative_to(folder) for folder in INSTALLED) or {"site-packages", "dist-packages"} & {*file.parts}:
        return None
    return file.parent.parent if file.name == "__init__.py" else file.parent


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8: {error.reason} at byte {error.start}") from None
