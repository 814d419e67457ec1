"""What a card warns of."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from modelmill.packages.package import Parity
from modelmill.state.runs import Run
from services.trainer.cards.card import Known, limits
from services.trainer.evaluation.evaluation import Evaluation, Segment
from services.trainer.evaluation.metrics import Interval
from tests.trainer.cards import knowns

wine = cache(knowns.wine)
RUN = Run(id="r1", model="m", started="2026-01-01T00:00:00Z", metric="roc_auc")
GOOD = Evaluation(
    rows=5000,
    split="by time",
    metrics={"roc_auc": 0.8},
    intervals={"roc_auc": Interval(0.78, 0.82, "")},
    baseline={"roc_auc": 0.5},
)
ALWAYS = "Intervals take rows as independent of each other; where they are not, they are too narrow."


def said(**found: object) -> list[str]:
    return [limit for limit in limits(Known(RUN, replace(GOOD, **found))) if limit != ALWAYS]  # type: ignore[arg-type]


def test_what_the_model_declares_comes_first() -> None:
    assert limits(wine())[0] == "Only what <b>grew</b> in one valley."


def test_a_good_evaluation_has_only_the_one_that_all_have() -> None:
    assert limits(Known(RUN, GOOD)) == [ALWAYS]


def test_nothing_is_known_without_an_evaluation() -> None:
    assert limits(Known(RUN)) == []


@pytest.mark.parametrize(
    "found, sentence",
    [
        ({"rows": 150}, "Only 150 rows were held out: every figure here is uncertain."),
        (
            {"intervals": {"roc_auc": Interval(0.49, 0.9, "")}},
            "It is not shown to be better than a model that knows only the labels: the interval of roc_auc reaches down"
            " to 0.4900, such a model has 0.5000.",
        ),
        (
            {"figures": {"late": {"calibration": {"1": {"error": 0.2}}}}},
            "Its probabilities of late 1 are 0.20 apart from what came true, on average: take them for ranks, or"
            " calibrate them.",
        ),
        (
            {"features": {"a": {"missing": 0.5}, "b": {"missing": 0.1}}},
            "Often missing in the rows it was trained on: a (50 %).",
        ),
        ({"importance": {"missing": "it would take 9.0 s"}}, "The importance of its inputs was not measured: it would take 9.0 s."),
        (
            {"segments": {"shop": {"tiny": Segment(7, {})}}},
            "Fewer than 20 held-out rows, so no metrics, where shop is tiny.",
        ),
        ({"segments": {"shop": {"odd": Segment(70, {})}}}, "roc_auc has no value where shop is odd."),
        (
            {"segments": {"shop": {"bad": Segment(70, {"roc_auc": 0.6}, {"roc_auc": Interval(0.5, 0.7, "")})}}},
            "roc_auc is shown to be lower than on all rows where shop is bad (0.6000).",
        ),
    ],
)  # fmt: skip
def test_figures_speak(found: dict[str, object], sentence: str) -> None:
    assert [text.replace("\N{NARROW NO-BREAK SPACE}", " ") for text in said(**found)] == [sentence]


def test_rows_that_were_left_out_and_a_split_at_random_are_told() -> None:
    run = replace(
        RUN, rows_train=60, rows_test=30, rows_dropped=10, split="at random, seed 0", data_end="2026-01-01T00:00:00Z"
    )
    texts = limits(Known(run))
    assert texts[0] == "Nothing that happened after 2026-01-01 is known to it."
    assert "tested on times that it was trained on" in texts[1]
    assert texts[2].startswith("10 rows (10")


def test_a_package_that_answers_otherwise_is_told() -> None:
    known = wine()
    assert known.manifest is not None
    other = replace(
        known.manifest,
        runtime="skops",
        runtime_reason="no graph.",
        parity=Parity(50, 0.02, 0.1, 0.1),
        required=["flavanoids"],
    )
    texts = limits(replace(known, manifest=other))
    assert "It is served by scikit-learn, which is slower than a graph: no graph." in texts
    assert (
        "'flavanoids' may be missing by its declaration, and the estimator has no answer then: a request without it is"
        " refused (422)."
    ) in texts
    assert texts[-1].endswith("otherwise than the estimator.")
