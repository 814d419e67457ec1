"""What each gate says of a candidate beside the champion."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from modelmill import at_least, improves, latency_below, no_segment_worse, parity, size_below
from modelmill.declare.gates import Gate, Judged
from modelmill.declare.metrics import Metric
from modelmill.packages.package import Parity
from services.trainer.evaluation.answers import Answers, Output
from services.trainer.evaluation.evaluation import HeldOut, segmentation
from services.trainer.promotion.contender import Contender, Incomparable
from services.trainer.promotion.judgement import Evidence, Verdict, verdicts

RANDOM = np.random.default_rng(7)
ROWS = pd.DataFrame({"x": RANDOM.normal(size=400), "origin": RANDOM.choice(["EWR", "JFK", "LGA"], 400)})
LABEL = (ROWS["x"] + RANDOM.normal(size=400) > 0).to_numpy().astype(int)
HELD_OUT = HeldOut((Metric("roc_auc"),), ROWS, LABEL, ("late",), {"origin": segmentation(ROWS["origin"])})


def answers(noise: float, worse_at: str = "", seed: int = 0) -> Answers:
    """Probabilities that follow `x`, with some noise, at one origin with none of `x`."""
    random = np.random.default_rng(seed)
    signal = np.where(ROWS["origin"] == worse_at, 0.0, ROWS["x"]) + noise * random.normal(size=400)
    positive = 1 / (1 + np.exp(-signal))
    probabilities = np.column_stack([1 - positive, positive])
    return Answers("classification", (Output(probabilities.argmax(axis=1), np.array([0, 1]), probabilities),))


class Slow:
    """A model that takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        self.asked.append(len(rows))
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        return np.zeros(len(rows))


def contender(found: Answers, version: int | None = None, model: Any = None, size: int = 1_500_000) -> Contender:
    return Contender(version, model, HELD_OUT, found, size)


EQUAL = Parity(rows=400, labels_differing=0, max_difference=0, max_relative_difference=0)
GOOD, POOR = contender(answers(0.1)), contender(answers(3.0), version=3)


def said(
    gate: Gate,
    candidate: Contender = GOOD,
    champion: Contender | Incomparable | None = POOR,
    parity_found: Parity | None = None,
) -> Verdict:
    [verdict] = verdicts([gate], Evidence(candidate, champion, parity_found or EQUAL))
    assert (verdict.gate, verdict.declared) == (gate.name, str(gate))
    return verdict


# --- improves


def test_a_clearly_better_candidate_improves_and_the_figures_say_by_how_much() -> None:
    verdict = said(improves("roc_auc", by=0.002))
    gap = roc_auc_score(LABEL, GOOD.answers.outputs[0].probabilities[:, 1]) - roc_auc_score(  # type: ignore[index]
        LABEL,
        POOR.answers.outputs[0].probabilities[:, 1],  # type: ignore[index]
    )
    assert verdict.held
    assert verdict.figures["estimate"] == pytest.approx(gap)
    assert verdict.figures["lo"] < gap < verdict.figures["hi"]
    assert verdict.reason.startswith(f"better by {gap:.4g}, and better by more than 0.002 in 100.0% of")
    assert verdict.reason.endswith("asked for 95%")


def test_a_candidate_that_is_better_by_chance_alone_does_not_improve() -> None:
    verdict = said(improves("roc_auc"), contender(answers(1.0, seed=1)), contender(answers(1.0, seed=2), version=3))
    assert not verdict.held
    assert 0 < verdict.figures["share"] < 0.95


def test_the_same_answers_do_not_improve() -> None:
    verdict = said(improves("roc_auc"), GOOD, contender(GOOD.answers, version=3))
    assert not verdict.held
    assert verdict.reason.startswith("equal, and better by any margin in 0.0% of")


def test_a_margin_that_is_not_reached_is_not_improved_by() -> None:
    assert not said(improves("roc_auc", by=0.5)).held


def test_a_metric_that_cannot_be_computed_fails_its_gates() -> None:
    labels = Answers("classification", (Output(GOOD.predicted, np.array([0, 1])),))
    for gate in (improves("roc_auc"), at_least("roc_auc", 0.5)):
        verdict = said(gate, contender(labels))
        assert not verdict.held
        assert "metric 'roc_auc'" in verdict.reason


# --- where there is no champion that can be compared


@pytest.mark.parametrize("gate", [improves("roc_auc"), no_segment_worse("roc_auc", than=0.05)])
def test_a_gate_that_needs_a_champion_holds_for_the_first_version_and_says_so(gate: Gate) -> None:
    assert said(gate, champion=None).held
    assert said(gate, champion=None).reason == "there is no champion yet to compare with"


@pytest.mark.parametrize("gate", [improves("roc_auc"), no_segment_worse("roc_auc", than=0.05)])
def test_a_champion_that_cannot_be_compared_fails_it(gate: Gate) -> None:
    verdict = said(gate, champion=Incomparable(3, "it takes old_feature"))
    assert not verdict.held
    assert verdict.reason == (
        "champion version 3 cannot be compared: it takes old_feature; promote by hand if it is good"
    )


@pytest.mark.parametrize("gate", [improves("roc_auc"), no_segment_worse("roc_auc", than=0.05)])
def test_a_broken_champion_is_none_to_keep(gate: Gate) -> None:
    verdict = said(gate, champion=Incomparable(3, "altered", broken=True))
    assert verdict.held
    assert verdict.reason == "champion version 3 is broken, so there is none to compare with"


# --- at_least


def test_at_least_compares_with_a_number_which_may_be_reached_exactly() -> None:
    value = GOOD.score(Metric("roc_auc"))
    assert said(at_least("roc_auc", value)).held
    assert not said(at_least("roc_auc", value + 1e-9)).held
    assert said(at_least("roc_auc", 0.5)).reason == f"roc_auc {value:.6g}, asked for 0.5"


def test_what_the_package_cannot_give_is_taken_from_the_estimator() -> None:
    labels = Answers("classification", (Output(GOOD.predicted, np.array([0, 1])),))
    candidate = Contender(None, None, HELD_OUT, labels, 0, {"roc_auc": 0.75})
    assert said(at_least("roc_auc", 0.7), candidate).reason == "roc_auc 0.75, asked for 0.7"


# --- no_segment_worse


def test_a_candidate_that_is_better_over_all_may_be_worse_somewhere() -> None:
    candidate, champion = contender(answers(0.1, worse_at="LGA")), contender(answers(1.0), version=3)
    assert said(improves("accuracy", confidence=0.5), candidate, contender(answers(5.0), version=3)).held
    verdict = said(no_segment_worse("roc_auc", than=0.05), candidate, champion)
    assert not verdict.held
    assert verdict.reason.startswith("worse by up to 0.")
    assert "in origin=LGA (" in verdict.reason
    assert verdict.figures["gap"] < -0.05


def test_a_candidate_that_is_nowhere_worse_passes() -> None:
    verdict = said(no_segment_worse("roc_auc", than=0.05))
    assert verdict.held
    assert verdict.reason.startswith("better by at least ")
    assert verdict.figures["segments"] == 3


def test_segments_of_few_rows_are_left_out_and_without_others_it_fails() -> None:
    few = HeldOut(HELD_OUT.metrics, ROWS[:30], LABEL[:30], ("late",), {"origin": segmentation(ROWS["origin"][:30])})
    two = [Contender(v, None, few, c.answers.rows(np.arange(30)), 0) for v, c in ((None, GOOD), (3, POOR))]
    verdict = said(no_segment_worse("roc_auc", than=0.05), *two)
    assert not verdict.held
    assert verdict.reason == "no segment can be compared, left out 3 of less than 20 rows"


# --- what is measured of the package


def test_latency_is_that_of_single_rows_and_bounded_in_time() -> None:
    model = Slow(0.003)
    begun = time.perf_counter()
    verdict = said(latency_below(ms=2, quantile=0.5), contender(GOOD.answers, model=model))
    assert time.perf_counter() - begun < 2
    assert set(model.asked) == {1}
    assert not verdict.held
    assert verdict.figures["median"] >= 3
    assert verdict.figures["calls"] >= 20
    assert verdict.reason.endswith("asked for p50 below 2 ms")
    assert said(latency_below(ms=10_000), contender(GOOD.answers, model=Slow())).held


def test_size_is_that_of_the_package() -> None:
    assert said(size_below(mb=2)).held
    assert not said(size_below(mb=1.5)).held
    assert said(size_below(mb=2)).figures == {"mb": 1.5}


def test_parity_is_that_which_the_package_was_found_to_have() -> None:
    near = replace(EQUAL, max_difference=50.0, max_relative_difference=1e-7)
    assert said(parity(0.0)).held
    assert said(parity(1e-6), parity_found=near).held
    verdict = said(parity(1e-8), parity_found=near)
    assert not verdict.held
    assert verdict.reason == "answers to 400 rows differ by at most 1e-07; asked for 1e-08"


def test_parity_that_was_never_measured_is_none() -> None:
    [verdict] = verdicts([parity(1.0)], Evidence(GOOD, POOR, None))
    assert not verdict.held
    assert "does not say how far" in verdict.reason


def test_parity_allows_no_other_label() -> None:
    verdict = said(parity(1e-3), parity_found=replace(EQUAL, labels_differing=0.0025))
    assert not verdict.held
    assert "0.250% of the labels are others" in verdict.reason


# --- a function of the user


def judged(function: Callable[..., Any]) -> Gate:
    return Judged(function)


def test_a_function_sees_both_and_gives_its_reason() -> None:
    def cheaper(candidate: Contender, champion: Contender | None) -> tuple[bool, str]:
        assert champion is not None
        gain = candidate.metrics["roc_auc"] - champion.metrics["roc_auc"]
        jfk = candidate.segments["origin"]["JFK"]["roc_auc"]
        assert len(candidate.rows) == len(candidate.label) == len(candidate.predicted)
        return gain > 0 and jfk > 0.5 and candidate.size_mb < 2, f"gains {gain:.2f}"

    verdict = said(judged(cheaper))
    assert (verdict.gate, verdict.held) == ("cheaper", True)
    assert verdict.reason.startswith("gains 0.")


def test_a_function_is_asked_without_a_champion_where_there_is_none_yet() -> None:
    def alone(candidate: Contender, champion: Contender | None) -> bool:
        return champion is None

    assert said(judged(alone), champion=None).held
    assert not said(judged(alone)).held
    assert "cannot be compared" in said(judged(alone), champion=Incomparable(3, "it takes old_feature")).reason


def test_a_function_that_fails_or_answers_nonsense_fails_the_gate_with_its_line() -> None:
    def broken(candidate: Contender, champion: Contender | None) -> bool:
        raise KeyError("no_such_metric")

    def vague(candidate: Contender, champion: Contender | None) -> Any:
        return "yes"

    verdict = said(judged(broken))
    assert not verdict.held
    assert verdict.reason.startswith("KeyError: 'no_such_metric' (")
    assert f"{__file__}:" in verdict.reason
    assert said(judged(vague)).reason == "it returned 'yes'; expected True or False, or (True or False, a reason)"
