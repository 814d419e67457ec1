"""What commands share: the client of the system that they speak to, their options and their exit codes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from modelmill.client import Client
from modelmill.local import Local
from modelmill.settings import Settings

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


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)
