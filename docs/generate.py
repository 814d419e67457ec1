"""Write the reference pages that are made from the code, so that they cannot drift from it: `make docs`.

    docs/events.md     from the dataclasses in modelmill/state/events.py
    docs/redis.md      from the functions and names in modelmill/state/keys.py
    docs/settings.md   from the settings classes of modelmill and the services
    docs/http.md       from the routes of the services and their docstrings
    docs/cli.md        from the commands in modelmill/cli/

`python -m docs.generate --check` writes nothing and fails where a page differs.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import click
from flask import Flask

from modelmill import cli
from modelmill.http import openapi
from modelmill.settings import Settings
from modelmill.state import events, keys
from services.feature.app import feature_app
from services.monitor.settings import MonitorSettings
from services.predictor.settings import PredictorSettings
from services.trainer.settings import TrainerSettings

FOLDER = Path(__file__).parent
NOTE = "<!-- Made by `make docs` from the code; do not edit. -->"


def attribute_docs(of: type | ModuleType) -> dict[str, str]:
    """Attribute name to the docstring under it, which Python itself does not keep."""
    tree = ast.parse(inspect.getsource(of))
    body = tree.body[0].body if isinstance(of, type) else tree.body  # type: ignore[attr-defined]
    found = {}
    for statement, following in pairwise(body):
        if isinstance(statement, ast.AnnAssign | ast.Assign) and isinstance(following, ast.Expr):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(following.value, ast.Constant):
                found[target.id] = " ".join(str(following.value.value).split())
    return found


def one_line(text: str | None) -> str:
    """A docstring as one line of a table."""
    return " ".join(inspect.cleandoc(text or "").split()).replace("|", "\\|")


def events_page() -> Iterator[str]:
    """Every event with its stream and fields."""
    yield "# Events"
    yield one_line(events.__doc__)
    yield "Read them with `modelmill events`, `GET /events` of the monitor, or `redis-cli XRANGE events:models - +`."
    common = {item.name for item in fields(events.Event)}
    for name, kind in events.EVENTS.items():
        yield f"## `{name}`"
        yield f"Stream `{kind.stream}`, subject `{kind.subject}`. {one_line(kind.__doc__)}"
        docs = attribute_docs(kind)
        rows = [f"| `{f.name}` | {f.type} | {docs.get(f.name, '')} |" for f in fields(kind) if f.name not in common]
        yield "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows])


def redis_page() -> Iterator[str]:
    """Every key and stream."""
    yield "# What lies in Redis"
    yield one_line(keys.__doc__)
    rows = ["| key | what |", "| --- | --- |"]
    rows += [f"| `{getattr(keys, name)}` | {doc} |" for name, doc in attribute_docs(keys).items()]
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        arguments = [f"{{{parameter}}}" for parameter in inspect.signature(function).parameters]
        rows.append(f"| `{getattr(keys, name)(*arguments)}` | {one_line(function.__doc__)} |")
    yield "\n".join(rows)


def settings_page() -> Iterator[str]:
    """Every environment variable."""
    yield "# Settings"
    yield "Every process reads its settings from environment variables; a value that cannot be used stops its start."
    classes = {
        "All processes": Settings,
        "Trainer": TrainerSettings,
        "Predictor": PredictorSettings,
        "Monitor": MonitorSettings,
    }
    shown: set[str] = set()
    for title, kind in classes.items():
        docs = {name: doc for base in reversed(kind.__mro__) if issubclass(base, Settings)
                for name, doc in attribute_docs(base).items()}  # fmt: skip
        rows = [
            f"| `MODELMILL_{name.upper()}` | {_default(field)} | {docs.get(name, '')} |"
            for name, field in kind.model_fields.items()
            if name not in shown
        ]
        shown |= set(kind.model_fields)
        yield f"## {title}"
        yield "\n".join(["| variable | default | what |", "| --- | --- | --- |", *rows])


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    text = str(value).replace(str(Path.cwd()), "$PWD")
    return f"`{text}`" if value is not None else ""


def http_page() -> Iterator[str]:
    """Every route of every service."""
    yield "# HTTP calls"
    yield (
        "Bodies and answers are JSON; errors are RFC 9457 problem documents. Each service serves this as OpenAPI 3.1 "
        "under `/openapi.json`, with the schemas of parameters, bodies and problems, and as a page under `/docs`. "
        "What a body or query that is described there does not have is refused by name."
    )
    for service, port, app in service_apps():
        yield f"## {service}, port {port}"
        for path, methods in openapi.describe(app, service)["paths"].items():
            for method, call in methods.items():
                description = f"\n\n{call['description']}" if call["description"] else ""
                yield f"**`{method.upper()} {path}`** {call['summary']}{description}"


def service_apps() -> list[tuple[str, int, Flask]]:
    """Each service's name, port and app, wired to nothing: only its routes are looked at."""
    from services.monitor.app import create_app as monitor_app
    from services.predictor.app import create_app as predictor_app
    from services.trainer.app import trainer_app

    return [
        ("feature", 8001, feature_app(Mock(), Settings())),
        ("trainer", 8002, _routes(trainer_app, TrainerSettings())),
        ("predictor", 8003, _routes(predictor_app, PredictorSettings())),
        ("monitor", 8004, _routes(monitor_app, MonitorSettings())),
    ]


def _routes(create_app: Callable[..., Flask], settings: Settings) -> Flask:
    parameters = inspect.signature(create_app).parameters
    return create_app(**{name: settings if name == "settings" else Mock() for name in parameters})


def cli_page() -> Iterator[str]:
    """Every command with its help."""
    yield "# The command `modelmill`"
    yield one_line(cli.__doc__)
    yield from _help(cli.main, "modelmill")


def _help(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    context = click.Context(
        command, parent, name, terminal_width=100, max_content_width=100, **command.context_settings
    )
    yield f"{'###' if parent else '##'} `{context.command_path}`"
    yield f"```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from _help(command.commands[child], child, context)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "events.md": events_page,
    "redis.md": redis_page,
    "settings.md": settings_page,
    "http.md": http_page,
    "cli.md": cli_page,
}


def rendered(page: str) -> str:
    """A page as it should stand in the folder."""
    title, *rest = PAGES[page]()
    return re.sub(r"[ \t]+\n", "\n", "\n\n".join([title, NOTE, *rest]) + "\n")


def main(check: bool) -> None:
    """Write the pages, or with `check` fail where one differs."""
    stale = []
    for page in PAGES:
        path, text = FOLDER / page, rendered(page)
        if not path.exists() or path.read_text() != text:
            stale.append(page)
            if not check:
                path.write_text(text)
    if check and stale:
        sys.exit(f"run make docs: {', '.join(stale)} differ from the code")


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
