"""When a new version becomes champion."""

from __future__ import annotations

import pytest

from services.trainer.promotion.decision import Champion, Decision, Policy, decide


def decided(policy: Policy, score: float, champion: Champion | None) -> Decision:
    return decide(policy, "accuracy", score, 250, champion)


def test_the_first_version_is_promoted() -> None:
    decision = decided("if_better", 0.5, None)
    assert decision == Decision(True, "promoted: accuracy 0.5 on 250 held-out rows; there is no champion yet")


def test_a_better_version_is_promoted_with_both_figures() -> None:
    decision = decided("if_better", 0.86125, Champion(3, 0.841))
    assert decision.promote
    assert decision.reason == (
        "promoted, being better: accuracy 0.86125 on 250 held-out rows, champion version 3 0.841 on the same rows"
    )


@pytest.mark.parametrize("score", [0.8, 0.7])
def test_a_version_that_is_not_better_is_not_promoted(score: float) -> None:
    decision = decided("if_better", score, Champion(3, 0.8))
    assert not decision.promote
    assert decision.reason.startswith("not promoted, not being better: accuracy")


def test_what_cannot_be_compared_waits_for_a_person() -> None:
    decision = decided("if_better", 0.99, Champion(3, None, "it takes old_feature, which the model no longer declares"))
    assert not decision.promote
    assert "cannot be compared: it takes old_feature" in decision.reason
    assert decision.reason.endswith("promote it by hand if it is good")


def test_a_champion_whose_package_is_broken_is_replaced() -> None:
    assert decided("if_better", 0.1, Champion(3, None, "model.onnx differs from its SHA-256", broken=True)).promote


@pytest.mark.parametrize("champion", [None, Champion(3, 0.9), Champion(3, None, "no")])
def test_the_policy_always_promotes(champion: Champion | None) -> None:
    assert decided("always", 0.1, champion).promote


@pytest.mark.parametrize("champion", [None, Champion(3, 0.1), Champion(3, None, "no", broken=True)])
def test_the_policy_manual_never_does(champion: Champion | None) -> None:
    decision = decided("manual", 0.9, champion)
    assert not decision.promote
    assert decision.reason.startswith("waits for a person (policy manual)")
