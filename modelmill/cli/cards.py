"""The command that fetches a model's card."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelmill import show
from modelmill.cli import terminal


@click.command()
@click.argument("model", metavar="MODEL[@VERSION|@ALIAS]", required=False)
@click.option("--run", help="Of this run instead, also of one that failed.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here; `-` is standard output.")
@click.option("--open", "open_it", is_flag=True, help="Show it in the browser.")
def card(model: str | None, run: str | None, output: Path | None, open_it: bool) -> None:
    """Write the card of a model as one HTML file: of its champion, of a version, or of what an alias names."""
    if (model is None) == (run is None):
        raise click.UsageError("expected MODEL[@VERSION|@ALIAS], or --run RUN")
    if run is not None:
        html, name = terminal.client().card(run=run), run
    else:
        name, _, which = str(model).partition("@")
        version, alias = (int(which), "champion") if which.isdecimal() else (None, which or "champion")
        html, name = terminal.client().card(name, version=version, alias=alias), str(model)
    if output == Path("-"):
        sys.stdout.write(html)
        return
    path = output or Path(f"{name}.html")
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    show.console.print(f"{path}", highlight=False, soft_wrap=True, markup=False)
    if open_it:
        click.launch(path.resolve().as_uri())


COMMANDS = (card,)
