"""The command `modelmill`: run the system on this machine, and use it from the shell.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 a service did not answer.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.markup import escape

from modelmill.cli import exchange, feature, registry, runs, serving, show, system, training
from modelmill.cli.system import EXIT_FAILED, EXIT_UNAVAILABLE
from modelmill.errors import ModelmillError, RequestFailed, Unavailable


class Group(click.Group):
    """Turns every `ModelmillError` into its sentence and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except ModelmillError as error:
            away = isinstance(error, Unavailable) or (isinstance(error, RequestFailed) and error.http_status == 503)
            show.errors.print("[red]error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
            sys.exit(EXIT_UNAVAILABLE if away else EXIT_FAILED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelmill")
def main() -> None:
    """Keep scikit-learn models on tabular data alive in production."""


for module in (system, feature, training, registry, runs, exchange, serving):
    for command in module.COMMANDS:
        main.add_command(command)
