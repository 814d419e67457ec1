"""The commands that run the system on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from modelmill.cli import show
from modelmill.client import Client
from modelmill.errors import Conflict, ModelmillError, NotFound, RequestFailed, Unavailable
from modelmill.local import Local
from modelmill.settings import Settings

PROJECT = Path(__file__).with_name("project")
"""What `modelmill init` writes."""
LOADER = "load.py"
"""Beside the definitions: a program that fills the system with first rows and a first model."""
LOAD_SECONDS = 1800
"""How long it may take, as on a busy machine."""


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a small project into FOLDER, a new one: definitions, made-up data, tests, checks for git and CI.

    It is complete: `modelmill up` in it ends with a first prediction.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Conflict(f"{folder} exists and is not empty; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = {"@NAME@": folder.absolute().name, "@VERSION@": version("modelmill")}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        whole = Path(scratch, "project")
        shutil.copytree(PROJECT, whole, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (whole / "README.md", whole / "requirements.txt"):
            text = file.read_text()
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            file.write_text(text)
        whole.replace(folder)
    show.console.print(f"Written. Next: cd {folder} && modelmill up", highlight=False, markup=False, soft_wrap=True)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--detach", is_flag=True, help="Return when everything runs; stop it with `modelmill down`.")
def up(file: Path | None, detach: bool) -> None:
    """Start Redis, the four services and a worker, with the definitions FILE (default: mill.py).

    Then run `load.py`, if there is one beside FILE, which may put first rows in and train a first model.
    """
    path = file or Settings.read().definitions
    if not path.exists():
        raise NotFound(f"{path} is not there; name a definitions file, or let modelmill init write a project")
    local = Local.at(home(), path)
    if local.running():
        show.console.print("It runs already; see [bold]modelmill status[/], stop it with [bold]modelmill down[/].")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with show.console.status("starting"):
        settings = local.start()
    try:
        if (script := settings.definitions.parent / LOADER).is_file():
            _load(settings, script)
        _say_where(local, settings)
        if not detach:
            show.console.print("\nWhat happens from now on (Ctrl-C stops everything):", style="bold")
            _watch(local, Client(settings))
    except KeyboardInterrupt:
        pass
    except BaseException:
        detach = False
        raise
    finally:
        if not detach:
            with show.console.status("stopping"):
                local.stop()


def _load(settings: Settings, script: Path) -> None:
    """Run the loader beside the definitions and show what it prints: a request, and the answer to it."""
    environment = {f"MODELMILL_{n.upper()}": str(v) for n, v in settings.model_dump().items() if v is not None}
    try:
        with show.console.status(f"running {script}"):
            done = subprocess.run(
                [sys.executable, str(script)],
                cwd=script.parent,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=LOAD_SECONDS,
            )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{script} did not end within {LOAD_SECONDS} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ModelmillError(f"{script} failed: {reason[0]}")
    show.console.print("\nIt runs. Try:\n", style="bold")
    show.console.print(done.stdout.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _say_where(local: Local, settings: Settings) -> None:
    port = settings.redis_url.rpartition(":")[2].partition("/")[0]
    places = {
        "monitor": f"{settings.monitor_url}/",
        "feature store": f"{settings.feature_url}/docs",
        "trainer": f"{settings.trainer_url}/docs",
        "predictor": f"{settings.predictor_url}/docs",
        "Redis": f"{settings.redis_url}  (redis-cli -p {port})",
        "logs": str(local.home / "logs"),
    }
    for name, place in places.items():
        show.console.print(f"  {name:<14} {place}", highlight=False, soft_wrap=True)


def _watch(local: Local, client: Client) -> None:
    """Print models' events as they come, until Ctrl-C or `modelmill down`; a monitor that restarts is waited for."""
    while local.running():
        try:
            for event in client.follow("models"):
                show.event(event)
        except (Unavailable, RequestFailed):
            signal.sigtimedwait([], 1.0)


@click.command()
def down() -> None:
    """Stop everything that `modelmill up` started here; the state stays."""
    local = Local.at(home(), Path("mill.py"))
    if not local.running():
        show.console.print("Nothing runs here.")
        return
    with show.console.status("stopping"):
        local.stop()
    show.console.print("Stopped.")


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether each service is ready; exit code 3 if one is not."""
    local = Local.at(home(), Path("mill.py"))
    processes = local.processes()
    services = client().ready()
    if as_json:
        show.as_json({"services": services, "processes": processes})
    else:
        rows = [{"service": name, **answer} for name, answer in services.items()]
        degraded = ["degraded"] if any(row.get("degraded") for row in rows) else []
        show.table(rows, ["service", "status", "url", "problems", *degraded], empty="")
        if processes:
            show.console.print()
            show.table(processes, ["name", "state", "detail"], empty="")
    if any(answer["status"] != "ready" for answer in services.values()):
        sys.exit(EXIT_UNAVAILABLE)


# --- what commands share: the client of the system that they speak to, their options and their exit codes

EXIT_FAILED, EXIT_UNAVAILABLE = 1, 3


def home() -> Path:
    """Where the local system keeps its state."""
    return Path(os.environ.get("MODELMILL_HOME", ".modelmill"))


def client() -> Client:
    """A client of the system that was started here, or of the one that the environment names."""
    local = Local.at(home(), Path("mill.py"))
    return Client(local.reached() if local.running() else Settings.read())


def user() -> str:
    """Who gives the command, for what is kept of it."""
    return os.environ.get("USER", "cli")


COMMANDS = (init, up, down, status)
