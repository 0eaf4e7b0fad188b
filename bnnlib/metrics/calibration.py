"""Whether a confidence is the frequency it claims to be: calibration errors, bins, temperature."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import (
    Floats,
    Integers,
    Rows,
    check_count,
    check_fraction,
    check_labelled,
    check_labels,
    real_array,
)
from bnnlib.metrics.scores import hits

# As in Guo et al. (2017) and in the studies that this one stands beside.
NUM_BINS = 15

# Temperatures that the fit may return. Beyond them probabilities are one-hot or uniform anyway.
TEMPERATURE_RANGE = (1e-2, 1e2)


def _bins(values: npt.NDArray[np.float64], num_bins: int) -> Integers:
    """The right-closed equal-width bin of each value, of any shape."""
    # i / num_bins is the double nearest to the edge, as a literal such as 0.2 is, so that a
    # probability written as an edge falls below it.
    edges = np.arange(1, num_bins) / num_bins
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _class_bins(probs: Floats, num_bins: int) -> Integers:
    """Equal-width bins of all entries, numbered apart for each class, shaped as `probs`."""
    return _bins(probs, num_bins) + num_bins * np.arange(probs.shape[1])


def _equal_mass_edges(confidence: Floats, num_bins: int) -> Floats:
    """The inner edges of bins that hold equally many images, `(num_bins - 1,)`."""
    size, longer = divmod(len(confidence), num_bins)
    index = np.arange(1, num_bins)
    last = (
        index * size + np.minimum(index, longer) - 1
    )  # the greatest of each bin, bar the last bin
    return np.sort(confidence)[last]


def _ece_rows(
    probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS
) -> tuple[Integers, Floats]:
    probs, labels = check_labelled(probs, labels)
    confidence = probs.max(axis=1)
    gaps = hits(probs, labels) - confidence
    return _bins(confidence, check_count(num_bins, "num_bins")), gaps


def _ece(bins: Integers, gaps: Floats) -> float:
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(gaps))


def ece(probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error over equal-width bins of the confidence.

    Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks (2017), eq. 3: the
    distance of accuracy and mean confidence, averaged over bins by their number of images. It is
    biased upwards where bins hold few images.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.

    Returns:
        A value between 0 and 1.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    return _ece(*_ece_rows(probs, labels, num_bins))


def confidence_and_hits(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The greatest probability of each image, and 1 where its class is the label."""
    probs, labels = check_labelled(probs, labels)
    return probs.max(axis=1), hits(probs, labels)


def _ece_equal_mass(confidence: Floats, correct: Floats, num_bins: int = NUM_BINS) -> float:
    edges = _equal_mass_edges(confidence, num_bins)
    return _ece(np.searchsorted(edges, confidence, side="left"), correct - confidence)


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
    rows = confidence_and_hits(probs, labels)
    return _ece_equal_mass(*rows, num_bins=check_count(num_bins, "num_bins"))


def _classwise_ece_rows(
    probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS
) -> tuple[Integers, Floats]:
    probs, labels = check_labelled(probs, labels)
    bins = _class_bins(probs, check_count(num_bins, "num_bins"))
    return bins, np.eye(probs.shape[1])[labels] - probs


def _classwise_ece(bins: Integers, gaps: Floats) -> float:
    sums = np.bincount(bins.ravel(), weights=gaps.ravel())
    return float(np.abs(sums).sum() / gaps.size)


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
    return _classwise_ece(*_classwise_ece_rows(probs, labels, num_bins))


def _mce(bins: Integers, gaps: Floats) -> float:
    count = np.bincount(bins)
    sums = np.bincount(bins, weights=gaps)
    return float((np.abs(sums[count > 0]) / count[count > 0]).max())


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
    return _mce(*_ece_rows(probs, labels, num_bins))


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
    *,
    equal_mass: bool = False,
    level: float = 0.95,
) -> ReliabilityBins:
    """Accuracy against confidence, bin by bin: the same bins as those of the calibration errors.

    The accuracy's interval is Wilson's (Journal of the American Statistical Association 22, 1927),
    which stays inside 0 to 1 and has a width for bins that are all right or all wrong.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.
        equal_mass: Bins of equally many images instead of equal width.
        level: Confidence level of the accuracy's interval.

    Returns:
        The bins from the lowest confidence to the greatest, empty ones included.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = confidence_and_hits(probs, labels)
    num_bins = check_count(num_bins, "num_bins")
    level = check_fraction(level, "level", zero=False, one=False)
    if equal_mass:
        inner = _equal_mass_edges(confidence, num_bins)
    else:
        inner = np.arange(1, num_bins) / num_bins
    bins = np.searchsorted(inner, confidence, side="left")
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


def _check_log_probs(log_probs: npt.ArrayLike) -> Floats:
    """Returns float64 logits or log-probabilities, of which some may be minus infinity."""
    array = real_array(log_probs, "log_probs")
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] < 2:
        raise MetricsError(
            f"log_probs has shape {array.shape}, expected (num_images, num_classes) with at least "
            "one image and two classes."
        )
    array = array.astype(np.float64)
    if np.isnan(array).any() or np.isposinf(array).any():
        raise MetricsError("log_probs has a NaN or a positive infinity, expected finite or -inf.")
    if np.isneginf(array).all(axis=1).any():
        raise MetricsError("log_probs has a row of -inf only: no class is possible there.")
    return array


def apply_temperature(log_probs: npt.ArrayLike, temperature: float) -> Floats:
    """Probabilities softened by a temperature: softmax of `log_probs / temperature`.

    Args:
        log_probs: Log-probabilities or logits, `(num_images, num_classes)`.
        temperature: Above 1 less confident, below 1 more, 1 leaves the distribution as it is.

    Returns:
        Probabilities, float64 `(num_images, num_classes)`.

    Raises:
        MetricsError: The temperature is not positive and finite, or the array is not log_probs.
    """
    array = _check_log_probs(log_probs)
    if not 0.0 < temperature < math.inf:
        raise MetricsError(f"temperature is {temperature!r}, expected a positive finite number.")
    return special.softmax(array / temperature, axis=1)


def fit_temperature(log_probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature whose softened probabilities have the least NLL on these images.

    Guo et al. (2017), section 4.2. Fit it on images held out from training, and judge it on others.
    For a Bayesian network give the logarithm of the mean probabilities. Accuracy does not change.

    Args:
        log_probs: Log-probabilities or logits, `(num_images, num_classes)`; minus infinity is a
            class that is impossible at every temperature.
        labels: Class numbers, `(num_images,)`.

    Returns:
        A temperature inside `TEMPERATURE_RANGE`; an end of it where the NLL only falls towards it,
        as it does when every image is predicted rightly; 1 where none is better than that.

    Raises:
        MetricsError: The arrays are not log-probabilities and labels of the same images, or a label
            has log-probability minus infinity, so that every temperature has an infinite NLL.
    """
    array = _check_log_probs(log_probs)
    labels = check_labels(labels, *array.shape)
    rows = np.arange(len(labels))
    impossible = np.isneginf(array[rows, labels])
    if impossible.any():
        raise MetricsError(
            f"log_probs is -inf for the label of {int(impossible.sum())} images, the first in row "
            f"{int(np.argmax(impossible))}: the NLL is infinite at every temperature. Compute "
            "log-probabilities from logits, not as the logarithm of rounded probabilities."
        )

    def loss(log_temperature: float) -> float:
        scaled = array / math.exp(log_temperature)
        return float((special.logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    # The NLL is convex in 1 / T, hence has one valley in log T, where the range is even-handed.
    low, high = math.log(TEMPERATURE_RANGE[0]), math.log(TEMPERATURE_RANGE[1])
    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    best = min([float(found.x), low, high], key=loss)
    # Where the NLL is flat, as for uniform rows, rounding alone would pick a temperature.
    return 1.0 if loss(0.0) <= loss(best) + 1e-12 else math.exp(best)


RESAMPLED: dict[Callable[..., float], Rows] = {
    ece: (_ece_rows, _ece),
    ece_equal_mass: (confidence_and_hits, _ece_equal_mass),
    classwise_ece: (_classwise_ece_rows, _classwise_ece),
    mce: (_ece_rows, _mce),
}
