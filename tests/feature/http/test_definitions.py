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


def test_a_function_that_another_process_found_to_be_another_version_is_refused_at_its_line(users: Room) -> None:
    answer = users.http.post("/features", json={"versions": {"users.feature_3": "00000000"}})
    assert answer.status_code == 422
    assert "mill.py:9: feature 'feature_3' is version " in answer.get_json()["detail"]
    own = users.catalogue.definitions.features["users"]["feature_3"].version
    assert users.http.post("/features", json={"versions": {"users.feature_3": own}}).status_code == 200
    assert users.http.post("/features", json={"versions": ["feature_3"]}).status_code == 422


def test_a_file_that_ends_the_process_is_a_422_with_its_line(users: Room) -> None:
    path = users.catalogue.path
    path.write_text("import sys\nsys.exit(2)\n" + path.read_text())
    answer = users.http.post("/features")
    assert (answer.status_code, answer.get_json()["line"]) == (422, 2)


def test_stored_rows_get_the_values_of_a_changed_default_and_of_a_changed_module(users: Room) -> None:
    path, text = users.catalogue.path, users.catalogue.path.read_text()
    users.ingest("users", [ROW])
    path.write_text(text.replace("def feature_3(row)", "def feature_3(row, n=3)").replace("** 2", "** n"))
    users.http.post("/features")
    eventually(lambda: until_done(users), within=10, saying="the features are computed")
    users.ingest("users", [{**ROW, "user_id": "v"}])
    (path.parent / "powers.py").write_text("N = 4\n")
    path.write_text("import powers\n" + text.replace("** 2", "** powers.N"))
    before = [users.http.get(f"/entities/user/{key}").get_json()["features"]["feature_3"] for key in "uv"]
    users.http.post("/features")
    eventually(lambda: until_done(users), within=10, saying="the features are computed")
    after = [users.http.get(f"/entities/user/{key}").get_json()["features"]["feature_3"] for key in "uv"]
    assert (before, after) == ([27.0, 27.0], [81.0, 81.0])
