from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.declare import applied
from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.errors import DefinitionsError, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis

MILL = """
import maths
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
Source("users", entity=user, columns={"x": float})

@feature(user, dtype=float)
def area(row):
    return maths.area(row["x"])
"""


def written(folder: Path, maths: str, mill: str = MILL) -> Definitions:
    (folder / "maths.py").write_text(maths)
    (folder / "mill.py").write_text(mill)
    return load(folder / "mill.py")


def area(definitions: Definitions) -> object:
    return definitions.features["users"]["area"].function({"x": 2.0})


def test_former_definitions_run_with_the_modules_of_their_time(fake_redis: Redis, tmp_path: Path) -> None:
    former = written(tmp_path, "def area(x):\n    return x * 3\n")
    applied.keep(fake_redis, former)
    newer = written(tmp_path, "def area(x):\n    return x * 4\n")
    applied.keep(fake_redis, newer)
    (tmp_path / "maths.py").unlink()
    (tmp_path / "mill.py").unlink()
    assert former.features["users"]["area"].field != newer.features["users"]["area"].field
    found = [applied.load(fake_redis, one.fingerprint) for one in (former, newer, former)]
    assert [area(one) for one in found] == [6.0, 8.0, 6.0]


def test_what_is_kept_can_be_read(fake_redis: Redis, tmp_path: Path) -> None:
    definitions = written(tmp_path, "def area(x):\n    return x * 3\n")
    applied.keep(fake_redis, definitions)
    kept = fake_redis.hgetall(keys.definitions_text(definitions.fingerprint))
    assert kept["text"] == MILL
    assert kept["module.maths.py"] == "def area(x):\n    return x * 3\n"
    assert kept["version.users.area"] == definitions.features["users"]["area"].version


def test_definitions_that_were_never_applied_are_not_known(fake_redis: Redis) -> None:
    with pytest.raises(UnknownName):
        applied.load(fake_redis, "none")


def test_a_function_that_is_another_one_in_each_process_is_refused_with_its_line(
    fake_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maths = "import os\nSEED = os.environ['SEED_OF_TEST']\ndef area(x):\n    return float(SEED)\n"
    monkeypatch.setenv("SEED_OF_TEST", "1")
    definitions = written(tmp_path, maths)
    applied.keep(fake_redis, definitions)
    monkeypatch.setenv("SEED_OF_TEST", "2")
    applied._loaded.cache_clear()  # as in another process
    for again in (lambda: applied.load(fake_redis, definitions.fingerprint), lambda: applied.keep(fake_redis, load(tmp_path / "mill.py"))):  # fmt: skip
        with pytest.raises(DefinitionsError, match=rf"{tmp_path}/mill\.py:7: feature 'area' is version \w+ in this process and \w+"):  # fmt: skip
            again()
