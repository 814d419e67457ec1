from __future__ import annotations

from typing import Any

from tests.eventually import eventually
from tests.feature.conftest import ROW, Room


def test_features_are_listed(users: Room) -> None:
    names = [feature["name"] for feature in users.http.get("/features").get_json()["features"]]
    assert names == ["feature_1", "feature_2", "target", "feature_3"]


def until_done(room: Room) -> dict[str, Any] | None:
    state: dict[str, Any] = room.http.get("/features/backfill").get_json()
    return state if state["state"] != "running" else None


def test_applying_tells_what_changed_and_how_many_rows_were_computed_anew(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace("** 2", "** 3"))
    begun = users.http.post("/features")
    assert begun.status_code == 202
    assert [change.split(":")[0] for change in begun.get_json()["changes"]] == ["features"]
    state = eventually(lambda: until_done(users), within=10, saying="the features are computed")
    assert (state["state"], state["rows"], state["total"]) == ("done", 1, 1)
    assert users.http.get("/entities/user/u").get_json()["features"]["feature_3"] == 27.0


def test_a_dry_run_tells_and_does_nothing(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace('"feature_2": float', '"feature_2": int').replace("** 2", "** 3"))
    planned = users.http.post("/features", json={"dry_run": True}).get_json()
    assert len(planned["changes"]) >= 2
    assert "stored values have the former type; declare a new column instead" in planned["refusals"][0]
    assert users.http.get("/entities/user/u").get_json()["features"]["feature_3"] == 9.0


def test_a_refused_change_is_a_409_with_the_reasons(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace('"feature_2": float', '"feature_2": int'))
    answer = users.http.post("/features", json={})
    assert answer.status_code == 409
    assert answer.get_json()["reasons"] == [
        "source:users column.feature_2: float -> int: stored values have the former type; declare a new column instead"
    ]


def test_a_mistake_in_the_definitions_is_a_422_with_file_and_line(users: Room) -> None:
    users.catalogue.path.write_text("x = 1\ny = nothing\n")
    answer = users.http.post("/features")
    assert answer.status_code == 422
    assert f"{users.catalogue.path}:2: NameError: name 'nothing' is not defined" in answer.get_json()["detail"]
    assert users.http.get("/features").status_code == 200


def test_a_file_other_than_the_one_that_was_checked_is_a_409(users: Room) -> None:
    assert users.http.post("/features", json={"fingerprint": "0" * 64}).status_code == 409
