"""The published files of MNIST-C and CIFAR-10-C, where the user has them.

Environment variables:
    BNN_DATA: folder with `mnist_c/<corruption>/test_images.npy` and `test_labels.npy`, as MNIST-C's
        archive unpacks, and with `CIFAR-10-C/<corruption>.npy` (the test images at severity 1, then
        at 2, to 5) and `CIFAR-10-C/labels.npy`, as CIFAR-10-C's does.
"""

import logging
import pathlib
import tokenize
from typing import NamedTuple

import numpy as np

from bnnlib.data.corruptions import CIFAR10_C, SETS
from bnnlib.data.datasets import Dataset
from bnnlib.data.npz import Array, exists
from bnnlib.data.sources import bnn_data_folder
from bnnlib.errors import DataError

logger = logging.getLogger(__name__)


class Published(NamedTuple):
    """A set's images `(num_images, height, width, channels)`, uint8, and the file they are from."""

    path: pathlib.Path
    images: Array


def read(dataset: Dataset, name: str) -> Published | None:
    """Reads a set's images from the published files, and checks them.

    Args:
        dataset: What is judged on the set.
        name: One of `corruptions.SETS`.

    Returns:
        The images; None where the data set is not the one that the files are made from, or no file
        is there.

    Raises:
        DataError: The file is damaged, of another shape or type, or its labels are not those of the
            test images.
    """
    path = _file_of(dataset, name)
    if path is None:
        return None
    benchmark, _, severity = SETS[name]
    count = len(dataset.x_test)
    if benchmark is CIFAR10_C:
        labels_path, parts = path.with_name("labels.npy"), 5
    else:
        labels_path, parts = path.with_name("test_labels.npy"), 1
    images = _open(path, (count * parts, *dataset.image_shape), "u1")
    labels = _open(labels_path, (count * parts,), "iu")
    part = slice(count * (severity - 1), count * severity)
    different = part.start + np.flatnonzero(labels[part] != dataset.y_test)
    if len(different):
        raise DataError(
            f"{labels_path}: {len(different):,} labels of {count:,} are not those of the test "
            f"images of {dataset.name!r}, the first in row {different[0]}; expected "
            f"{benchmark.title} in its published order. {_remedy(path)}"
        )
    return Published(path, np.array(images[part]))


def _file_of(dataset: Dataset, name: str) -> pathlib.Path | None:
    benchmark, corruption, _ = SETS[name]
    data_folder = bnn_data_folder()
    if data_folder is None or dataset.name != benchmark.dataset:
        return None
    if benchmark is CIFAR10_C:
        folder = data_folder / "CIFAR-10-C"
        path = folder / f"{corruption}.npy"
    else:
        folder = data_folder / "mnist_c"
        path = folder / corruption / "test_images.npy"
    if exists(path):
        return path
    if exists(folder):
        logger.warning("%s has no %s; %s is made instead.", folder, path.relative_to(folder), name)
    return None


def _open(path: pathlib.Path, shape: tuple[int, ...], types: str) -> Array:
    """Maps an array of a .npy file, which is never unpickled.

    Args:
        path: The file.
        shape: What the array must have.
        types: `u1` for uint8, `iu` for any integers.
    """
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(
            f"{path}: cannot be read as a .npy file ({error}). {_remedy(path)}"
        ) from error
    fits = array.dtype == np.uint8 if types == "u1" else array.dtype.kind in types
    if array.shape != shape or not fits:
        raise DataError(
            f"{path}: has shape {array.shape} of {array.dtype}, expected {shape} of "
            f"{'uint8' if types == 'u1' else 'integers'}. {_remedy(path)}"
        )
    return array


def _remedy(path: pathlib.Path) -> str:
    return "Unpack the published archive anew, or move the file away, and the set is made instead."
