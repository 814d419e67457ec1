"""Fill a running system with the example: ingest the users, train the first model, ask for one prediction.

    python -m examples.users.load

What is there already is left as it is, so that it can run at every start, as `modelmill up` does with the `load.py`
beside the definitions. The services' addresses come from the environment, as for every Modelmill program.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import orjson

from examples.users import data
from modelmill.client import Client
from modelmill.errors import ModelmillError, RequestFailed

MODEL = "user_target"


def load(client: Client) -> dict[str, object]:
    """Ingest and train unless that was done before; return the answer to a real prediction."""
    if not client.when_ready(lambda: stored(client)):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "users.csv"
            data.write(file)
            client.ingest("users", file)
    if "champion" not in client.when_ready(lambda: client.model(MODEL))["aliases"]:
        job = client.train(MODEL, by="example", wait=True)
        if job["status"] != "finished":
            raise ModelmillError(f"the first training {job['status']}: {job.get('error')}")
    return client.when_ready(lambda: client.predict(MODEL, user_id=data.EXAMPLE_USER))


def stored(client: Client) -> bool:
    """Whether the example's users are in the feature store."""
    try:
        client.entity("user", data.EXAMPLE_USER)
    except RequestFailed as error:
        if error.http_status == 404:
            return False
        raise
    return True


if __name__ == "__main__":
    try:
        client = Client()
        answer = load(client)
        url = f"{client.settings.predictor_url}/models/{MODEL}/predict"
        print(f"""  curl -s {url} -d '{{"user_id": "{data.EXAMPLE_USER}"}}'\n""")
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    except ModelmillError as error:
        sys.exit(str(error))
