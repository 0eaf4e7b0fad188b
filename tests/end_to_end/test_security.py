"""Parameters are data: no parameter, file or flag runs code, and none of them ends up as code."""

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.cli import papermill
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from papermill.translators import PythonTranslator

from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.record import lock
from bnnlib.record.schema import read_record

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "01_train.ipynb"
quick = settings(deadline=None, derandomize=True)

# Each would run code if it were pasted into a cell between quotes of one kind or another.
INJECTIONS = [
    '"; raise SystemExit(66) #',
    "'; raise SystemExit(66) #",
    '"""; raise SystemExit(66) #',
    "\nraise SystemExit(66)\n",
    "\r\nraise SystemExit(66)\r\n",
    "\\",
    "\\'; raise SystemExit(66) #",
    '\\"\nraise SystemExit(66) #',
    "{__import__('os')._exit(66)}",
    "\x00\x1b\u2028raise SystemExit(66)",
    "%system exit 66",
    "!exit 66",
    "ends in a backslash \\",
]


def injected(parameters: dict[str, object]) -> str:
    """The cell that papermill puts behind the notebook's parameters cell."""
    nb = parameterize_notebook(load_notebook_node(str(NOTEBOOK)), parameters)
    return next(c.source for c in nb.cells if "injected-parameters" in c.metadata.get("tags", []))


@pytest.mark.parametrize("text", INJECTIONS)
def test_text_stays_text_through_papermill(text):
    cell = injected({"run_dir": text, "eval_sets": [text]})
    namespace: dict[str, object] = {}
    exec(compile(cell, "cell", "exec"), namespace)
    assert namespace["run_dir"] == text
    assert namespace["eval_sets"] == [text]


@quick
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.lists(st.text(max_size=5)))
def test_any_text_stays_text_through_papermill(text, texts):
    cell = PythonTranslator.codify({"run_dir": text, "eval_sets": texts})
    namespace: dict[str, object] = {}
    try:
        exec(compile(cell, "cell", "exec"), namespace)
    except (SyntaxError, UnicodeEncodeError):
        return  # refused before anything of the cell runs
    assert (namespace["run_dir"], namespace["eval_sets"]) == (text, texts)


@pytest.mark.parametrize(
    "content",
    [
        "model: !!python/object/apply:os._exit [66]",
        "!!python/object/apply:subprocess.check_output [[touch, ran]]",
        "model: !!python/name:os.system",
    ],
)
def test_a_parameter_file_cannot_make_objects(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(yaml.constructor.ConstructorError):
        papermill(
            [str(NOTEBOOK), str(tmp_path / "out.ipynb"), "-f", str(tmp_path / "a.yaml")],
            standalone_mode=False,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml"]


def test_no_module_unpickles_evaluates_or_loads_yaml_unsafely():
    forbidden = ("pickle.load", "allow_pickle=True", "eval(", "exec(", "yaml.load(", "shell=True")
    for path in sorted((ROOT / "bnnlib").rglob("*.py")):
        text = path.read_text().replace(".eval(", "")
        # A user's own network is a function in a file that he names: its code has to be executed.
        allowed = {"source.py": ["exec("]}.get(path.name, [])
        assert [word for word in forbidden if word in text] == allowed, path.name


SECRETS = {
    "API_TOKEN": "tok-1f9ad",
    "AWS_SECRET_ACCESS_KEY": "wJalr-77",
    "JUPYTER_TOKEN": "jup-5c3e",
    "GITHUB_TOKEN": "ghp-0c8f",
    "SSH_AUTH_SOCK": "/run/user/77/agent",
    "HOME": "/home/somebody-secret",
}


def test_no_file_of_a_record_holds_environment_tokens_or_home(tmp_path):
    code = """
        import sys
        import bnnlib
        from bnnlib.launch import command
        from bnnlib.experiment import Experiment

        command.run(Experiment(
            model="CNN_FC", dataset="tiny", epochs=1, run_dir=sys.argv[1], test_draws=1,
        ))
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run")]
    environ = os.environ | SECRETS | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"run.json", "steps.jsonl", "predictions.npz"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        for name, value in SECRETS.items():
            assert value.encode() not in content, (path.name, name)
            assert name == "HOME" or name.encode() not in content, (path.name, name)
        for name in ("PATH=", "LD_LIBRARY_PATH", "USER=", "LOGNAME"):
            assert name.encode() not in content, (path.name, name)
    record = read_record(tmp_path / "run")
    assert set(record["environment"]) <= {"OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS"}


@quick
@given(st.binary(max_size=300))
def test_any_bytes_are_a_lock_or_nobodys(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("lock")
    (folder / lock.NAME).write_bytes(content)
    try:
        lock.refuse_if_held(folder)
    except BnnlibError:
        return


@quick
@given(st.dictionaries(st.sampled_from([*Experiment.names(), "x"]), st.text() | st.integers()))
def test_parameters_from_yaml_are_an_experiment_or_one_kind_of_error(values):
    read = yaml.safe_load(io.StringIO(yaml.safe_dump(values))) or {}
    try:
        experiment = Experiment.from_mapping(read)
    except BnnlibError:
        return
    assert Experiment.from_mapping(experiment.to_dict()) == experiment
