"""Images out of distribution: of none of a data set's classes, and in that data set's form."""

import gzip
import pathlib
import struct
import zlib

import numpy as np

from bnnlib.data.datasets import Dataset, nearest
from bnnlib.data.meaning import checked_images, range_of
from bnnlib.data.npz import Array, exists, path_of, read_npz
from bnnlib.data.shifts import EvaluationSet
from bnnlib.data.sources import SHA256, bnn_data_folder, canonical, keras_caches, sha256_of
from bnnlib.errors import DataError

OOD_NAMES = ("fashion_mnist", "kmnist", "cifar10_grey", "mnist", "svhn", "uniform_noise")

OOD_SOURCES = {
    "fashion_mnist": "https://github.com/zalandoresearch/fashion-mnist, or Debian's package "
    "dataset-fashion-mnist",
    "kmnist": "https://codh.rois.ac.jp/kmnist",
    "svhn": "http://ufldl.stanford.edu/housenumbers (test_32x32.mat)",
}

# Keras' cache and Debian's package give the file this name.
FASHION_MNIST_FILE = "t10k-images-idx3-ubyte.gz"
DEBIAN_DATA = pathlib.Path("/usr/share")


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
            f"Unknown out-of-distribution set {name!r}{nearest(name, OOD_NAMES)}; expected one of "
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
        images = canonical("mnist", ["x_test"])["x_test"][:count]
    elif name == "cifar10_grey":
        images = _to_channels(canonical("cifar10", ["x_test"])["x_test"][:count], 1)
    else:
        images = _ood_test_images(name)[:count]
    images = _fit(images, dataset.image_shape)
    if dataset.x_test.dtype != np.uint8:
        images = (images / np.float32(255) * np.float32(high - low) + np.float32(low)).astype(
            np.float32
        )
    return EvaluationSet(name, images, None)


def _ood_test_images(name: str) -> Array:
    """Reads the test images of a set that is used only as one out of distribution, uint8."""
    tried = []
    remedy = (
        f"Put a {name}_test.npz with the test images (uint8) as x_test in the folder that BNN_DATA "
        f"names; they come from {OOD_SOURCES[name]}."
    )
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
    raise DataError(f"The set {name!r} was not found; tried {'; '.join(tried)}. {remedy}")


def _checked_ood_images(path: pathlib.Path, name: str, images: Array, remedy: str) -> Array:
    if name in SHA256:
        if sha256_of(images) != SHA256[name]["x_test"]:
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
    if path.stem in OOD_NAMES:
        raise DataError(
            f"{path}: the set would be called {path.stem!r}, which is a named set; rename the file."
        )
    return EvaluationSet(path.stem, images, None)
