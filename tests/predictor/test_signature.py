"""What a manifest says, worked out."""

from __future__ import annotations

import pytest

from modelmill.packages.package import Input
from services.predictor.signature import Signature
from tests.predictor.packages import manifest


def test_an_entity_is_read_by_its_fields_and_its_sources_event_times() -> None:
    (user,) = Signature.of(manifest()).entities
    assert user.reader.fields == ("feature_1", "feature_2", "clicks", "_time.users", "_time.visits")


def test_an_input_is_read_from_the_field_that_the_manifest_names() -> None:
    renamed = [Input("user.age", "int", False, "user", "age", "users")]
    assert Signature.of(manifest(inputs=renamed)).entities[0].reader.fields == ("age", "_time.users")


def test_an_entity_without_features_is_not_read_but_its_key_is_known() -> None:
    signature = Signature.of(manifest(entities={"user": "user_id", "shop": "shop_id"}))
    assert [entity.name for entity in signature.entities] == ["user"]
    assert signature.keys == {"user_id": (0,), "shop_id": ()}


@pytest.mark.parametrize(
    "item, reason",
    [
        (Input("a", "float", False, "user", None, "users"), "names no field"),
        (Input("a", "float", False, "user", "a", None), "names no source"),
        (Input("a", "float", False, "shop", "a", "shops"), "has no join key"),
    ],
)
def test_a_manifest_that_lacks_where_an_input_lies_is_refused(item: Input, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Signature.of(manifest(inputs=[item]))
