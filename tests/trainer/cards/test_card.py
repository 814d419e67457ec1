"""What stands on a card, and what a card is made of."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from modelmill import drawing
from modelmill.state.runs import Run
from services.trainer.cards.card import Known
from services.trainer.cards.cards import render
from tests.trainer.cards import knowns

VOID = {"meta", "link", "br"}
wine, progression = cache(knowns.wine), cache(knowns.progression)


class Outline(HTMLParser):
    """Headings and text of a page, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data


def test_a_classifier_has_all_sections() -> None:
    page = Outline(render(wine()))
    assert page.headings == [
        "Decision", "Metrics", "Segments", "Figures", "Confusion matrix", "ROC curve", "Precision and recall",
        "Calibration", "What it goes by", "Permutation importance", "Features", "Limits", "Data", "Package", "Origin",
    ]  # fmt: skip
    for said in (
        "version 3",
        "champion",
        "owner the cellar",
        "What wine is for.",
        "promoted: there is no champion yet",
    ):
        assert said in page.text


def test_a_regression_shows_residuals() -> None:
    headings = Outline(render(progression())).headings
    assert headings[headings.index("Figures") + 1 : headings.index("What it goes by")] == [
        "Predicted and true", "Residuals by prediction", "Residuals",
    ]  # fmt: skip


def test_several_labels_have_their_own_figures_and_metrics() -> None:
    known = knowns.several()
    page = Outline(render(known))
    for title in ("Predicted and true of target", "Predicted and true of weight", "Residuals of weight"):
        assert title in page.headings
    assert known.evaluation is not None
    assert drawing.number(known.evaluation.outputs["weight"]["r2"]) in page.text


@pytest.mark.parametrize("known", [wine, progression])
def test_it_asks_for_nothing_else(known: object) -> None:
    html = render(known())  # type: ignore[operator]
    assert not re.findall(r"(?:src|href|xlink:href|action)=\"(?!data:,)", html)
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_what_people_declare_is_text() -> None:
    html = render(wine())
    assert "<b>grew</b>" not in html
    assert "&lt;b&gt;grew&lt;/b&gt;" in html


def test_every_picture_has_a_title_of_its_own_and_a_table() -> None:
    html = render(progression())
    titled = re.findall(r'<title id="([^"]+)"', html)
    assert len(titled) == len(set(titled)) == html.count("<figure>") == html.count("as a table</summary>") == 4


def test_gates_are_shown_with_their_figures() -> None:
    decision = {
        "promote": False,
        "verdicts": [
            {
                "gate": "size",
                "declared": "size_below(mb=50)",
                "held": True,
                "reason": "12 kB",
                "figures": {"mb": 0.012},
            },
            {"gate": "least", "declared": "at_least('accuracy', 1)", "held": False, "reason": "0.9", "figures": {}},
        ],
    }
    known = wine()
    assert known.evaluation is not None
    html = render(replace(known, evaluation=replace(known.evaluation, decision=decision)))
    assert "<code>size_below(mb=50)</code>" in html
    assert "mb 0.0120" in html
    assert html.count('class="held">yes') == html.count('class="broke">no') == 1


def test_a_failed_run_says_how_it_failed() -> None:
    run = Run(
        id="r1", model="wine", status="failed", started="2026-01-01T00:00:00Z", error="ValueError: <nan> is bad",
        traceback='File "mill.py", line 7', stage="fit",
    )  # fmt: skip
    page = Outline(render(Known(run)))
    assert page.headings == ["What went wrong", "Origin"]
    assert "ValueError: <nan> is bad" in page.text
    assert 'File "mill.py", line 7' in page.text


def test_a_search_is_told_on_its_card_and_on_those_of_its_trials() -> None:
    run = Run(id="r1", model="wine", status="succeeded", started="2026-01-01T00:00:00Z")
    found = Outline(render(Known(replace(run, trials=9, trials_failed=2)))).text
    assert "the best of 9 trials, of which 2 failed" in found
    assert "trial 4 of run r0" in Outline(render(Known(replace(run, parent="r0", trial=4)))).text


def test_a_run_without_an_evaluation_has_a_card_of_what_is_known() -> None:
    known = wine()
    page = Outline(render(Known(known.run)))
    assert page.headings == ["Decision", "Metrics", "Limits", "Data", "Origin"]
    assert drawing.number(known.run.metrics["accuracy"]) in page.text


def test_the_same_run_has_the_same_card_in_well_under_fifty_milliseconds() -> None:
    first = render(wine())
    begun = time.process_time()
    assert render(wine()) == first
    assert time.process_time() - begun < 0.05
