"""The version of a function in the definitions file: a hash of its code and of what it uses in the same file.

Comments, layout and decorators do not count; a helper, a constant or an import that the function reaches by name does,
however far. What an imported module does is not looked at.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

DIGITS = 8
"""Hexadecimal digits of a version: short enough to be read in Redis."""


def code_version(module: ast.Module, function: Callable[..., Any], dtype: str) -> str:
    """The version of `function`, whose values are of type `dtype`, defined anywhere in `module`."""
    bindings = _bindings(module)
    pending = [_definition(module, function)]
    seen: dict[str, ast.stmt | ast.Lambda] = {}
    parts = [dtype, *_captured(function)]
    while pending:
        node = pending.pop()
        parts.append(_text(node))
        for name in sorted(_names(node) & bindings.keys() - seen.keys()):
            seen[name] = bindings[name]
            pending.append(bindings[name])
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:DIGITS]


def _definition(module: ast.Module, function: Callable[..., Any]) -> ast.stmt | ast.Lambda:
    """Where `function` is defined; its code knows the line of its first decorator, or its own."""
    code = function.__code__
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators = getattr(node, "decorator_list", [])
            if code.co_firstlineno in (node.lineno, *(decorator.lineno for decorator in decorators)):
                return node
    raise ValueError("its function is not defined in this file; define it here")


def _bindings(module: ast.Module) -> dict[str, ast.stmt]:
    """Name to the statement of the file that binds it, the last one where there are several."""
    found: dict[str, ast.stmt] = {}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0]: statement for alias in statement.names}
        else:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            found |= {name.id: statement for name in stored}
    return found


def _names(node: ast.AST) -> set[str]:
    body = [*node.body, node.args] if isinstance(node, ast.FunctionDef) else [node]
    return {n.id for part in body for n in ast.walk(part) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _text(node: ast.stmt | ast.Lambda) -> str:
    if isinstance(node, ast.FunctionDef):
        node = ast.FunctionDef(node.name, node.args, node.body, [], None, None, lineno=0, col_offset=0)
    return ast.unparse(node)


def _captured(function: Callable[..., Any]) -> Iterator[str]:
    """What a function that another one made has kept of it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f"{name} = {cell.cell_contents!r}"
