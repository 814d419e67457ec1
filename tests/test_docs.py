"""The docs say what the code does: pages made from it are fresh, documented commands exist, links lead somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from flask import Flask

from docs import generate
from modelmill import cli
from modelmill.http import openapi
from modelmill.state import events, keys
from tests.conftest import ROOT

TEXTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_page_made_from_the_code_is_fresh(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == generate.rendered(page), "run make docs"


@pytest.mark.parametrize("service, app", [(name, app) for name, _, app in generate.service_apps()])
def test_every_route_says_what_it_does(service: str, app: object) -> None:
    for path, methods in openapi.describe(app, service)["paths"].items():  # type: ignore[arg-type]
        for method, call in methods.items():
            assert call["summary"], f"{method.upper()} {path} of {service} has no docstring"


READS = re.compile(r"request\.(args|form|files)|json_object\(")


@pytest.mark.parametrize("service, app", [(name, app) for name, _, app in generate.service_apps()])
def test_what_a_call_takes_is_declared_and_so_described(service: str, app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        view = inspect.unwrap(app.view_functions[rule.endpoint])
        assert not READS.search(inspect.getsource(view)), (
            f"{service}: {rule.rule} reads what the document does not tell"
        )


@pytest.mark.parametrize("kind", events.EVENTS.values(), ids=lambda kind: kind.type)
def test_every_event_says_what_happened(kind: type[events.Event]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__ + "("), "the docstring that dataclass makes up"


def test_every_redis_key_says_what_lies_there() -> None:
    functions = [value for value in vars(keys).values() if callable(value) and value.__module__ == keys.__name__]
    assert all(function.__doc__ for function in functions)
    names = [name for name in vars(keys) if name.isupper()]
    assert set(names) <= generate.attribute_docs(keys).keys()


def documented_commands() -> list[tuple[str, str]]:
    found = []
    for text in TEXTS:
        for line in text.read_text().splitlines():
            if match := re.match(r"\s*\$ (?:\.venv/bin/)?modelmill (.*)", line):
                found.append((text.name, match.group(1).split(" | ")[0]))
    return found


@pytest.mark.parametrize("page, line", documented_commands())
def test_a_documented_command_is_one_that_the_program_takes(page: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    command: click.Command = cli.main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert command is not cli.main, f"{page}: no command in `modelmill {line}`"
    for parameter in command.params:  # the files that it names need not be here
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    command.make_context("modelmill", words, resilient_parsing=False)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_links_in_the_docs_lead_to_files(text: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (text.parent / target).exists(), f"{text.name} links to {target}"


def test_the_index_of_the_pages_names_each() -> None:
    named = re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text())
    assert set(named) == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_files_of_the_page_your_own_data_do_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-own-data.md").read_text()
    for name, text in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, "make_readings.py"], cwd=tmp_path, check=True, timeout=60)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(tests, cwd=tmp_path / "machines", capture_output=True, text=True, timeout=100)
    assert "2 passed" in done.stdout, done.stdout
    assert "2 passed" in page


BUDGETS = dict(
    re.findall(
        r"^\| `((?:modelmill|services)[\w/.]*)` \| ([\d,]+) \|$", (ROOT / "docs/architecture.md").read_text(), re.M
    )
)


def lines_of(room: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in ([room] if room.is_file() else room.rglob("*.py")))


def rooms() -> list[str]:
    """Every folder or file of the product that the page gives a number of lines."""
    folders = [ROOT / "modelmill", *(ROOT / "services" / name for name in ("feature", "trainer"))]
    inside = [one for folder in folders for one in folder.iterdir() if one.is_dir() and one.name != "__pycache__"]
    return sorted(
        str(one.relative_to(ROOT)) for one in [*inside, ROOT / "services/predictor", ROOT / "services/monitor"]
    )


@pytest.mark.parametrize("room", rooms())
def test_a_room_keeps_within_the_lines_that_the_architecture_gives_it(room: str) -> None:
    assert lines_of(ROOT / room) <= int(BUDGETS[room].replace(",", "")), "merge or delete, or argue for more"


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    files = [file for top in ("modelmill", "services") for file in (ROOT / top).rglob("*.py")]
    assert {str(file.relative_to(ROOT)) for file in files if lines_of(file) > 600} == set()
