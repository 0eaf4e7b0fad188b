"""How good and how honest a predictive distribution is: pure functions of probabilities and labels.

Arrays go in, numbers come out; nothing here knows a model, a run or a rank. Predictions sharded
over ranks are gathered first, and no result depends on the order of the images.

The conventions, the same for every function:

- Probabilities `(num_images, num_classes)` are computed with in float64, as given: a row may miss
  one by `PROBABILITY_TOLERANCE`, and is neither clipped nor renormalized.
- The prediction is the class of greatest probability, the lowest index where several are greatest.
  The confidence is that greatest probability.
- Equal-width bins are closed on the right, `(lower, upper]`, and zero belongs to the first one;
  there are `NUM_BINS` of them.
- Equal-mass bins end at values that occur, closed on the right too, so images of equal confidence
  share a bin and an image's place in the array never matters. Without ties their sizes differ by
  one at most; with ties some may be empty.
- Entropies are in nats. Every uncertainty is greater for a less certain image.
- Out of distribution (OOD) is the positive class, and a greater score says OOD.
- Tied scores count one half in the AUROC, share one threshold in the AUPR and the FPR, and stand in
  random order in risk-coverage curves, where the risk is the expectation over these orders.
- Input that no metric can be computed from raises `MetricsError`; it never gives a number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from bnnlib.errors import MetricsError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# As in Guo et al. (2017) and in the studies that this one stands beside.
NUM_BINS = 15

# A row of float32 probabilities over 1,000 classes misses one by about 1e-6, a row of float16 by
# about 1e-3. Logits, or probabilities of independent labels, miss it by far more.
PROBABILITY_TOLERANCE = 1e-3

# nats. An expected entropy cannot exceed the entropy of the mean (Jensen). Rounded probabilities
# may seem to break that by thousandths; entropies in bits, or of other images, break it by more.
ENTROPY_TOLERANCE = 1e-2

# nats. What float32 records leave of a mutual information that is zero. Ranked as it is, that noise
# would give a deterministic network an OOD score.
MUTUAL_INFORMATION_RESOLUTION = 1e-6

# Temperatures that the fit may return. Beyond them probabilities are one-hot or uniform anyway.
TEMPERATURE_RANGE = (1e-2, 1e2)


# --- What is accepted ----------------------------------------------------------------------------


def _real_array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
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


def _check_probs(probs: npt.ArrayLike, name: str = "probs") -> Floats:
    """Returns `probs` in float64 if they are rows of probabilities."""
    array = _real_array(probs, name)
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


def _check_labels(labels: npt.ArrayLike, num_images: int, num_classes: int) -> Integers:
    """Returns `labels` as int64 if they are class numbers, one an image."""
    array = _real_array(labels, "labels")
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


def _check(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Returns both, checked and in float64 and int64."""
    checked = _check_probs(probs)
    return checked, _check_labels(labels, *checked.shape)


def _check_scores(scores: npt.ArrayLike, name: str, num_images: int | None = None) -> Floats:
    """Returns one finite float64 an image."""
    array = _real_array(scores, name)
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


def _check_draws(draw_probs: npt.ArrayLike) -> npt.NDArray[Any]:
    """Returns draws of a right shape; the caller checks each draw, one at a time to save memory."""
    array = _real_array(draw_probs, "draw_probs")
    if array.ndim != 3:
        raise MetricsError(
            f"draw_probs has shape {array.shape}, expected (num_draws, num_images, num_classes)."
        )
    if len(array) == 0:
        raise MetricsError("draw_probs has no draws, expected at least one.")
    return array


def _check_count(value: int, name: str) -> int:
    """Returns `value` if it is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise MetricsError(f"{name} is {value!r}, expected a whole number of at least 1.")
    return int(value)


def _check_fraction(value: float, name: str, *, zero: bool, one: bool) -> float:
    """Returns `value` if it lies between 0 and 1, these included or not."""
    inside = 0.0 < value < 1.0 or (zero and value == 0.0) or (one and value == 1.0)
    if not inside:  # also NaN
        interval = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise MetricsError(f"{name} is {value!r}, expected a fraction in {interval}.")
    return float(value)


# --- Draws ---------------------------------------------------------------------------------------


def mean_probs(draw_probs: npt.ArrayLike) -> Floats:
    """The Monte Carlo predictive distribution: class probabilities averaged over draws.

    Args:
        draw_probs: Class probabilities of each draw, `(num_draws, num_images, num_classes)`.

    Returns:
        Mean class probabilities, float64 `(num_images, num_classes)`.

    Raises:
        MetricsError: Any draw holds no probabilities, or there is none.
    """
    draws = _check_draws(draw_probs)
    total = np.zeros(draws.shape[1:])
    for index, draw in enumerate(draws):
        total += _check_probs(draw, f"draw_probs[{index}]")
    return total / len(draws)


def expected_entropy(draw_probs: npt.ArrayLike) -> Floats:
    """The aleatoric part of the predictive entropy: entropies of the draws, averaged.

    Args:
        draw_probs: Class probabilities of each draw, `(num_draws, num_images, num_classes)`.

    Returns:
        Expected entropy of each image in nats, float64 `(num_images,)`.

    Raises:
        MetricsError: Any draw holds no probabilities, or there is none.
    """
    draws = _check_draws(draw_probs)
    total = np.zeros(draws.shape[1])
    for index, draw in enumerate(draws):
        total += _entropy(_check_probs(draw, f"draw_probs[{index}]"))
    return total / len(draws)


# --- Proper scores -------------------------------------------------------------------------------
#
# A metric here is a reduction over rows of per-image values: `_x_rows` makes the rows once, `_x`
# reduces them. The bootstrap resamples the rows, and need not check and bin the arrays again.


def _mean(values: Floats) -> float:
    return float(values.mean())


def _correct(probs: Floats, labels: Integers) -> Floats:
    """1 where the prediction is the label, else 0, `(num_images,)`."""
    return (probs.argmax(axis=1) == labels).astype(np.float64)


def _accuracy_rows(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats]:
    return (_correct(*_check(probs, labels)),)


def accuracy(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The fraction of images whose most probable class is their label.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        A fraction between 0 and 1.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    return _mean(*_accuracy_rows(probs, labels))


def _nll_rows(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats]:
    probs, labels = _check(probs, labels)
    with np.errstate(divide="ignore"):  # log(0) = -inf is the answer here, not an accident
        return (-np.log(probs[np.arange(len(labels)), labels]),)


def nll(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The negative log-likelihood of the labels, averaged over images.

    A label of probability zero gives infinity, since that is its score: nothing is clipped. Rows
    of float32 softmax outputs can hold such zeros; predict in log-probabilities to avoid them.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        Nats an image, from 0 to infinity.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    return _mean(*_nll_rows(probs, labels))


def _brier_rows(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats]:
    probs, labels = _check(probs, labels)
    return (((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1),)


def brier(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The Brier score: squared error of the probabilities, summed over classes.

    Brier, Monthly Weather Review 78 (1950), eq. 2. For two classes it is twice the score that
    counts one class only.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        The mean over images, between 0 and 2.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    return _mean(*_brier_rows(probs, labels))


class BrierDecomposition(NamedTuple):
    """`brier = reliability - resolution + uncertainty + within_bin`, all summed over classes."""

    reliability: float
    """Squared distance of mean probability and frequency in a bin; 0 is best."""
    resolution: float
    """Squared distance of a bin's frequency and the overall one; greater is better."""
    uncertainty: float
    """Variance of the labels, a property of the data alone."""
    within_bin: float
    """Variance of the probabilities inside bins, less twice their covariance with the labels."""


def brier_decomposition(
    probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS
) -> BrierDecomposition:
    """The parts of the Brier score, one class against the rest, summed over classes.

    The multi-class score is the sum of the classes' binary scores, so each class is decomposed by
    itself, over equal-width bins of its own probability, as Murphy did (Journal of Applied
    Meteorology 12, 1973). His three terms add up only where all probabilities of a bin are equal.
    What is missing otherwise is the within-bin variance less twice the within-bin covariance
    (Stephenson, Coelho & Jolliffe, Weather and Forecasting 23, 2008). It is returned as a term of
    its own, may be negative, and makes the sum exact.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Bins of each class.

    Returns:
        The four terms, of which the first three are never negative.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    probs, labels = _check(probs, labels)
    num_bins = _check_count(num_bins, "num_bins")
    num_images, num_classes = probs.shape
    happened = np.eye(num_classes)[labels]
    bins = _class_bins(probs, num_bins).ravel()
    total = num_bins * num_classes

    count = np.bincount(bins, minlength=total)
    filled = np.maximum(count, 1)  # empty bins have weight zero below
    mean = np.bincount(bins, weights=probs.ravel(), minlength=total) / filled
    frequency = np.bincount(bins, weights=happened.ravel(), minlength=total) / filled
    overall = happened.mean(axis=0)

    deviation = probs.ravel() - mean[bins]
    surprise = happened.ravel() - frequency[bins]
    return BrierDecomposition(
        reliability=float((count * (mean - frequency) ** 2).sum() / num_images),
        resolution=float(
            (count * (frequency - np.repeat(overall, num_bins)) ** 2).sum() / num_images
        ),
        uncertainty=float((overall * (1.0 - overall)).sum()),
        within_bin=float((deviation**2 - 2.0 * deviation * surprise).sum() / num_images),
    )


# --- Calibration ---------------------------------------------------------------------------------


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
    probs, labels = _check(probs, labels)
    confidence = probs.max(axis=1)
    gaps = _correct(probs, labels) - confidence
    return _bins(confidence, _check_count(num_bins, "num_bins")), gaps


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


def _confidence_rows(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    probs, labels = _check(probs, labels)
    return probs.max(axis=1), _correct(probs, labels)


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
    rows = _confidence_rows(probs, labels)
    return _ece_equal_mass(*rows, num_bins=_check_count(num_bins, "num_bins"))


def _classwise_ece_rows(
    probs: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = NUM_BINS
) -> tuple[Integers, Floats]:
    probs, labels = _check(probs, labels)
    bins = _class_bins(probs, _check_count(num_bins, "num_bins"))
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
    confidence, correct = _confidence_rows(probs, labels)
    num_bins = _check_count(num_bins, "num_bins")
    level = _check_fraction(level, "level", zero=False, one=False)
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
    array = _real_array(log_probs, "log_probs")
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
    labels = _check_labels(labels, *array.shape)
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


# --- Uncertainty and its parts -------------------------------------------------------------------


def _entropy(probs: Floats) -> Floats:
    return special.entr(probs).sum(axis=1)


def predictive_entropy(probs: npt.ArrayLike) -> Floats:
    """The entropy of each image's predictive distribution, the total uncertainty.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.

    Returns:
        Nats, float64 `(num_images,)`, between 0 and log(num_classes).

    Raises:
        MetricsError: The array is not probabilities.
    """
    return _entropy(_check_probs(probs))


def mutual_information(probs: npt.ArrayLike, expected_entropy: npt.ArrayLike) -> Floats:
    """The epistemic part of each image's entropy: what knowing the weights would remove.

    Entropy of the mean less mean of the entropies (Houlsby et al., Bayesian Active Learning for
    Classification and Preference Learning, 2011, eq. 2; Depeweg et al., Decomposition of
    Uncertainty in Bayesian Deep Learning, 2018). Values within `MUTUAL_INFORMATION_RESOLUTION`
    of zero, what float32 records leave of a zero, are returned as zero. Rounded input can leave
    values somewhat below zero; they are returned as they are.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.

    Returns:
        Nats, float64 `(num_images,)`.

    Raises:
        MetricsError: The arrays are not of the same images, or an expected entropy is negative or
            exceeds the entropy by more than `ENTROPY_TOLERANCE`, which no set of draws can give.
    """
    entropy = _entropy(_check_probs(probs))
    expected = _check_scores(expected_entropy, "expected_entropy", len(entropy))
    wrong = (expected < -ENTROPY_TOLERANCE) | (expected > entropy + ENTROPY_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricsError(
            f"expected_entropy is {expected[row]:g} in row {row}, expected 0 to {entropy[row]:g} "
            "nats, the entropy of the mean. Give nats, of the same images and draws as probs."
        )
    information = entropy - expected
    return np.where(np.abs(information) <= MUTUAL_INFORMATION_RESOLUTION, 0.0, information)


def uncertainty_scores(
    probs: npt.ArrayLike, expected_entropy: npt.ArrayLike | None = None
) -> dict[str, Floats]:
    """The three scores that rank images by uncertainty, greater for a less certain image.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.

    Returns:
        `max_probability` (one minus it), `entropy` (nats) and, where the expected entropy is
        given, `mutual_information` (nats), each float64 `(num_images,)`.

    Raises:
        MetricsError: The arrays are not probabilities and entropies of the same images.
    """
    checked = _check_probs(probs)
    scores = {"max_probability": 1.0 - checked.max(axis=1), "entropy": _entropy(checked)}
    if expected_entropy is not None:
        scores["mutual_information"] = mutual_information(checked, expected_entropy)
    return scores


# --- Selective prediction ------------------------------------------------------------------------


class RiskCoverage(NamedTuple):
    """The error among the images that are kept, against the fraction kept."""

    coverage: Floats
    """1/num_images, 2/num_images, …, 1."""
    risk: Floats
    """Fraction predicted wrongly among the most certain images up to that coverage."""


def _risk_rows(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    confidence, correct = _confidence_rows(probs, labels)
    if uncertainty is None:
        return -confidence, 1.0 - correct
    return _check_scores(uncertainty, "uncertainty", len(correct)), 1.0 - correct


def _risk(uncertainty: Floats, errors: Floats) -> Floats:
    """Risk at each coverage, in expectation over the order of ties, `(num_images,)`."""
    order = np.argsort(uncertainty)
    ranked = uncertainty[order]
    kept = np.arange(1, len(errors) + 1)
    # In random order, errors of a tied group come at an even rate: a straight line from its begin
    # to its end, where the count is exact whatever the order.
    ends = np.concatenate([[0], np.flatnonzero(ranked[1:] > ranked[:-1]) + 1, [len(errors)]])
    wrong = np.concatenate([[0.0], np.cumsum(errors[order])])
    return np.interp(kept, ends, wrong[ends]) / kept


def _aurc(uncertainty: Floats, errors: Floats) -> float:
    return float(_risk(uncertainty, errors).mean())


def _e_aurc(uncertainty: Floats, errors: Floats) -> float:
    return _aurc(uncertainty, errors) - _aurc(errors, errors)


def risk_coverage(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> RiskCoverage:
    """The risk-coverage curve: images kept in order of growing uncertainty.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        Coverage and risk, each `(num_images,)`.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    risk = _risk(*_risk_rows(probs, labels, uncertainty))
    return RiskCoverage(np.arange(1, len(risk) + 1) / len(risk), risk)


def aurc(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> float:
    """The area under the risk-coverage curve: the risk, averaged over all coverages.

    Geifman, Uziel & El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers
    (2019), section 2: the mean over the `num_images` points of the curve, not a trapezoidal area.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        A value between 0 and 1, less being better; the error rate for a random ranking.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    return _aurc(*_risk_rows(probs, labels, uncertainty))


def e_aurc(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> float:
    """The excess of `aurc` over that of a perfect ranking, all errors last, of the same errors.

    Geifman et al. (2019), section 2. The perfect ranking's area is summed exactly for this number
    of images, not taken from the formula for many, so the excess is zero where ranks are perfect.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        A value between 0 and 1, less being better; it judges the ranking, not the accuracy.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    return _e_aurc(*_risk_rows(probs, labels, uncertainty))


def coverage_at_risk(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    risk: float,
    uncertainty: npt.ArrayLike | None = None,
) -> float:
    """The greatest fraction of images that can be kept with at most this risk.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        risk: Fraction of kept images that may be predicted wrongly, 0 to 1.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        A fraction of the images; 0 if even the most certain ones have a greater risk.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    risk = _check_fraction(risk, "risk", zero=True, one=True)
    curve = risk_coverage(probs, labels, uncertainty)
    allowed = np.flatnonzero(curve.risk <= risk + 1e-12)  # 3 of 30 is a risk of 0.1
    return float(curve.coverage[allowed[-1]]) if len(allowed) else 0.0


def risk_at_coverage(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    coverage: float,
    uncertainty: npt.ArrayLike | None = None,
) -> float:
    """The risk among the most certain images, at least this fraction of them.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        coverage: Fraction of images to keep, above 0 up to 1; the least number of images that
            reaches it is kept.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        The fraction predicted wrongly.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    coverage = _check_fraction(coverage, "coverage", zero=False, one=True)
    curve = risk_coverage(probs, labels, uncertainty)
    return float(curve.risk[_at_least(coverage, len(curve.risk)) - 1])


def _at_least(fraction: float, total: int) -> int:
    """The least number of `total` things, one or more, that is at least this fraction of them."""
    return max(1, math.ceil(fraction * total - 1e-9))  # 0.95 of 100 is 95, whatever the rounding


# --- Out of distribution -------------------------------------------------------------------------


def _score_rows(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    return _check_scores(in_scores, "in_scores"), _check_scores(out_scores, "out_scores")


def _auroc(in_scores: Floats, out_scores: Floats) -> float:
    ranked, rivals = np.sort(in_scores), np.sort(out_scores)  # sorted rivals are found faster
    below = np.searchsorted(ranked, rivals, side="left")
    not_above = np.searchsorted(ranked, rivals, side="right")
    return float((below.sum() + not_above.sum()) / (2.0 * len(ranked) * len(rivals)))


def auroc(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The probability that an OOD image scores above an in-distribution one, ties counting half.

    The area under the ROC curve by its rank form (Hanley & McNeil, Radiology 143, 1982), used for
    OOD detection by Hendrycks & Gimpel (2017).

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; one half for a score that says nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    return _auroc(*_score_rows(in_scores, out_scores))


def _average_precision(negatives: Floats, positives: Floats) -> float:
    scores = np.concatenate([positives, negatives])
    is_positive = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    order = np.argsort(-scores)
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] < ranked[:-1]), len(scores) - 1)
    found = np.cumsum(is_positive[order])[ends]
    precision = found / (ends + 1)
    return float((np.diff(found, prepend=0.0) * precision).sum() / len(positives))


def _aupr_out(in_scores: Floats, out_scores: Floats) -> float:
    return _average_precision(in_scores, out_scores)


def _aupr_in(in_scores: Floats, out_scores: Floats) -> float:
    return _average_precision(-out_scores, -in_scores)


def aupr_out(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The area under the precision-recall curve with OOD images as positives.

    Average precision: precision summed over the steps of recall, without interpolation (as
    scikit-learn's `average_precision_score`). It depends on the sets' sizes.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; the fraction of OOD images for a score that says nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    return _aupr_out(*_score_rows(in_scores, out_scores))


def aupr_in(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The area under the precision-recall curve with in-distribution images as positives.

    As `aupr_out`, with the scores' signs turned.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; the fraction of in-distribution images for a score that says
        nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    return _aupr_in(*_score_rows(in_scores, out_scores))


def _fpr_at_tpr(in_scores: Floats, out_scores: Floats, tpr: float = 0.95) -> float:
    threshold = np.sort(out_scores)[-_at_least(tpr, len(out_scores))]
    return float((in_scores >= threshold).mean())


def fpr_at_tpr(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike, tpr: float = 0.95) -> float:
    """The fraction of in-distribution images called OOD where `tpr` of the OOD images are found.

    An image is called OOD if its score reaches the threshold; the threshold is the greatest that
    finds at least `tpr` of the OOD images, so tied in-distribution images count as false alarms.
    Some papers (ODIN among them) call in-distribution positive: that is
    `fpr_at_tpr(-out_scores, -in_scores)`.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.
        tpr: Fraction of OOD images to find, above 0 up to 1.

    Returns:
        A value between 0 and 1, less being better.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    tpr = _check_fraction(tpr, "tpr", zero=False, one=True)
    return _fpr_at_tpr(*_score_rows(in_scores, out_scores), tpr=tpr)


# --- Intervals -----------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A metric and its confidence interval."""

    estimate: float
    low: float
    high: float


# The metrics that can be resampled without checking and binning the arrays again: the function
# that makes their rows, and the one that reduces these.
_RESAMPLED: dict[Callable[..., float], tuple[Callable[..., Any], Callable[..., float]]] = {
    accuracy: (_accuracy_rows, _mean),
    nll: (_nll_rows, _mean),
    brier: (_brier_rows, _mean),
    ece: (_ece_rows, _ece),
    ece_equal_mass: (_confidence_rows, _ece_equal_mass),
    classwise_ece: (_classwise_ece_rows, _classwise_ece),
    mce: (_ece_rows, _mce),
    aurc: (_risk_rows, _aurc),
    e_aurc: (_risk_rows, _e_aurc),
    auroc: (_score_rows, _auroc),
    aupr_out: (_score_rows, _aupr_out),
    aupr_in: (_score_rows, _aupr_in),
    fpr_at_tpr: (_score_rows, _fpr_at_tpr),
}
_TWO_SETS = (auroc, aupr_out, aupr_in, fpr_at_tpr)
# Sums of absolute deviations: noise adds to them and never cancels.
_BIASED = (ece, ece_equal_mass, classwise_ece, mce)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric's confidence interval over images: the percentile bootstrap.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3: images are drawn with
    replacement, all arrays of a group alike. It says how the metric varies with the test images,
    not with the training seed. Its ends are values that occurred, so an infinite NLL stays one.

    Resampling adds noise, and noise adds to a calibration error, so that plain percentiles of
    `ece`, `ece_equal_mass`, `classwise_ece` and `mce` can all lie above the estimate. Theirs are
    shifted by the bootstrap's estimate of that bias (section 10.2), the mean of the resamples less
    the estimate, and kept within 0 and 1. The estimate's own bias, the same in kind, remains.

    The metrics of this module take milliseconds a resample or less. Any other function works too,
    for example the difference of two models on the same images.

    Args:
        metric: A function of the arrays that returns a number.
        *arrays: Its arguments, each with images first.
        groups: The set of images that each array belongs to; arrays of different sets are resampled
            independently. None: one set, except for the OOD metrics, whose two arrays are two.
        num_resamples: How often the images are drawn.
        level: Confidence level.
        seed: Seed of the draws; the same seed draws the same images for every metric.

    Returns:
        The metric of the arrays as given, and both ends of its interval.

    Raises:
        MetricsError: Arrays of a group differ in length, or the metric refuses them or gives NaN.
    """
    num_resamples = _check_count(num_resamples, "num_resamples")
    level = _check_fraction(level, "level", zero=False, one=False)
    if not arrays:
        raise MetricsError("bootstrap_interval got no arrays to resample, expected at least one.")
    named = metric.func if isinstance(metric, partial) else metric
    if groups is None:
        groups = range(len(arrays)) if named in _TWO_SETS else [0] * len(arrays)
    if len(groups) != len(arrays):
        raise MetricsError(f"groups has {len(groups)} entries for {len(arrays)} arrays.")

    make_rows, reduce = _RESAMPLED.get(metric, (lambda *given: given, metric))
    data = [np.asarray(array) for array in arrays]
    num_images: dict[int, int] = {}
    for array, group in zip(data, groups, strict=True):
        if array.ndim == 0 or len(array) == 0:
            raise MetricsError(f"an array has shape {array.shape}, expected images along axis 0.")
        if num_images.setdefault(group, len(array)) != len(array):
            raise MetricsError(
                f"arrays of one group have {num_images[group]} and {len(array)} images, expected "
                "equally many. Give groups, for example (0, 1), for separate sets of images."
            )
    estimate = float(metric(*data))
    rows = make_rows(*data)
    if len(num_images) > 1 and len(rows) != len(arrays):
        raise MetricsError(f"groups is {tuple(groups)}, expected one set of images for {named}.")
    # One set of images may have any number of rows; of several sets each array is one row.
    row_groups = list(groups) if len(num_images) > 1 else [groups[0]] * len(rows)

    rng = np.random.default_rng(seed)
    values = np.empty(num_resamples)
    for resample in range(num_resamples):
        picked = {group: rng.integers(count, size=count) for group, count in num_images.items()}
        values[resample] = reduce(
            *(row[picked[group]] for row, group in zip(rows, row_groups, strict=True))
        )
    if np.isnan(values).any() or math.isnan(estimate):
        raise MetricsError(f"{named} gave NaN on the images or on resamples of them.")
    tail = (1.0 - level) / 2.0
    # No interpolation: between a finite value and infinity there is none.
    low = float(np.quantile(values, tail, method="lower"))
    high = float(np.quantile(values, 1.0 - tail, method="higher"))
    if named in _BIASED:
        bias = float(values.mean()) - estimate
        low, high = max(0.0, low - bias), min(1.0, high - bias)
    return Interval(estimate, low, high)


# --- All at once ---------------------------------------------------------------------------------


def summary(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    expected_entropy: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Every metric of one labelled evaluation set.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.

    Returns:
        `accuracy`, `nll` (nats), `brier`, `ece`, `ece_equal_mass`, `classwise_ece`, `mce`, the mean
        over images of `entropy`, `aleatoric` and `epistemic` (nats; the last two NaN, unknown,
        without an expected entropy), `aurc` and `e_aurc`.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    checked, checked_labels = _check(probs, labels)
    scores = uncertainty_scores(checked, expected_entropy)
    aleatoric = epistemic = math.nan
    if expected_entropy is not None:
        aleatoric = _mean(_check_scores(expected_entropy, "expected_entropy", len(checked)))
        epistemic = _mean(scores["mutual_information"])
    return {
        "accuracy": accuracy(checked, checked_labels),
        "nll": nll(checked, checked_labels),
        "brier": brier(checked, checked_labels),
        "ece": ece(checked, checked_labels),
        "ece_equal_mass": ece_equal_mass(checked, checked_labels),
        "classwise_ece": classwise_ece(checked, checked_labels),
        "mce": mce(checked, checked_labels),
        "entropy": _mean(scores["entropy"]),
        "aleatoric": aleatoric,
        "epistemic": epistemic,
        "aurc": aurc(checked, checked_labels),
        "e_aurc": e_aurc(checked, checked_labels),
    }


def ood_summary(
    in_probs: npt.ArrayLike,
    in_expected_entropy: npt.ArrayLike | None,
    out_probs: npt.ArrayLike,
    out_expected_entropy: npt.ArrayLike | None,
) -> dict[str, float]:
    """How well each uncertainty tells an OOD set from the test set.

    Args:
        in_probs: Mean class probabilities of the test set, `(num_in, num_classes)`.
        in_expected_entropy: Mean entropy of the draws in nats, `(num_in,)`.
        out_probs: Mean class probabilities of the OOD set, `(num_out, num_classes)`.
        out_expected_entropy: Mean entropy of the draws in nats, `(num_out,)`.

    Returns:
        `auroc_S`, `aupr_in_S`, `aupr_out_S` and `fpr95_S` for each score S of `max_probability`,
        `entropy` and `mutual_information`; NaN, unknown, for the last without expected entropies.

    Raises:
        MetricsError: The arrays are not what they should be, the sets differ in their number of
            classes, or only one of them has expected entropies.
    """
    in_checked = _check_probs(in_probs, "in_probs")
    out_checked = _check_probs(out_probs, "out_probs")
    if in_checked.shape[1] != out_checked.shape[1]:
        raise MetricsError(
            f"in_probs has {in_checked.shape[1]} classes and out_probs {out_checked.shape[1]}, "
            "expected predictions of one model."
        )
    if (in_expected_entropy is None) != (out_expected_entropy is None):
        raise MetricsError("only one of the two sets has expected entropies: give both or neither.")
    in_scores = uncertainty_scores(in_checked, in_expected_entropy)
    out_scores = uncertainty_scores(out_checked, out_expected_entropy)
    metrics: dict[str, Callable[..., float]] = {
        "auroc": auroc,
        "aupr_in": aupr_in,
        "aupr_out": aupr_out,
        "fpr95": fpr_at_tpr,
    }
    return {
        f"{name}_{score}": (
            metric(in_scores[score], out_scores[score]) if score in in_scores else math.nan
        )
        for name, metric in metrics.items()
        for score in ("max_probability", "entropy", "mutual_information")
    }


# Last, because judging calls what is above.
from bnnlib.metrics.evaluation import (  # noqa: E402
    HOLDOUT,  # noqa: F401
    KINDS,  # noqa: F401
    SCALED,  # noqa: F401
    SMALLEST_PROB,  # noqa: F401
    TEST,  # noqa: F401
    TRAIN,  # noqa: F401
    DrawsCurve,  # noqa: F401
    Evaluation,  # noqa: F401
    Labels,  # noqa: F401
    Prediction,  # noqa: F401
    Predictions,  # noqa: F401
    judge,  # noqa: F401
    log_mean_probs,  # noqa: F401
    set_kind,  # noqa: F401
)
