from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from modelmill import package
from modelmill.errors import PackageError
from modelmill.package import ESTIMATOR, GRAPH, MANIFEST, Input, Manifest
from modelmill.storage import Storage

FILES = {GRAPH: b"the graph's bytes", ESTIMATOR: b"the estimator's bytes"}
WRITTEN = Manifest(
    model="user_target",
    run="20261123T234708-3fa2c1",
    task="classification",
    entities={"user": "user_id"},
    inputs=[
        Input("a", "float", True, "user", "a", "users", has_default=True, default=0.5),
        Input("hour", "int", False),
    ],
    layout="columns",
    tensor_dtype="float64",
    classes=[0, 1],
    label="target",
    metrics={"accuracy": 0.1 + 0.2, "whole": 1.0},
    example={"a": 1.5, "hour": 3, "name": "ü"},
)


@pytest.fixture
def folder(storage: Storage) -> str:
    return package.write(storage, WRITTEN, FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_package_is_the_same_after_a_way_through_the_storage(file: str, storage: Storage, folder: str) -> None:
    manifest, content = package.read(storage, folder, file)
    assert content == FILES[file]
    assert Manifest(**{**vars(manifest), "files": {}}) == WRITTEN


def test_a_package_lies_under_its_model_and_run(folder: str) -> None:
    assert folder == "packages/user_target/20261123T234708-3fa2c1"


def test_the_manifest_is_readable_json(storage: Storage, folder: str) -> None:
    text = storage.read(f"{folder}/{MANIFEST}")
    assert orjson.loads(text)["inputs"][1]["name"] == "hour"
    assert text.count(b"\n") > 30


def flipped(content: bytes) -> Iterator[bytes]:
    """`content` with one bit of each byte turned, all eight bits in their turn."""
    for position in range(len(content)):
        yield content[:position] + bytes([content[position] ^ (1 << position % 8)]) + content[position + 1 :]


@pytest.mark.parametrize("file", [GRAPH, ESTIMATOR, MANIFEST])
def test_a_wrong_byte_anywhere_is_refused_by_the_file_s_name(file: str, storage: Storage, folder: str) -> None:
    path = Path(storage.path(f"{folder}/{file}"))
    for content in flipped(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(PackageError, match=file):
            package.read(storage, folder, GRAPH if file == MANIFEST else file)


@pytest.mark.parametrize("file", [GRAPH, MANIFEST])
def test_a_file_that_is_cut_off_is_refused(file: str, storage: Storage, folder: str) -> None:
    content = storage.read(f"{folder}/{file}")
    storage.write(f"{folder}/{file}", content[: len(content) // 2])
    with pytest.raises(PackageError, match=file):
        package.read(storage, folder)


@pytest.mark.parametrize("file", [GRAPH, MANIFEST])
def test_a_missing_file_is_named(file: str, storage: Storage, folder: str) -> None:
    Path(storage.path(f"{folder}/{file}")).unlink()
    with pytest.raises(PackageError, match=f"a file is missing: .*{file}"):
        package.read(storage, folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{}", b'"text"', b'{"sha256": ""}'])
def test_what_is_no_manifest_is_refused(text: bytes, storage: Storage, folder: str) -> None:
    storage.write(f"{folder}/{MANIFEST}", text)
    with pytest.raises(PackageError, match=f"{MANIFEST} cannot be read"):
        package.read(storage, folder)


def test_a_manifest_of_another_schema_version_is_refused(storage: Storage, folder: str) -> None:
    newer = Manifest(**{**vars(WRITTEN), "schema_version": 3})
    storage.write(f"{folder}/{MANIFEST}", newer.to_json())
    with pytest.raises(PackageError, match="schema_version 3, expected 1 or 2"):
        package.read(storage, folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(storage: Storage, folder: str) -> None:
    storage.write(f"{folder}/intruder.onnx", b"graph")
    with pytest.raises(PackageError, match=r"intruder.onnx is not listed in manifest.json"):
        package.read(storage, folder, "intruder.onnx")


def test_a_package_that_was_not_finished_does_not_exist(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    write = storage.write

    def fails_at_the_manifest(name: str, content: bytes) -> None:
        if name.endswith(MANIFEST):
            raise OSError("disk full")
        write(name, content)

    monkeypatch.setattr(storage, "write", fails_at_the_manifest)
    with pytest.raises(OSError, match="disk full"):
        package.write(storage, WRITTEN, FILES)
    with pytest.raises(PackageError, match=f"a file is missing: .*{MANIFEST}"):
        package.read(storage, package.location(WRITTEN.model, WRITTEN.run))
