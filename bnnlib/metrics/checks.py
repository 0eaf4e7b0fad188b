"""What a metric accepts: each check returns its input in one type, or raises `MetricsError`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnlib.errors import MetricsError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
# What makes a metric's rows, and what reduces these to the metric; see `bootstrap`.
Rows = tuple[Callable[..., Any], Callable[..., float]]

# A row of float32 probabilities over 1,000 classes misses one by about 1e-6, a row of float16 by
# about 1e-3. Logits, or probabilities of independent labels, miss it by far more.
PROBABILITY_TOLERANCE = 1e-3


def real_array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Returns `values` as an array of real numbers, or says what they are instead."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise MetricsError(
            f"{name} is not an array: {error}. Give rows of equal length."
        ) from error
    if array.dtype.kind not in "iuf":
        raise MetricsError(f"{name} has dtype {array.dtype}, expected real numbers.")
    return array


def check_probs(probs: npt.ArrayLike, name: str = "probs") -> Floats:
    """Returns `probs` in float64 if they are rows of probabilities."""
    array = real_array(probs, name)
    if array.ndim != 2:
        raise MetricsError(
            f"{name} has shape {array.shape}, expected (num_images, num_classes). Average draws "
            "with mean_probs first; give two columns for a binary problem."
        )
    num_images, num_classes = array.shape
    if num_images == 0:
        raise MetricsError(f"{name} has no images, expected at least one.")
    if num_classes < 2:
        raise MetricsError(f"{name} has {num_classes} classes, expected at least two.")
    array = array.astype(np.float64)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise MetricsError(
            f"{name} has a value that is not finite in {int((~finite).sum())} of {num_images} "
            f"rows, the first in row {row}: {array[row]}. Find where the prediction diverged."
        )
    if array.min() < 0.0:
        row = int(np.argmin(array.min(axis=1)))
        raise MetricsError(
            f"{name} has the negative value {array[row].min():g} in row {row}, expected "
            "probabilities. Apply softmax to logits, or exp to log-probabilities, first."
        )
    excess = np.abs(array.sum(axis=1) - 1.0)
    if excess.max() > PROBABILITY_TOLERANCE:
        row = int(np.argmax(excess))
        raise MetricsError(
            f"{name} sums to {array[row].sum():g} in row {row}, expected 1 within "
            f"{PROBABILITY_TOLERANCE:g}. Apply softmax to logits first."
        )
    return array


def check_labels(labels: npt.ArrayLike, num_images: int, num_classes: int) -> Integers:
    """Returns `labels` as int64 if they are class numbers, one an image."""
    array = real_array(labels, "labels")
    if array.shape != (num_images,):
        raise MetricsError(
            f"labels has shape {array.shape}, expected ({num_images},): one class number for each "
            "image of probs. Apply argmax to one-hot labels first."
        )
    if array.dtype.kind == "f":
        raise MetricsError(f"labels has dtype {array.dtype}, expected integers.")
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricsError(
            f"labels has the value {array[row]} in row {row}, expected 0 to {num_classes - 1}: "
            f"probs has {num_classes} classes."
        )
    return array.astype(np.int64)


def check_labelled(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Returns both, checked and in float64 and int64."""
    checked = check_probs(probs)
    return checked, check_labels(labels, *checked.shape)


def check_scores(scores: npt.ArrayLike, name: str, num_images: int | None = None) -> Floats:
    """Returns one finite float64 an image."""
    array = real_array(scores, name)
    if array.ndim != 1 or (num_images is not None and len(array) != num_images):
        expected = "num_images" if num_images is None else num_images
        raise MetricsError(f"{name} has shape {array.shape}, expected ({expected},).")
    if len(array) == 0:
        raise MetricsError(f"{name} has no images, expected at least one.")
    array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argmin(finite))
        raise MetricsError(f"{name} has the value {array[row]} in row {row}, expected finite ones.")
    return array


def check_draws(draw_probs: npt.ArrayLike) -> npt.NDArray[Any]:
    """Returns draws of a right shape; the caller checks each draw, one at a time to save memory."""
    array = real_array(draw_probs, "draw_probs")
    if array.ndim != 3:
        raise MetricsError(
            f"draw_probs has shape {array.shape}, expected (num_draws, num_images, num_classes)."
        )
    if len(array) == 0:
        raise MetricsError("draw_probs has no draws, expected at least one.")
    return array


def check_count(value: int, name: str) -> int:
    """Returns `value` if it is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise MetricsError(f"{name} is {value!r}, expected a whole number of at least 1.")
    return int(value)


def check_fraction(value: float, name: str, *, zero: bool, one: bool) -> float:
    """Returns `value` if it lies between 0 and 1, these included or not."""
    inside = 0.0 < value < 1.0 or (zero and value == 0.0) or (one and value == 1.0)
    if not inside:  # also NaN
        interval = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise MetricsError(f"{name} is {value!r}, expected a fraction in {interval}.")
    return float(value)
