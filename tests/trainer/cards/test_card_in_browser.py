"""Cards in a real browser, from a file, without a network: what a person sees, and that nothing is asked for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.trainer.cards.card import Known
from services.trainer.cards.cards import Cards, render
from services.trainer.job import train
from tests.conftest import RedisServer
from tests.trainer.cards import knowns

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --disable-extensions --enable-logging=stderr --v=0 --dump-dom"
)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
ITSELF = "not an origin"
"""Who asks where Chromium asks for something of its own accord."""


class Seen:
    """A page as Chromium has it after it has been loaded from a file."""

    def __init__(self, html: str, folder: Path) -> None:
        page, log = folder / "card.html", folder / "net.json"
        page.write_text(html)
        command = ["chromium", *FLAGS.split(), OFFLINE, f"--user-data-dir={folder}/chromium", f"--log-net-log={log}"]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=90, check=True, cwd=folder
        )
        self.document = done.stdout
        self.complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        self.asked_for = asked_for(log)


def asked_for(log: Path) -> set[str]:
    """The addresses that the page asked for over a network."""
    text = log.read_text().rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # Chromium was gone before it had closed the list
        events = json.loads(f"{text}]}}")["events"]
    started = [event["params"] for event in events if {"url", "initiator"} <= event.get("params", {}).keys()]
    return {one["url"] for one in started if one["initiator"] != ITSELF and one["url"].startswith(("http", "ws"))}


def test_a_page_that_asks_for_something_is_caught(tmp_path: Path) -> None:
    seen = Seen("<!doctype html><img src='http://example.invalid/a.png'><script>missing()</script>", tmp_path)
    assert seen.asked_for == {"http://example.invalid/a.png"}
    assert "missing is not defined" in "".join(seen.complaints)


@pytest.mark.redis
def test_the_card_of_the_users_example(environment: dict[str, str], real_redis: RedisServer, tmp_path: Path) -> None:
    train("user_target")
    cards = Cards(Registry(real_redis.client()), Storage(environment["MODELMILL_STORAGE_URL"]))
    seen = Seen(cards.of_alias("user_target"), tmp_path)
    assert seen.complaints == []
    assert seen.asked_for == set()
    for said in ("<span>version 1</span>", "Confusion matrix", "Permutation importance", "Made-up data"):
        assert said in seen.document


@pytest.mark.parametrize("known", [knowns.wine, knowns.progression])
def test_cards_of_all_tasks(known: Callable[[], Known], tmp_path: Path) -> None:
    seen = Seen(render(known()), tmp_path)
    assert seen.complaints == []
    assert seen.asked_for == set()
    assert seen.document.count("<svg") > 10
    assert "Only what &lt;b&gt;grew&lt;/b&gt; in one valley." in seen.document
