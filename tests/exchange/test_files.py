"""Registering files and exporting versions over HTTP, with the command line and the client, without MLflow."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import skops.io
import yaml
from click.testing import CliRunner

from modelmill import Client, cli
from modelmill.cli import system
from modelmill.errors import InvalidRequest, PackageError, RequestFailed
from modelmill.packages.package import ESTIMATOR, GRAPH, MANIFEST, Manifest
from tests.exchange.conftest import MODEL, Trainer
from tests.trainer.exchange.models import fitted, onnx_file, rows, skops_file

pytestmark = pytest.mark.redis


@pytest.fixture
def shell(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line of a system with this trainer."""
    monkeypatch.setattr(system, "client", lambda: Client(trainer.client.settings))
    monkeypatch.setenv("USER", "me")
    return CliRunner()


@pytest.fixture(scope="module")
def version(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A version with estimator and graph."""
    path = tmp_path_factory.mktemp("model") / "m.skops"
    path.write_bytes(skops_file(fitted()))
    return int(trainer.register(path)["version"])


def mlflow_folder(folder: Path, name: str, content: bytes, **sklearn: Any) -> Path:
    """A folder as MLflow writes it, with the file `name`."""
    folder.mkdir()
    (folder / name).write_bytes(content)
    columns = [{"type": "double", "name": f"feature_{n}", "required": True} for n in (1, 2, 3)]
    about = {
        "flavors": {"sklearn": {"pickled_model": name, "sklearn_version": "1.9.1", **sklearn}},
        "signature": {"inputs": json.dumps(columns), "outputs": None, "params": None},
        "run_id": "0123", "mlflow_version": "3.17.2",
    }  # fmt: skip
    (folder / "MLmodel").write_text(yaml.safe_dump(about))
    return folder


# --- register


def test_a_file_is_registered_from_the_shell_and_says_what_became_of_it(
    shell: CliRunner, trainer: Trainer, tmp_path: Path
) -> None:
    content = onnx_file(fitted())
    (tmp_path / "m.onnx").write_bytes(content)
    done = shell.invoke(cli.main, ["register", MODEL, str(tmp_path / "m.onnx"), "--json"])
    assert done.exit_code == 0, done.output
    run = json.loads(done.stdout)
    assert (run["trigger"], run["by"], run["origin"]["sha256"]) == (
        "registered", "me", hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    assert trainer.registry.version(MODEL, run["version"]).run == run["id"]


def test_a_mismatch_is_an_error_in_the_shell(shell: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(skops_file(fitted(names=["feature_1"])))
    done = shell.invoke(cli.main, ["register", MODEL, str(tmp_path / "m.skops")])
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "error: estimator Pipeline does not take 'feature_2', 'feature_3'; model 'user_target'"
    )


def test_an_mlflow_folder_saved_as_skops_is_registered_with_where_it_comes_from(
    trainer: Trainer, tmp_path: Path
) -> None:
    folder = mlflow_folder(tmp_path / "m", "model.skops", skops_file(fitted()), serialization_format="skops")
    origin = trainer.register(folder)["origin"]
    assert (origin["mlflow_run_id"], origin["mlflow_version"], origin["file"]) == ("0123", "3.17.2", "m/model.skops")


@pytest.fixture
def trap(tmp_path: Path) -> bytes:
    """A pickle that leaves a trace where it is loaded."""

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    return pickle.dumps(Trap())


@pytest.mark.parametrize(
    "serialization", [{}, {"serialization_format": "cloudpickle"}], ids=["mlflow 1", "cloudpickle"]
)
def test_a_pickled_mlflow_model_is_refused_unread_and_told_how_to_be_saved(
    serialization: dict[str, str], shell: CliRunner, trap: bytes, tmp_path: Path
) -> None:
    folder = mlflow_folder(tmp_path / "m", "model.pkl", trap, **serialization)
    done = shell.invoke(cli.main, ["register", MODEL, str(folder)])
    assert done.exit_code == 1
    assert done.stderr == (
        "error: 'model.pkl' is a pickle, which runs code when it is loaded and is never taken: save the model with"
        " mlflow.sklearn.save_model(model, path, serialization_format='skops'); or, if you trust whoever made it, add"
        " --trust-pickle, which loads it on this machine and sends it as skops\n"
    )
    assert not (tmp_path / "sprung").exists()


def test_a_trusted_pickle_is_loaded_in_another_process_and_sent_as_skops(
    shell: CliRunner, trainer: Trainer, tmp_path: Path
) -> None:
    estimator = fitted()
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(estimator))
    done = shell.invoke(cli.main, ["register", MODEL, str(tmp_path / "m.pkl"), "--trust-pickle", "--json"])
    assert done.exit_code == 0, done.output
    run = json.loads(done.stdout)
    assert (run["origin"]["format"], run["origin"]["file"]) == ("skops", "m.pkl")
    assert run["origin"]["pickle_sha256"] == hashlib.sha256((tmp_path / "m.pkl").read_bytes()).hexdigest()
    given, _ = rows()
    assert trainer.answers(run["version"], given)[0] == estimator.predict(given).tolist()


def test_a_pickle_that_cannot_be_loaded_is_an_error_with_its_reason(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04cnowhere\nModel\n.")
    with pytest.raises(InvalidRequest, match=r"'m\.pkl' cannot be converted to skops: ModuleNotFoundError"):
        trainer.client.register(MODEL, tmp_path / "m.pkl", trust_pickle=True)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "has no file MLmodel; expected an MLflow model folder"),
        ("- a\n- b", "holds no mapping; expected what MLflow writes"),
        ("a: [", "cannot be read: while parsing a flow node"),
        ("flavors: {pytorch: {}}", "has the flavours pytorch; expected sklearn or onnx"),
        ("flavors: {onnx: {data: ../../m.onnx}}", "names the file 'm.onnx', which is not in it"),
        (
            "flavors: {sklearn: {pickled_model: x, serialization_format: dill}}",
            "is serialized as 'dill'; expected skops",
        ),
        ("!!python/object/apply:os.system [exit]", "cannot be read: could not determine a constructor"),
    ],
)
def test_a_folder_that_is_no_model_of_mlflow_is_refused(
    content: str | None, sentence: str, trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "a" / "m").mkdir(parents=True)
    if content is not None:
        (tmp_path / "a" / "m" / "MLmodel").write_text(content)
    with pytest.raises(InvalidRequest) as refusal:
        trainer.client.register(MODEL, tmp_path / "a" / "m")
    assert sentence in refusal.value.detail


def test_other_files_are_not_sent(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"file 'm\.h5': expected \.onnx, \.skops or an MLflow model folder"):
        trainer.client.register(MODEL, tmp_path / "m.h5")


@pytest.mark.parametrize(
    "form, files, sentence",
    [
        ({"offer": '{"format": "onnx"}'}, False, "the body has no file 'model'"),
        ({"offer": "{"}, True, "field 'offer' is not JSON"),
        ({"offer": '{"format": "pickle"}'}, True, "field 'format' is 'pickle'; expected onnx or skops"),
        ({"offer": '{"format": "onnx", "clases": [0]}'}, True, "field 'clases' is not known; did you mean 'classes'?"),
        (
            {"offer": '{"format": "onnx", "params": {"C": 1}}'},
            True,
            "field 'params' is {'C': 1}; expected an object of",
        ),
        ({"offer": '{"format": "onnx"}', "promote": "yes"}, True, "field 'promote' is 'yes'; expected true or false"),
        ({"offer": '{"format": "onnx"}', "bye": "me"}, True, "field 'bye' is not known; did you mean 'by'?"),
    ],
)
def test_a_wrong_body_is_refused_at_once(form: dict[str, str], files: bool, sentence: str, trainer: Trainer) -> None:
    answer = httpx.post(
        f"{trainer.url}/models/{MODEL}/versions", data=form, files={"model": b"x"} if files else {"other": b""}
    )
    assert answer.status_code in (400, 422)
    assert sentence in answer.json()["detail"] or "field 'other' is not known" in answer.json()["detail"]


def test_an_unknown_model_is_not_found(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(RequestFailed, match="model 'user_targt' is not known; did you mean 'user_target'"):
        trainer.client.register("user_targt", tmp_path / "m.onnx")


# --- export


def test_a_graph_is_exported_and_answers_as_it_is_served(trainer: Trainer, version: int, tmp_path: Path) -> None:
    done = trainer.client.export(MODEL, tmp_path / "out", version=version, format="onnx")
    content = (tmp_path / "out" / GRAPH).read_bytes()
    assert done["files"][GRAPH] == hashlib.sha256(content).hexdigest()
    session, (given, _) = onnxruntime.InferenceSession(content), rows()
    labels, _ = session.run(None, {"inputs": given.to_numpy(np.float32)})
    assert labels.tolist() == trainer.answers(version, given)[0]
    assert Manifest.from_json((tmp_path / "out" / MANIFEST).read_bytes()).files[GRAPH] == done["files"][GRAPH]


def test_an_estimator_is_exported(shell: CliRunner, trainer: Trainer, version: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell.invoke(cli.main, ["export", f"{MODEL}@{version}", "--format", "skops", "--to", str(out), "--json"])
    assert done.exit_code == 0, done.output
    estimator, (given, _) = skops.io.load(out / ESTIMATOR, trusted=[]), rows()
    assert estimator.predict(given).tolist() == trainer.answers(version, given)[0]


def test_without_a_version_it_is_the_champions(trainer: Trainer, version: int, tmp_path: Path) -> None:
    trainer.client.promote(MODEL, version)
    assert trainer.client.export(MODEL, tmp_path / "out")["version"] == version
    trainer.client.promote(MODEL, version, alias="stable")
    assert trainer.client.export(MODEL, tmp_path / "again", version="stable")["version"] == version


def test_what_a_version_does_not_have_cannot_be_exported(trainer: Trainer, version: int, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_file(fitted()))
    number = trainer.register(tmp_path / "m.onnx")["version"]
    sentence = f"version {number} of 'user_target' has no estimator.skops, only model.onnx; choose another format"
    with pytest.raises(InvalidRequest) as refusal:
        trainer.client.export(MODEL, tmp_path / "out", version=number, format="skops")
    assert refusal.value.detail == sentence
    with pytest.raises(RequestFailed, match="alias 'nobody' is not known"):
        trainer.client.export(MODEL, tmp_path / "out", version="nobody")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(trainer: Trainer, version: int, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InvalidRequest, match="holds something already; name a new folder"):
        trainer.client.export(MODEL, tmp_path, version=version)


def test_a_byte_that_changed_on_the_way_is_refused_by_name(
    trainer: Trainer, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Client._send

    def corrupt(self: Client, method: str, url: str, **request: Any) -> httpx.Response:
        response = send(self, method, url, **request)
        if url.endswith(GRAPH):
            response._content = response.content[:-1] + bytes([response.content[-1] ^ 1])
        return response

    monkeypatch.setattr(Client, "_send", corrupt)
    with pytest.raises(PackageError, match=r"model\.onnx from .* differs from its SHA-256 in manifest\.json"):
        trainer.client.export(MODEL, tmp_path / "out", version=version, format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_export_for_mlflow_names_its_columns_types_and_an_example(
    trainer: Trainer, version: int, tmp_path: Path
) -> None:
    trainer.client.export(MODEL, tmp_path / "out", version=version)
    about = yaml.safe_load((tmp_path / "out" / "MLmodel").read_text())
    assert set(about["flavors"]) == {"python_function", "sklearn", "onnx"}
    assert about["flavors"]["sklearn"]["serialization_format"] == "skops"
    assert [item["name"] for item in json.loads(about["signature"]["inputs"])] == [f"feature_{n}" for n in (1, 2, 3)]
    example = json.loads((tmp_path / "out" / "input_example.json").read_text())
    assert len(example["data"][0]) == 3
    assert "scikit-learn==" in (tmp_path / "out" / "requirements.txt").read_text()


def test_an_exported_folder_can_be_registered_again(trainer: Trainer, version: int, tmp_path: Path) -> None:
    trainer.client.export(MODEL, tmp_path / "out", version=version)
    run = trainer.register(tmp_path / "out")
    given, _ = rows()
    assert trainer.answers(run["version"], given)[0] == trainer.answers(version, given)[0]


def test_only_mlflows_folders_need_the_extra_and_say_so_without_it(
    trainer: Trainer, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mlflow_folder(tmp_path / "m", "model.skops", skops_file(fitted()), serialization_format="skops")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(
        InvalidRequest, match=r"need PyYAML, which is not installed; pip install 'modelmill\[exchange\]'"
    ):
        trainer.client.register(MODEL, folder)
    with pytest.raises(InvalidRequest, match=r"need PyYAML"):
        trainer.client.export(MODEL, tmp_path / "out", version=version)
    assert not (tmp_path / "out").exists()
    assert trainer.client.export(MODEL, tmp_path / "out", version=version, format="skops")["version"] == version
    trainer.register(folder / "model.skops")
