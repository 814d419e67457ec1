"""When a new version goes live."""

from __future__ import annotations

import pytest

from modelmill.declare.gates import Policy
from services.trainer.promotion.judgement import Comparison, Decision, Verdict, decide

FIRST = Comparison("accuracy", 250, 0.86125)
BESIDE = Comparison("accuracy", 250, 0.86125, 3, 0.841)
APART = Comparison("accuracy", 250, 0.86125, 3, obstacle="it takes old_feature, which the model no longer declares")


def verdict(held: bool = True, gate: str = "improves_accuracy") -> Verdict:
    return Verdict(gate, f"{gate}(...)", held, "better by 0.02" if held else "worse by 0.02")


def decided(policy: Policy, compared: Comparison, *held: bool) -> Decision:
    return decide(policy, compared, [verdict(one, f"gate_{n}") for n, one in enumerate(held)])


def test_a_version_of_which_all_gates_hold_is_promoted_with_every_figure() -> None:
    decision = decide("auto", BESIDE, [verdict()])
    assert (decision.promote, decision.alias) == (True, "champion")
    assert decision.reason == (
        "promoted (improves_accuracy: better by 0.02): accuracy 0.86125 on 250 held-out rows,"
        " champion version 3 0.841 on the same rows"
    )
    assert decision.gates == {"improves_accuracy": "passed: better by 0.02"}


@pytest.mark.parametrize("policy", ["auto", "canary", "manual"])
def test_one_gate_that_fails_is_enough(policy: Policy) -> None:
    decision = decided(policy, BESIDE, True, False, True)
    assert not decision.promote
    assert decision.reason.startswith("not promoted, gate_1 failed: worse by 0.02 (accuracy 0.86125 on 250")
    assert decision.gates["gate_1"] == "failed: worse by 0.02"


def test_without_gates_every_version_goes_live() -> None:
    decision = decided("auto", BESIDE)
    assert decision.promote
    assert decision.reason.startswith("promoted (no gates are declared): accuracy 0.86125")


@pytest.mark.parametrize("compared", [FIRST, BESIDE, APART])
def test_the_policy_manual_waits_for_a_person(compared: Comparison) -> None:
    decision = decided("manual", compared, True)
    assert not decision.promote
    assert decision.reason.startswith("waits for a person (promote=manual): accuracy")


def test_a_canary_is_to_be_tried_beside_the_champion() -> None:
    decision = decided("canary", BESIDE, True)
    assert (decision.promote, decision.alias) == (True, "challenger")
    assert decision.reason.startswith("promoted to challenger (gate_0: better by 0.02)")


def test_a_first_version_becomes_champion_although_it_is_a_canary() -> None:
    decision = decided("canary", FIRST, True)
    assert (decision.promote, decision.alias) == (True, "champion")
    assert decision.reason.endswith("; there is no champion yet")


def test_what_cannot_be_compared_is_said() -> None:
    assert "champion version 3 cannot be compared: it takes old_feature" in decided("auto", APART, False).reason


def test_what_many_gates_say_is_beside_the_reason() -> None:
    decision = decided("auto", BESIDE, True, True)
    assert decision.reason.startswith("promoted (all 2 gates hold): accuracy 0.86125")
    assert decision.gates == {"gate_0": "passed: better by 0.02", "gate_1": "passed: better by 0.02"}
