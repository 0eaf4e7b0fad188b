"""Conformal sets: for each image the classes that hold its label with a probability that is chosen.

Split conformal prediction. Each class of an image has a score, greater for a stranger class. Of the
scores of the labels of n held-out images the ⌈(n + 1)(1 − alpha)⌉-th smallest is the threshold, and
an image's set are the classes whose score is not above it (Vovk, Gammerman & Shafer, Algorithmic
Learning in a Random World, 2005; Angelopoulos & Bates, A Gentle Introduction to Conformal
Prediction and Distribution-Free Uncertainty Quantification, 2021, section 1). Whatever the network,
the set holds the label with probability at least 1 − alpha, on average over images and held-out
images that are exchangeable. Shifted images are not.

Where n is too small, so that ⌈(n + 1)(1 − alpha)⌉ is above n (fewer than 9 images at alpha = 0.1),
the threshold is infinite and every set holds all classes: nothing smaller would be sure.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import (
    Floats,
    Integers,
    check_fraction,
    check_labelled,
    check_labels,
    check_probs,
)

CONFORMAL_METHODS = ("thr", "aps", "raps")
# As in torch-uncertainty, beside whose tables these shall stand.
ALPHA = 0.1
PENALTY, FREE_CLASSES = 0.1, 1
# The names of `conformal_summary`.
CONFORMAL_SCORES = tuple(
    f"{score}_{method}"
    for method in CONFORMAL_METHODS
    for score in ("coverage", "set_size", "least_class_coverage", "greatest_class_set_size")
)

Booleans = npt.NDArray[np.bool_]


class ConformalSets(NamedTuple):
    """The sets of some images."""

    sets: Booleans
    """Whether a class belongs to an image's set, `(num_images, num_classes)`."""
    threshold: float
    """The greatest score of a class in a set; infinite where too few images were held out."""


class ClassCoverage(NamedTuple):
    """Coverage and size by the images' own class, each array `(num_classes,)`."""

    num_images: Integers
    """Number of images of the class."""
    coverage: Floats
    """Fraction of them whose set holds the class; NaN without images."""
    set_size: Floats
    """Mean number of classes in their sets; NaN without images."""


def conformal_scores(
    probs: npt.ArrayLike,
    method: str = "aps",
    seed: int | tuple[int, ...] = 0,
    penalty: float = PENALTY,
    free_classes: int = FREE_CLASSES,
) -> Floats:
    """How strange each class is for each image.

    With the classes of an image ranked by probability p, the most probable first, ρ the sum of the
    probabilities ranked before a class, o its rank (1 for the first) and u uniform on [0, 1):

    - `thr`: 1 − p (Sadinle, Lei & Wasserman, Least Ambiguous Set-Valued Classifiers with Bounded
      Error Levels, 2019).
    - `aps`: ρ + u p (Romano, Sesia & Candès, Classification with Valid and Adaptive Coverage,
      2020).
    - `raps`: ρ + u p + penalty · max(0, o − free_classes) (Angelopoulos, Bates, Malik & Jordan,
      Uncertainty Sets for Image Classifiers using Conformal Prediction, 2021).

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        method: One of `CONFORMAL_METHODS`.
        seed: Of u, one number an image, which depends on the seed and the image's place alone.
            Images held out and images predicted take different ones.
        penalty: Of `raps`, for each further class.
        free_classes: Of `raps`, the number of classes without a penalty.

    Returns:
        float64 `(num_images, num_classes)`; from 0 to 1, of `raps` to 1 + penalty · num_classes.

    Raises:
        MetricsError: The array is not probabilities, or the method is unknown.
    """
    checked = check_probs(probs)
    if method not in CONFORMAL_METHODS:
        raise MetricsError(f"method is {method!r}, expected one of {', '.join(CONFORMAL_METHODS)}.")
    if not 0.0 <= penalty < math.inf:
        raise MetricsError(f"penalty is {penalty!r}, expected a finite number of 0 or more.")
    if method == "thr":
        return 1.0 - checked
    order = np.argsort(-checked, axis=1, kind="stable")
    ranked = np.take_along_axis(checked, order, axis=1)
    uniform = np.random.default_rng(seed).random((len(checked), 1))
    scores = np.cumsum(ranked, axis=1) - ranked + uniform * ranked
    if method == "raps":
        scores += penalty * np.maximum(np.arange(1, checked.shape[1] + 1) - free_classes, 0)
    by_class = np.empty_like(scores)
    np.put_along_axis(by_class, order, scores, axis=1)
    return by_class


def conformal_threshold(label_scores: npt.ArrayLike, alpha: float = ALPHA) -> float:
    """The ⌈(n + 1)(1 − alpha)⌉-th smallest of n scores.

    Args:
        label_scores: The scores of the labels of images held out, `(n,)`.
        alpha: The share of sets that may miss the label, between 0 and 1.

    Returns:
        A score; infinity where that place is beyond the n-th.
    """
    alpha = check_fraction(alpha, "alpha", zero=False, one=False)
    ranked = np.sort(np.asarray(label_scores, np.float64))
    place = math.ceil((len(ranked) + 1) * (1.0 - alpha) - 1e-9)  # 10 · 0.9 is 9, however rounded
    return float(ranked[place - 1]) if place <= len(ranked) else math.inf


def conformal_sets(
    probs: npt.ArrayLike,
    held_out_probs: npt.ArrayLike,
    held_out_labels: npt.ArrayLike,
    method: str = "aps",
    alpha: float = ALPHA,
    seed: int = 0,
    penalty: float = PENALTY,
    free_classes: int = FREE_CLASSES,
) -> ConformalSets:
    """Sets of classes that hold the label of an image with probability 1 − alpha or more.

    Args:
        probs: Class probabilities of the images to predict, `(num_images, num_classes)`.
        held_out_probs: Those of images held out from training, `(n, num_classes)`.
        held_out_labels: Their class numbers, `(n,)`.
        method: One of `CONFORMAL_METHODS`; see `conformal_scores`. Sets of `aps` and `raps` may be
            empty, as the random number of an image has it.
        alpha: The share of sets that may miss the label.
        seed: Of the random numbers of `aps` and `raps`.
        penalty: See `conformal_scores`.
        free_classes: See `conformal_scores`.

    Returns:
        The sets, and their threshold, infinite where too few images are held out: then every set
        holds all classes.

    Raises:
        MetricsError: The arrays are not probabilities and labels of one model's classes, or alpha
            or the method is none.
    """
    held_out, labels = check_labelled(held_out_probs, held_out_labels)
    checked = check_probs(probs)
    if held_out.shape[1] != checked.shape[1]:
        raise MetricsError(
            f"probs has {checked.shape[1]} classes and held_out_probs {held_out.shape[1]}, "
            "expected predictions of one model."
        )
    of_held_out = conformal_scores(held_out, method, (seed, 0), penalty, free_classes)
    threshold = conformal_threshold(of_held_out[np.arange(len(labels)), labels], alpha)
    scores = conformal_scores(checked, method, (seed, 1), penalty, free_classes)
    return ConformalSets(scores <= threshold, threshold)


def set_coverage(sets: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The fraction of sets that hold their image's label, between 0 and 1.

    Args:
        sets: Of `conformal_sets`, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Raises:
        MetricsError: The arrays are not sets and labels of the same images.
    """
    checked = _check_sets(sets)
    true = check_labels(labels, *checked.shape)
    return float(checked[np.arange(len(true)), true].mean())


def set_size(sets: npt.ArrayLike) -> float:
    """The mean number of classes in a set, from 0 to the number of classes.

    Args:
        sets: Of `conformal_sets`, `(num_images, num_classes)`.

    Raises:
        MetricsError: They are no sets.
    """
    return float(_check_sets(sets).sum(axis=1).mean())


def sets_by_class(sets: npt.ArrayLike, labels: npt.ArrayLike) -> ClassCoverage:
    """Coverage and mean size of the sets of each class's images.

    The promise of 1 − alpha is for all images together; some classes may lie below it.

    Args:
        sets: Of `conformal_sets`, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        Number of images, coverage and mean size by class.

    Raises:
        MetricsError: The arrays are not sets and labels of the same images.
    """
    checked = _check_sets(sets)
    true = check_labels(labels, *checked.shape)
    count = np.bincount(true, minlength=checked.shape[1]).astype(np.int64)
    images = np.where(count > 0, count, np.nan)

    def mean(values: npt.NDArray[np.generic]) -> Floats:
        return np.bincount(true, weights=values, minlength=checked.shape[1]) / images

    covered = checked[np.arange(len(true)), true]
    return ClassCoverage(count, mean(covered), mean(checked.sum(axis=1)))


def conformal_summary(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    held_out_probs: npt.ArrayLike,
    held_out_labels: npt.ArrayLike,
    alpha: float = ALPHA,
) -> dict[str, float]:
    """Coverage and size of the sets of all methods, of all images and of the worst class.

    Args:
        probs: Class probabilities of the images to predict, `(num_images, num_classes)`.
        labels: Their class numbers, `(num_images,)`.
        held_out_probs: Class probabilities of images held out, `(n, num_classes)`.
        held_out_labels: Their class numbers, `(n,)`.
        alpha: The share of sets that may miss the label.

    Returns:
        `CONFORMAL_SCORES`: for each method M `coverage_M`, `set_size_M`, and over the classes that
        have images `least_class_coverage_M` and `greatest_class_set_size_M`; `sets_by_class`
        has all classes.

    Raises:
        MetricsError: As of `conformal_sets`.
    """
    values = {}
    for method in CONFORMAL_METHODS:
        sets = conformal_sets(probs, held_out_probs, held_out_labels, method, alpha).sets
        by_class = sets_by_class(sets, labels)
        values[f"coverage_{method}"] = set_coverage(sets, labels)
        values[f"set_size_{method}"] = set_size(sets)
        values[f"least_class_coverage_{method}"] = float(np.nanmin(by_class.coverage))
        values[f"greatest_class_set_size_{method}"] = float(np.nanmax(by_class.set_size))
    return values


def _check_sets(sets: npt.ArrayLike) -> Booleans:
    array = np.asarray(sets)
    if array.ndim != 2 or array.dtype != np.bool_ or 0 in array.shape:
        raise MetricsError(
            f"sets has shape {array.shape} and dtype {array.dtype}, expected the booleans of "
            "conformal_sets, (num_images, num_classes)."
        )
    return array
