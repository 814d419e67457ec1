"""What the copy of the runs in memory answers, and that it follows the registry."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmill.errors import InvalidFilter, InvalidRequest
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.records import to_hash
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, write, write_fields
from services.trainer.runs import columns
from services.trainer.runs.index import RunIndex

KNOWN: list[dict[str, Any]] = [
    {"id": "r1", "metrics": {"auc": 0.6}, "params": {"C": "1", "penalty": "'l2'"}, "rows_train": 10},
    {"id": "r2", "metrics": {"auc": 0.8}, "params": {"C": "10.0", "penalty": "None"}, "version": 1},
    {"id": "r3", "metrics": {"auc": 0.9}, "params": {"C": "1.0"}, "features": ["age", "age_squared"]},
    {"id": "r4", "model": "other", "status": "failed", "error": "no rows: 100 %"},
]


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    """Four runs, each begun an hour after the one before."""
    registry = Registry(fake_redis)
    for hour, known in enumerate(KNOWN):
        registry.runs.start(Run(**{"model": "m", "started": f"2026-11-25T0{hour}:00:00.000000Z", **known}))
    return registry


@pytest.fixture
def index(registry: Registry) -> RunIndex:
    return RunIndex(registry.runs)


@pytest.mark.parametrize(
    "text, found",
    [
        ("", "r4 r3 r2 r1"),
        ("metrics.auc > 0.7 and params.C = 1", "r3"),
        ("params.C = 1", "r3 r1"),
        ("params.C != 1", "r2"),
        ("params.C >= 1", "r3 r2 r1"),
        ("params.penalty = l2", "r1"),
        ("params.penalty = none", "r2"),
        ("params.penalty is missing", "r4 r3"),
        ("metrics.auc is not missing", "r3 r2 r1"),
        ("metrics.auc != 0.6", "r3 r2"),
        ("not metrics.auc = 0.6", "r4 r3 r2"),
        ("id in (r1, r4)", "r4 r1"),
        ("params.C not in (1, 2)", "r4 r2"),
        ("version = 1", "r2"),
        ("rows_train < 5", "r4 r3 r2"),
        ("started >= 2026-11-25T02:00", "r4 r3"),
        ("started >= '2026-11-25T04:00+02:00'", "r4 r3"),
        ("started > 1d ago or finished is missing", "r4 r3 r2 r1"),
        ("finished > 2026-01-01", ""),
        ("error like 'no%100 _'", "r4"),
        ("error like 'rows'", ""),
        ("error ilike 'NO%'", "r4"),
        ("error contains '100 %'", "r4"),
        ("features contains age", "r3"),
        ("features like '%squared'", "r3"),
        ("features contains squared and not features contains height", "r3"),
        (r"error like 'no rows\%'", ""),
        ("status = failed or metrics.auc = 0.6", "r4 r1"),
    ],
)
def test_a_filter_matches(index: RunIndex, text: str, found: str) -> None:
    assert " ".join(index.search(text).ids) == found


@pytest.mark.parametrize(
    "text, place, reason",
    [
        ("metrics.acu > 1", 1, "no run has a field 'metrics.acu'; did you mean 'metrics.auc'?"),
        ("status = failed and auc > 1", 21, "no run has a field 'auc'; did you mean 'metrics.auc'?"),
        ("traceback like x", 1, "no run has a field 'traceback'"),
        ("metrics.auc > high", 15, "metrics.auc is a number; expected one such as 0.7"),
        ("metrics.auc like '0%'", 1, "metrics.auc is a number; like is for texts"),
        ("started > 5", 11, "started is a time; expected one such as 2026-11-25T14:00Z or 7d ago"),
        ("status > 2026-11-01", 10, "status is no time; put a text in quotes"),
        ("features = age", 1, "features is a list; expected features contains ..."),
    ],
)
def test_a_filter_that_makes_no_sense_is_pointed_at(index: RunIndex, text: str, place: int, reason: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        index.search(text)
    assert raised.value.detail.startswith(f"filter, character {place}: {reason}")


def test_a_group_of_which_no_run_has_any_matches_nothing_yet(index: RunIndex) -> None:
    assert index.search("seconds.fit > 1").ids == []


def test_a_pattern_takes_no_long_time_however_it_is_made(fake_redis: Redis, registry: Registry) -> None:
    registry.runs.fail(registry.runs.get("r1"), "a" * 900, "")
    assert RunIndex(registry.runs).search(f"error like '{'%a' * 200}%b'").ids == []


@pytest.mark.parametrize(
    "order, found",
    [
        ("-started", "r4 r3 r2 r1"),
        ("started", "r1 r2 r3 r4"),
        ("metrics.auc", "r1 r2 r3 r4"),
        ("-metrics.auc", "r3 r2 r1 r4"),
        ("params.C", "r3 r1 r2 r4"),
        ("params.C,metrics.auc", "r1 r3 r2 r4"),
        ("-params.C", "r2 r3 r1 r4"),
        ("model", "r3 r2 r1 r4"),
        ("-id", "r4 r3 r2 r1"),
        ("params.penalty", "r2 r1 r4 r3"),
    ],
)
def test_runs_are_ordered_by_any_field_with_those_that_lack_it_last(index: RunIndex, order: str, found: str) -> None:
    assert " ".join(index.search(order=order).ids) == found


@pytest.mark.parametrize(
    "order, reason",
    [("", "expected 1 to 5 fields"), ("a,b,c,d,e,f", "expected 1 to 5"), ("-metrics.acu", "did you mean")],
)
def test_an_order_that_makes_no_sense_is_refused(index: RunIndex, order: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        index.search(order=order)


def pages(index: RunIndex, order: str) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = index.search(order=order, limit=2, cursor=cursor)
        found.append(page.ids)
        if page.next is None:
            return found
        cursor = page.next


def test_pages_follow_each_other_and_say_how_many_runs_match(index: RunIndex) -> None:
    assert pages(index, "-started") == [["r4", "r3"], ["r2", "r1"]]
    assert pages(index, "-metrics.auc,params.penalty") == [["r3", "r2"], ["r1", "r4"]]
    assert index.search("model = m", limit=2).total == 3


def test_a_page_goes_on_where_the_one_before_ended_though_runs_come_and_go(
    index: RunIndex, registry: Registry, fake_redis: Redis
) -> None:
    first = index.search(limit=2)
    assert first.ids == ["r4", "r3"]
    registry.runs.start(Run(id="r5", model="m", started="2026-11-25T05:00:00.000000Z"))
    fake_redis.zrem(keys.RUN_CHANGES, "r3")
    assert index.search(limit=2, cursor=first.next).ids == ["r2", "r1"]


def test_a_cursor_is_of_one_order(index: RunIndex) -> None:
    page = index.search(limit=2)
    with pytest.raises(InvalidRequest, match="in the order '-started', not 'started'"):
        index.search(limit=2, order="started", cursor=page.next)
    with pytest.raises(InvalidRequest, match="expected the `next` of an earlier page"):
        index.search(cursor="nonsense")


def test_one_model_alone_may_be_asked_for(index: RunIndex) -> None:
    assert index.search(model="other").ids == ["r4"]
    assert index.search("metrics.auc > 0", model="other").ids == []


def test_what_changes_in_the_registry_is_seen_at_once(index: RunIndex, registry: Registry) -> None:
    assert index.search("status = failed").ids == ["r4"]
    registry.runs.fail(registry.runs.get("r2"), "worker lost", "")
    registry.runs.update(replace(registry.runs.get("r1"), metrics={"auc": 0.95, "f1": 0.5}))
    registry.register(registry.runs.get("r3"), "models/m/1", promote=False, champion=None)
    assert index.search("status = failed").ids == ["r4", "r2"]
    assert index.search("metrics.f1 = 0.5 and metrics.auc = 0.95").ids == ["r1"]
    assert index.search("status = succeeded and package like 'models/%'").ids == ["r3"]


def test_runs_are_found_by_their_tags_while_notes_are_only_read(index: RunIndex, registry: Registry) -> None:
    assert index.search("tags.stage = reviewed").ids == []
    registry.remarks.tag_run("r1", {"stage": "reviewed"})
    registry.remarks.note_run("r1", "too slow", by="ada")
    assert index.search("tags.stage = reviewed").ids == ["r1"]
    registry.remarks.tag_run("r1", {"stage": ""})
    assert index.search("tags.stage = reviewed").ids == []
    assert not [name for name in index.fields_of(["r1"]) if name.startswith("notes.")]


def test_an_order_follows_what_changes(index: RunIndex, registry: Registry) -> None:
    assert index.search(order="metrics.auc,params.C").ids == ["r1", "r2", "r3", "r4"]
    registry.runs.update(replace(registry.runs.get("r1"), metrics={"auc": 0.9}, params={"C": "0.5"}))
    assert index.search(order="metrics.auc,params.C").ids == ["r2", "r1", "r3", "r4"]


@pytest.mark.parametrize("held", [0, 100])
def test_a_run_that_is_gone_from_the_registry_is_forgotten(
    index: RunIndex, fake_redis: Redis, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MAX_CHANGED_RUNS", held)
    index.search()
    fake_redis.delete(keys.run("r1"))
    fake_redis.zrem(keys.RUN_CHANGES, "r1")
    assert index.search().ids == ["r4", "r3", "r2"]
    fake_redis.flushall()
    assert index.search().ids == []


def test_texts_that_no_run_has_any_more_are_not_kept(
    index: RunIndex, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "MAX_CHANGED_RUNS", 0)

    def change(number: int) -> None:
        registry.runs.update(replace(registry.runs.get("r1"), decision=f"{number:04}" * 250))
        index.search()

    change(0)
    before = pa.total_allocated_bytes()
    for number in range(1, 101):
        change(number)
    assert index.search("decision contains '0100'").ids == ["r1"]
    assert pa.total_allocated_bytes() - before < 20_000


def test_runs_of_before_changes_were_marked_are_found(registry: Registry, fake_redis: Redis) -> None:
    fake_redis.delete(keys.RUN_CHANGES)
    assert RunIndex(registry.runs).search().ids == ["r4", "r3", "r2", "r1"]


def test_trials_of_a_search_are_listed_where_a_filter_asks_for_them(
    index: RunIndex, registry: Registry, fake_redis: Redis
) -> None:
    with fake_redis.pipeline() as pipe:
        write_fields(pipe, "t1", {**to_hash(registry.runs.get("r2")), "id": "t1", "parent": "r2"})
        pipe.execute()
    assert index.search("metrics.auc = 0.8").ids == ["r2"]
    assert index.search("parent = r2").ids == ["t1"]
    assert index.search("metrics.auc = 0.8 and (parent is missing or not parent is missing)").ids == ["t1", "r2"]


VALUES = st.sampled_from(["", "1", "1.0", "2", "'a'", "a", "None"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("mn"), VALUES, st.none() | st.floats(-1, 1)), max_size=30),
    st.sampled_from(["", "params.p = 1", "metrics.s > 0", "not params.p = a", "params.p is missing or metrics.s < 0"]),
    st.sampled_from(["-started", "params.p,-metrics.s", "-params.p", "metrics.s"]),
    st.sampled_from([0, 3, 100]),
)
def test_a_copy_that_followed_every_change_answers_as_one_made_afresh(
    monkeypatch: pytest.MonkeyPatch,
    fake_redis: Redis,
    changes: list[tuple[int, str, str, float | None]],
    text: str,
    order: str,
    held: int,
) -> None:
    monkeypatch.setattr(columns, "MAX_CHANGED_RUNS", held)
    fake_redis.flushall()
    registry, known = Registry(fake_redis), {}
    follower = RunIndex(registry.runs)
    for number, model, value, score in changes:
        run_id = f"r{number:02}"
        model = known.setdefault(run_id, model)
        run = Run(id=run_id, model=model, started=f"2026-11-25T{number:02}:00:00.000000Z", params={"p": value},
                  metrics={} if score is None else {"s": score})  # fmt: skip
        fake_redis.delete(keys.run(run_id))
        with fake_redis.pipeline() as pipe:
            write(pipe, run)
            pipe.execute()
        follower.search()
    fresh = RunIndex(registry.runs)
    assert follower.search(text, order=order) == fresh.search(text, order=order)
    assert [one for page in pages(follower, order) for one in page] == fresh.search(order=order).ids


RECORDED = ["", "1", "1.0", "-2e1", "'1'", "a", "'A%b'", "a\\b", '"a"', "''", "nan", "1e999", "a\nb", "ä", "+.5"]
OPERATORS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def number(recorded: str) -> float | None:
    value = math.nan if recorded.strip("+-.e0123456789") else float(recorded)
    return value if math.isfinite(value) else None


def text(recorded: str) -> str:
    return recorded[1:-1] if recorded[0] in "'\"" else recorded


def is_matched(recorded: str, operator: str, value: float | str) -> bool:
    """What docs/runs.md says of one run."""
    if not recorded:
        return False
    if operator in ("like", "ilike"):
        wanted = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in str(value))
        flags = re.DOTALL | (re.IGNORECASE if operator == "ilike" else 0)
        return re.fullmatch(wanted, text(recorded), flags) is not None
    if operator == "contains":
        return str(value) in text(recorded)
    mine = text(recorded) if isinstance(value, str) else number(recorded)
    return operator == "!=" if mine is None else bool(OPERATORS[operator](mine, value))


def place(recorded: str) -> tuple[bool, float, str]:
    """Numbers before texts."""
    value = number(recorded)
    return (True, 0.0, text(recorded)) if value is None else (False, value, "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.sampled_from(RECORDED), max_size=12),
    st.one_of(
        st.tuples(
            st.sampled_from(sorted(OPERATORS)),
            st.sampled_from([1.0, 0.5, -20.0]) | st.sampled_from(["a", "", "1", "ä"]),
        ),
        st.tuples(
            st.sampled_from(["like", "ilike", "contains"]),
            st.sampled_from(["a%", "_%b", "a\\b", "%", "_", "Ä", "a%\\%"]),
        ),
    ),
    st.booleans(),
    st.sampled_from([0, 100]),
)
def test_each_run_is_matched_and_placed_by_its_own_value_alone(
    monkeypatch: pytest.MonkeyPatch,
    fake_redis: Redis,
    recorded: list[str],
    asked: tuple[str, float | str],
    descending: bool,
    held: int,
) -> None:
    monkeypatch.setattr(columns, "MAX_CHANGED_RUNS", held)
    fake_redis.flushall()
    runs = {f"r{n:02}": value for n, value in enumerate(recorded)}
    with fake_redis.pipeline() as pipe:
        for run_id, value in runs.items():
            write(pipe, Run(id=run_id, model=f"m{len(value) % 2}", started="2026-11-25T00:00:00Z", params={"p": value}))
        pipe.execute()
    operator, value = asked
    shown = f"'{value}'" if isinstance(value, str) else str(value)
    matched = [run_id for run_id in sorted(runs, reverse=True) if is_matched(runs[run_id], operator, value)]
    index = RunIndex(Registry(fake_redis).runs)
    assert index.search(f"params.p {operator} {shown}").ids == matched
    order = "-params.p" if descending else "params.p"
    newest = sorted(runs, reverse=True)
    known = sorted(filter(runs.get, newest), key=lambda run_id: place(runs[run_id]), reverse=descending)
    expected = known + [run_id for run_id in newest if not runs[run_id]]
    assert [run_id for page in pages(index, order) for run_id in page] == expected
