"""What the command `card` writes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system

asked: list[tuple[str, dict[str, object]]] = []


class Carded:
    """A client of a system with a card."""

    def card(self, model: str = "", **which: object) -> str:
        asked.append((model, which))
        return "<!doctype html>é"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    asked.clear()
    monkeypatch.setattr(system, "client", Carded)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "given, model, which",
    [
        (["m"], "m", {"version": None, "alias": "champion"}),
        (["m@3"], "m", {"version": 3, "alias": "champion"}),
        (["m@challenger"], "m", {"version": None, "alias": "challenger"}),
        (["--run", "r1"], "", {"run": "r1"}),
    ],
)
def test_it_fetches_what_is_named(given: list[str], model: str, which: dict[str, object], folder: Path) -> None:
    done = CliRunner().invoke(cli.main, ["card", *given])
    assert done.exit_code == 0, done.output
    assert asked == [(model, which)]
    path = folder / f"{given[-1]}.html"
    assert done.stdout.strip() == path.name
    assert path.read_text(encoding="utf-8") == "<!doctype html>é"


def test_it_goes_where_it_is_told(folder: Path) -> None:
    assert CliRunner().invoke(cli.main, ["card", "m", "-o", "here.html"]).exit_code == 0
    assert (folder / "here.html").exists()
    assert CliRunner().invoke(cli.main, ["card", "m", "-o", "-"]).stdout == "<!doctype html>é"


def test_it_opens_in_the_browser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    CliRunner().invoke(cli.main, ["card", "m", "--open"])
    assert opened == [(folder / "m.html").as_uri()]


def test_a_place_that_cannot_be_written_is_named() -> None:
    done = CliRunner().invoke(cli.main, ["card", "m", "-o", "absent/here.html"])
    assert done.exit_code == 1
    assert "cannot write absent/here.html: No such file or directory" in done.output


@pytest.mark.parametrize("given", [[], ["m", "--run", "r1"]])
def test_one_thing_has_to_be_named(given: list[str]) -> None:
    assert CliRunner().invoke(cli.main, ["card", *given]).exit_code == 2
