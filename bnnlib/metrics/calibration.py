"""Whether a confidence is the frequency that it claims to be: calibration errors and their bins."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.metrics.checks import (
    Floats,
    Integers,
    check_count,
    check_fraction,
    check_labelled,
)
from bnnlib.metrics.scores import hits

# As in Guo et al. (2017) and in the studies that this one stands beside.
NUM_BINS = 15


def bin_edges(num_bins: int) -> Floats:
    """The inner edges of bins of equal width, `(num_bins - 1,)`."""
    return np.arange(1, num_bins) / num_bins


def bins_of(values: Floats, num_bins: int) -> Integers:
    """The right-closed bin of equal width of each value, of any shape."""
    edges = bin_edges(num_bins)
    # A probability that was written as an edge falls below it: 0.2 in float64 is the edge itself,
    # and 0.2 in float32, as in records, is 3e-9 more.
    edges = np.maximum(edges, edges.astype(np.float32))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _class_bins(probs: Floats, num_bins: int) -> Integers:
    """Equal-width bins of all entries, numbered apart for each class, shaped as `probs`."""
    return bins_of(probs, num_bins) + num_bins * np.arange(probs.shape[1])


def _equal_mass_edges(confidence: Floats, num_bins: int) -> Floats:
    """The inner edges of bins that hold equally many images, `(num_bins - 1,)`."""
    size, longer = divmod(len(confidence), num_bins)
    index = np.arange(1, num_bins)
    last = (
        index * size + np.minimum(index, longer) - 1
    )  # the greatest of each bin, bar the last bin
    return np.sort(confidence)[last]


def confidence_and_hits(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The greatest probability of each image, and 1 where its class is the label."""
    probs, labels = check_labelled(probs, labels)
    return probs.max(axis=1), hits(probs, labels)


def _weighted_gap(bins: Integers, gaps: Floats) -> float:
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(gaps))


def ece(probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error over equal-width bins of the confidence.

    Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks (2017), eq. 3: the
    distance of accuracy and mean confidence, averaged over bins by their number of images. It is
    biased upwards: noise adds to it, so a calibrated model has an ECE above zero too.
    `if_calibrated` says how great a one, `ece_debiased` and `ece_interval` allow for it.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.

    Returns:
        A value between 0 and 1.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = confidence_and_hits(probs, labels)
    bins = bins_of(confidence, check_count(num_bins, "num_bins"))
    return _weighted_gap(bins, correct - confidence)


def ece_equal_mass(probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error over bins that hold equally many images.

    Nixon et al., Measuring Calibration in Deep Learning (2019), their adaptive binning applied to
    the confidence. Confident networks put most images into the last of the equal-width bins; here
    these are resolved. How ties are binned stands at the head of this module.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.

    Returns:
        A value between 0 and 1.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = confidence_and_hits(probs, labels)
    edges = _equal_mass_edges(confidence, check_count(num_bins, "num_bins"))
    return _weighted_gap(np.searchsorted(edges, confidence, side="left"), correct - confidence)


def classwise_ece(probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The calibration error of each class's probability, averaged over classes.

    Kull et al., Beyond temperature scaling (2019), the class-wise ECE: every class is binned by its
    own probability, over all images, with equal widths, and compared with its frequency. A class
    without images counts too, with frequency zero.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Bins of each class.

    Returns:
        A value between 0 and 1.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    probs, labels = check_labelled(probs, labels)
    bins = _class_bins(probs, check_count(num_bins, "num_bins"))
    gaps = np.eye(probs.shape[1])[labels] - probs
    return _weighted_gap(bins.ravel(), gaps.ravel())


def mce(probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The maximum calibration error over the equal-width bins that hold an image.

    Guo et al. (2017), eq. 5. One image can decide it; read it beside the counts of
    `reliability_bins`.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.

    Returns:
        A value between 0 and 1, never less than `ece` of the same bins.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = confidence_and_hits(probs, labels)
    bins = bins_of(confidence, check_count(num_bins, "num_bins"))
    count = np.bincount(bins)
    sums = np.bincount(bins, weights=correct - confidence)
    return float((np.abs(sums[count > 0]) / count[count > 0]).max())


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """What a reliability diagram shows, each array `(num_bins,)`; `vars(bins)` makes a table."""

    lower: Floats
    """Lower edge of the confidence, not part of the bin."""
    upper: Floats
    """Upper edge, part of the bin."""
    count: Integers
    """Number of images."""
    confidence: Floats
    """Mean confidence; NaN in an empty bin."""
    accuracy: Floats
    """Fraction predicted rightly; NaN in an empty bin."""
    accuracy_low: Floats
    """Lower end of the accuracy's interval; NaN in an empty bin."""
    accuracy_high: Floats
    """Upper end of the accuracy's interval; NaN in an empty bin."""


def reliability_bins(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
) -> ReliabilityBins:
    """Accuracy against confidence, bin by bin: the same bins as those of the calibration errors.

    The accuracy's interval is Wilson's (Journal of the American Statistical Association 22, 1927),
    which stays inside 0 to 1 and has a width for bins that are all right or all wrong.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.
        level: Confidence level of the accuracy's interval.

    Returns:
        The bins from the lowest confidence to the greatest, empty ones included.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = confidence_and_hits(probs, labels)
    num_bins = check_count(num_bins, "num_bins")
    level = check_fraction(level, "level", zero=False, one=False)
    inner, bins = bin_edges(num_bins), bins_of(confidence, num_bins)
    count = np.bincount(bins, minlength=num_bins).astype(np.int64)
    images = np.where(count > 0, count, np.nan)
    rate = np.bincount(bins, weights=correct, minlength=num_bins) / images

    z = float(special.ndtri(0.5 + level / 2.0))
    shrink = 1.0 + z**2 / images
    centre = (rate + z**2 / (2.0 * images)) / shrink
    half = z * np.sqrt(rate * (1.0 - rate) / images + z**2 / (4.0 * images**2)) / shrink
    return ReliabilityBins(
        lower=np.concatenate([[0.0], inner]),
        upper=np.concatenate([inner, [1.0]]),
        count=count,
        confidence=np.bincount(bins, weights=confidence, minlength=num_bins) / images,
        accuracy=rate,
        # At a rate of 0 or 1 one end is exactly that rate, which rounding may overstep.
        accuracy_low=np.minimum(np.maximum(centre - half, 0.0), rate),
        accuracy_high=np.maximum(np.minimum(centre + half, 1.0), rate),
    )
