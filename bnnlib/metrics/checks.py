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
        remedy = " Convert them with astype(int)." if array.dtype.kind == "b" else ""
        raise MetricsError(f"{name} has dtype {array.dtype}, expected real numbers.{remedy}")
    return array


def check_probs(probs: npt.ArrayLike, name: str = "probs") -> Floats:
    """Returns `probs` in float64 if they are rows of probabilities."""
    array = real_array(probs, name)
    binary = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    columns = (
        " Of probabilities p of class 1, of one axis, give two columns, "
        "numpy.stack([1 - p, p], axis=1)."
    )
    if array.ndim != 2:
        draws = " Average draws with mean_probs first." if array.ndim == 3 else ""
        raise MetricsError(
            f"{name} has shape {array.shape}, expected (num_images, num_classes)."
            f"{columns if binary else draws}"
        )
    num_images, num_classes = array.shape
    if num_images == 0:
        raise MetricsError(f"{name} has no images, expected at least one.")
    if num_classes < 2:
        raise MetricsError(
            f"{name} has {num_classes} classes, expected at least two.{columns if binary else ''}"
        )
    array = array.astype(np.float64)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        remedy = "Find where the prediction diverged"
        if are_log_probs(array):
            remedy = "These are log-probabilities: apply exp first"
        raise MetricsError(
            f"{name} has a value that is not finite in {int((~finite).sum())} of {num_images} "
            f"rows, the first in row {row}: {array[row]}. {remedy}."
        )
    sums = array.sum(axis=1)
    excess = np.abs(sums - 1.0)
    if array.min() < 0.0:
        row = int(np.argmin(array.min(axis=1)))
        # Softmax turns any rows into probabilities, also what is none; so it is named for logits.
        remedy = "If they are logits, apply softmax first"
        if are_log_probs(array):
            remedy = "These are log-probabilities: apply exp first"
        elif excess.max() <= PROBABILITY_TOLERANCE and array.min() >= -PROBABILITY_TOLERANCE:
            remedy = "They are probabilities but for rounding: set what is below 0 to 0"
        raise MetricsError(
            f"{name} has the negative value {array[row].min():g} in row {row}, expected "
            f"probabilities. {remedy}."
        )
    if excess.max() > PROBABILITY_TOLERANCE:
        row = int(np.argmax(excess))
        remedy = "If they are logits, apply softmax first; of counts divide each row by its sum"
        if sums.min() > 0.0 and np.ptp(sums) <= 0.1 * sums.min():
            remedy = "All rows have nearly one sum: divide each row by its sum, without softmax"
        raise MetricsError(
            f"{name} sums to {array[row].sum():g} in row {row}, expected 1 within "
            f"{PROBABILITY_TOLERANCE:g}. {remedy}."
        )
    return array


def are_log_probs(array: Floats) -> bool:
    """Whether the exponentials of the rows are probabilities; minus infinity is one of 0."""
    if np.isnan(array).any() or array.max() > PROBABILITY_TOLERANCE:
        return False
    return bool(np.abs(np.exp(array).sum(axis=1) - 1.0).max() <= PROBABILITY_TOLERANCE)


def check_labels(labels: npt.ArrayLike, num_images: int, num_classes: int) -> Integers:
    """Returns `labels` as int64 if they are class numbers, one an image."""
    array = real_array(labels, "labels")
    if array.shape != (num_images,):
        remedy = ""
        if array.shape in ((num_images, 1), (1, num_images)):
            # An argmax over an axis of one gives zeros, which are labels, but not these.
            remedy = " Take labels.reshape(-1)."
        elif array.shape == (num_images, num_classes) and is_one_hot(array):
            remedy = " Apply argmax to one-hot labels first, labels.argmax(axis=1)."
        raise MetricsError(
            f"labels has shape {array.shape}, expected ({num_images},): one class number for each "
            f"image of probs.{remedy}"
        )
    if array.dtype.kind == "f":
        whole = bool((array == np.rint(array)).all())
        remedy = " Convert them with astype(int)." if whole else ""
        raise MetricsError(f"labels has dtype {array.dtype}, expected integers.{remedy}")
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        from_one = array.min() == 1 and array.max() == num_classes
        raise MetricsError(
            f"labels has the value {array[row]} in row {row}, expected 0 to {num_classes - 1}: "
            f"probs has {num_classes} classes."
            + (" Subtract 1 from labels that count from 1." if from_one else "")
        )
    return array.astype(np.int64)


def is_one_hot(labels: npt.NDArray[Any]) -> bool:
    """Whether each row of an array of two axes holds one 1 and else zeros."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


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


def check_votes(votes: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> Integers:
    """Returns `votes` as int64 if they count the same number of draws, one or more, in each row."""
    array = real_array(votes, "votes")
    if array.ndim != 2 or 0 in array.shape or shape not in (None, array.shape):
        raise MetricsError(
            f"votes has shape {array.shape}, expected {shape or '(num_images, num_classes)'}. "
            "Count those of draws with count_votes."
        )
    counts = array.astype(np.int64)
    draws = counts.sum(axis=1)
    wrong = (counts != array).any(axis=1) | (counts < 0).any(axis=1)
    wrong |= (draws != draws[0]) | (draws < 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricsError(
            f"votes has {array[row]} in row {row}, expected numbers of draws that sum to one total "
            "in all rows, one or more. Count those of draws with count_votes."
        )
    return counts


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
