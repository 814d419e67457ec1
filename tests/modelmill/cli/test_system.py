"""`modelmill init` writes a small project that is whole, in a folder that was free; `up` runs its loader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system
from modelmill.errors import ModelmillError
from modelmill.local import free_port
from modelmill.settings import Settings


def init(folder: Path) -> Result:
    return CliRunner().invoke(cli.main, ["init", str(folder)])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    assert init(tmp_path / "shop").exit_code == 0
    return tmp_path / "shop"


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in the project, with the programs of this environment, where no Redis answers."""
    bin = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=100)


def test_init_names_the_project_and_the_version_that_it_needs(project: Path) -> None:
    assert (project / "README.md").read_text().startswith("# shop\n")
    assert f"modelmill[local]=={version('modelmill')}\n" in (project / "requirements.txt").read_text()
    assert not [file.name for file in project.rglob("*") if file.is_file() and re.search("@[A-Z]+@", file.read_text())]


def test_the_tests_that_init_writes_pass_without_redis_before_a_commit(project: Path) -> None:
    run(project, "git", "init", "--quiet")
    run(project, "git", "add", ".")
    done = run(project, "pre-commit", "run", "--verbose", "test-mill")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_tests_that_init_writes_see_a_changed_feature(project: Path) -> None:
    mill = project / "mill.py"
    mill.write_text(mill.read_text().replace('row["spent"] / row["orders"]', 'row["spent"] * row["orders"]'))
    done = run(project, "python", "-m", "pytest", "-q")
    assert done.returncode == 1
    assert "FAILED test_mill.py::test_spent_per_order_is_the_mean_of_the_orders" in done.stdout


def test_the_data_that_init_makes_up_are_the_same_each_time(project: Path) -> None:
    files = [project / "one.csv", project / "two.csv"]
    for file in files:
        assert run(project, "python", "data.py", file.name).returncode == 0
    one, two = (file.read_text() for file in files)
    assert one == two
    assert len(one.splitlines()) == 2001


def test_init_takes_an_empty_folder(tmp_path: Path) -> None:
    assert init(tmp_path).exit_code == 0
    assert (tmp_path / "mill.py").exists()


@pytest.mark.parametrize("name", ["shop", "shop/file"])
def test_init_refuses_what_is_not_empty_and_leaves_it_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "file").write_text("mine")
    done = init(tmp_path / name)
    assert done.exit_code == 1
    assert f"{tmp_path / name} exists and is not empty; name a new folder" in done.stderr
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["shop", "shop/file"]
    assert (tmp_path / "shop" / "file").read_text() == "mine"


def test_up_without_definitions_says_where_they_can_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["up"])
    assert done.exit_code == 1
    assert "mill.py is not there; name a definitions file, or let modelmill init write a project" in done.stderr


def test_a_loader_runs_in_its_folder_with_the_settings_of_the_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "load.py"
    script.write_text("import os\nprint(os.getcwd(), os.environ['MODELMILL_FEATURE_URL'], '[bold]')\n")
    system._load(Settings(feature_url="http://127.0.0.1:9"), script)
    assert f"{tmp_path} http://127.0.0.1:9 [bold]\n" in capsys.readouterr().out


@pytest.mark.parametrize("text, reason", [("1 / 0", "ZeroDivisionError: division by zero"), ("exit(3)", "exit code 3")])
def test_a_loader_that_fails_is_named_with_its_reason(text: str, reason: str, tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(text)
    with pytest.raises(ModelmillError) as failed:
        system._load(Settings(), script)
    assert str(failed.value) == f"{script} failed: {reason}"
