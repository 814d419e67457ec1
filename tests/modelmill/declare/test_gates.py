"""What gates are declared with, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill import at_least, improves, latency_below, no_segment_worse, parity, size_below
from modelmill.declare.gates import Improves, gates_of, policy_of
from modelmill.declare.metrics import Metric

ACCURACY = Metric("accuracy")


def gain(y_true: Any, y_pred: Any) -> float:
    return float((y_true == y_pred).sum())


def quick(candidate: Any, champion: Any) -> bool:
    return True


def test_without_gates_the_metric_has_to_improve() -> None:
    assert gates_of(None, ACCURACY, ()) == (Improves(ACCURACY, 0.0, 0.95),)


def test_no_gates_are_no_gates() -> None:
    assert gates_of([], ACCURACY, ()) == ()


def test_gates_are_called_and_shown_by_what_they_ask_for() -> None:
    gates = gates_of(
        [
            improves("roc_auc", by=0.002, confidence=0.9), at_least(gain, 3), no_segment_worse("r2", than=0.05),
            latency_below(ms=2), size_below(mb=50), parity(1e-6), quick,
        ],
        ACCURACY,
        ["origin"],
    )  # fmt: skip
    assert {gate.name: str(gate) for gate in gates} == {
        "improves_roc_auc": "improves(roc_auc, by=0.002, confidence=0.9)",
        "at_least_gain": "at_least(gain, 3)",
        "no_segment_worse_r2": "no_segment_worse(r2, than=0.05)",
        "latency_below": "latency_below(ms=2, quantile=0.5)",
        "size_below": "size_below(mb=50)",
        "parity": "parity(1e-06)",
        "quick": "quick()",
    }


@pytest.mark.parametrize(
    "declare, sentence",
    [
        (lambda: improves("roc_auc", by=-1), "gate improves: by=-1; expected a number, at least 0"),
        (lambda: improves("roc_auc", confidence=95), "confidence=95; expected a share between 0.5 and 1"),
        (lambda: improves(3), "gate improves: metric 3: expected the name of a scikit-learn scorer"),  # type: ignore[arg-type]
        (lambda: at_least("accuracy", float("nan")), "gate at_least: least=nan; expected a number"),
        (lambda: no_segment_worse("r2", than="x"), "gate no_segment_worse: than='x'; expected"),  # type: ignore[arg-type]
        (lambda: latency_below(ms=0), "gate latency_below: ms=0; expected milliseconds above 0"),
        (lambda: latency_below(ms=1, quantile=99), "quantile=99; expected a share of the calls"),
        (lambda: size_below(mb=True), "gate size_below: mb=True; expected megabytes above 0"),
        (lambda: parity(-1), "gate parity: tolerance=-1; expected"),
    ],
)
def test_a_gate_that_asks_for_nonsense_is_refused(declare: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="gate") as refused:
        declare()
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "given, sentence",
    [
        (improves("accuracy"), "expected a list such as [improves('accuracy')]"),
        ("improves", "expected a list"),
        ([improves], "gate improves: expected what it asks for too, as in improves(...)"),
        ([improves("accuracy"), improves("accuracy", by=0.1)], "two are named 'improves_accuracy'; leave one out"),
        ([lambda a, b: True], "or a named function(candidate, champion)"),
        ([no_segment_worse("r2", than=0.1)], "the model has no segments; add segments=[...]"),
    ],
)
def test_what_is_no_list_of_gates_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="gate") as refused:
        gates_of(given, ACCURACY, ())
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("maybe", "promote='maybe'; expected one of auto, manual, canary"),
        (True, "promote=True; expected one of"),
        ([], r"promote=[]; expected one of"),
    ],
)
def test_other_policies_are_refused(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="promote=") as refused:
        policy_of(given)
    assert sentence in str(refused.value)
