"""What other test images might have given: intervals by resampling the images."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bnnlib.errors import MetricsError
from bnnlib.metrics import calibration, ood, scores, selective, smooth
from bnnlib.metrics.checks import Floats, check_count, check_fraction
from bnnlib.metrics.ece_law import ece_interval
from bnnlib.metrics.intervals import Interval

_RESAMPLED = scores.RESAMPLED | selective.RESAMPLED | ood.RESAMPLED
_TWO_SETS = (ood.auroc, ood.aupr_in, ood.aupr_out, ood.fpr_at_tpr)
# Sums of absolute deviations: noise adds to them and never cancels, and resampling adds noise.
_BIASED = (
    calibration.ece,
    calibration.ece_equal_mass,
    calibration.classwise_ece,
    calibration.mce,
    smooth.smooth_ece,
)


def bootstrap_values(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """A metric of images drawn with replacement, once for each resample.

    The same seed draws the same images for every metric and every model, so the values of two
    models can be subtracted: they are paired.

    Args:
        metric: A function of the arrays that returns a number.
        *arrays: Its arguments, each with images first.
        groups: The set of images that each array belongs to; arrays of different sets are resampled
            independently. None: one set, except for the OOD metrics, whose two arrays are two.
        num_resamples: How often the images are drawn.
        seed: Seed of the draws.

    Returns:
        The metric of each resample, float64 `(num_resamples,)`.

    Raises:
        MetricsError: Arrays of a group differ in length, or the metric refuses them or gives NaN,
            or it is a calibration error, which no bootstrap covers.
    """
    num_resamples = check_count(num_resamples, "num_resamples")
    if metric in _BIASED:
        raise MetricsError(
            f"{metric.__name__} is biased upwards, and its bootstrap misses the true error of a "
            "calibrated model in 96 cases of 100. Use ece_interval."
        )
    if not arrays:
        raise MetricsError("the bootstrap got no arrays to resample, expected at least one.")
    if groups is None:
        groups = range(len(arrays)) if metric in _TWO_SETS else [0] * len(arrays)
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
    rows = make_rows(*data)
    if len(num_images) > 1 and len(rows) != len(arrays):
        raise MetricsError(f"groups is {tuple(groups)}, expected one set of images for {metric}.")
    # One set of images may have any number of rows; of several sets each array is one row.
    row_groups = list(groups) if len(num_images) > 1 else [groups[0]] * len(rows)

    rng = np.random.default_rng(seed)
    values = np.empty(num_resamples)
    for resample in range(num_resamples):
        picked = {group: rng.integers(count, size=count) for group, count in num_images.items()}
        values[resample] = reduce(
            *(row[picked[group]] for row, group in zip(rows, row_groups, strict=True))
        )
    if np.isnan(values).any():
        raise MetricsError(f"{metric} gave NaN on resamples of the images.")
    return values


def ece_resampled(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_bins: int = calibration.NUM_BINS,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """The ECE of images drawn with replacement, to see how the ECEs of two models go together.

    Their spread is no interval, since resampling adds noise to the ECE (`bootstrap_values`). But
    with the same seed two models get the same images, and the `correlation` of their values is that
    of their errors, which `difference` takes.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_bins: Number of bins.
        num_resamples: How often the images are drawn.
        seed: Seed of the draws; those of `bootstrap_values`.

    Returns:
        The ECE of each resample, float64 `(num_resamples,)`.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    confidence, correct = calibration.confidence_and_hits(probs, labels)
    bins = calibration.bins_of(confidence, check_count(num_bins, "num_bins"))
    gaps, count = correct - confidence, len(confidence)
    rng = np.random.default_rng(seed)
    values = np.empty(check_count(num_resamples, "num_resamples"))
    for resample in range(len(values)):
        picked = rng.integers(count, size=count)
        values[resample] = np.abs(np.bincount(bins[picked], weights=gaps[picked])).sum() / count
    return values


def correlation(first: Floats, second: Floats) -> float:
    """Pearson's correlation of two models' values over the same resamples; 0 of constant ones."""
    if not (np.ptp(first) > 0.0 and np.ptp(second) > 0.0):
        return 0.0
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


def percentile_interval(estimate: float, values: Floats, level: float = 0.95) -> Interval:
    """The interval that the middle of a metric's resamples spans.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3. The ends are values
    that occurred, so an infinite NLL stays one.

    Args:
        estimate: The metric of the images as they are.
        values: `bootstrap_values`, or the difference of two models' values.
        level: Confidence level.

    Returns:
        The estimate and both ends.
    """
    tail = (1.0 - check_fraction(level, "level", zero=False, one=False)) / 2.0
    # No interpolation: between a finite value and infinity there is none.
    low = float(np.quantile(values, tail, method="lower"))
    high = float(np.quantile(values, 1.0 - tail, method="higher"))
    return Interval(estimate, low, high)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric's confidence interval over images: the percentile bootstrap.

    It says how the metric varies with the test images, not with the training seed. The metrics of
    this room take milliseconds a resample or less. Any other function works too, for example the
    difference of two models on the same images.

    Args:
        metric: A function of the arrays that returns a number.
        *arrays: Its arguments, each with images first.
        groups: As of `bootstrap_values`.
        num_resamples: How often the images are drawn.
        level: Confidence level.
        seed: Seed of the draws.

    Returns:
        The metric of the arrays as given, and both ends of its interval.

    Raises:
        MetricsError: As of `bootstrap_values`.
    """
    level = check_fraction(level, "level", zero=False, one=False)
    values = bootstrap_values(
        metric, *arrays, groups=groups, num_resamples=num_resamples, seed=seed
    )
    estimate = float(metric(*(np.asarray(array) for array in arrays)))
    if math.isnan(estimate):
        raise MetricsError(f"{metric} gave NaN on the images.")
    return percentile_interval(estimate, values, level)


def interval(
    metric: Callable[..., float],
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """A metric's confidence interval over images, by the way that covers it.

    The ECE takes `ece_interval`, whose estimate is the debiased one; the other metrics take the
    bootstrap.

    Args:
        metric: `accuracy`, `nll`, `brier`, `ece`, `aurc` or any other function of the two arrays.
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        num_resamples: How often the bootstrap draws the images.
        level: Confidence level.

    Returns:
        The estimate and both ends.

    Raises:
        MetricsError: As of `bootstrap_values` and `ece_interval`.
    """
    if metric is calibration.ece:
        return ece_interval(probs, labels, level=level)
    return bootstrap_interval(metric, probs, labels, num_resamples=num_resamples, level=level)
