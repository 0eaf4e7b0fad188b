"""Which images, and whose turn? Data sets by name, each rank's batches, and the sets that judge.

Rooms: `datasets` (what a data set is, and by which name), `sources` (where MNIST and CIFAR-10 come
from), `npz` (files read without trust), `batches` (each rank's images, step by step), `shifts`
(rotated, moved and corrupted test images), `ood` (images of none of the classes).

Each file is checked before it is used. Every failure is one `DataError` that names the file, what
was expected and what to do.
"""

from bnnlib.data.batches import epoch_batches, steps_per_epoch
from bnnlib.data.datasets import NAMES, Dataset, load, split
from bnnlib.data.ood import OOD_NAMES, ood_set
from bnnlib.data.shifts import CORRUPTIONS, GROUPS, EvaluationSet, evaluation_set, expand

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "NAMES",
    "OOD_NAMES",
    "Dataset",
    "EvaluationSet",
    "epoch_batches",
    "evaluation_set",
    "expand",
    "load",
    "ood_set",
    "split",
    "steps_per_epoch",
]
