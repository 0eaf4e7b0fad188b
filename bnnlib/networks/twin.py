"""Starts a posterior at its deterministic twin: means at the weights, deviations a share of them.

MOPED, Krishnan et al. 2020 (arXiv 1906.05323), equation 6: the posterior of a weight w begins as
N(w, (scale |w|)^2). The prior stays N(0, prior_stddev^2).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bnnlib.errors import ExperimentError, RecordError
from bnnlib.networks.networks import Network
from bnnlib.record import checkpoint
from bnnlib.record.schema import read_record

# A weight of 0 starts with this deviation: one of 0 could never grow, its logarithm in KL is -inf.
SMALLEST_STDDEV = 1e-5


def start_at(
    network: Network, weights: Mapping[str, np.ndarray], scale: float | None = None
) -> None:
    """Sets a network's means to a deterministic network's weights, and its deviations by them.

    Args:
        network: whose variables are set.
        weights: of a deterministic network of the same layers, by name, such as ``layer0/kernel``.
        scale: deviations as a share of the weights' size; None: they stay as they are.

    Raises:
        ExperimentError: names or shapes are not those of the network; nothing has been set then.
    """
    values = {}
    for name in network.named_variables():
        layer, _, part = name.partition("/")
        value = weights.get(f"{layer}/kernel" if part in ("mean", "rho") else name)
        if value is None:
            raise ExperimentError(
                f"init_from: no {layer}/{'kernel' if part in ('mean', 'rho') else part} there, "
                f"which the network {network.name} needs; expected a deterministic network of the "
                "same layers (its twin)"
            )
        if part != "rho":
            values[name] = value
        elif scale is None:
            values[name] = network.named_variables()[name].numpy()
        else:
            stddev = np.maximum(scale * np.abs(value.astype(np.float64)), SMALLEST_STDDEV)
            rho = stddev + np.log(-np.expm1(-stddev))  # softplus(rho) = stddev
            values[name] = rho.astype(np.float32)
    network.load_weights(values)


def weights_of(directory: str | Path) -> dict[str, np.ndarray]:
    """The weights of a finished run, by name.

    Raises:
        RecordError: there is no finished run, or no readable checkpoint in it.
    """
    record = read_record(directory)
    if record["status"] != "finished":
        raise RecordError(
            f"init_from = {str(directory)!r}: the run is {record['status']}, expected finished; "
            "start it again, it goes on"
        )
    state = checkpoint.latest(Path(directory) / "checkpoints")
    if state is None:
        raise RecordError(
            f"init_from = {str(directory)!r}: no readable checkpoint; train that run again"
        )
    return {name: value for name, value in state.items() if name.startswith("layer")}
