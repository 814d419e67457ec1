"""Which versions stay, and why."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmill.state.aliases import ROLLBACKS
from modelmill.state.registry import Held, Plan, plan_retirement


def test_without_aliases_the_newest_stay() -> None:
    held = Held(range(1, 31), {}, {}, {})
    assert plan_retirement(held, 20) == Plan(dict.fromkeys(range(11, 31), "one of the newest 20"), list(range(1, 11)))


def test_what_an_alias_names_stays() -> None:
    found = plan_retirement(Held([1, 2, 3, 4], {"stable": 1, "champion": 4}, {"stable": [1]}, {}), 1)
    assert found.kept == {1: "alias stable names it", 4: "alias champion names it"}


def test_what_rollbacks_return_to_stays_as_far_as_promised() -> None:
    champions = list(range(10, 210, 10))
    found = plan_retirement(Held(range(1, 201), {"champion": 200}, {"champion": champions}, {}), 1)
    assert sorted(found.kept) == champions[-1 - ROLLBACKS :]
    assert found.kept[190] == "one of 5 rollbacks returns to it"


def test_what_is_needed_stays_for_the_reason_given() -> None:
    found = plan_retirement(Held([1, 2, 3], {}, {}, {1: "asked about", 99: "pruned long ago"}), 1)
    assert found == Plan({1: "asked about", 3: "one of the newest 1"}, [2])


@given(
    stored=st.sets(st.integers(1, 40)).map(sorted),
    aliases=st.dictionaries(st.sampled_from(["champion", "stable"]), st.integers(1, 40)),
    steps=st.lists(st.integers(1, 40)),
    keep=st.integers(1, 10),
)
def test_every_stored_version_stays_or_goes_and_no_named_one_goes(
    stored: list[int], aliases: dict[str, int], steps: list[int], keep: int
) -> None:
    found = plan_retirement(Held(stored, aliases, {"champion": steps}, {}), keep)
    assert sorted([*found.kept, *found.pruned]) == stored
    assert not set(found.pruned) & {*aliases.values(), *stored[-keep:]}
