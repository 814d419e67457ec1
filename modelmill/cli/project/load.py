"""Rows in, a first model, a first prediction: `modelmill up` runs this; what is there already is left as it is."""

import json
import sys
import tempfile
from pathlib import Path

import data

from modelmill import Client
from modelmill.errors import ModelmillError

MODEL = "orders_again"
ASKED = {"customer_id": "c1"}


def load(client):
    if "champion" not in client.when_ready(lambda: client.model(MODEL))["aliases"]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "customers.csv"
            data.rows().to_csv(file, index=False)
            client.when_ready(lambda: client.ingest("customers", file))
        job = client.train(MODEL, wait=True)
        if job["status"] != "finished":
            raise ModelmillError(f"the first training {job['status']}: {job.get('error')}")
    answer = client.when_ready(lambda: client.predict(MODEL, **ASKED))
    print(f"  curl -s {client.settings.predictor_url}/models/{MODEL}/predict -d '{json.dumps(ASKED)}'\n")
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    try:
        load(Client())
    except ModelmillError as error:
        sys.exit(str(error))
