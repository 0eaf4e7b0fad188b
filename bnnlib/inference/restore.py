"""The network of a run that is on the disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnnlib import data
from bnnlib.data import Dataset, Inputs
from bnnlib.errors import DataError, RecordError
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
    dataset = dataset_of(directory, record)
    network = network_of(directory, record, dataset)
    return Experiment.from_mapping(record["parameters"]), dataset, network


def dataset_of(directory: str | Path, record: Mapping[str, Any]) -> Dataset:
    """The data set that a run was trained on.

    Args:
        directory: of the run.
        record: of :func:`bnnlib.record.read_record`.

    Raises:
        RecordError: the record is damaged.
        DataError: the data set is not on this machine, or another than the run was trained on.
    """
    dataset = data.load_for(Experiment.from_mapping(record["parameters"]))
    if record["data"]:
        arrays = record["data"]["arrays"].items()
        own = {name: array for name, array in arrays if not name.startswith(("ood/", "eval/"))}
        refuse_changed(Path(directory), record["data"] | {"arrays": own}, data.content(dataset))
    return dataset


def inputs_of(directory: str | Path, record: Mapping[str, Any]) -> Inputs:
    """What a run's network takes, from its record, or from the data set where that is older.

    Args:
        directory: of the run.
        record: of :func:`bnnlib.record.read_record`.

    Raises:
        RecordError: the record is damaged.
        DataError: the record does not say, and the data set is not on this machine.
    """
    inputs = Inputs.from_record(str(record["parameters"].get("dataset")), record["data"])
    if inputs is not None:
        return inputs
    try:
        return dataset_of(directory, record).inputs
    except DataError as error:
        raise DataError(
            f"{directory}: the run is older than records that say what its network takes, and so "
            f"it predicts only beside its data set: {error}"
        ) from error


def network_of(
    directory: str | Path, record: Mapping[str, Any], trained_on: Dataset | Inputs
) -> Network:
    """A run's network as its last checkpoint has it.

    Args:
        directory: of the run.
        record: of :func:`bnnlib.record.read_record`.
        trained_on: of :func:`dataset_of` or :func:`inputs_of`.

    Raises:
        RecordError: there is no readable checkpoint or Laplace posterior.
        ExperimentError: the checkpoint is not of the network that the record describes.
    """
    _tell_changed(directory, record["source"])
    experiment = Experiment.from_mapping(record["parameters"])
    state = checkpoint.latest(Path(directory) / "checkpoints")
    if state is None:
        raise RecordError(
            f"{directory}: no readable checkpoint; the network is made by training it again"
        )
    network = build_for(experiment, trained_on, record["source"], start=False)
    method = methods.build_for(experiment, network, trained_on.num_train_examples)
    TrainState(network, method).restore(state)  # the method's posterior, too
    if experiment.laplace:
        network.posterior = laplace.load(directory, network)
    return network


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
