"""Temperature scaling: one number that makes a network less or more sure of every prediction."""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import Floats, Integers, check_fraction, check_labels, real_array
from bnnlib.metrics.intervals import Interval

# Temperatures that the fit may return. Beyond them probabilities are one-hot or uniform anyway.
TEMPERATURE_RANGE = (1e-2, 1e2)


def check_log_probs(log_probs: npt.ArrayLike) -> Floats:
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
    array = check_log_probs(log_probs)
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
    array, labels = check_possible(log_probs, labels)
    return _least(array, labels)


def temperature_interval(
    log_probs: npt.ArrayLike, labels: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """The fitted temperature and its interval over the images that it was fitted on.

    The temperatures whose likelihood ratio to the fitted one is no surprise. The ratio is scaled by
    the score's variance over its curvature, since probabilities that are wrong in more than their
    temperature scatter more, or less, than their likelihood says (Kent, Biometrika 69, 1982). Where
    the NLL hardly bends, as when all images are predicted rightly, the ratio is plain.

    Args:
        log_probs: Log-probabilities or logits, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        level: Confidence level.

    Returns:
        `fit_temperature` and both ends, inside `TEMPERATURE_RANGE`. A network is too sure where the
        lower end is above 1, and too modest where the upper end is below 1.

    Raises:
        MetricsError: As of `fit_temperature`.
    """
    from scipy import optimize  # as in _least

    level = check_fraction(level, "level", zero=False, one=False)
    array, labels = check_possible(log_probs, labels)
    best = _least(array, labels)
    least = _loss(array, labels, best)
    low, high = TEMPERATURE_RANGE
    scale = 1.0
    probs = special.softmax(array / best, axis=1)
    finite = np.where(np.isneginf(array), 0.0, array)  # a class that is impossible weighs 0
    means = (probs * finite).sum(axis=1)
    score = means - finite[np.arange(len(labels)), labels]
    curvature = (probs * (finite - means[:, np.newaxis]) ** 2).sum(axis=1)
    # The curvature is in 1 / T. Over log T an information below 1 leaves no normal law to scale.
    if low < best < high and curvature.sum() / best**2 > 1.0:
        scale = float((score**2).mean() / curvature.mean())
    limit = scale * float(special.chdtri(1, 1.0 - level)) / (2.0 * len(labels))

    def excess(log_temperature: float) -> float:
        return _loss(array, labels, math.exp(log_temperature)) - least - limit

    def end(outermost: float) -> float:
        if excess(math.log(outermost)) <= 0.0 or outermost == best:
            return outermost
        return math.exp(optimize.brentq(excess, math.log(outermost), math.log(best), xtol=1e-6))

    return Interval(best, min(end(low), best), max(end(high), best))


def check_possible(log_probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Checks log-probabilities and labels, and refuses a label of probability 0."""
    array = check_log_probs(log_probs)
    checked = check_labels(labels, *array.shape)
    impossible = np.isneginf(array[np.arange(len(checked)), checked])
    if impossible.any():
        raise MetricsError(
            f"log_probs is -inf for the label of {int(impossible.sum())} images, the first in row "
            f"{int(np.argmax(impossible))}: the NLL is infinite at every temperature. Compute "
            "log-probabilities from logits, not as the logarithm of rounded probabilities."
        )
    return array, checked


def _loss(array: Floats, labels: Integers, temperature: float) -> float:
    scaled = array / temperature
    return float(
        (special.logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean()
    )


def _least(array: Floats, labels: Integers) -> float:
    """The temperature of the least NLL."""
    from scipy import optimize  # it takes half of the time in which a table of runs appears

    def loss(log_temperature: float) -> float:
        return _loss(array, labels, math.exp(log_temperature))

    # The NLL is convex in 1 / T, hence has one valley in log T, where the range is even-handed.
    low, high = math.log(TEMPERATURE_RANGE[0]), math.log(TEMPERATURE_RANGE[1])
    minimum = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    best = min([float(minimum.x), low, high], key=loss)
    # Where the NLL is flat, as for uniform rows, rounding alone would pick a temperature.
    return 1.0 if loss(0.0) <= loss(best) + 1e-12 else math.exp(best)
