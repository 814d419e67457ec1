"""The version of a function in the user's code: a hash of all that decides what it computes.

That is its code, as a tree, so that comments and layout do not count; its defaults; and whatever it reaches by name or
keeps of a function that made it: other functions and classes of the user's own in the same way, data by their values,
what is installed by its name alone. It is the same in every process, under every version of Python and whatever the
order of sets; what cannot be told by value, such as an open file, is refused.

Data are taken as they are once the definitions have run: `TABLE = read()` counts with what was read.
"""

from __future__ import annotations

import ast
import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from modelmill.declare.declarations import Declared
from modelmill.declare.user_code import UserCode
from modelmill.errors import printable

DIGITS = 8
"""Hexadecimal digits of a version: short enough to be read in Redis."""
MAX_VALUES = 1_000_000
"""Of one function, an array counted as one: more would take seconds at every load."""
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
NOT_COUNTED = {"ctx", "kind", "type_comment", "type_ignores", "lineno", "col_offset", "end_lineno", "end_col_offset"}
"""What a node holds beside what it means."""
MEMBERS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)
"""What Python itself adds to a class."""
_NOTHING = object()


def code_version(code: UserCode, function: Callable[..., Any], dtype: str) -> str:
    """The version of `function` of the user's `code`, whose values are of type `dtype`.

    Raises:
        ValueError: for one that is not of this code, and for one that uses what cannot be identified, saying what.
    """
    plain = inspect.unwrap(function)
    if not isinstance(plain, FunctionType) or not code.runs_in(plain.__globals__):
        raise ValueError("its function is not defined in this file; define it here, or in a module beside it")
    try:
        return _joined("version", dtype, _Identity(code).of(function)).hex()[:DIGITS]
    except RecursionError:
        raise ValueError("what it uses is nested too deeply to be identified; use flat data") from None


def definition(tree: ast.Module, code: CodeType) -> Function | None:
    """Where the function with this compiled code is defined in its file."""
    fitting = [node for node in ast.walk(tree) if isinstance(node, Function) and _begins(node, code)]
    if len(fitting) > 1:  # lambdas on one line, or in each other
        spans = [(p[0::2], p[1::2]) for p in code.co_positions() if None not in p and p[0::2] < p[1::2]]
        bodies = [(_span(node.body), node) for node in fitting if isinstance(node, ast.Lambda)]
        around = [(start, node) for (start, end), node in bodies if all(start <= b and e <= end for b, e in spans)]
        fitting = [max(around, key=lambda one: one[0])[1]] if spans and around else []
    return fitting[0] if fitting else None


def _begins(node: Function, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    lines = (node.lineno, *(decorator.lineno for decorator in node.decorator_list))
    return code.co_name == node.name and code.co_firstlineno == min(lines)


def _span(node: ast.expr) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


class _Identity:
    """Describes values of one program run as digests, equal where the values are."""

    def __init__(self, code: UserCode) -> None:
        self.code = code
        self._done: dict[int, tuple[Any, bytes]] = {}
        """By id; the values are held so that no other gets it."""
        self._begun: dict[int, int] = {}
        """Ids of those that are being described, outermost first, to their depth."""
        self._trail: list[str] = []
        """By which names what is being described was reached."""
        self._values = 0

    def of(self, value: Any) -> bytes:
        """The digest of any value."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._unidentified(f"more than {MAX_VALUES:,} values; put them into an array, which counts as one")
        if (plain := _plain(value)) is not None:
            return _joined(type(value).__name__, plain)
        key = id(value)
        if key in self._done:
            return self._done[key][1]
        if key in self._begun:
            return _joined("again", str(self._begun[key]))
        self._begun[key] = len(self._begun)
        try:
            digest = self._described(value)
        finally:
            del self._begun[key]
        self._done[key] = (value, digest)
        return digest

    def _described(self, value: Any) -> bytes:
        kind = type(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return self._all_modules() if self._is_own_module(value) else _joined("module", value.__name__)
        if isinstance(value, MethodType | BuiltinFunctionType):
            owner = value.__self__
            held = None if isinstance(owner, ModuleType) else owner
            return _joined("method", value.__qualname__, _module_of(value), self.of(held), self._under(value))
        if isinstance(value, set | frozenset):
            return _joined("set", self.of(kind), *sorted(map(self.of, value)))
        if kind in (list, tuple):
            return _joined(kind.__name__, *map(self.of, value))
        if kind in (dict, types.MappingProxyType):
            return _joined("dict", *(self.of(part) for item in value.items() for part in item))
        if isinstance(value, Declared):
            return _joined("declared", value.kind, value.name)
        if isinstance(value, np.ndarray) and kind is np.ndarray:
            held = self.of(value.ravel().tolist()) if value.dtype.hasobject else value.tobytes()
            return _joined("array", repr(value.dtype.descr), repr(value.shape), held)
        if isinstance(value, np.generic):
            return _joined("scalar", value.dtype.str, value.tobytes())
        if isinstance(value, property):
            return _joined("property", *map(self.of, (value.fget, value.fset, value.fdel)))
        if isinstance(value, staticmethod | classmethod | functools.cached_property | functools._lru_cache_wrapper):
            inner = value.func if isinstance(value, functools.cached_property) else value.__wrapped__
            return _joined(kind.__name__, self.of(inner))
        if (pandas := sys.modules.get("pandas")) and isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index):
            return self._table(value)
        return self._named(value) or self._reduced(value)

    def _table(self, value: Any) -> bytes:
        """What a table of pandas holds: how it is pickled differs by version of pandas."""
        if value.ndim == 2:
            return _joined("table", self.of(value.columns), *(self.of(column) for _, column in value.items()))
        held = value.to_numpy() if isinstance(value.dtype, np.dtype) else value.to_numpy(dtype=object)
        index = value.index if hasattr(value, "index") else list(value.names)
        return _joined("column", str(value.dtype), self.of(value.name), self.of(index), self.of(held))

    def _under(self, value: Any) -> bytes:
        return self.of(value.__func__) if isinstance(value, MethodType) else b""

    def _named(self, value: Any) -> bytes | None:
        """What is installed and can be found by its name."""
        module, name = _module_of(value), getattr(value, "__qualname__", getattr(value, "__name__", None))
        found: Any = sys.modules.get(module)
        if found is None or not isinstance(name, str) or self.code.owns(module):
            return None
        for part in name.split("."):
            found = getattr(found, part, _NOTHING)
        return _joined("named", module, name) if found is value else None

    def _reduced(self, value: Any) -> bytes:
        """Any other value by what pickling it would write: what makes it, of what, and its state."""
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
            if isinstance(reduced, str):
                return _joined("named", _module_of(value) or _module_of(type(value)), reduced)
            maker, arguments, *state = reduced
            parts = [part if part is None or position == 0 else list(part) for position, part in enumerate(state)]
        except Exception as error:  # whatever a class of anyone's raises
            raise self._unidentified(f"a {type(value).__qualname__}, which has no value ({printable(error)})") from None
        return _joined("object", self.of(maker), self.of(tuple(arguments)), *map(self.of, parts))

    # --- functions

    def _function(self, function: FunctionType) -> bytes:
        scope = function.__globals__
        if not self.code.runs_in(scope):
            return self._named(function) or _joined(
                "made elsewhere", str(scope.get("__name__")), function.__code__.co_qualname, *self._kept(function)
            )
        node = self._definition(function)
        if node is None:
            what = f"{function.__qualname__}, a function that no statement of the file defines"
            raise self._unidentified(f"{what}, or one of several lambdas on a line; write it with def")
        return _joined("function", *_code(node), *self._kept(function), *self._reached(function, node))

    def _definition(self, function: FunctionType) -> Function | None:
        return definition(self.code.trees[function.__globals__["__name__"]], function.__code__)

    def _kept(self, function: FunctionType) -> Iterator[bytes]:
        """Defaults, attributes, and what it has kept of the function that made it."""
        with self._by("its defaults"):
            yield self.of(function.__defaults__)
            yield self.of(function.__kwdefaults__)
        yield self.of({name: held for name, held in vars(function).items() if name != "__wrapped__"})
        for name, held in sorted(_closure(function).items()):
            if not self._is_own_module(held):  # of which it may reach a part alone
                with self._by(name):
                    yield _joined("kept", name, self.of(held))

    def _reached(self, function: FunctionType, node: Function) -> Iterator[bytes]:
        """What it reaches by global names, and by imports of its own."""
        reached = {n: function.__globals__[n] for n in _global_names(function.__code__) if n in function.__globals__}
        modules = {name: held for name, held in _closure(function).items() if self._is_own_module(held)}
        for name, value in sorted((reached | modules | self._imported(function, node)).items()):
            if not self._is_own_module(value):
                with self._by(name):
                    yield _joined("reached", name, self.of(value))
                continue
            for chain in sorted(set(_chains(node, name))):
                found: Any = value
                for part in chain:
                    if self._is_own_module(found):
                        found = getattr(found, part, _NOTHING)
                with self._by(".".join([name, *chain])):
                    yield _joined("reached", name, *chain, self.of(None if found is _NOTHING else found))

    def _imported(self, function: FunctionType, node: Function) -> dict[str, Any]:
        """What import statements inside a function bind, of the user's own modules."""
        found: dict[str, Any] = {}
        package = function.__globals__.get("__package__") or ""
        for one in ast.walk(node):
            if isinstance(one, ast.Import):
                for alias in one.names:
                    if self.code.owns(alias.name):
                        module = self._module(alias.name)
                        top = alias.name.partition(".")[0]
                        found[alias.asname or top] = module if alias.asname else self._module(top)
            elif isinstance(one, ast.ImportFrom):
                parents = package.split(".")[: len(package.split(".")) + 1 - one.level] if one.level else []
                base = ".".join([*parents, *([one.module] if one.module else [])])
                if self.code.owns(base):
                    module = self._module(base)
                    found |= {alias.asname or alias.name: self._member(module, alias.name) for alias in one.names}
        return found

    def _module(self, name: str) -> ModuleType:
        try:
            return self.code.module(name)
        except Exception as error:  # whatever running it raises
            raise self._unidentified(f"module {name}, which cannot be imported ({printable(error)})") from None

    def _member(self, module: ModuleType, name: str) -> Any:
        found = getattr(module, name, _NOTHING)
        return self._module(f"{module.__name__}.{name}") if found is _NOTHING else found

    def _is_own_module(self, value: Any) -> bool:
        return isinstance(value, ModuleType) and self.code.runs_in(vars(value))

    def _all_modules(self) -> bytes:
        """The code of all modules: for one that is used as a value, so that anything of it may be reached."""
        texts = (part for name, text in self.code.modules.items() for part in (name, _tree(ast.parse(text.encode()))))
        return _joined("modules", *texts)

    # --- classes

    def _class(self, kind: type) -> bytes:
        if not self.code.owns(kind.__module__):
            return _joined("type", kind.__module__, kind.__qualname__)
        parts = [_joined("class", kind.__qualname__), *map(self.of, kind.__bases__), self.of(type(kind))]
        if isinstance(kind, enum.EnumMeta):
            parts.append(self.of({name: member.value for name, member in kind.__members__.items()}))  # type: ignore[var-annotated]
        if fields := vars(kind).get("__dataclass_fields__"):
            settings = vars(kind)["__dataclass_params__"]
            parts.append(self.of([settings.eq, settings.order, settings.frozen, settings.unsafe_hash]))
            parts.append(self.of([[f.name, f.default, f.default_factory, f.init] for f in fields.values()]))
        for name, value in sorted(vars(kind).items()):
            if self._counts(name, value, issubclass(kind, enum.Enum) or "_fields" in vars(kind)):
                with self._by(f"{kind.__qualname__}.{name}"):
                    parts += [_joined("member", name), self.of(value)]
        return _joined("class", *parts)

    def _counts(self, name: str, value: Any, of_enum_or_named_tuple: bool) -> bool:
        """Whether a member was written by the user, and not added by Python or a decorator."""
        if isinstance(value, MEMBERS) or name == "_abc_impl":
            return False
        plain = inspect.unwrap(value)
        if isinstance(plain, FunctionType) and self.code.runs_in(plain.__globals__):
            return not _dunder(name) or self._definition(plain) is not None
        if of_enum_or_named_tuple:  # most of which Python has made
            return name in ("_fields", "_field_defaults")
        return not _dunder(name)

    # --- what cannot be identified

    @contextmanager
    def _by(self, name: str) -> Iterator[None]:
        self._trail.append(name)
        yield
        self._trail.pop()

    def _unidentified(self, what: str) -> ValueError:
        return ValueError(
            f"uses {' -> '.join([*self._trail[-4:], what])}, so that its code cannot be identified in every process;"
            " use plain data, or make it inside the function"
        )


def _plain(value: Any) -> str | bytes | None:
    """A value of Python's simplest types as text; None for others."""
    if value is None or value is Ellipsis or value is NotImplemented or isinstance(value, bool):
        return repr(value)
    kind = type(value)
    if kind is int:
        return hex(value)
    if kind is str:
        return str(value)
    if kind is bytes:
        return bytes(value)
    return repr(value) if kind in (float, complex) else None


def _joined(*parts: str | bytes) -> bytes:
    """One digest of texts and digests; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


def _module_of(value: Any) -> str:
    found = getattr(value, "__module__", None)
    return found if isinstance(found, str) else ""


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _closure(function: FunctionType) -> dict[str, Any]:
    """What it has kept of the function that made it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def _global_names(code: CodeType) -> set[str]:
    """The names that a function, or one inside it, looks up among the globals."""
    found = {str(i.argval) for i in dis.get_instructions(code) if "GLOBAL" in i.opname or i.opname == "LOAD_NAME"}
    inside = (one for one in code.co_consts if isinstance(one, CodeType) and one.co_name != "__annotate__")
    return found.union(*map(_global_names, inside))


def _chains(node: ast.AST, name: str) -> Iterator[tuple[str, ...]]:
    """The attributes by which `name` is used: (area, of) for `maths.area.of(x)`, () for `maths` alone."""
    chain: list[str] = []
    base = node
    while isinstance(base, ast.Attribute):
        chain.insert(0, base.attr)
        base = base.value
    if isinstance(base, ast.Name):
        if base.id == name:
            yield tuple(chain)
        return
    for child in ast.iter_child_nodes(base):
        yield from _chains(child, name)


def _code(node: Function) -> Iterator[bytes]:
    """What a definition says: name, parameters and body. Decorators and defaults count by what they have made."""
    arguments = node.args
    kinds: list[Sequence[ast.arg | None]] = [arguments.posonlyargs, arguments.args, [arguments.vararg]]
    kinds += [arguments.kwonlyargs, [arguments.kwarg]]
    yield _joined(type(node).__name__, getattr(node, "name", ""))
    yield _joined(*(f"{place} {one.arg}" for place, kind in enumerate(kinds) for one in kind if one is not None))
    yield _tree(node.body)


def _tree(node: Any) -> bytes:
    """The digest of a syntax tree, without places, and without fields that only some versions of Python have."""
    if isinstance(node, ast.Constant):
        return _joined("constant", type(node.value).__name__, _plain(node.value) or b"")
    if isinstance(node, ast.AST):
        fields: Iterable[tuple[str, Any]] = ((n, v) for n, v in ast.iter_fields(node) if n not in NOT_COUNTED)
        parts = (part for n, v in fields if v is not None and v != [] for part in (n.encode(), _tree(v)))
        return _joined(type(node).__name__, *parts)
    if isinstance(node, list):
        return _joined("list", *map(_tree, node))
    return _joined(type(node).__name__, repr(node))
