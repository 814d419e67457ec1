"""Only a whole package whose graph is what its manifest says is served."""

from __future__ import annotations

from typing import Any

import pytest

from modelmill import package
from modelmill.connections import Redis
from modelmill.errors import PackageError, UnknownName
from modelmill.registry import Registry
from modelmill.storage import Storage
from services.predictor.loading import load
from tests.predictor import packages
from tests.predictor.packages import manifest, publish


def test_a_version_is_loaded_with_its_signature(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    model = load(Registry(fake_redis), storage, "user_target", 1)
    assert (model.name, model.version) == ("user_target", 1)
    assert list(model.signature.positions) == ["feature_1", "feature_2", "clicks"]


def test_an_unknown_version_is_named(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), packages.classifier())
    with pytest.raises(UnknownName, match="version '2' is not known"):
        load(Registry(fake_redis), storage, "user_target", 2)


@pytest.mark.parametrize("file", [package.GRAPH, package.MANIFEST])
def test_a_wrong_byte_in_a_file_is_refused(fake_redis: Redis, storage: Storage, file: str) -> None:
    name = f"{publish(fake_redis, storage, manifest(), packages.classifier()).package}/{file}"
    content = bytearray(storage.read(name))
    content[len(content) // 2] ^= 1
    storage.write(name, bytes(content))
    with pytest.raises(PackageError, match=file):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize("file", [package.GRAPH, package.MANIFEST])
def test_a_missing_file_is_refused(fake_redis: Redis, storage: Storage, file: str) -> None:
    folder = publish(fake_redis, storage, manifest(), packages.classifier()).package
    storage.files.rm(storage.path(f"{folder}/{file}"))
    with pytest.raises(PackageError, match=f"a file is missing.*{file}"):
        load(Registry(fake_redis), storage, "user_target", 1)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"classes": [0, 1, 2]}, "zip"),
        ({"layout": "columns"}, "its graph has the inputs X; expected feature_1, feature_2, clicks"),
        ({"inputs": packages.USER_INPUTS[:2]}, "InvalidArgument"),
        ({"example": {}}, "KeyError: 'feature_1'"),
        ({"example": {"feature_1": None, "feature_2": 0.0, "clicks": 0}}, "InvalidAnswer"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    fake_redis: Redis, storage: Storage, changes: dict[str, Any], reason: str
) -> None:
    publish(fake_redis, storage, manifest(**changes), packages.classifier())
    with pytest.raises(PackageError, match=reason):
        load(Registry(fake_redis), storage, "user_target", 1)


def test_what_is_no_graph_is_refused(fake_redis: Redis, storage: Storage) -> None:
    publish(fake_redis, storage, manifest(), b"not a graph")
    with pytest.raises(PackageError, match="cannot be served"):
        load(Registry(fake_redis), storage, "user_target", 1)
