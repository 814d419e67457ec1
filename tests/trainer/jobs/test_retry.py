"""Which faults are tried again, and when."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import httpx
import pytest
import redis.exceptions

from modelmill.declare.definitions_file import load_code
from modelmill.declare.user_code import UserCode
from modelmill.errors import DefinitionsError, InvalidRequest, PackageError, RequestFailed, RunEnded, Unavailable
from services.trainer.jobs.view import FIRST_PAUSE, LONGEST_PAUSE, may_be_tried_again, pause


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("away"),
        redis.exceptions.BusyLoadingError("loading"),
        httpx.ReadTimeout("slow"),
        Unavailable("the feature service did not answer"),
        RequestFailed(503, {}),
        RequestFailed(429, {}),
        OSError(errno.ENOSPC, "no space left on device"),
        OSError(errno.ESTALE, "stale file handle"),
        ConnectionResetError("reset"),
        RunEnded("r1", "lost", "its worker did not renew its lease in time"),
    ],
    ids=str,
)
def test_what_is_away_may_be_back_later(error: Exception) -> None:
    assert may_be_tried_again(error)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no row to train on"),
        RequestFailed(409, {"detail": "other definitions"}),
        ValueError("could not convert string to float"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "permission denied"),
        PackageError("package p: model.onnx differs from its SHA-256"),
        MemoryError(),
        KeyboardInterrupt(),
        None,
    ],
    ids=str,
)
def test_what_is_wrong_with_data_or_code_stays_wrong(error: BaseException | None) -> None:
    assert not may_be_tried_again(error)


def test_what_comes_out_of_the_definitions_file_is_the_user_s(tmp_path: Path) -> None:
    text = "def fetch():\n    raise ConnectionError('no answer')\n\nfetch()"
    with pytest.raises(DefinitionsError) as raised:
        load_code(UserCode(tmp_path / "mill.py", text, {}))
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert not may_be_tried_again(raised.value.__cause__)


def test_pauses_grow_up_to_a_bound_and_differ() -> None:
    random = Random(0)
    for attempt in range(1, 9):
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 4 ** (attempt - 1))
        pauses = {pause(attempt, random) for _ in range(20)}
        assert len(pauses) == 20
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest
