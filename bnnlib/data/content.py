"""What a data set is: its arrays, by shape, type and checksum, whatever path they come from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnnlib.data.corruptions import SETS, published
from bnnlib.data.datasets import Dataset
from bnnlib.data.npz import Array
from bnnlib.data.ood import missing_members, ood_remedy
from bnnlib.data.shifts import EvaluationSet
from bnnlib.data.sources import sha256_of


def content(
    dataset: Dataset,
    outside: Sequence[EvaluationSet] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """What a run is trained and judged on, for its record and for comparison.

    MNIST's 70,000 images take 0.03 s, CIFAR-10's 0.1 s (one core of an EPYC).

    Args:
        dataset: The data set, as it is trained on.
        outside: The sets out of distribution, which are read from files of their own.
        groups: The names of those that a group has brought, by the group's name.
        names: Of the other sets. Published files of MNIST-C and CIFAR-10-C are read and checked
            here, so before training.

    Returns:
        Plain values: `num_classes`, `scale` (what stored pixels are multiplied by), `empty_classes`
        (those without a training image), what `Inputs.to_record` adds, and `arrays`, of each array
        by name (`x_train`, …, `ood/<set>`, `eval/<set>` of a published file) its `shape`, `dtype`
        and `sha256`. Where there are groups also `ood_groups`, of each by name its `members`, and
        those `missing` on this machine with what to do. Where there are sets of MNIST-C or
        CIFAR-10-C also `corruptions`, of each by name the published file's path or `made`.

    Raises:
        DataError: A published file is not what it should be.
    """
    parts = ("x_train", "y_train", "x_test", "y_test", "soft_test", "x_holdout", "y_holdout")
    arrays = {part: getattr(dataset, part) for part in parts}
    arrays |= {f"ood/{one.name}": one.images for one in outside}
    told = {name: _of(array) for name, array in arrays.items() if array is not None}
    values = {
        "num_classes": dataset.num_classes,
        "scale": dataset.scale,
        "empty_classes": dataset.empty_classes,
        **dataset.inputs.to_record(),
        "arrays": told,
    }
    if groups:
        missing = {group: missing_members(dataset.name, group, of) for group, of in groups.items()}
        values["ood_groups"] = {
            group: {
                "members": list(of),
                "missing": {name: ood_remedy(name) for name in missing[group]},
            }
            for group, of in groups.items()
        }
    origins = {}
    for name in SETS:
        if name in names:  # one at a time: together they take gigabytes
            found = published.read(dataset, name)
            origins[name] = "made" if found is None else str(found.path)
            if found is not None:
                told[f"eval/{name}"] = _of(found.images)
    return values | ({"corruptions": origins} if origins else {})


def _of(array: Array) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": sha256_of(np.ascontiguousarray(array)),
    }
