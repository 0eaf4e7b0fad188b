"""Images out of distribution: of none of a data set's classes, and in that data set's form."""

import gzip
import pathlib
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnnlib.data.datasets import Dataset, nearest
from bnnlib.data.meaning import checked_images, range_of
from bnnlib.data.npz import Array, exists, path_of, read_npz
from bnnlib.data.shifts import EvaluationSet
from bnnlib.data.sources import SHA256, bnn_data_folder, canonical, keras_caches, sha256_of
from bnnlib.data.subset import chosen
from bnnlib.errors import DataError, MissingDataError
from bnnlib.names import OOD_GROUPS as OOD_GROUP_NAMES
from bnnlib.names import OOD_SETS as OOD_NAMES

# Of the sets that are files of BNN_DATA: the shape of an image, and where it is published.
_GREY, _COLOUR = (28, 28, 1), (32, 32, 3)
OOD_FILES: dict[str, tuple[tuple[int, int, int], str]] = {
    "fashion_mnist": (
        _GREY,
        "https://github.com/zalandoresearch/fashion-mnist, or Debian's package "
        "dataset-fashion-mnist",
    ),
    "kmnist": (_GREY, "https://codh.rois.ac.jp/kmnist"),
    "notmnist": (
        _GREY,
        "notMNIST_small of http://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html",
    ),
    "svhn": (_COLOUR, "http://ufldl.stanford.edu/housenumbers (test_32x32.mat)"),
    "cifar100": (_COLOUR, "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "textures": (
        _COLOUR,
        "https://www.robots.ox.ac.uk/~vgg/data/dtd, each image resized to 32 x 32",
    ),
    "tiny_imagenet": (
        _COLOUR,
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip, each image resized to 32 x 32",
    ),
    "places365": (_COLOUR, "http://places2.csail.mit.edu, each image resized to 32 x 32"),
}
# Their files hold the images in no order of classes. Of any other the images are drawn, since the
# first may be of one class.
_MIXED = ("fashion_mnist", "kmnist", "svhn", "cifar10_grey", "mnist")
# Whose images a named set shows, so that it is not out of distribution for these data sets.
_ITS_OWN = {"mnist": ("mnist", "digits"), "cifar10_grey": ("cifar10",)}


class OodGroup(NamedTuple):
    """A named group of sets out of distribution.

    Attributes:
        openood: OpenOOD's members (Yang et al. 2022, arXiv 2210.07242).
        added: This study's own, which are at hand on more machines.
    """

    openood: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.openood, *self.added)


# OpenOOD resizes colour images to MNIST's 28 pixels and MNIST's to CIFAR-10's 32; here they are
# cropped and padded, so that no pixel is interpolated. It leaves out the images of Tiny ImageNet
# and of Places that show a class of CIFAR-10, by the lists that its scripts/download has.
_OF_MNIST = {
    "near": OodGroup(("notmnist", "fashion_mnist"), ("kmnist",)),
    "far": OodGroup(("textures", "cifar10_grey", "tiny_imagenet", "places365"), ("uniform_noise",)),
}
OOD_GROUPS: dict[str, dict[str, OodGroup]] = {
    "mnist": _OF_MNIST,
    "digits": _OF_MNIST,
    "cifar10": {
        "near": OodGroup(("cifar100", "tiny_imagenet"), ()),
        "far": OodGroup(("mnist", "svhn", "textures", "places365"), ("uniform_noise",)),
    },
}

# Keras' cache and Debian's package give the file this name.
FASHION_MNIST_FILE = "t10k-images-idx3-ubyte.gz"
DEBIAN_DATA = pathlib.Path("/usr/share")


def ood_set(dataset: Dataset, name: str) -> EvaluationSet:
    """Loads images that belong to none of a data set's classes, in that data set's form.

    A named set gives as many images as the data set has test images, if it has so many: so AUPR,
    which depends on the share of either, compares like with like. They are brought to the data
    set's shape: colour becomes grey by ITU-R BT.601 luma, grey becomes three equal channels, larger
    images are cropped to their centre, smaller ones padded with black; and 0..255 is brought to the
    data set's range of pixels. A file of the user's gives all of its `x_test`, which must have the
    data set's shape and type.

    - `fashion_mnist`, `kmnist`, `svhn`: the first images of $BNN_DATA/<name>_test.npz (key x_test);
      for `fashion_mnist` else of Keras' cache or Debian's package dataset-fashion-mnist.
    - `notmnist`, `cifar100`, `textures`, `tiny_imagenet`, `places365`: the same file's images,
      drawn by a fixed seed, since they may lie in the order of their classes.
    - `mnist`: the test set. `cifar10_grey`: CIFAR-10's test set in grey.
    - `uniform_noise`: each pixel uniform over the data set's range.

    Args:
        dataset: The data set that the models were trained on.
        name: One of `OOD_NAMES`, or a path that ends in `.npz`.

    Returns:
        The set, without labels.

    Raises:
        MissingDataError: The data are in none of the places where they are looked for.
        DataError: The name is unknown, the data are damaged, do not fit the data set, or are the
            data set's own.
    """
    if name.lower().endswith(".npz"):
        return _ood_from_user(dataset, name)
    if name not in OOD_NAMES:
        raise DataError(
            f"Unknown out-of-distribution set {name!r}{nearest(name, OOD_NAMES)}; expected one of "
            f"{', '.join(OOD_NAMES)}, or a path that ends in .npz."
        )
    if dataset.name in _ITS_OWN.get(name, ()):
        raise DataError(
            f"{name!r} is not out of distribution for models of {dataset.name!r}; "
            "take another set, such as fashion_mnist."
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
    if name in ("mnist", "cifar10_grey"):
        images = canonical(name.removesuffix("_grey"), ["x_test"])["x_test"]
    else:
        images = _ood_test_images(name)
    images = images[:count] if name in _MIXED else images[chosen(len(images), count)]
    if name == "cifar10_grey":
        images = _to_channels(images, 1)
    images = _fit(images, dataset.image_shape)
    if dataset.x_test.dtype != np.uint8:
        images = (images / np.float32(255) * np.float32(high - low) + np.float32(low)).astype(
            np.float32
        )
    return EvaluationSet(name, images, None)


def ood_sets(dataset: Dataset, names: Sequence[str]) -> list[tuple[str, str, EvaluationSet]]:
    """Loads sets out of distribution, and of the groups `near` and `far` the members at hand.

    The groups are OpenOOD's for MNIST and CIFAR-10, with this study's additions (`OOD_GROUPS`). A
    member of a group whose data are not on this machine is left out; :func:`missing_members` tells
    which. A member that is damaged is an error, and so is one that is named itself and missing.

    Args:
        dataset: The data set that the models were trained on.
        names: Names of sets (see `ood_set`) and groups.

    Returns:
        Each once, in the order given: its name as asked for, its group ("" if none was asked for),
        and the set.

    Raises:
        MissingDataError: A named set, or every member of a group, is missing.
        DataError: As `ood_set`; or the data set has no groups.
    """
    groups = {name: _group(dataset, name).members for name in names if name in OOD_GROUP_NAMES}
    group_of = {member: group for group, members in groups.items() for member in members}
    loaded = []
    asked = [member for name in names for member in groups.get(name, (name,))]
    for name in dict.fromkeys(asked):
        try:
            loaded.append((name, group_of.get(name, ""), ood_set(dataset, name)))
        except MissingDataError:
            if name in names:
                raise
    for group, members in groups.items():
        if group not in [of for _, of, _ in loaded]:
            raise MissingDataError(
                f"ood_sets: no member of the group {group!r} of {dataset.name!r} is on this "
                f"machine. {' '.join(map(ood_remedy, members))}"
            )
    return loaded


def _group(dataset: Dataset, name: str) -> OodGroup:
    if dataset.name not in OOD_GROUPS:
        raise DataError(
            f"The group {name!r} of sets out of distribution is known for "
            f"{', '.join(OOD_GROUPS)}, not for {dataset.name!r}; name sets instead, of "
            f"{', '.join(OOD_NAMES)}, or paths that end in .npz."
        )
    return OOD_GROUPS[dataset.name][name]


def ood_group(dataset: str, name: str) -> str:
    """The group of a set out of distribution for a data set, by their names; "" if in none."""
    groups = OOD_GROUPS.get(dataset, {})
    return next((group for group, of in groups.items() if name in of.members), "")


def missing_members(dataset: str, group: str, members: Sequence[str]) -> list[str]:
    """The members of a group of a data set that are not among `members`, by their names."""
    return [name for name in OOD_GROUPS[dataset][group].members if name not in members]


def ood_remedy(name: str) -> str:
    """One sentence: what to do for a named set whose data are missing."""
    if name not in OOD_FILES:
        source = {"cifar10_grey": "cifar10"}.get(name, name)
        return f"Put {source}.npz in the folder that BNN_DATA names, or load {source!r} once."
    (height, width, channels), origin = OOD_FILES[name]
    shape = f"(n, {height}, {width}" + (f", {channels})" if channels > 1 else ")")
    return (
        f"Put a {name}_test.npz with the test images (uint8) as x_test, {shape}, in the folder "
        f"that BNN_DATA names; they come from {origin}."
    )


def _ood_test_images(name: str) -> Array:
    """Reads the test images of a set that is used only as one out of distribution, uint8."""
    tried = []
    remedy = ood_remedy(name)
    folder = bnn_data_folder()
    if folder is None:
        tried.append("$BNN_DATA (not set)")
    else:
        path = folder / f"{name}_test.npz"
        if exists(path):
            images = read_npz(path, ["x_test"], remedy)["x_test"]
            images = images[..., np.newaxis] if images.ndim == 3 else images
            return _checked_ood_images(path, name, images, remedy)
        tried.append(f"{path} (no such file)")
    if name == "fashion_mnist":
        for folder, pattern in (
            *((cache / "fashion-mnist", FASHION_MNIST_FILE) for cache in keras_caches()),
            (DEBIAN_DATA, f"*fashion-mnist*/**/{FASHION_MNIST_FILE}"),
        ):
            for path in sorted(folder.glob(pattern)):
                return _checked_ood_images(path, name, _read_idx_images(path, remedy), remedy)
            tried.append(f"{folder / pattern} (no such file)")
    raise MissingDataError(f"The set {name!r} was not found; tried {'; '.join(tried)}. {remedy}")


def _checked_ood_images(path: pathlib.Path, name: str, images: Array, remedy: str) -> Array:
    if name in SHA256:
        if sha256_of(images) != SHA256[name]["x_test"]:
            raise DataError(
                f"{path}: x_test ({images.dtype}, shape {images.shape}) is not that of {name!r} "
                f"(SHA-256 of its bytes is not {SHA256[name]['x_test'][:16]}…). {remedy}"
            )
    elif images.dtype != np.uint8 or images.shape[1:] != OOD_FILES[name][0] or not len(images):
        shape = ", ".join(map(str, OOD_FILES[name][0]))
        raise DataError(
            f"{path}: x_test is {images.dtype} of shape {images.shape}, expected uint8 of "
            f"(n, {shape}). {remedy}"
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
    path = path_of(name)
    remedy = "Write it with numpy.savez_compressed(path, x_test=…)."
    images = read_npz(path, ["x_test"], remedy)["x_test"]
    images = checked_images(path, "x_test", images, dataset.told_range, dataset.told_channels)
    if images.shape[1:] != dataset.image_shape or images.dtype != dataset.x_test.dtype:
        raise DataError(
            f"{path}: x_test has images {images.shape[1:]} of {images.dtype}, expected "
            f"{dataset.image_shape} of {dataset.x_test.dtype} as in {dataset.name!r}; convert them."
        )
    low, high = dataset.pixel_range
    if dataset.told_range == "auto" and images.dtype != np.uint8:
        expected = range_of(low, high, dataset.scale)
        if range_of(images.min(), images.max(), dataset.scale) != expected:
            raise DataError(
                f"{path}: x_test has pixels from {images.min():g} to {images.max():g}, expected "
                f"{low:g} to {high:g} or so as in {dataset.name!r}; prepare both alike, or set the "
                "parameter pixel_range to any for pixels that are used as they are."
            )
    if dataset.told_range != "any":
        try:
            dataset.inputs.checked(images)
        except DataError as error:
            raise DataError(f"{path}: x_test: {error}") from None
    if path.stem in (*OOD_NAMES, *OOD_GROUP_NAMES):
        raise DataError(
            f"{path}: the set would be called {path.stem!r}, which is a named set; rename the file."
        )
    return EvaluationSet(path.stem, images, None)
