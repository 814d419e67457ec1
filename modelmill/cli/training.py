"""The commands that train, and look after the jobs that do."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import Any

import click

from modelmill import show
from modelmill.cli import terminal
from modelmill.cli.terminal import EXIT_FAILED, json_option
from modelmill.client import Client
from modelmill.errors import RequestFailed


@click.command()
@click.argument("model")
@click.option("--wait", is_flag=True, help="Show progress until the job has ended.")
@click.option("--start", help="Train on rows from this time on (ISO 8601).")
@click.option("--end", help="Train on rows before this time (ISO 8601).")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@json_option
def train(model: str, wait: bool, start: str | None, end: str | None, priority: str, as_json: bool) -> None:
    """Enqueue a training of MODEL, or join the one that waits or runs for the same data."""
    api = terminal.client()
    job = api.train(model, start=start, end=end, priority=priority, by=terminal.user())
    if wait:
        job = followed(api, job["job"], f"training {model}", as_json)
    show.as_json(job) if as_json else show.facts(job)
    if wait and job["status"] != "finished":
        sys.exit(EXIT_FAILED)


def followed(api: Client, job: str, what: str, quiet: bool) -> dict[str, Any]:
    """The job once it has ended, shown until then."""
    try:
        with show.job(what, quiet) as shown:
            for kind, content in api.job_events(job):
                shown(kind, content)
    except RequestFailed as error:
        if error.http_status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise  # otherwise as many listen already as may, and the job's state is all that there is to see
    return api.wait(job)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def jobs(context: click.Context, as_json: bool) -> None:
    """List waiting, running and recently ended jobs, or look after one of them."""
    if context.invoked_subcommand is None:
        rows = terminal.client().jobs()
        columns = ["job", "model", "status", "stage", "attempt", "priority", "trigger", "run"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No jobs.")


@jobs.command("show")
@click.argument("job")
@json_option
def show_job(job: str, as_json: bool) -> None:
    """Show one JOB: where it is, its last error, and when it is tried again."""
    found = terminal.client().job(job)
    show.as_json(found) if as_json else show.facts(found)


@jobs.command()
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Cancel a waiting JOB or stop a running one."""
    done = terminal.client().cancel(job, by=terminal.user())
    show.as_json(done) if as_json else show.facts(done)


@jobs.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Show it as it goes on, until it has ended.")
def log(job: str, follow: bool) -> None:
    """Show what the run of JOB has logged and printed."""
    api = terminal.client()
    if follow:
        followed(api, job, f"job {job}", quiet=False)
    found = api.job(job)
    if found["run"] is None:
        raise click.ClickException(f"job {job} has made no run: it is {found['status']}")
    if not follow:
        click.echo(api.run_log(found["run"]), nl=False)


COMMANDS = (train, jobs)
