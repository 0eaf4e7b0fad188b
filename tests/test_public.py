"""The names right below `bnnlib`: offered, found, and imported when they are first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bnnlib

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "tensorflow_probability", "tf_keras", "horovod", "pandas", "matplotlib")
LIGHT = """
import sys
import bnnlib
names = dir(bnnlib)
bnnlib.Experiment(model="CNN_FC"), bnnlib.MODELS, bnnlib.DATASETS, bnnlib.OOD_SETS
bnnlib.evaluate([[0.9, 0.1]], [0]), bnnlib.load_data("tiny"), bnnlib.metrics, bnnlib.errors
print(*sorted(set(sys.modules) & set(sys.argv[1:])))
"""


def test_nothing_heavy_is_imported_before_it_is_needed():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *HEAVY], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_completion_offers_every_public_name_and_each_is_there():
    for name in ("train", "load_run", "Experiment", "MODELS", "DATASETS", "read_runs", "metrics"):
        assert name in dir(bnnlib)
    assert set(bnnlib.__all__) == set(bnnlib._PLACES) < set(dir(bnnlib))
    for name in bnnlib.__all__:
        assert getattr(bnnlib, name) is not None
        assert not name.startswith("_")


def test_editors_see_the_names_that_are_there():
    """What type checkers read is what runs: the same names from the same modules."""
    tree = ast.parse(Path(bnnlib.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            inside = (str(node.module), alias.name)
            module = (f"bnnlib.{alias.name}", "")
            seen[alias.asname or alias.name] = module if node.module == "bnnlib" else inside
    assert seen == bnnlib._PLACES


def test_a_mistyped_name_is_told_the_nearest():
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; did you mean train\?"):
        bnnlib.trian  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'experiments'; .* Experiment\?"):
        bnnlib.experiments  # noqa: B018
    assert not hasattr(bnnlib, "__wrapped__")
