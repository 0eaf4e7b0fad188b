"""The network of a run that is on the disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from bnnlib import data
from bnnlib.data import Dataset
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import laplace, methods
from bnnlib.inference.state import TrainState
from bnnlib.networks import Network, build_for
from bnnlib.record import checkpoint
from bnnlib.record.identity import refuse_changed
from bnnlib.record.schema import read_record

logger = logging.getLogger(__name__)


def restore(directory: str | Path) -> tuple[Experiment, Dataset, Network]:
    """A run's network as its last checkpoint has it, with the data set it was trained on.

    Raises:
        RecordError: there is no record, or no readable checkpoint or Laplace posterior.
        DataError: the data set is not on this machine, or another than the run was trained on.
        ExperimentError: the checkpoint is not of the network that the record describes.
    """
    record = read_record(directory)
    _tell_changed(directory, record["source"])
    experiment = Experiment.from_mapping(record["parameters"])
    state = checkpoint.latest(Path(directory) / "checkpoints")
    if state is None:
        raise RecordError(
            f"{directory}: no readable checkpoint; the network is made by training it again"
        )
    dataset = data.load_for(experiment)
    if record["data"]:
        arrays = record["data"]["arrays"].items()
        own = {name: array for name, array in arrays if not name.startswith(("ood/", "eval/"))}
        refuse_changed(Path(directory), record["data"] | {"arrays": own}, data.content(dataset))
    network = build_for(experiment, dataset, record["source"], start=False)
    method = methods.build_for(experiment, network, dataset.num_train_examples)
    TrainState(network, method).restore(state)  # the method's posterior, too
    if experiment.laplace:
        network.posterior = laplace.load(directory, network)
    return experiment, dataset, network


def _tell_changed(directory: str | Path, own: Mapping[str, str] | None) -> None:
    """Says where the file of a user's network is no longer the one that the record holds."""
    path = Path(own["file"]) if own else None
    if own and path and path.exists():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != own["sha256"]:
            logger.warning(
                "%s: %s has changed since the run began; the network is made by the text in the "
                "record",
                directory,
                path,
            )
