"""What a user's arrays mean: which axis is which, and what their darkest and brightest values are.

Nothing is guessed. Arrays that may mean two things are refused with a sentence that names both, and
the parameters `pixel_range` and `channels` say which one is meant.
"""

import pathlib

import numpy as np
import numpy.typing as npt

from bnnlib.data.npz import MAX_CLASSES, Array
from bnnlib.errors import DataError, MetricsError
from bnnlib.metrics.checks import check_probs, is_one_hot

# As the parameters of a run; `any`: used as stored, whatever the values.
PIXEL_RANGES = ("auto", "0..255", "0..1", "any")
CHANNELS = ("auto", "last", "first")

# Photographs and digits reach beyond half of their range; what does not may be in another range.
BRIGHT_ENOUGH = 0.5
# Standardized pixels go a few standard deviations to each side.
FURTHEST_STANDARDIZED = 10.0
# Grey, grey and alpha, colour, colour and alpha.
MOST_CHANNELS = 4


def checked_images(
    path: pathlib.Path,
    key: str,
    images: Array,
    pixel_range: str = "auto",
    channels: str = "auto",
) -> Array:
    """Checks images and brings them to `(n, height, width, channels)`, uint8 or float32.

    Args:
        path: The file, for the errors.
        key: The array's name in the file.
        images: `(n, height, width)` or four axes.
        pixel_range: One of `PIXEL_RANGES`, what the user says that pixels lie in.
        channels: One of `CHANNELS`, where the user says that the channels stand.

    Returns:
        uint8 for integers in 0..255, else float32; the values as they were.

    Raises:
        DataError: The arrays are no images, may mean two things, or are not what the user says.
    """
    if images.ndim not in (3, 4):
        raise DataError(
            f"{path}: {key} has shape {images.shape}, expected (n, height, width) or "
            "(n, height, width, channels); reshape it to the shape that it had before it was "
            "flattened."
        )
    if 0 in images.shape:
        raise DataError(f"{path}: {key} is empty (shape {images.shape}), expected some images.")
    return _in_range(path, key, _with_channels(path, key, images, channels), pixel_range)


def _with_channels(path: pathlib.Path, key: str, images: Array, channels: str) -> Array:
    shape = images.shape
    if images.ndim == 3:
        if channels == "auto" and min(shape[1:]) <= MOST_CHANNELS:
            raise DataError(
                f"{path}: {key} has shape {shape}, which would be images of {shape[1]} x "
                f"{shape[2]} pixels; reshape it to (n, height, width) or (n, height, width, "
                "channels), or set the parameter channels to last if they are of that size."
            )
        return images[..., np.newaxis]
    if channels == "auto":
        first, middle, last = shape[1:]
        seem_last = last <= MOST_CHANNELS or first == middle != last
        seem_first = first <= MOST_CHANNELS or middle == last != first
        if seem_first or not seem_last or middle == 1:
            raise DataError(
                f"{path}: {key} has shape {shape}, which does not tell where the channels stand; "
                "set the parameter channels to first for (n, channels, height, width), or to last "
                "for (n, height, width, channels)."
            )
    return np.moveaxis(images, 1, -1) if channels == "first" else images


def _in_range(path: pathlib.Path, key: str, images: Array, pixel_range: str) -> Array:
    if images.dtype.kind not in "iuf":
        remedy = "; convert it with astype(numpy.float32)" if images.dtype.kind == "b" else ""
        raise DataError(
            f"{path}: {key} is of type {images.dtype}, expected uint8 or floating numbers{remedy}."
        )
    whole = images.dtype.kind in "iu"
    if not whole:
        with np.errstate(over="ignore"):  # what overflows float32 is reported below
            images = np.ascontiguousarray(images, dtype=np.float32)
        bad = images.size - int(np.isfinite(images).sum())
        if bad:
            raise DataError(
                f"{path}: {key} has {bad:,} pixels that are not finite in float32, expected none; "
                "replace or drop them."
            )
    low, high = images.min(), images.max()
    has = f"{path}: {key} has {'integer' if whole else 'floating'} pixels from {low:g} to {high:g}"
    if pixel_range in ("0..255", "0..1"):
        top = 255 if pixel_range == "0..255" else 1
        if low < 0 or high > top:
            raise DataError(
                f"{has}, expected {pixel_range} as the parameter pixel_range says; set it to the "
                "range of your pixels, or to any for pixels that are used as they are."
            )
    elif pixel_range == "auto" and whole:
        if low < 0 or high > 255:
            raise DataError(
                f"{has}, expected 0..255; divide them by the greatest value that a pixel can have "
                "and store floating numbers in 0..1, or set the parameter pixel_range to any for "
                "pixels that are used as they are."
            )
        if high <= BRIGHT_ENOUGH * 255:
            raise DataError(
                f"{has}, which may be dark images in 0..255 or images in another range; set the "
                "parameter pixel_range to 0..255 for pixels that are divided by 255, or to "
                f"{'0..1' if high <= 1 else 'any'} for pixels that are used as they are."
            )
    elif pixel_range == "auto":
        furthest = max(-low, high)
        standardized = low < 0 and furthest <= FURTHEST_STANDARDIZED
        if not (standardized or 0 <= low <= high <= 1) or furthest < BRIGHT_ENOUGH:
            choice = f"{'0..1' if 0 <= low <= high <= 1 else 'any'} for pixels used as they are"
            if 0 <= low <= high <= 255:
                choice = f"0..255 for pixels that are divided by 255, or to {choice}"
            raise DataError(
                f"{has}, expected 0..1 or standardized ones (some below 0, none beyond "
                f"{FURTHEST_STANDARDIZED:g}); set the parameter pixel_range to {choice}."
            )
    return np.ascontiguousarray(
        images, np.uint8 if _stays_bytes(whole, pixel_range) else np.float32
    )


def _stays_bytes(whole: bool, pixel_range: str) -> bool:
    # In 0..1, shifts and sets out of distribution have values between the two integers.
    return whole and pixel_range in ("auto", "0..255")


def range_of(low: float, high: float, scale: float) -> str:
    """The range that pixels lie in, one of `PIXEL_RANGES` but `auto`, by their extremes."""
    if scale != 1.0:
        return "0..255"
    return "0..1" if low >= 0.0 and high <= 1.0 else "any"


def refuse_images_last(path: pathlib.Path, key: str, images: Array, labels: Array) -> None:
    """Refuses images that lie along the last axis, as MATLAB's files have them."""
    if images.ndim in (3, 4) and len(images) != len(labels) == images.shape[-1]:
        raise DataError(
            f"{path}: {key} has shape {images.shape} for {len(labels):,} labels, expected images "
            "along the first axis; move the last one there with numpy.moveaxis(images, -1, 0)."
        )


def checked_labels(
    path: pathlib.Path, key: str, labels: Array, num_images: int
) -> npt.NDArray[np.int64]:
    """Checks labels and brings them to int64 `(n,)`."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf" and is_one_hot(labels)
        raise DataError(
            f"{path}: {key} has shape {labels.shape}, expected ({num_images},) or "
            f"({num_images}, 1), a class number an image"
            + (
                "; of these one-hot labels take the argmax over the last axis."
                if one_hot
                else ". Of annotators' votes take the class that most chose; y_test alone may hold "
                "their distributions."
            )
        )
    if len(labels) != num_images:
        raise DataError(
            f"{path}: {key} has {len(labels):,} labels, expected one for each of the "
            f"{num_images:,} images of {key.replace('y', 'x')}."
        )
    if labels.dtype.kind not in "iu":
        whole = labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all())
        remedy = (
            "convert them with astype(int)"
            if whole
            else "number the classes from 0, alike in y_train and y_test"
        )
        raise DataError(
            f"{path}: {key} is of type {labels.dtype}, expected integers 0..C-1; {remedy}."
        )
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise DataError(
            f"{path}: {key} goes from {labels.min()} to {labels.max()}, expected labels 0..C-1 "
            f"with at most {MAX_CLASSES:,} classes; renumber the classes from 0, alike in y_train "
            "and y_test."
        )
    return labels.astype(np.int64)


def checked_soft_labels(
    path: pathlib.Path, key: str, labels: Array, num_images: int, num_classes: int
) -> npt.NDArray[np.float32]:
    """Checks distributions of annotators' votes and brings them to float32 `(n, classes)`.

    Args:
        path: The file, for the errors.
        key: The array's name in the file.
        labels: A row an image, which sums to one. Counts of votes are refused: whether a row of
            them was meant to weigh as much as another, they do not say.
        num_images: Number of images.
        num_classes: The least number of classes, of the labels of the training images.

    Raises:
        DataError: They are no distributions, or not of these images and classes.
    """
    expected = (
        f"expected ({num_images:,}, num_classes) with {num_classes} classes or more, the share of "
        "annotators that chose each class, or a class number an image"
    )
    if labels.ndim != 2 or len(labels) != num_images or labels.shape[1] < num_classes:
        raise DataError(f"{path}: {key} has shape {labels.shape}, {expected}.")
    try:
        return check_probs(labels, key).astype(np.float32)
    except MetricsError as error:
        raise DataError(
            f"{path}: {error} Labels of two axes are the share of annotators that chose each class."
        ) from error


def is_soft(labels: Array) -> bool:
    """Whether labels are meant as distributions: rows of two numbers or more, not one-hot."""
    return (
        labels.ndim == 2
        and labels.shape[1] > 1
        and labels.dtype.kind in "iuf"
        and not is_one_hot(labels)
    )
