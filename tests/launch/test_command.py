"""One run without a notebook: where its parameters come from."""

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
    path.write_text("[1, 2]")
    with pytest.raises(ExperimentError, match=r"expected `name: value` lines, found \[1, 2\]"):
        command.read(path, [])
    with pytest.raises(ExperimentError, match="no readable parameters"):
        command.read(tmp_path / "missing.yaml", [])
