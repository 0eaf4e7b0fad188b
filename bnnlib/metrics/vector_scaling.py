"""Vector scaling: a scale and a bias for each class, where a temperature is one number for all."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import Floats, check_scores
from bnnlib.metrics.temperature import (
    TEMPERATURE_RANGE,
    check_log_probs,
    check_possible,
    fit_temperature,
)

# nats. A class without a held-out image is best denied altogether: its bias would have no end.
LARGEST_BIAS = 10.0


class VectorScaling(NamedTuple):
    """What vector scaling does to log-probabilities: `scales * log_probs + biases`."""

    scales: Floats
    """By class, `(num_classes,)`; all 1 / T of a temperature T."""
    biases: Floats
    """By class in nats, `(num_classes,)`, their mean 0; all 0 of a temperature."""


def apply_vector_scaling(log_probs: npt.ArrayLike, scaling: VectorScaling) -> Floats:
    """Probabilities after vector scaling: softmax of `scales * log_probs + biases`.

    Args:
        log_probs: Log-probabilities or logits, `(num_images, num_classes)`.
        scaling: Of `fit_vector_scaling`.

    Returns:
        Probabilities, float64 `(num_images, num_classes)`. The most probable class may change.

    Raises:
        MetricsError: The array is not log_probs, or of another number of classes, or a scale is not
            positive.
    """
    array = check_log_probs(log_probs)
    scales = check_scores(scaling.scales, "scales", array.shape[1])
    biases = check_scores(scaling.biases, "biases", array.shape[1])
    if scales.min() <= 0.0:
        raise MetricsError(f"scales has the value {scales.min():g}, expected positive ones.")
    return special.softmax(array * scales + biases, axis=1)


def fit_vector_scaling(log_probs: npt.ArrayLike, labels: npt.ArrayLike) -> VectorScaling:
    """The scales and biases whose scaled probabilities have the least NLL on these images.

    Guo et al. (2017), section 4.2. The NLL is convex in them; the search begins at the fitted
    temperature and so ends at no greater NLL. It has two numbers a class to fit where a temperature
    is one, so of few images it learns their noise: judge it on others.

    Args:
        log_probs: Log-probabilities or logits, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        Scales inside the inverse of `TEMPERATURE_RANGE`, and biases within `LARGEST_BIAS` of one
        another's middle: ends that the NLL only falls towards where images of a class are missing,
        or all are predicted rightly.

    Raises:
        MetricsError: As of `fit_temperature`.
    """
    from scipy import optimize  # as in temperature

    array, labels = check_possible(log_probs, labels)
    num_images, num_classes = array.shape
    true = np.eye(num_classes)[labels]
    finite = np.where(np.isneginf(array), 0.0, array)  # a class that is impossible weighs 0

    def loss_and_slopes(values: Floats) -> tuple[float, Floats]:
        scaled = array * values[:num_classes] + values[num_classes:]
        log_sums = special.logsumexp(scaled, axis=1)
        errors = np.exp(scaled - log_sums[:, np.newaxis]) - true
        loss = float((log_sums - scaled[np.arange(num_images), labels]).mean())
        slopes = np.concatenate([(errors * finite).mean(axis=0), errors.mean(axis=0)])
        return loss, slopes

    start = np.concatenate(
        [np.full(num_classes, 1.0 / fit_temperature(array, labels)), np.zeros(num_classes)]
    )
    low, high = TEMPERATURE_RANGE
    bounds = [(1.0 / high, 1.0 / low)] * num_classes + [(-LARGEST_BIAS, LARGEST_BIAS)] * num_classes
    found = optimize.minimize(
        loss_and_slopes,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-8},
    )
    best = found.x if found.fun < loss_and_slopes(start)[0] else start
    scales, biases = np.split(best, 2)
    return VectorScaling(scales, biases - biases.mean())
