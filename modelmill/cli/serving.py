"""The commands that predict, and tell how long predictions took."""

from __future__ import annotations

from typing import Any

import click
import orjson

from modelmill.cli import show, system
from modelmill.cli.system import json_option


@click.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="NAME=VALUE...")
@json_option
def predict(model: str, values: tuple[str, ...], as_json: bool) -> None:
    """Predict with MODEL for join keys and inputs such as `user_id=a27b09ee-... hour=7`."""
    body = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r}; expected NAME=VALUE", param_hint="NAME=VALUE")
        body[name] = _value(value)
    answer = system.client().predict(model, **body)
    show.as_json(answer) if as_json else show.facts(answer)


def _value(text: str) -> Any:
    """A number, true, false or null as JSON reads it; anything else is text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float | None) else text


@click.command()
@click.argument("model")
@click.option("--window", default="15m", show_default=True, help="How far back: 15m, 2h, 1d.")
@json_option
def latency(model: str, window: str, as_json: bool) -> None:
    """Show the latency of MODEL's predictions, in all and by version."""
    found = system.client().latency(model, window)
    if as_json:
        show.as_json(found)
        return
    rows = [*found["versions"], {"version": "all", **found["overall"]}]
    columns = ["version", "count", "errors", "mean", "p50", "p95", "p99", "max"]
    show.table(rows, columns, empty="")
    show.console.print(f"milliseconds, last {found['window']}, quantiles within {found['relative_error']:.0%}")


# --- the command that shows events, once or as they come

STREAMS = ["models", "features", "predictions", "alerts"]


@click.command()
@click.option("--stream", type=click.Choice(STREAMS), default="models", show_default=True)
@click.option("--count", default=20, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with events as they come.")
@json_option
def events(stream: str, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest events, oldest first."""
    api = system.client()
    for event in api.follow(stream, count) if follow else reversed(api.events(stream, count)):
        click.echo(orjson.dumps(event).decode()) if as_json else show.event(event)


COMMANDS = (predict, latency, events)
