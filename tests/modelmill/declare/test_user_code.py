from __future__ import annotations

import hashlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelmill.declare.definitions_file import load
from modelmill.declare.user_code import MAX_MODULE_BYTES, UserCode, read
from modelmill.errors import DefinitionsError

ROOT = Path(__file__).parents[3]


def written(folder: Path, files: Mapping[str, str]) -> UserCode:
    """The code whose files lie in `folder`, of which `mill.py` is the definitions file."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return read(folder / "mill.py")


def test_a_module_beside_the_file_is_found_wherever_the_process_runs(tmp_path: Path) -> None:
    before = dict(sys.modules)
    code = written(tmp_path, {"mill.py": "import maths\nX = maths.X\n", "maths.py": "X = 3\n", "other.py": "X = 4\n"})
    assert list(code.modules) == ["maths.py"], "and what nobody imports is left out"
    assert code.module("mill").X == 3
    assert sys.modules == before, "and other code of this process does not find it"


def test_packages_and_what_their_modules_import_are_found(tmp_path: Path) -> None:
    files = {
        "mill.py": "import pack.one\nfrom loose import two\nX = pack.one.X + two.X\n",
        "pack/__init__.py": "",
        "pack/one.py": "from . import three\nfrom .three import X as Y\nX = three.X + Y\n",
        "pack/three.py": "import four\nX = four.X\n",
        "loose/two.py": "X = 20\n",
        "four.py": "X = 4\n",
    }
    code = written(tmp_path, files)
    assert set(code.modules) == files.keys() - {"mill.py"}
    assert code.module("mill").X == 28


def test_what_lies_elsewhere_on_the_path_and_is_not_installed_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shared_maths.py").write_text("X = 5\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    code = written(tmp_path, {"mill.py": "import shared_maths, numpy, json\nX = shared_maths.X\n"})
    monkeypatch.undo()
    assert list(code.modules) == ["shared_maths.py"]
    assert code.module("mill").X == 5


def test_the_fingerprint_is_that_of_the_file_and_of_its_modules(tmp_path: Path) -> None:
    alone = written(tmp_path, {"mill.py": "X = 1\n"}).fingerprint
    assert alone == hashlib.sha256(b"X = 1\n").hexdigest()
    files = {"mill.py": "import maths\n", "maths.py": "X = 1\n"}
    assert written(tmp_path, files).fingerprint == written(tmp_path, files).fingerprint
    changed = [{**files, "maths.py": "X = 2\n"}, {**files, "mill.py": "import maths  # remark\n"}]
    assert len({written(tmp_path, one).fingerprint for one in (files, *changed)}) == 3


def test_texts_of_two_times_run_side_by_side(tmp_path: Path) -> None:
    mill = "import maths\ndef now():\n    return maths.X\ndef later():\n    from lazy import X\n    return X\n"
    first = written(tmp_path, {"mill.py": mill, "maths.py": "X = 1\n", "lazy.py": "X = 10\n"})
    second = written(tmp_path, {"mill.py": mill, "maths.py": "X = 2\n", "lazy.py": "X = 20\n"})
    one, two = first.module("mill"), second.module("mill")
    assert (one.now(), two.now(), one.later(), two.later(), one.later()) == (1, 2, 10, 20, 10)


def test_a_module_of_that_name_that_the_process_has_loaded_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "some_maths.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "old")
    loaded = importlib.import_module("some_maths")
    code = written(tmp_path, {"mill.py": "import some_maths\nX = some_maths.X\n", "some_maths.py": "X = 2\n"})
    assert code.module("mill").X == 2
    assert sys.modules.pop("some_maths") is loaded


def test_what_imports_by_name_finds_the_modules_inside_the_block(tmp_path: Path) -> None:
    code = written(tmp_path, {"mill.py": "import maths\n", "maths.py": "X = 1\n"})
    code.run()
    with code.importable():
        assert importlib.import_module("maths").X == 1
        assert importlib.import_module("mill").maths.X == 1
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("maths")


def test_a_dataclass_with_postponed_annotations_can_be_made(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass P:\n    a: int\nX = P(3).a\n"
    assert written(tmp_path, {"mill.py": text}).module("mill").X == 3


def test_a_process_that_works_by_it_gives_it_to_those_that_it_starts(tmp_path: Path) -> None:
    mill = "import maths\nclass Twice:\n    def __call__(self, x):\n        return maths.times(x, 2)\n"
    written(tmp_path / "code", {"mill.py": mill, "maths.py": "def times(x, n):\n    return x * n\n"})
    program = (
        "import multiprocessing, sys; from pathlib import Path; from modelmill.declare.user_code import read\n"
        "if __name__ == '__main__':\n"
        "    code = read(Path(sys.argv[1])); code.install()\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(code.module('mill').Twice(), [1, 21]))\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "code" / "mill.py")]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    answer = subprocess.run(command, env=own, capture_output=True, text=True, timeout=60)
    assert answer.stdout == "[2, 42]\n", answer.stderr


REFUSED = {
    "a name that Python has": (
        {"mill.py": "import statistics\n", "statistics.py": ""},
        "module mill imports statistics, and both Python and you have one; rename statistics.py",
    ),
    "a module that imports the file": (
        {"mill.py": "import maths\n", "maths.py": "import mill\n"},
        "module maths imports mill, the definitions file itself; import what both use",
    ),
    "too much": (
        {"mill.py": "import big\n", "big.py": "#" * (MAX_MODULE_BYTES + 1)},
        "modules of your own of 1,048,577 bytes, the largest big.py; expected at most 1,048,576",
    ),
}


@pytest.mark.parametrize(("files", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused(files: Mapping[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        written(tmp_path, files)


def test_a_module_that_is_no_text_is_refused_with_the_definitions(tmp_path: Path) -> None:
    (tmp_path / "mill.py").write_text("import latin\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1\nX = '\xe4'\n")
    with pytest.raises(DefinitionsError, match=r"latin\.py is no UTF-8: invalid continuation byte at byte 27"):
        load(tmp_path / "mill.py")
