"""What a model may say about its split."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill import at_random, by_group, by_time
from modelmill.declare.splits import AtRandom, ByGroup, ByTime, check, described


def test_each_rule_is_told_in_the_words_it_is_declared_with() -> None:
    assert (by_time(0.1), str(by_time(0.1))) == (ByTime(0.1), "by_time(0.1)")
    assert (by_group("shop"), str(by_group("shop"))) == (ByGroup("shop"), "by_group('shop', 0.25, seed=0)")
    assert (at_random(seed=3), str(at_random(seed=3))) == (AtRandom(0.25, 3), "at_random(0.25, seed=3)")


def test_a_function_is_told_by_its_name() -> None:
    def north(frame: Any) -> Any:
        return frame["region"] == "north"

    assert check(north) is north
    assert (described(north), described(by_time()), described(None)) == ("north", "by_time(0.25)", "")


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, True, "0.2", float("nan")])
def test_a_share_is_between_0_and_1(share: Any) -> None:
    for rule in (by_time, at_random):
        with pytest.raises(ValueError, match=r"split: share=.*expected a share between 0 and 1"):
            rule(share)


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"split: seed=0.5; expected a whole number"):
        at_random(seed=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0.25, "by_time", by_time, at_random, ByTime])
def test_anything_else_is_refused_with_what_is_taken(given: Any) -> None:
    with pytest.raises(ValueError, match=r"expected by_time\(0.25\), by_group"):
        check(given)
