"""The commands that train, and look after the jobs that do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import click

from modelmill.cli import show, system
from modelmill.cli.system import EXIT_FAILED, json_option
from modelmill.client import Client, Json
from modelmill.errors import RequestFailed


@click.command()
@click.argument("model")
@click.option("--wait", is_flag=True, help="Show progress until the job has ended.")
@click.option("--start", help="Train on rows from this time on (ISO 8601).")
@click.option("--end", help="Train on rows before this time (ISO 8601).")
@json_option
def train(model: str, wait: bool, start: str | None, end: str | None, as_json: bool) -> None:
    """Enqueue a training of MODEL, or join the one that waits or runs for the same data."""
    api = system.client()
    job = api.train(model, start=start, end=end, by=system.user())
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
        rows = system.client().jobs()
        columns = ["job", "model", "status", "stage", "attempt", "trigger", "run"]
        show.as_json(rows) if as_json else show.table(rows, columns, empty="No jobs.")


@jobs.command("show")
@click.argument("job")
@json_option
def show_job(job: str, as_json: bool) -> None:
    """Show one JOB: where it is, its last error, and when it is tried again."""
    found = system.client().job(job)
    show.as_json(found) if as_json else show.facts(found)


@jobs.command()
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Cancel a waiting JOB or stop a running one."""
    done = system.client().cancel(job, by=system.user())
    show.as_json(done) if as_json else show.facts(done)


@jobs.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Show it as it goes on, until it has ended.")
def log(job: str, follow: bool) -> None:
    """Show what the run of JOB has logged and printed."""
    api = system.client()
    if follow:
        followed(api, job, f"job {job}", quiet=False)
    found = api.job(job)
    if found["run"] is None:
        raise click.ClickException(f"job {job} has made no run: it is {found['status']}")
    if not follow:
        click.echo(api.run_log(found["run"]), nl=False)


# --- the commands about what triggers trainings, and about training as of past days


@click.command()
@json_option
def schedules(as_json: bool) -> None:
    """List what trains the models by itself: when next, when last, and what became of it."""
    rows = system.client().schedules()
    if as_json:
        show.as_json(rows)
        return
    for row in rows:
        row |= {"next": show.when(row["next"]), "fired": show.when(row["fired"])}
        row["outcome"] = row["waits"] or row["outcome"]
    columns = ["model", "trigger", "next", "fired", "outcome", "today", "rows"]
    show.table(rows, columns, empty="No model is trained by itself.")


@click.command()
@click.argument("model")
@click.option("--from", "start", required=True, help="The first point in time (ISO 8601).")
@click.option("--to", "end", required=True, help="The last point in time (ISO 8601).")
@click.option("--step", default="1d", show_default=True, help="How much later the next point is: 30d, month, ...")
@click.option("--again", is_flag=True, help="Begin anew instead of going on after what is done.")
@json_option
def backfill(model: str, start: str, end: str, step: str, again: bool, as_json: bool) -> None:
    """Train MODEL as of past days, one after another: at each point --from, --to on the rows from before it.

    Interrupted and asked again, it goes on after what is done.
    """
    with show.bar(f"training {model}", as_json) as progress:
        found = system.client().backfill(
            model, start=start, end=end, step=step, again=again, by=system.user(), progress=progress
        )
    show.as_json(found) if as_json else show.table(found, ["as_of", "status", "version", "run", "error"], empty="")
    if any(point["status"] != "succeeded" for point in found):
        sys.exit(EXIT_FAILED)


# --- the command that shows what a training tried


@click.command()
@click.argument("run")
@json_option
def trials(run: str, as_json: bool) -> None:
    """List the trials of the search of RUN, the best first, with the parameters in which they differ."""
    found = system.client().trials(run)
    if as_json:
        show.as_json(found)
        return
    rows = found["runs"]
    metric = rows[0]["metric"] if rows else ""
    for row in rows:
        row["tried"] = differing(row, rows)
        row["seconds"] = row["seconds"].get("fit")
        row[metric] = row["metrics"].get(metric)
        row["std"] = row["metrics"].get(f"{metric}_std")
    rows.sort(key=lambda row: (row[metric] is None, -(row[metric] or 0.0), row["trial"]))
    columns = ["trial", "status", metric, "std", "tried", "seconds", "id", "error"]
    show.table(rows, columns, empty="No trials: this run searched nothing.")
    if rows:
        click.echo(f"{found['trials_ended']} of {found['trials']} trials have ended, {found['trials_failed']} failed")


def differing(trial: Json, trials: Sequence[Json]) -> dict[str, str]:
    """The parameters in which a trial differs from others: from those of the same candidate, or in its candidate."""
    own = trial["params"]
    candidates = {other["params"].get("candidate", "") for other in trials} - {""}
    same = [other["params"] for other in trials if other["params"].get("candidate") == own.get("candidate")]
    shown = {"candidate": own["candidate"]} if "candidate" in own and len(candidates) > 1 else {}
    varied = {name: own[name] for name in sorted(own) if any(other.get(name) != own[name] for other in same)}
    return shown | varied


# --- the command that repeats a run


@click.command()
@click.argument("run")
@json_option
def reproduce(run: str, as_json: bool) -> None:
    """Repeat RUN on the rows of that time by the code of that time, and compare; exits 0 if all is equal, 1 if not."""
    api = system.client()
    job = api.reproduce(run, by=system.user(), wait=False)
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


# --- the command that shows how good a run's model is


@click.command()
@click.argument("run")
@json_option
def evaluation(run: str, as_json: bool) -> None:
    """Show the metrics of RUN on its held-out rows, with 95 % intervals, and by segment."""
    found = system.client().evaluation(run)
    if as_json:
        show.as_json(found)
        return
    show.facts({"split": found["split"], "rows": found["rows"]})
    rows = [
        {"metric": name, "value": value, "95_%": _interval(found, name), "labels_alone": found["baseline"].get(name)}
        for name, value in found["metrics"].items()
    ]
    show.table(rows, ["metric", "value", "95_%", "labels_alone"], empty="")
    deciding = next(iter(found["metrics"]))
    segments = list(_segments(found, deciding))
    if segments:
        show.console.print()
        show.table(segments, ["column", "value", "rows", deciding, "95_%"], empty="")


def _segments(found: Mapping[str, Any], metric: str) -> Iterator[dict[str, Any]]:
    for column, values in found["segments"].items():
        for value, one in values.items():
            score = one["metrics"].get(metric, one["missing"].get(metric))
            yield {"column": column, "value": value, "rows": one["rows"], metric: score, "95_%": _interval(one, metric)}


def _interval(of: Mapping[str, Any], metric: str) -> str:
    interval = of["intervals"].get(metric)
    return f"{show.text(interval['lo'])} to {show.text(interval['hi'])}" if interval else ""


COMMANDS = (train, jobs, schedules, backfill, trials, evaluation, reproduce)
