"""One run without a notebook: where its parameters come from, and how its start is refused."""

import sys

import pytest

from bnnlib.errors import ExperimentError
from bnnlib.launch import command


def test_parameters_come_from_a_file_and_the_command_line(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("model: CNN_FC\nsteps: 10\n")
    experiment = command.read(path, [["steps", "20"], ["seed", "3"]])
    assert (experiment.model, experiment.steps, experiment.seed) == ("CNN_FC", 20, 3)
    with pytest.raises(ExperimentError, match="modle"):
        command.read(path, [["modle", "x"]])
    path.write_text("learning_rate: 1e-3\nrun_dir: 2024-11-27\nprofile: on\n")
    experiment = command.read(path, [["steps", "1e1"], ["ood_sets", "[kmnist, near]"]])
    assert (experiment.learning_rate, experiment.steps) == (0.001, 10)
    assert (experiment.run_dir, experiment.profile) == ("2024-11-27", True)
    assert experiment.ood_sets == ["kmnist", "near"]
    with pytest.raises(ExperimentError, match="expected for '7' a set's name"):  # a text, too
        command.read(path, [["ood_sets", "[kmnist, 7]"]])
    assert command.read(None, [["run_dir", "20241127"]]).run_dir == "20241127"
    path.write_bytes(b"\xef\xbb\xbfmodel: CNN_FC\n")
    assert command.read(path).model == "CNN_FC"
    path.write_text("[1, 2]")
    with pytest.raises(ExperimentError, match=r"expected `name: value` lines, found \[1, 2\]"):
        command.read(path, [])
    with pytest.raises(ExperimentError, match="no parameters can be read"):
        command.read(tmp_path / "missing.yaml", [])


def test_a_rank_that_cannot_join_is_refused_in_a_line_and_leaves_nothing(launch, tmp_path):
    """As where a launcher tells eight ranks nothing of one another."""
    words = ("dataset=tiny", f"run_dir={tmp_path / 'new' / 'run'}")
    told = {"BNN_RANKS": "8"}
    done = launch(sys.executable, "-m", "bnnlib", "train", "-p", *words, environment=told)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: BNN_RANKS = 8, the ranks that the job script starts, and")
    assert not (tmp_path / "new").exists()


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("ranks", "parameters", "told"),
    [
        (1, ["dataset=nothing.npz"], "refused: nothing.npz: no such file"),
        (2, ["dataset=nothing.npz"], "refused: nothing.npz: no such file"),
        (2, ["dataset=tiny", "model=BNN_FC_flip", "inference=swag"], "refused: inference = 'swag'"),
    ],
)
def test_a_start_is_refused_in_a_line_and_leaves_nothing(launch, tmp_path, ranks, parameters, told):
    """It printed a traceback, every line after its rank, and left a record that had failed."""
    run = tmp_path / "new" / "run"
    words = [] if ranks == 1 else ["mpiexec", "-n", "2"]
    values = [*parameters, f"run_dir={run}"]
    done = launch(*words, sys.executable, "-m", "bnnlib", "train", "-p", *values)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "nothing.npz" in line or "swag" in line]
    assert line.startswith(told)
    assert "Traceback" not in done.stderr
    assert "[rank" not in done.stderr
    assert not (tmp_path / "new").exists()
