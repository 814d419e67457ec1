"""The commands that say something of a version or a run: tags and notes."""

from __future__ import annotations

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option


@click.command()
@click.argument("of", metavar="MODEL@VERSION|MODEL@ALIAS|RUN")
@click.argument("tags", nargs=-1, required=True, metavar="NAME=VALUE...")
@json_option
def tag(of: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Tag a version or a run: `stage=reviewed`; `stage=` takes the tag away."""
    given = {}
    for one in tags:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"tag {one!r}: expected NAME=VALUE, or NAME= to take it away")
        given[name] = value or None
    done = terminal.client().tag(of, given)
    show.as_json(done) if as_json else show.facts({"tags": done["tags"]})


@click.command()
@click.argument("of", metavar="MODEL@VERSION|MODEL@ALIAS|RUN")
@click.argument("text")
@json_option
def note(of: str, text: str, as_json: bool) -> None:
    """Add a note to a version or a run, which keeps who wrote it and when."""
    done = terminal.client().note(of, text, by=terminal.user())
    show.as_json(done) if as_json else show.facts({"notes": done["notes"]})


COMMANDS = (tag, note)
