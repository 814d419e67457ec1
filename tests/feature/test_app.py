from __future__ import annotations

from modelmill.local import free_port
from modelmill.settings import Settings
from modelmill.state.connections import connect
from services.feature.app import feature_app
from tests.feature.conftest import ROW, Room


def test_while_redis_is_away_every_call_that_needs_it_is_a_503(users: Room) -> None:
    users.catalogue.redis = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    http = feature_app(users.catalogue, Settings()).test_client()
    answers = [
        http.post("/sources/users/rows", json=ROW),
        http.get("/entities/user/u"),
        http.post("/entities/user/lookup", json={"keys": ["u"]}),
        http.post("/features"),
    ]
    assert [(a.status_code, a.headers["Retry-After"]) for a in answers] == [(503, "1")] * 4
    assert users.history("users").num_rows == 0
    assert http.get("/readyz").status_code == 503
    assert http.get("/livez").status_code == 200
    assert http.get("/features").status_code == 200


def test_every_route_is_described(users: Room) -> None:
    paths = users.http.get("/openapi.json").get_json()["paths"]
    described = {f"{method.upper()} {path}" for path, calls in paths.items() for method in calls}
    assert described >= {
        "POST /sources/{source}/rows",
        "GET /entities/{entity}/{key}",
        "POST /entities/{entity}/lookup",
        "GET /features",
        "POST /features",
        "POST /training-frames",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    }
    assert all(call["summary"] for calls in paths.values() for call in calls.values())
