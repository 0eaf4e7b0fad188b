"""Selective prediction: the error that remains when the least certain images are handed back."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnnlib.metrics.calibration import confidence_and_hits
from bnnlib.metrics.checks import Floats, Rows, check_fraction, check_scores


class RiskCoverage(NamedTuple):
    """The error among the images that are kept, against the fraction kept."""

    coverage: Floats
    """1/num_images, 2/num_images, …, 1."""
    risk: Floats
    """Fraction predicted wrongly among the most certain images up to that coverage."""


def _risk_rows(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    confidence, correct = confidence_and_hits(probs, labels)
    if uncertainty is None:
        return -confidence, 1.0 - correct
    return check_scores(uncertainty, "uncertainty", len(correct)), 1.0 - correct


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


def _augrc(uncertainty: Floats, errors: Floats) -> float:
    joint = _risk(uncertainty, errors) * np.arange(1, len(errors) + 1) / len(errors)
    return float((joint.sum() - joint[-1] / 2.0) / len(errors))  # by trapezoids from (0, 0)


def augrc(
    probs: npt.ArrayLike, labels: npt.ArrayLike, uncertainty: npt.ArrayLike | None = None
) -> float:
    """The area under the generalized risk-coverage curve: how many errors pass unnoticed.

    Traub et al., Overcoming Common Flaws in the Evaluation of Selective Classification Systems
    (2024). The generalized risk at a coverage is the fraction of all images that are kept and
    wrong, so that a wrong image counts alike wherever it is ranked; the risk of `aurc` divides by
    the images kept, and the first few decide. Their identity

        AUGRC = (1 − AUROC_f) · acc · (1 − acc) + (1 − acc)² / 2,

    with AUROC_f that of the uncertainty for the errors, holds exactly. torch-uncertainty takes the
    area from the coverage 1 / num_images on and divides it by 1 − 1 / num_images.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        A value between 0 and 1/2, less being better; half the error rate for a random ranking.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    return _augrc(*_risk_rows(probs, labels, uncertainty))


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
    risk = check_fraction(risk, "risk", zero=True, one=True)
    curve = risk_coverage(probs, labels, uncertainty)
    allowed = np.flatnonzero(curve.risk <= risk + 1e-12)  # 3 of 30 is a risk of 0.1
    return float(curve.coverage[allowed[-1]]) if len(allowed) else 0.0


def risk_at_coverage(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    coverage: float,
    uncertainty: npt.ArrayLike | None = None,
) -> float:
    """The risk where at least this fraction of the images is kept, the most certain ones.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        coverage: Fraction of images to keep, above 0 up to 1.
        uncertainty: What to rank by, greater for less certain, `(num_images,)`; one minus the
            confidence if None.

    Returns:
        The fraction of the images kept that are predicted wrongly, between 0 and 1.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    coverage = check_fraction(coverage, "coverage", zero=False, one=True)
    risk = risk_coverage(probs, labels, uncertainty).risk
    return float(risk[max(1, math.ceil(coverage * len(risk) - 1e-9)) - 1])  # 0.8 of 10 is 8


RESAMPLED: dict[Callable[..., float], Rows] = {
    aurc: (_risk_rows, _aurc),
    e_aurc: (_risk_rows, _e_aurc),
    augrc: (_risk_rows, _augrc),
}
