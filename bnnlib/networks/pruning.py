"""Which weights of a trained network go: by which score, at which share; and what is left of it.

A weight that goes is exactly 0: its mean and its deviation. To set its mean and its rho to 0, as
some public code does, leaves it the deviation softplus(0) = 0.69: noise in place of a weight. Here
are functions of arrays alone; :mod:`bnnlib.networks.pruned` is the network that they make.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnnlib.errors import ExperimentError

Array = npt.NDArray[np.float32]
Kept = npt.NDArray[np.bool_]
# By what weights are ordered; those without a posterior have no deviation, and only POINT_SCORES.
SCORES = ("signal_to_noise", "kl", "magnitude", "random")
POINT_SCORES = ("magnitude", "random")
# softplus(0) as a layer computes it: the deviation of a weight whose rho is 0.
TRAP_STDDEV = math.log(2.0) + float(np.finfo(np.float32).eps)


class Weights(NamedTuple):
    """A layer's weights: ``kernel`` and ``bias`` by name, and the kernel's deviations.

    Attributes:
        mean: float32 arrays by name; a normalization has no kernel.
        stddev: of the kernel's shape; None without a posterior.
    """

    mean: dict[str, Array]
    stddev: Array | None


def scores(
    by: str,
    means: Sequence[Array],
    stddevs: Sequence[Array | None],
    prior_stddevs: Sequence[float],
    seed: int = 0,
) -> list[npt.NDArray[np.float64]]:
    """How much each weight matters; those of the least score go first.

    Args:
        by: ``signal_to_noise``: |mean| / stddev (Graves 2011; Blundell et al. 2015, section 5.1);
            ``kl``: of the weight's posterior from its prior, nats; ``magnitude``: |mean|;
            ``random``.
        means: one kernel a layer.
        stddevs: likewise; None for a layer without a posterior.
        prior_stddevs: one number a layer.
        seed: of ``random``.

    Returns:
        An array a layer, of its kernel's shape.

    Raises:
        ExperimentError: no such score, or it needs deviations that a layer has not.
    """
    if by not in SCORES:
        raise ExperimentError(f"by = {by!r}: expected one of {', '.join(SCORES)}")
    generator, found = np.random.default_rng(seed), []
    for kernel, deviations, prior in zip(means, stddevs, prior_stddevs, strict=True):
        mean = kernel.astype(np.float64)
        if by == "random":
            found.append(generator.random(mean.shape))
        elif by == "magnitude":
            found.append(np.abs(mean))
        elif deviations is None:
            raise ExperimentError(
                f"by = {by!r}: a layer has no posterior, and so no deviations; expected one of "
                f"{', '.join(POINT_SCORES)}"
            )
        elif by == "signal_to_noise":
            found.append(np.abs(mean) / deviations)
        else:
            stddev = deviations.astype(np.float64)
            squares = (mean**2 + stddev**2) / (2 * prior**2)
            found.append(squares - 0.5 - np.log(stddev / prior))
    return found


def kept(
    of_weights: Sequence[npt.NDArray[np.float64]], share: float, by_layer: bool = False
) -> list[Kept]:
    """Which weights stay when a share of them goes; what goes at a share goes at a larger one too.

    Args:
        of_weights: of :func:`scores`.
        share: of all weights that goes, from 0 to 1, rounded to whole weights.
        by_layer: whether it goes from each layer; else from all together.

    Raises:
        ExperimentError: the share is none.
    """
    if not 0 <= share <= 1:
        raise ExperimentError(f"share = {share}: expected a part of all weights, from 0 to 1")
    if by_layer:
        return [one for layer in of_weights for one in kept([layer], share)]
    flat = np.concatenate([layer.ravel() for layer in of_weights])
    stays = np.ones(flat.size, bool)
    stays[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = False
    ends = np.cumsum([layer.size for layer in of_weights])[:-1]
    parts = np.split(stays, ends)
    return [part.reshape(layer.shape) for part, layer in zip(parts, of_weights, strict=True)]


def without(
    weights: Sequence[Weights], stays: Sequence[Kept | None], stddev: float = 0.0
) -> list[Weights]:
    """The weights after pruning.

    Args:
        weights: a layer each.
        stays: of :func:`kept`, a layer each; None for one that keeps all.
        stddev: of what goes. 0 removes it; :data:`TRAP_STDDEV` is the trap (see above).
    """
    made = []
    for layer, stay in zip(weights, stays, strict=True):
        if stay is None:
            made.append(layer)
            continue
        mean = {**layer.mean, "kernel": np.where(stay, layer.mean["kernel"], np.float32(0))}
        deviations = layer.stddev
        if deviations is not None:
            deviations = np.where(stay, deviations, np.float32(stddev))
        made.append(Weights(mean, deviations))
    return made


def remaining(layer: Weights) -> Kept:
    """The kernel's entries that are not 0 for certain."""
    stays: Kept = layer.mean["kernel"] != 0
    return stays if layer.stddev is None else stays | (layer.stddev != 0)


def shrunk(weights: Sequence[Weights]) -> tuple[list[Weights], npt.NDArray[np.intp]]:
    """The same network without the units and inputs that no weight needs; exactly its function.

    A unit (a filter) goes where none of its outputs is read, or where none of its inputs is and so
    it always answers relu(bias): that goes into the next layer's bias. It stays where this is not
    0 and is read by weights that have a deviation. An input goes where no unit reads it.

    Args:
        weights: of dense layers with ReLU between them, after a first dense layer or convolution;
            each with kernel and bias.

    Returns:
        The weights, and the places of the inputs (a dense first layer's pixels, a convolution's
        channels) that are left.
    """
    made = list(weights)
    for index in range(len(made) - 1):
        layer, after = made[index], made[index + 1]
        kernel, bias = layer.mean["kernel"], layer.mean["bias"]
        units = bias.size
        # Rows of the next kernel by unit: a convolution's output is laid out channels last.
        by_unit = (-1, units, after.mean["kernel"].shape[-1])
        rows = after.mean["kernel"].reshape(by_unit)
        noisy = np.zeros(rows.shape, bool)
        if after.stddev is not None:
            noisy = after.stddev.reshape(by_unit) != 0
        answer = np.maximum(bias, 0)
        constant = ~remaining(layer).reshape(-1, units).any(axis=0)
        constant &= (answer == 0) | ~noisy.any(axis=(0, 2))
        unread = ~remaining(after).reshape(by_unit).any(axis=(0, 2))
        stay = ~(constant | unread)
        more = np.einsum("puo,u->o", rows, np.where(constant, answer, 0))
        cut = Weights(
            {"kernel": kernel[..., stay], "bias": bias[stay]},
            None if layer.stddev is None else layer.stddev[..., stay],
        )
        next_kernel = rows[:, stay].reshape(-1, by_unit[-1])
        deviations = after.stddev
        if deviations is not None:
            deviations = deviations.reshape(by_unit)[:, stay].reshape(next_kernel.shape)
        bias_after = (after.mean["bias"] + more).astype(np.float32)
        made[index : index + 2] = [
            cut,
            Weights({"kernel": next_kernel, "bias": bias_after}, deviations),
        ]
    first = made[0]
    axes = tuple(axis for axis in range(first.mean["kernel"].ndim) if axis != _inputs(first))
    left = np.flatnonzero(remaining(first).any(axis=axes))
    made[0] = Weights(
        {**first.mean, "kernel": first.mean["kernel"].take(left, _inputs(first))},
        None if first.stddev is None else first.stddev.take(left, _inputs(first)),
    )
    return made, left


def _inputs(layer: Weights) -> int:
    return layer.mean["kernel"].ndim - 2


def packed_bytes(weights: Sequence[Weights]) -> int:
    """The size of a file of these weights alone, bytes.

    It holds each kernel as one bit an entry that says which are left, and their means and
    deviations in float32; other weights as they are; all deflated, as ``numpy.savez_compressed``.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for index, layer in enumerate(weights):
        arrays |= {f"{index}/{name}": array for name, array in layer.mean.items()}
        if "kernel" in layer.mean:
            stays = remaining(layer)
            arrays[f"{index}/kernel"] = layer.mean["kernel"][stays]
            arrays[f"{index}/which"] = np.packbits(stays)
            if layer.stddev is not None:
                arrays[f"{index}/stddev"] = layer.stddev[stays]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return len(file.getvalue())
