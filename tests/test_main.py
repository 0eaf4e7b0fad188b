"""`python -m bnnlib`: a list of commands, each with its manual, without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib.__main__ import _parser, main
from bnnlib.experiment import Experiment
from bnnlib.launch import command
from bnnlib.record.failure import error_of, record_failure

ROOT = Path(__file__).parents[1]

COMMANDS = [
    *("train", "plan", "laplace", "evaluate", "pack", "sweep"),
    *("table", "predict", "figures", "ladder"),
]
# A process in which the imports fail that take seconds, or that a service node cannot do.
WITHOUT = """
import runpy, sys
for name in ("tensorflow", "tensorflow_probability", "tf_keras", "horovod"):
    sys.modules[name] = None
sys.argv = ["bnnlib", *sys.argv[1:]]
runpy.run_module("bnnlib", run_name="__main__", alter_sys=False)
"""


def without_tensorflow(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_alone_it_lists_its_commands():
    done = without_tensorflow()
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert listed == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_with_an_example_and_its_exit_codes(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m bnnlib {name} " in told.split("options:")[1]
    assert "exit codes:" in told
    assert ("  75  stopped" in told) == (name in ("train", "plan", "pack", "laplace", "evaluate"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_manual_needs_no_tensorflow(name):
    done = without_tensorflow(name, "--help")
    assert done.returncode == 0, done.stderr


def test_a_table_and_a_sweep_need_no_tensorflow(tmp_path):
    (group := tmp_path / "runs" / "g").mkdir(parents=True)
    record_failure(group / "run", Experiment(model="CNN_FC").to_dict(), error_of(OSError("full")))
    done = without_tensorflow("table", group)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:6] == [
        *("run", "CNN_FC", "digits", "0", "1", "failed"),
    ]
    study = ROOT / "jobs" / "studies" / "node_sweep.yaml"
    done = without_tensorflow("sweep", study, "--site", "crux", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "48 of 48 runs to submit at crux" in done.stdout


def refused(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2


def test_both_forms_of_a_parameter_are_the_same(tmp_path):
    """A value may hold `=`; papermill's form says NAME VALUE."""
    words = ["-p", "model=CNN_FC", "-p", f"run_dir={tmp_path}/a=b=c", "-p", "seed=3", "steps=1e1"]
    papermills = ["-p", "model", "CNN_FC", "-p", "run_dir", f"{tmp_path}/a=b=c", "-p", "seed", "3"]
    papermills += ["-p", "steps", "1e1"]
    one, other = (
        command.read(None, _parser().parse_args(["train", *given]).p)
        for given in (words, papermills)
    )
    assert one == other
    assert (one.run_dir, one.steps) == (f"{tmp_path}/a=b=c", 10)
    last_wins = _parser().parse_args(["train", "-p", "seed=1", "-p", "seed", "-1"]).p
    assert dict(last_wins) == {"seed": "-1"}


@pytest.mark.parametrize("words", [["model"], ["model", "CNN_FC", "seed"], ["model=CNN_FC", "3"]])
def test_a_parameter_without_a_value_is_told_both_forms(words, capsys):
    refused("train", "-p", *words)
    told = capsys.readouterr().err
    assert f"{' '.join(words)}: expected NAME=VALUE or NAME VALUE" in told


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["tabel", "runs"], "tabel: no such command; did you mean table?"),
        (["--verbos", "train"], "--verbos: no such option; "),
        (["table", "runs", "--cvs", "x.csv"], "--cvs: no such option; did you mean --csv?"),
        # Before a word that is missing because this one is wrong.
        (["ladder", "--oot", "x.json"], "--oot: no such option; did you mean --out?"),
        (["table", "runs", "--sorted=nll"], "--sorted: no such option; did you mean --sort?"),
        (["table", "runs", "--format", "makdown"], "choose from"),
        (["train", "--modle", "x"], "--help, -f, -p, --verbose"),
        (["predict", "run", "x.npz", "--out", "y.npz", "--draws", "0"], "0: expected a whole"),
    ],
)
def test_a_mistyped_word_gets_the_nearest(words, nearest, capsys):
    refused(*words)
    assert nearest in capsys.readouterr().err


def test_of_several_ranks_one_tells_a_mistyped_word(monkeypatch, capsys):
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setenv("HOROVOD_RANK", "1")
    refused("tabel")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("HOROVOD_RANK", "0")
    refused("tabel")
    assert "did you mean table?" in capsys.readouterr().err


def test_a_mistyped_column_gets_the_nearest(tmp_path, capsys):
    record_failure(tmp_path / "run", Experiment().to_dict(), error_of(OSError("full")))
    assert main(["table", str(tmp_path), "--sort", "acuracy"]) == 1
    assert "acuracy: no such column; did you mean accuracy?" in capsys.readouterr().err


def test_a_wrong_parameter_is_told(capsys):
    assert main(["train", "-p", "epoch", "2"]) == 1
    told = capsys.readouterr().err
    assert "python -m bnnlib train: epoch: no such parameter; did you mean epochs?" in told


def test_figures_want_records(tmp_path, capsys):
    assert main(["figures", str(tmp_path)]) == 1
    assert "no run records; expected a folder such as runs/digits" in capsys.readouterr().err
