from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sklearn.ensemble import RandomForestClassifier

from modelmill.errors import PackageError
from modelmill.packages import package
from modelmill.packages.package import ESTIMATOR, GRAPH, MANIFEST, Input, Manifest, Parity, Range, Tensor
from modelmill.storage import Storage
from tests.predictor import packages

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
    parity=Parity(100, 0.0, 1e-9, 1e-9),
    tensors=[Tensor("a", "float64", [-1, 1])],
    outputs=[Tensor("label", "int64", [-1])],
    ranges={"a": Range(0.5, -1.0, 1.0), "hour": Range(0.0, values=["x"])},
    environment={"python": "3.11.2"},
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
            package.read(storage, folder)


@pytest.mark.parametrize("served_by", ["onnx", "skops"])
def test_a_wrong_byte_at_any_place_of_a_real_package_is_refused(served_by: str, storage: Storage) -> None:
    described, content = packages.served_by_scikit_learn(RandomForestClassifier(5, random_state=0))
    files = {ESTIMATOR: content}
    if served_by == "onnx":
        described, files[GRAPH] = packages.manifest(), packages.classifier()
    folder = package.write(storage, described, files)
    places = random.Random(0)
    for file in (*files, MANIFEST):
        path = Path(storage.path(f"{folder}/{file}"))
        whole = path.read_bytes()
        for position in {0, len(whole) - 1, *(places.randrange(len(whole)) for _ in range(30))}:
            spoilt = bytearray(whole)
            spoilt[position] ^= 1 << places.randrange(8)
            path.write_bytes(spoilt)
            with pytest.raises(PackageError, match=file):
                package.read(storage, folder)
        path.write_bytes(whole)
    assert package.read(storage, folder)[1] == files[GRAPH if served_by == "onnx" else ESTIMATOR]


@pytest.mark.parametrize("file", [GRAPH, ESTIMATOR, MANIFEST])
def test_a_file_that_is_cut_off_is_refused(file: str, storage: Storage, folder: str) -> None:
    content = storage.read(f"{folder}/{file}")
    storage.write(f"{folder}/{file}", content[: len(content) // 2])
    with pytest.raises(PackageError, match=file):
        package.read(storage, folder)


@pytest.mark.parametrize("file", [GRAPH, ESTIMATOR, MANIFEST])
def test_a_missing_file_is_named(file: str, storage: Storage, folder: str) -> None:
    Path(storage.path(f"{folder}/{file}")).unlink()
    with pytest.raises(PackageError, match=f"a file is missing: .*{file}"):
        package.read(storage, folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{}", b'"text"', b'{"sha256": ""}'])
def test_what_is_no_manifest_is_refused(text: bytes, storage: Storage, folder: str) -> None:
    storage.write(f"{folder}/{MANIFEST}", text)
    with pytest.raises(PackageError, match=f"{MANIFEST} cannot be read"):
        package.read(storage, folder)


@pytest.mark.parametrize("other", [1, 3, "2"])
def test_a_manifest_of_another_schema_version_is_refused(other: object, storage: Storage, folder: str) -> None:
    foreign = Manifest(**{**vars(WRITTEN), "schema_version": other})
    storage.write(f"{folder}/{MANIFEST}", foreign.to_json())
    with pytest.raises(PackageError, match=f"schema_version {other!r}, expected 2"):
        package.read(storage, folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(storage: Storage, folder: str) -> None:
    storage.write(f"{folder}/intruder.onnx", b"graph")
    with pytest.raises(PackageError, match=r"intruder.onnx is not listed in manifest.json"):
        package.read(storage, folder, "intruder.onnx")


@pytest.mark.parametrize("fails_at", [ESTIMATOR, MANIFEST])
def test_of_a_package_that_was_not_finished_nothing_is_left(
    fails_at: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: str, target: str) -> None:
        if target.endswith(fails_at):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        package.write(storage, WRITTEN, FILES)
    folder = Path(storage.path(package.location(WRITTEN.model, WRITTEN.run)))
    assert list(folder.iterdir()) == []
    with pytest.raises(PackageError, match=f"a file is missing: .*{MANIFEST}"):
        package.read(storage, package.location(WRITTEN.model, WRITTEN.run))


def test_a_package_lies_on_any_file_system(request: pytest.FixtureRequest) -> None:
    storage = Storage(f"memory://{request.node.name}")
    folder = package.write(storage, WRITTEN, FILES)
    assert package.read(storage, folder, ESTIMATOR)[1] == FILES[ESTIMATOR]
    storage.write(f"{folder}/{ESTIMATOR}", b"spoilt")
    with pytest.raises(PackageError, match=f"{ESTIMATOR} differs from its SHA-256"):
        package.read(storage, folder)
