from __future__ import annotations

import numpy as np
import pytest

from modelmill.state.runs import Run
from services.trainer.trace import compare
from services.trainer.trace.compare import Forgotten, Outputs

RUN = Run(
    id="r",
    model="m",
    started="2026-01-01T00:00:00.000000Z",
    metrics={"accuracy": 0.1 + 0.2},
    source_rows={"users": 10},
    packages={"numpy": "2.4.6", "xgboost": "3.1"},
    machine="a desk",
    git_commit="c" * 40,
    params={"C": "1.0", "f": "<function f at 0x7f00>"},
)
LABELS = np.array([0, 1, 1])
CHANCES = np.array([[0.5, 0.5], [0.1, 0.9], [np.nan, 0.25]], np.float32)


def differing(again: Run, stored: Outputs, found: Outputs) -> dict[str, tuple[str, str]]:
    made = compare.checks(RUN, again, stored, found)
    return {check.name: (check.recorded, check.found) for check in made if not check.equal}


def outputs(labels: np.ndarray = LABELS, chances: np.ndarray = CHANCES) -> Outputs:
    return Outputs([labels.copy(), chances.copy()])


def with_params(**changed: str) -> Run:
    return Run(**{**vars(RUN), "params": RUN.params | changed})


def test_a_run_is_equal_to_itself_missing_values_included() -> None:
    assert differing(RUN, outputs(), outputs()) == {}


def test_addresses_of_objects_do_not_count() -> None:
    assert differing(with_params(f="<function f at 0x1234>"), outputs(), outputs()) == {}


def test_a_parameter_that_differs_is_named() -> None:
    assert differing(with_params(C="2.0"), outputs(), outputs()) == {"parameter C": ("1.0", "2.0")}


def test_metrics_are_equal_only_to_the_last_bit() -> None:
    again = Run(**{**vars(RUN), "metrics": {"accuracy": 0.3}})
    assert differing(again, outputs(), outputs()) == {"metric accuracy": ("0.30000000000000004", "0.3")}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outputs(labels=np.array([0, 1, 0])), "1 differ, by 0 at most"),
        (outputs(chances=CHANCES + np.float32([[0.25, 0]])), "2 differ, by 0.25 at most"),
        (outputs(chances=np.nan_to_num(CHANCES)), "1 differ, by 0 at most"),
        (Outputs([LABELS]), "of another shape"),
        (Outputs([np.array(["a", "b", "c"], object), CHANCES]), "3 differ, by 0 at most"),
    ],
)
def test_predictions_say_how_far_apart_they_are(found: Outputs, said: str) -> None:
    assert differing(RUN, outputs(), found) == {"predictions": ("3 rows", said)}


def test_a_package_that_cannot_be_read_says_why() -> None:
    assert differing(RUN, Outputs([], "it is gone"), outputs()) == {"predictions": ("it is gone", "made")}


def test_what_changed_around_a_run_is_told_in_sentences() -> None:
    again = Run(
        **{
            **vars(RUN),
            "source_rows": {"users": 7},
            "packages": {"numpy": "2.5.0", "lightgbm": "4"},
            "machine": "a cloud",
            "git_commit": "d" * 40 + "-dirty",
        }
    )
    assert compare.reasons(RUN, again, {"users": Forgotten(2, 3)}, []) == [
        "rows of source 'users' that are gone: 3 of 10; forgotten of it since then: 3, about 2 entities",
        "package lightgbm was not there, is 4",
        "package numpy was 2.4.6, is 2.5.0",
        "package xgboost was 3.1, is not there",
        "machine was a desk, is a cloud",
        "git commit was cccccccccccc, is dddddddddddd-dirty",
    ]


def test_what_draws_without_a_seed_is_suspected_where_only_the_fit_can_have_differed() -> None:
    same, other = outputs(), outputs(labels=1 - LABELS)
    assert compare.reasons(RUN, RUN, {}, compare.checks(RUN, RUN, same, same)) == []
    [reason] = compare.reasons(RUN, RUN, {}, compare.checks(RUN, RUN, same, other))
    assert "draws random numbers that no seed decides" in reason
    frame = Run(**{**vars(RUN), "data_fingerprint": "f"})
    assert compare.reasons(RUN, frame, {}, compare.checks(RUN, frame, same, other)) == []
