"""One rank of a run without a notebook: ``mpiexec -n 2 python tests/faults/train.py <json>``.

The argument holds the parameters. It imports less than papermill, and programs of many starts wait
for imports most of the time.
"""

import json
import sys

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib.experiment import Experiment
from bnnlib.launch import command

if __name__ == "__main__":
    command.run(Experiment.from_mapping(json.loads(sys.argv[1])))
