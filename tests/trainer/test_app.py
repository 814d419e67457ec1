"""What holds of all calls of the trainer."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now


@pytest.mark.parametrize(
    "name", ["r:trials", "r:search", "r:lease", ":", "r:search:in_hand", "m:aliases", "j:dependents"]
)
def test_no_name_in_a_url_reaches_what_else_lies_in_redis(http: FlaskClient, registry: Registry, name: str) -> None:
    registry.runs.start(Run(id="r", model="m", started=utc_now()))
    redis = registry.redis
    redis.zadd(keys.trials("r"), {"t": 1})
    redis.hset(keys.search("r"), "begun", "1")
    redis.hset(keys.search_in_hand("r"), "1", "lease")
    redis.set(keys.run_lease("r"), "")
    redis.hset(keys.aliases("m"), "champion", "1")
    redis.sadd("rq:job:j:dependents", "k")
    rules = [rule for rule in http.application.url_map.iter_rules() if rule.endpoint != "static" and rule.arguments]
    urls = http.application.url_map.bind("localhost")
    for rule in rules:
        url = urls.build(rule.endpoint, {one: 1 if one == "version" else name for one in rule.arguments})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            answer = http.open(url, method=method, json={})
            assert 400 <= answer.status_code < 500, (method, url, answer.text)
    assert http.get("/runs/compare", query_string={"run": ["r", name]}).status_code == 404
    assert redis.hgetall(keys.search("r")) == {"begun": "1"}
