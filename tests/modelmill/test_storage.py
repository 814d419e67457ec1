from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from modelmill.errors import SettingsError
from modelmill.storage import Storage
from tests.conftest import ROOT
from tests.eventually import eventually


@pytest.fixture(params=["file", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A storage on a local folder, and one that is not."""
    return Storage(f"file://{tmp_path}/storage" if request.param == "file" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read(either: Storage) -> None:
    either.write("a/b/c.bin", b"content")
    assert either.read("a/b/c.bin") == b"content"


def test_a_file_is_replaced_as_a_whole(either: Storage) -> None:
    either.write("a/c.bin", b"former content")
    either.write("a/c.bin", b"new")
    assert either.read("a/c.bin") == b"new"


def test_a_file_that_is_not_there_is_not_found(either: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        either.read("nothing")


def test_unfinished_files_of_former_times_are_removed(either: Storage) -> None:
    for name in ("h/day=1/.tmp-1-a.parquet", "h/day=1/a.parquet", "other/.tmp-2-a.parquet"):
        either.write(name, b"x")
    written = either.files.modified(either.path("h/day=1/.tmp-1-a.parquet"))
    assert either.remove_temporary("h", written) == 0
    assert either.remove_temporary("h", written + timedelta(hours=1)) == 1
    assert either.remove_temporary("nothing", written) == 0
    assert either.names("h", "") == ["h/day=1/a.parquet"]
    assert either.read("other/.tmp-2-a.parquet") == b"x"


def test_names_are_in_order_at_any_depth_and_by_suffix(either: Storage) -> None:
    for name in ("h/day=2/a.parquet", "h/day=1/b.parquet", "h/day=1/a.parquet", "h/day=1/a.json", "other/a.parquet"):
        either.write(name, b"")
    assert either.names("h", ".parquet") == ["h/day=1/a.parquet", "h/day=1/b.parquet", "h/day=2/a.parquet"]


def test_a_folder_that_is_not_there_has_no_names(either: Storage) -> None:
    assert either.names("nothing", ".parquet") == []


def test_names_that_others_wrote_are_seen(either: Storage) -> None:
    assert either.names("h", ".parquet") == []
    Storage(either.url).write("h/a.parquet", b"")
    assert either.names("h", ".parquet") == ["h/a.parquet"]


def test_a_writer_that_fails_leaves_what_was_there(either: Storage) -> None:
    either.write("a/c.bin", b"former content")
    with pytest.raises(ZeroDivisionError), either.writing("a/c.bin") as file:
        _ = file.write(b"half of the new") / 0
    assert either.read("a/c.bin") == b"former content"


def test_a_writer_that_fails_leaves_no_temporary_file(storage: Storage) -> None:
    with pytest.raises(ZeroDivisionError), storage.writing("a/c.bin") as file:
        _ = file.write(b"half of the new") / 0
    assert [path for path in Path(storage.root).rglob("*") if path.is_file()] == []


def test_a_file_that_is_being_written_has_no_name_yet(storage: Storage) -> None:
    with storage.writing("a/c.bin") as file:
        file.write(b"half")
        file.flush()
        assert storage.names("a", ".bin") == []


CRASHING = """
import sys, time
from modelmill.storage import Storage
with Storage(sys.argv[1]).writing("a/c.bin") as file:
    file.write(b"half of the new")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_is_killed_leaves_what_was_there_and_no_name(storage: Storage) -> None:
    storage.write("a/c.bin", b"former content")
    writer = subprocess.Popen(
        [sys.executable, "-c", CRASHING, storage.url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    eventually(writer.stdout.readline, within=10, saying="the writer is half done")
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=10)
    assert storage.names("a", ".bin") == ["a/c.bin"]
    assert storage.read("a/c.bin") == b"former content"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files from their handles by /proc")
def test_a_written_file_is_flushed_before_it_has_its_name_and_its_folders_after(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folders flushed up to the first that was there before, a power cut cannot lose the name."""
    calls: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    storage.write("a/b/c.bin", b"content")
    root = Path(storage.root)
    assert calls[0].endswith("-c.bin")
    assert calls[1:] == ["rename", f"{root}/a/b", f"{root}/a", f"{root}", f"{root.parent}"]


def test_a_url_that_nothing_speaks_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"storage 'carrier-pigeon://a' cannot be used: Protocol not known"):
        Storage("carrier-pigeon://a")
