"""A predictor over the features of a room, with versions as the trainer would register them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flask.testing import FlaskClient
from onnx import TensorProto, helper

from modelmill.packages import package
from modelmill.packages.package import Input, Manifest
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, new_run_id
from modelmill.times import utc_now
from services.predictor.app import create_app
from services.predictor.features import OnlineStore
from services.predictor.inference import LiveModels
from services.predictor.loading import Reconciler
from services.predictor.predictor import Predictor
from services.predictor.reports import Reports
from services.predictor.settings import PredictorSettings
from services.trainer.packaging import packing as packaging
from tests.feature.conftest import Room


def publish(room: Room, model: str = "m") -> int:
    """Package and register a version with the definitions in force, as champion; return its number."""
    definitions = room.catalogue.definitions
    recipe = definitions.model(model)
    signature = packaging.signature(definitions, recipe)
    inputs = [replace(item, nullable=True) for item in signature.fed]
    run = Run(
        id=new_run_id(),
        model=model,
        started=utc_now(),
        fields=signature.fields,
        definitions=definitions.fingerprint,
    )
    manifest = Manifest(
        model=model,
        run=run.id,
        task="regression",
        entities={entity.name: entity.key for entity in recipe.entities},
        inputs=inputs,
        auxiliary=signature.auxiliary,
        definitions=definitions.fingerprint,
        layout="columns",
        tensor_dtype="float64",
        classes=[],
        label=recipe.label,
        metrics={},
        example={item.name: "1" if item.dtype == "str" else 1 for item in inputs},
    )
    folder = package.write(room.catalogue.storage, manifest, {package.GRAPH: _graph(inputs)})
    registry = Registry(room.redis)
    registry.runs.start(run)
    champion = registry.aliases(model).get("champion")
    return registry.register(run, folder, promote=True, champion=champion).version


def _graph(inputs: Sequence[Input]) -> bytes:
    """A graph that takes a column an input, of any value, and answers 0."""
    taken = [
        helper.make_tensor_value_info(
            item.name, TensorProto.STRING if item.dtype == "str" else TensorProto.DOUBLE, [None, 1]
        )
        for item in inputs
    ]
    nodes = [
        helper.make_node("Shape", [inputs[0].name], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    model = helper.make_model(
        helper.make_graph(nodes, "zero", taken, [given]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    graph: bytes = model.SerializeToString()
    return graph


@dataclass
class Serving:
    """One process of the predictor."""

    room: Room
    reports: Reports = field(init=False)
    http: FlaskClient = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        registry, live = Registry(self.room.redis), LiveModels()
        self.reports = Reports(self.room.redis, bound=100_000)
        self.reconciler = Reconciler(registry, self.room.catalogue.storage, live, retry=0)
        predictor = Predictor(registry, OnlineStore(self.room.redis), live, self.reports, max_instances=1000)
        self.http = create_app(PredictorSettings(), predictor).test_client()

    def predict(self, *instances: dict[str, Any], model: str = "m") -> str:
        """Predict with the champion, report that at once, and return the prediction's id."""
        self.reconciler.reconcile()
        answer = self.http.post(f"/models/{model}/predict", json={"instances": list(instances)})
        self.reports.flush()
        body = answer.get_json()
        assert answer.status_code == 200, body
        found: str = body["prediction_id"]
        return found
