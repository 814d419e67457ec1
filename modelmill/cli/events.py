"""The command that shows events, once or as they come."""

from __future__ import annotations

from typing import Any

import click
import orjson

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import json_option

STREAMS = ["models", "features", "predictions", "alerts"]


@click.command()
@click.option("--stream", type=click.Choice(STREAMS), default="models", show_default=True)
@click.option("--count", default=20, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with events as they come.")
@json_option
def events(stream: str, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest events, oldest first."""
    api = terminal.client()
    for event in api.follow(stream, count) if follow else reversed(api.events(stream, count)):
        click.echo(orjson.dumps(event).decode()) if as_json else print_event(event)


def print_event(event: dict[str, Any]) -> None:
    """An event as a line for people."""
    line = f"{show.when(event['time'])}  {event['type']:<18} {event['subject']}: {event['text']}"
    show.console.print(line, markup=False, highlight=False, soft_wrap=True)


COMMANDS = (events,)
