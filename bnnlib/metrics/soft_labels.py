"""Labels that annotators disagree about: scores against the distribution of their votes.

A soft label is a distribution over classes, such as the share of annotators that chose each one
(Peterson et al., Human Uncertainty Makes Classification More Robust, 2019: CIFAR-10H). Scores of
hard labels take its modal class.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import Floats, Integers, check_probs

# nats. Entropies that are all the same but for float32's rounding have no correlation.
SPREAD_RESOLUTION = 1e-6


def modal_labels(soft_labels: npt.ArrayLike) -> Integers:
    """The class that most annotators chose, the lowest of several; int64 `(num_images,)`.

    Args:
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Raises:
        MetricsError: The rows are no distributions.
    """
    return check_probs(soft_labels, "soft_labels").argmax(axis=1).astype(np.int64)


def _checked(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    checked, soft = check_probs(probs), check_probs(soft_labels, "soft_labels")
    if checked.shape != soft.shape:
        raise MetricsError(
            f"soft_labels has shape {soft.shape}, expected that of probs, {checked.shape}: a "
            "distribution over the same classes for each image."
        )
    return checked, soft


def cross_entropy(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> float:
    """The mean of −Σ_c q_c log p_c over images, with soft label q and prediction p.

    The expected `nll` of the label of an annotator taken at random. Its least value is the mean
    entropy of the soft labels, where the prediction is the soft label.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Returns:
        Nats an image, from 0 to infinity; infinity where a class that someone chose has probability
        zero.

    Raises:
        MetricsError: The arrays are not distributions for the same images.
    """
    checked, soft = _checked(probs, soft_labels)
    return float(-special.xlogy(soft, checked).sum(axis=1).mean())


def soft_brier(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> float:
    """The squared distance of prediction and soft label, Σ_c (p_c − q_c)², averaged over images.

    Of one-hot labels it is `brier`.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Returns:
        A value between 0 and 2.

    Raises:
        MetricsError: The arrays are not distributions for the same images.
    """
    checked, soft = _checked(probs, soft_labels)
    return float(((checked - soft) ** 2).sum(axis=1).mean())


def total_variation(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> float:
    """The total variation distance ½ Σ_c |p_c − q_c|, averaged over images.

    Baan et al., Stop Measuring Calibration When Humans Disagree (2022), their DistCE.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Returns:
        A value between 0 and 1.

    Raises:
        MetricsError: The arrays are not distributions for the same images.
    """
    checked, soft = _checked(probs, soft_labels)
    return float(np.abs(checked - soft).sum(axis=1).mean() / 2.0)


def entropy_correlation(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> float:
    """Whether a network is unsure where annotators are: Pearson's correlation of both entropies.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Returns:
        A value between −1 and 1; NaN, unknown, where either entropy is the same for all images.

    Raises:
        MetricsError: The arrays are not distributions for the same images.
    """
    entropies = [special.entr(rows).sum(axis=1) for rows in _checked(probs, soft_labels)]
    if min(float(np.ptp(one)) for one in entropies) <= SPREAD_RESOLUTION:
        return math.nan
    return float(np.corrcoef(*entropies)[0, 1])


def soft_summary(probs: npt.ArrayLike, soft_labels: npt.ArrayLike) -> dict[str, float]:
    """Every score of one evaluation set against soft labels.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        soft_labels: Distributions over classes, `(num_images, num_classes)`.

    Returns:
        `cross_entropy` (nats), `soft_brier`, `total_variation` and `entropy_correlation`.

    Raises:
        MetricsError: The arrays are not distributions for the same images.
    """
    return {
        "cross_entropy": cross_entropy(probs, soft_labels),
        "soft_brier": soft_brier(probs, soft_labels),
        "total_variation": total_variation(probs, soft_labels),
        "entropy_correlation": entropy_correlation(probs, soft_labels),
    }
