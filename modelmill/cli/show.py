"""How the command line shows answers: tables and progress bars for people, JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from modelmill.client import Progress as Report

console = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width of its own
errors = Console(stderr=True)


def as_json(content: Any) -> None:
    """Print `content` as one JSON document."""
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Print `columns` of `rows`, or the sentence `empty` where there are none."""
    if not rows:
        console.print(empty)
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        grid.add_row(*(escape(text(row.get(column))) for column in columns))
    console.print(grid)


def facts(content: Mapping[str, Any], indent: str = "") -> None:
    """Print a mapping a line an entry, nested ones indented, empty values left out."""
    for name, value in content.items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            console.print(f"{indent}[bold]{escape(name)}[/]")
            facts(value, indent + "  ")
        else:
            console.print(f"{indent}[bold]{escape(name)}[/] {escape(text(value))}", soft_wrap=True)


def text(value: Any) -> str:
    """A value as a table cell shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(text(inner) for inner in value)
    return str(value)


def scores(metrics: Mapping[str, float], deciding: str) -> dict[str, float]:
    """Metrics with the one that decides first, then by name: Redis keeps no order."""
    return {name: metrics[name] for name in sorted(metrics, key=lambda name: (name != deciding, name))}


def when(moment: str | None) -> str:
    """An ISO time as `2026-11-23 23:47:08`."""
    return (moment or "")[:19].replace("T", " ")


@contextmanager
def bar(what: str, quiet: bool, *amount: ProgressColumn) -> Iterator[Report | None]:
    """A progress bar, which tells the `amount` too; yields the function that moves it, or None where `quiet`."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *(amount or [MofNCompleteColumn()]),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def job(what: str, quiet: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """A job as it goes on, on standard error: a bar with stage, share and rows below the lines of its log.

    Yields a function of an event's kind and content, which shows it.
    """
    if quiet:
        yield lambda _kind, _content: None
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(what, total=1.0, rows="")

        def shown(kind: str, content: Mapping[str, Any]) -> None:
            if kind == "log":
                progress.console.print(content["text"], markup=False, highlight=False, soft_wrap=True)
            elif kind == "again":
                progress.console.print(
                    f"attempt {content['attempt']} failed: {content['error']}; next at {when(content['at'])}",
                    style="yellow", markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip
            elif kind in ("state", "stage"):
                rows = int(content.get("rows") or 0)
                progress.update(
                    task,
                    description=f"{what}: {content['stage']}",
                    completed=float(content["progress"]),
                    rows=f"{rows:,} rows" if rows else "",
                )

        yield shown


def event(told: dict[str, Any]) -> None:
    """An event as a line for people."""
    line = f"{when(told['time'])}  {told['type']:<18} {told['subject']}: {told['text']}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
