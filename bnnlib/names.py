"""The names of networks, their order in every table and figure, their twins; names of data sets.

What builds a network is :func:`bnnlib.networks.build`, which needs TensorFlow, and what loads data
is :mod:`bnnlib.data`; a parameter is held against the names alone.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence

MODELS = (
    "BNN_conv_flip",
    "BNN_conv_nonflip",
    "BNN_FC_flip",
    "BNN_FC_nonflip",
    "CNN_conv",
    "CNN_FC",
    "BNN_conv_local",
    "BNN_FC_local",
    "BNN_VGG_flip",
    "BNN_VGG_nonflip",
    "BNN_VGG_local",
    "CNN_VGG",
)


# Larger networks of the field, each defined once as a Keras model
# (:mod:`bnnlib.networks.reference`), by the estimator of its Bayesian layers; CNN_…: its twin.
REFERENCES = ("LeNet5", "VGG16", "ResNet18", "ResNet20_FRN")
REFERENCE_MODELS = tuple(
    name
    for reference in REFERENCES
    for name in (
        *(f"BNN_{reference}_{estimator}" for estimator in ("flip", "nonflip", "local")),
        f"CNN_{reference}",
    )
)
ALL_MODELS = (*MODELS, *REFERENCE_MODELS)

# A data set may also be a user's own file, a path that ends in .npz.
DATASETS = ("digits", "mnist", "cifar10", "tiny", "tiny_cifar10")
# Out of distribution: single sets, and what stands for several (:data:`bnnlib.data.OOD_GROUPS`).
OOD_SETS = (
    *("fashion_mnist", "kmnist", "notmnist", "svhn", "cifar100", "textures", "tiny_imagenet"),
    *("places365", "cifar10_grey", "mnist", "uniform_noise"),
)
OOD_GROUPS = ("near", "far")

# What follows the name of a network whose posterior had not converged when training ended.
UNCONVERGED = " converged(no)"


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like another, whatever its case; empty if none is like it."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [by_lower[n] for n in difflib.get_close_matches(name.lower(), by_lower, n=1)]
    return near[0] if near else ""


def guess(name: str, known: Sequence[str]) -> str:
    """The end of a sentence that refuses an unknown name: the nearest known one, then all."""
    near = nearest(name, known)
    return f"; {f'did you mean {near}? ' if near else ''}Known: {', '.join(known)}"


def unknown_name(name: str, known: Sequence[str], what: str = "parameter") -> str:
    """One sentence that refuses an unknown name and offers the nearest known one."""
    return f"{name}: no such {what}{guess(str(name), known)}"


def in_order(names: Iterable[str]) -> list[str]:
    """Names of networks, each once: the study's in its order, then a user's own as they come.

    A network's variants follow it, by their settings, and their ensembles follow them.
    """
    present = list(dict.fromkeys(names))
    order = list(dict.fromkeys([*ALL_MODELS, *(network_of(name) for name in present)]))
    return sorted(present, key=lambda name: (order.index(network_of(name)), *_place(name)))


def network_of(name: str) -> str:
    """The network of a variant's name: ``CNN_FC`` of ``CNN_FC dropout(0.1) ensemble(5)``."""
    return re.sub(r"( \w+\([^()]*\))+$", "", name)


def variant_of(name: str) -> str:
    """The variant whose runs stand under a name: the name without `ensemble` and `converged`."""
    return re.sub(r" (ensemble|converged)\([^()]*\)", "", name)


def settings_of(name: str) -> list[tuple[str, str]]:
    """A variant's settings: ``[("dropout", "0.1")]`` of ``CNN_FC dropout(0.1)``."""
    return re.findall(r" (\w+)\(([^()]*)\)", name.removeprefix(network_of(name)))


def twin_of(name: str) -> str | None:
    """The point estimate beside which a Bayesian network is judged; None for any other network.

    ``CNN_FC`` is the deterministic twin of ``BNN_FC_flip``, and what ``CNN_FC inference(ivon)`` is
    without a posterior. A network that has not converged is no variant: it is compared with its
    twin, under its name.
    """
    name = name.removesuffix(UNCONVERGED)
    point_estimate = re.sub(r" inference\(\w+\)$", "", name)
    if point_estimate != name:
        return point_estimate
    if name not in ALL_MODELS or not name.startswith("BNN_"):
        return None
    return "CNN_" + name.removeprefix("BNN_").rpartition("_")[0]


def _place(name: str) -> tuple[bool, bool, list[tuple[str, float, str]]]:
    """Where a name stands among those of its network: prior 2 before prior 10."""

    def size(value: str) -> float:
        try:
            return float(value)
        except ValueError:
            return math.inf

    settings = [(key, size(value), value) for key, value in settings_of(variant_of(name))]
    return name != network_of(name), " ensemble(" in name, settings
