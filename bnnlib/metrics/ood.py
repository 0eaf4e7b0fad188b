"""How well a score tells images out of distribution (OOD) from the test images."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bnnlib.metrics.checks import Floats, Rows, check_fraction, check_scores


def _score_rows(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    return check_scores(in_scores, "in_scores"), check_scores(out_scores, "out_scores")


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
    tpr = check_fraction(tpr, "tpr", zero=False, one=True)
    return _fpr_at_tpr(*_score_rows(in_scores, out_scores), tpr=tpr)


def _at_least(fraction: float, total: int) -> int:
    """The least number of `total` things, one or more, that is at least this fraction of them."""
    return max(1, math.ceil(fraction * total - 1e-9))  # 0.95 of 100 is 95, whatever the rounding


RESAMPLED: dict[Callable[..., float], Rows] = {
    auroc: (_score_rows, _auroc),
    aupr_out: (_score_rows, _aupr_out),
    aupr_in: (_score_rows, _aupr_in),
    fpr_at_tpr: (_score_rows, _fpr_at_tpr),
}
