"""Tags and notes on versions and runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelmill.errors import InvalidRequest, NotFound
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import MAX_REMARKS, Registry
from tests.modelmill.releases import MODEL, begin, release


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


def test_tags_of_a_version_are_set_changed_and_taken_away(registry: Registry) -> None:
    before = release(registry)
    registry.remarks.tag_version(MODEL, 1, {"stage": "draft", "team": "growth"})
    registry.remarks.tag_version(MODEL, 1, {"stage": "reviewed", "team": ""})
    assert registry.version(MODEL, 1) == replace(before, tags={"stage": "reviewed"})


def test_tags_are_plain_text_in_redis(registry: Registry, fake_redis: Redis) -> None:
    release(registry)
    registry.remarks.tag_version(MODEL, 1, {"stage": "reviewed"})
    assert fake_redis.hget(keys.version(MODEL, 1), "tags.stage") == "reviewed"


def test_a_running_run_keeps_what_was_said_of_it(registry: Registry) -> None:
    run = begin(registry)
    registry.remarks.tag_run(run.id, {"kind": "trial"})
    registry.remarks.note_run(run.id, "too slow", by="ada")
    registry.runs.update(replace(run, stage="fit"))
    registry.register(run, "p", promote=False, champion=None)
    found = registry.runs.get(run.id)
    assert (found.tags, list(found.notes.values())) == ({"kind": "trial"}, ["ada: too slow"])


def test_notes_are_only_added(registry: Registry) -> None:
    release(registry)
    for text in ("first", "second"):
        registry.remarks.note_version(MODEL, 1, text, by="ada")
    notes = registry.version(MODEL, 1).notes
    assert [notes[time] for time in sorted(notes)] == ["ada: first", "ada: second"]


def test_what_is_not_there_takes_no_tags(registry: Registry) -> None:
    release(registry)
    with pytest.raises(NotFound, match="version 'user_target@7' is not known"):
        registry.remarks.tag_version(MODEL, 7, {"a": "b"})
    with pytest.raises(NotFound, match="run 'nope' is not known"):
        registry.remarks.note_run("nope", "text", by="")


@pytest.mark.parametrize("name", ["", "a b", "1st", "a=b", "x" * 101])
def test_a_tag_has_a_name_that_can_be_typed(registry: Registry, name: str) -> None:
    release(registry)
    with pytest.raises(InvalidRequest, match="expected letters, digits"):
        registry.remarks.tag_version(MODEL, 1, {name: "value"})


def test_tags_are_bounded(registry: Registry) -> None:
    release(registry)
    registry.remarks.tag_version(MODEL, 1, {f"t{n}": "x" for n in range(MAX_REMARKS)})
    with pytest.raises(InvalidRequest, match="would have 101 tags; at most 100 are kept"):
        registry.remarks.tag_version(MODEL, 1, {"one_more": "x"})
    registry.remarks.tag_version(MODEL, 1, {"t0": "", "one_more": "x"})


def test_a_remark_on_a_run_is_a_change_of_it(registry: Registry) -> None:
    run = begin(registry)
    for remark in (
        lambda: registry.remarks.tag_run(run.id, {"stage": "reviewed"}),
        lambda: registry.remarks.tag_run(run.id, {"stage": ""}),
        lambda: registry.remarks.note_run(run.id, "good", by="ada"),
    ):
        [(_, before)], _ = registry.runs.changes(0)
        remark()
        [(changed, _)], _ = registry.runs.changes(before)
        assert changed == run.id
