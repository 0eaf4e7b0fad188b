"""Which images, and whose turn? Data sets by name, each rank's batches, and the sets that judge.

Rooms: `datasets` (what a data set is, and by which name), `sources` (where MNIST and CIFAR-10 come
from), `npz` (files read without trust), `meaning` (what a user's arrays mean), `inputs` (what a
trained network takes), `content` (what makes two data sets the same), `batches` (each rank's
images, step by step), `shifts` (rotated, moved and corrupted test images), `corruptions` (MNIST-C
and CIFAR-10-C), `ood` (images of none of the classes), `subset` (a fixed part of a set).

Each file is checked before it is used. Every failure is one `DataError` that names the file, what
was expected and what to do.
"""

from bnnlib.data.batches import epoch_batches, steps_per_epoch, told_waste
from bnnlib.data.content import content
from bnnlib.data.datasets import NAMES, Dataset, checked_for, load, load_for, part_of, split
from bnnlib.data.inputs import Inputs
from bnnlib.data.ood import (
    OOD_FILES,
    OOD_GROUP_NAMES,
    OOD_GROUPS,
    OOD_NAMES,
    OodGroup,
    missing_members,
    ood_group,
    ood_remedy,
    ood_set,
    ood_sets,
)
from bnnlib.data.shifts import (
    CORRUPTIONS,
    GROUPS,
    EvaluationSet,
    evaluation_set,
    expand,
    subset,
)
from bnnlib.data.subset import chosen

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "NAMES",
    "OOD_FILES",
    "OOD_GROUPS",
    "OOD_GROUP_NAMES",
    "OOD_NAMES",
    "Dataset",
    "EvaluationSet",
    "Inputs",
    "OodGroup",
    "checked_for",
    "chosen",
    "content",
    "epoch_batches",
    "evaluation_set",
    "expand",
    "load",
    "load_for",
    "missing_members",
    "ood_group",
    "ood_remedy",
    "ood_set",
    "ood_sets",
    "part_of",
    "split",
    "steps_per_epoch",
    "subset",
    "told_waste",
]
