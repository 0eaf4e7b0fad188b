"""`python -m bnnlib`: a list of commands, each with its manual, without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib.__main__ import main
from bnnlib.experiment import Experiment
from bnnlib.record.failure import error_of, record_failure

ROOT = Path(__file__).parents[1]

COMMANDS = ["train", "plan", "laplace", "sweep", "table", "figures", "ladder"]
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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_does_with_an_example_and_its_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m bnnlib {command} " in told.split("options:")[1]
    assert "exit codes:" in told
    assert ("  75  stopped" in told) == (command in ("train", "plan", "laplace"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_manual_needs_no_tensorflow(command):
    done = without_tensorflow(command, "--help")
    assert done.returncode == 0, done.stderr


def test_a_table_and_a_sweep_need_no_tensorflow(tmp_path):
    (group := tmp_path / "runs" / "g").mkdir(parents=True)
    record_failure(group / "run", Experiment(model="CNN_FC").to_dict(), error_of(OSError("full")))
    done = without_tensorflow("table", group)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:5] == ["CNN_FC", "digits", "0", "1", "failed"]
    study = ROOT / "jobs" / "studies" / "node_sweep.yaml"
    done = without_tensorflow("sweep", study, "--site", "crux", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "48 of 48 runs to submit at crux" in done.stdout


def test_a_mistyped_command_and_a_wrong_parameter_are_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["tabel"])
    assert ended.value.code == 2
    assert main(["train", "-p", "epoch", "2"]) == 1
    told = capsys.readouterr().err
    assert "python -m bnnlib train: epoch: no such parameter; did you mean epochs?" in told


def test_figures_want_records(tmp_path, capsys):
    assert main(["figures", str(tmp_path)]) == 1
    assert "no run records; expected a folder such as runs/digits" in capsys.readouterr().err
