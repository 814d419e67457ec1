"""The naive peer: FastAPI, joblib and scikit-learn, with the features in the request.

BENCH_MODEL=model.joblib uvicorn --factory benchmarks.peer:build
"""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import create_model

from benchmarks.mill import FEATURES

Row = create_model("Row", **dict.fromkeys(FEATURES, (float, ...)))


def build() -> FastAPI:
    """Answers a POST to / with the prediction and its probabilities, from one call of the estimator."""
    app = FastAPI()
    estimator = joblib.load(os.environ["BENCH_MODEL"])
    classes = estimator.classes_.tolist()

    @app.post("/")
    async def predict(row: Row):
        values = np.array([[getattr(row, name) for name in FEATURES]])
        probabilities = estimator.predict_proba(values)[0].tolist()
        return {
            "prediction": classes[int(np.argmax(probabilities))],
            "probabilities": dict(zip(map(str, classes), probabilities, strict=True)),
        }

    return app
