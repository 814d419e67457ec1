"""The commands that train, and look after the jobs that do."""

from __future__ import annotations

import os
import sys

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option


@click.command()
@click.argument("model")
@click.option("--wait", is_flag=True, help="Show progress until the job has ended.")
@click.option("--start", help="Train on rows from this time on (ISO 8601).")
@click.option("--end", help="Train on rows before this time (ISO 8601).")
@json_option
def train(model: str, wait: bool, start: str | None, end: str | None, as_json: bool) -> None:
    """Enqueue a training of MODEL."""
    api = terminal.client()
    job = api.train(model, start=start, end=end, by=os.environ.get("USER", "cli"))
    if wait:
        with show.stages(f"training {model}", as_json) as watch:
            job = api.wait(job["job"], watch=watch)
    show.as_json(job) if as_json else show.facts(job)
    if wait and job["status"] != "finished":
        sys.exit(EXIT_FAILED)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def jobs(context: click.Context, as_json: bool) -> None:
    """List waiting, running and recently ended jobs."""
    if context.invoked_subcommand is None:
        rows = terminal.client().jobs()
        columns = ["job", "model", "status", "stage", "trigger", "run"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No jobs.")


@jobs.command()
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Cancel a waiting JOB or stop a running one."""
    done = terminal.client().cancel(job)
    show.as_json(done) if as_json else show.facts(done)


COMMANDS = (train, jobs)
