"""What a package is opened with, and what is loaded for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from modelmill.packages.package import Tensor
from modelmill.packages.sessions import described, graph_session
from tests.conftest import ROOT
from tests.predictor import packages
from tests.predictor.packages import manifest

OPEN = """
import sys
from pathlib import Path
from modelmill.packages.package import Manifest
from modelmill.packages.sessions import open_session
import services.predictor.main
folder = Path(sys.argv[1])
manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
open_session(manifest, (folder / "content").read_bytes())
print(*[name for name in ("pandas", "sklearn", "skops") if name in sys.modules])
"""


def loaded_for(folder: Path, described: packages.Manifest, content: bytes) -> str:
    """Which of pandas, scikit-learn and skops a predictor has in memory once it has opened a package."""
    (folder / "manifest.json").write_bytes(described.to_json())
    (folder / "content").write_bytes(content)
    command = [sys.executable, "-c", OPEN, str(folder)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, text=True, check=True)
    return done.stdout.strip()


def test_a_graph_is_served_without_pandas_and_scikit_learn(tmp_path: Path) -> None:
    assert loaded_for(tmp_path, manifest(), packages.classifier()) == ""


def test_they_are_loaded_for_a_package_without_a_graph(tmp_path: Path) -> None:
    described, content = packages.served_by_scikit_learn(LogisticRegression())
    assert loaded_for(tmp_path, described, content) == "pandas sklearn skops"


@pytest.mark.parametrize(
    "graph, inputs, outputs",
    [
        (packages.classifier, [Tensor("X", "float32", [-1, 3])], [Tensor("label", "int64", [-1]), Tensor("probabilities", "float32", [-1, 2])]),
        (packages.regression, [Tensor("X", "float32", [-1, 3])], [Tensor("variable", "float32", [-1, 1])]),
    ],
)  # fmt: skip
def test_a_graph_says_what_it_takes_and_gives(graph: object, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    session = graph_session(graph())  # type: ignore[operator]
    assert described(session.get_inputs()) == inputs
    assert described(session.get_outputs()) == outputs
