"""The wheel, installed in an empty environment: from an empty folder to a first prediction, and to a change of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelmill.local import SERVICES, free_port
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a shell in which the wheel's `modelmill` is the one that is found; its services get free ports."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--disable-pip-version-check")
    locked = ("--quiet", "--require-hashes", "--only-binary", ":all:", "--requirement", ROOT / "requirements.lock")
    python = folder / "venv" / "bin" / "python"
    for command in (
        (
            sys.executable,
            *pip,
            "wheel",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            folder,
            ROOT,
        ),
        (sys.executable, "-m", "venv", folder / "venv"),
        (python, *pip, "install", *locked),
    ):
        subprocess.run(command, cwd=folder, check=True, timeout=600)
    [wheel] = folder.glob("*.whl")
    subprocess.run((python, *pip, "install", "--quiet", "--no-index", "--no-deps", wheel), cwd=folder, check=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    urls = {f"MODELMILL_{service.upper()}_URL": f"http://127.0.0.1:{free_port()}" for service in SERVICES}
    return {**kept, **urls, "PATH": f"{python.parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def project(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run(["modelmill", "init", "mill"], cwd=folder, env=environment, check=True, timeout=60)
    return folder / "mill"


def test_up_in_a_new_project_ends_with_a_first_prediction(project: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        ["modelmill", "up"], cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        assert up.stdout is not None
        printed = ""
        for line in up.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode == 0, printed
    assert "/models/orders_again/predict" in printed
    assert '"prediction": ' in printed
    assert '"version": ' in printed


def test_its_workflow_shows_what_a_commit_would_change(project: Path, environment: dict[str, str]) -> None:
    workflow = yaml.safe_load((project / ".github" / "workflows" / "test.yml").read_text())
    [step] = [one for one in workflow["jobs"]["test"]["steps"] if one.get("name") == "show what would change"]

    def shell(script: str) -> str:
        """As GitHub runs it."""
        who = {f"GIT_{role}_{what}": "t@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=project,
            env=environment | who,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shell("git init --quiet && git add . && git commit --quiet -m first")
    assert shell(step["run"]) == "everything is new\n"
    mill = project / "mill.py"
    mill.write_text(mill.read_text().replace('row["spent"] / row["orders"]', 'row["spent"] / (1 + row["orders"])'))
    shell("git commit --quiet --all -m second")
    assert "spent_per_order" in shell(step["run"]).partition("It runs.")[2].partition("\n  logs")[2]
