"""A finished run evaluated again, by other draws or on other sets, as a run of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnnlib.errors import ExperimentError
from bnnlib.experiment import read_value, unknown_name
from bnnlib.launch import command
from bnnlib.record import branch
from bnnlib.record.schema import read_record

if TYPE_CHECKING:
    from bnnlib.data import Dataset
    from bnnlib.networks import Network

# What changes no weight, and so may be another for a network that has been trained.
CHANGEABLE = ("test_draws", "eval_draws", "eval_images", "predict_with", "eval_sets", "ood_sets")


def evaluate(source: str | Path, pairs: Sequence[Sequence[str]]) -> Path:
    """Evaluates a finished run's network again; all ranks call it, as many as there are.

    Args:
        source: the finished run's directory, which stays as it is.
        pairs: names and values as typed, of :data:`CHANGEABLE`.

    Returns:
        The new run's directory, such as ``<run>-predict_with=mean``.

    Raises:
        BnnlibError: the run has not finished, or cannot be evaluated so; no directory is made then.
    """
    read_record(source)  # a run that is not there is told before what was asked of it
    for name, _ in pairs:
        if name not in CHANGEABLE:
            raise ExperimentError(unknown_name(name, list(CHANGEABLE), "parameter of evaluation"))
    changes = {name: read_value(name, value) for name, value in pairs}
    if not changes:
        raise ExperimentError(f"-p: expected NAME=VALUE of {', '.join(CHANGEABLE)}")
    told = "-".join(
        f"{name}={','.join(value) if isinstance(value, list) else value}"
        for name, value in changes.items()
    )
    suffix = re.sub(r"[^\w.=,-]+", "_", told, flags=re.ASCII)[:100]
    experiment = branch.experiment_of(source, suffix, **changes)

    def check(network: Network, dataset: Dataset) -> None:
        from bnnlib.inference import evaluation, refuse_unfit

        if not experiment.laplace:  # whose posterior the network has by now
            refuse_unfit(experiment, network, dataset.num_train_examples)
        evaluation.sets(experiment, dataset)

    event = ("evaluated again", f"{told}, of the network that {source} has trained")
    return command.branch_off(source, experiment, event, check)
