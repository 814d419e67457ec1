"""The command that repeats a run."""

from __future__ import annotations

import sys
from typing import Any

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option
from modelmill.cli.training import followed


@click.command()
@click.argument("run")
@json_option
def reproduce(run: str, as_json: bool) -> None:
    """Repeat RUN on the rows of that time by the code of that time, and compare; exits 0 if all is equal, 1 if not."""
    api = terminal.client()
    job = api.reproduce(run, by=terminal.user(), wait=False)
    report = api.reproduction(run, followed(api, job["job"], f"reproduce {run}", quiet=as_json))
    show.as_json(report) if as_json else _show(report)
    if not report["equal"]:
        sys.exit(EXIT_FAILED)


def _show(report: dict[str, Any]) -> None:
    rows = [check | {"outcome": "equal" if check["equal"] else "differs"} for check in report["checks"]]
    show.table(rows, ["name", "recorded", "found", "outcome"], empty="")
    for reason in report["reasons"]:
        show.console.print(f"- {reason}", markup=False, highlight=False, soft_wrap=True)
    verdict = "[green]equal[/]" if report["equal"] else "[red]not equal[/]"
    show.console.print(f"run {report['run']} of {report['model']}: {verdict}", highlight=False)


COMMANDS = (reproduce,)
