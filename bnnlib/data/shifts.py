"""Labelled images that a trained model is judged on: the test images, as they are or shifted."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bnnlib.data import corruptions
from bnnlib.data.corruptions import published
from bnnlib.data.datasets import Dataset, nearest
from bnnlib.data.npz import Array
from bnnlib.data.subset import chosen
from bnnlib.errors import DataError

# Images that a transform works on at once.
CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Images that a trained model is judged on.

    Attributes:
        name: The name by which a run asks for the set; a user's file is called as the file is,
            without `.npz`.
        images: Images `(num_images, height, width, channels)` in the stored units of the data set
            for which they were made, so that its scale and mean image apply to them.
        labels: Labels `(num_images,)`, int64; None for images out of distribution.
        soft_labels: What share of annotators chose each class, `(num_images, num_classes)`,
            float32, where the data set brings it.
    """

    name: str
    images: Array
    labels: npt.NDArray[np.int64] | None
    soft_labels: npt.NDArray[np.float32] | None = None


def evaluation_set(dataset: Dataset, name: str, count: int = 0) -> EvaluationSet:
    """Makes a labelled evaluation set from a data set by name.

    `test` and `train` are the data set's own, not copies. The others shift the test images with
    seeds fixed by the name, the same on every rank and call, and keep their type and range:

    - `rotate-<0..180>`: by so many degrees, counter-clockwise, bilinear.
    - `translate-<pixels>`: by so many pixels, each image up, down, left or right.
    - `<corruption>-<1..5>`: one of `CORRUPTIONS` at a severity. The random draws behind an image
      are the same at all severities (shot noise apart), so that a curve over severity shows the
      severity alone.
    - `mnist_c/<corruption>`, `cifar10_c/<corruption>-<1..5>`: of `corruptions.SETS`, the published
      files' images where BNN_DATA has them, else made by their definitions.

    Pixels that come into view at the borders get the darkest value of `Dataset.pixel_range`.

    Args:
        dataset: The data set.
        name: The set's name; a group's name is for `expand`.
        count: Number of its images, those of `subset`; 0 for all.

    Returns:
        The set.

    Raises:
        DataError: The name is unknown, its number is out of range, the images have a size for which
            the set is not defined, or a published file is not what it should be.
    """
    if name not in corruptions.SETS:
        return subset(_whole(dataset, name), count)
    _check_shape(name, dataset.image_shape)
    test = dataclasses.replace(evaluation_set(dataset, "test"), name=name)
    found = published.read(dataset, name)
    if found is not None:
        return subset(dataclasses.replace(test, images=found.images), count)
    # Each image's draws are its own, so that no more need be made than are asked for.
    part = subset(test, count)
    numbers = chosen(len(test.images), count or len(test.images), test.labels)
    return dataclasses.replace(part, images=_made(dataset, name, part.images, numbers))


def subset(made: EvaluationSet, count: int) -> EvaluationSet:
    """The set with `count` of its images, those of `chosen`; itself if it has no more.

    Args:
        made: The set.
        count: Number of images; 0 for all.

    Returns:
        The images, and the same part of whatever else the set holds of each.
    """
    if count == 0 or count >= len(made.images):
        return made
    part = chosen(len(made.images), count, made.labels)
    held = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    arrays: dict[str, Any] = {k: v[part] for k, v in held.items() if isinstance(v, np.ndarray)}
    return dataclasses.replace(made, **arrays)


def _whole(dataset: Dataset, name: str) -> EvaluationSet:
    """A set of all its images, made here."""
    kind, number = _parse_evaluation_name(name)
    if kind == "test":
        return EvaluationSet(name, dataset.x_test, dataset.y_test, dataset.soft_test)
    if kind == "train":
        return EvaluationSet(name, dataset.x_train, dataset.y_train)
    _check_shape(name, dataset.image_shape)
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
    return EvaluationSet(name, images, dataset.y_test, dataset.soft_test)


def _made(dataset: Dataset, name: str, images: Array, numbers: npt.NDArray[np.int64]) -> Array:
    """A published benchmark's set of some test images, by their numbers; it sees them as bytes."""
    if images.dtype == np.uint8:
        return corruptions.corrupt(name, images, numbers)
    low, high = dataset.pixel_range
    span = (high - low) or 1.0
    unit = (images - np.float32(low)) / np.float32(span)
    made = corruptions.corrupt(name, np.rint(unit * np.float32(255)).astype(np.uint8), numbers)
    return made.astype(np.float32) * np.float32(span / 255) + np.float32(low)


def expand(names: Sequence[str], image_shape: tuple[int, int, int] | None = None) -> list[str]:
    """Replaces groups among evaluation sets' names by their members.

    Groups: `rotations` (15° to 180° in steps of 15°), `translations` (2, 4, 6, 8 pixels),
    `corruptions` (all of `CORRUPTIONS` at all severities), a corruption's name alone (its five
    severities), and `shifts`, the default: 15 sets, which are five kinds of shift, each weak,
    middling and strong. Published ones: `mnist_c` (15 sets), `cifar10_c` (15 corruptions at five
    severities), `cifar10_c_extra` (the four others), and `cifar10_c/<corruption>` (five).

    Args:
        names: Names of sets and groups.
        image_shape: Shape of the data set's images. If it is given, names that `evaluation_set`
            would refuse for images of that size are refused here already.

    Returns:
        Names of sets in the order given, each once.

    Raises:
        DataError: A name is neither a set's nor a group's, moves the images out of view, or is not
            defined for their size.
    """
    expanded = [
        member
        for name in ([names] if isinstance(names, str) else names)
        for member in GROUPS.get(name, (name,))
    ]
    for name in expanded:
        _parse_evaluation_name(name)
        if image_shape is not None:
            _check_shape(name, image_shape)
    return list(dict.fromkeys(expanded))


# --- the shifts ----------------------------------------------------------------------------------
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
    **corruptions.GROUPS,
}


def _parse_evaluation_name(name: str) -> tuple[str, int]:
    """Splits `<kind>-<number>`; `test`, `train` and published sets are a kind each, number 0."""
    if name in ("test", "train", *corruptions.SETS):
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
    groups = [group for group in GROUPS if group not in CORRUPTIONS and "/" not in group]
    known = ["test", "train", *GROUPS, *(member for group in GROUPS.values() for member in group)]
    raise DataError(
        f"Unknown evaluation set {name!r}{nearest(name, known)}; expected test, train, "
        f"rotate-<0..180>, translate-<pixels>, <corruption>-<1..5> with one of "
        f"{', '.join(CORRUPTIONS)}, mnist_c/<corruption>, cifar10_c/<corruption>-<1..5>, or for "
        f"several a group: {', '.join(groups)}."
    )


def _check_shape(name: str, image_shape: tuple[int, int, int]) -> None:
    if name in corruptions.SETS:
        corruptions.check_shape(name, image_shape)
        return
    kind, number = _parse_evaluation_name(name)
    height, width, _ = image_shape
    if kind == "translate" and number >= min(height, width):
        raise DataError(
            f"{name!r} moves images of {height} x {width} pixels out of view; expected translate-0 "
            f"to translate-{min(height, width) - 1}."
        )
