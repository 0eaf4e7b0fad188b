"""How well a score tells images out of distribution (OOD) from the test images."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.metrics.checks import Floats, Rows, check_fraction, check_scores
from bnnlib.metrics.intervals import Interval


def _score_rows(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    return check_scores(in_scores, "in_scores"), check_scores(out_scores, "out_scores")


def _labelled(in_scores: Floats, out_scores: Floats) -> tuple[Floats, Floats]:
    """Both sets' scores in one array, after 1 for images that are OOD and 0 for others."""
    is_out = np.concatenate([np.zeros(len(in_scores)), np.ones(len(out_scores))])
    return is_out, np.concatenate([in_scores, out_scores])


def auroc(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The probability that an OOD image scores above an in-distribution one, ties counting half.

    The area under the ROC curve (Hanley & McNeil, Radiology 143, 1982; computed by scikit-learn),
    used for OOD detection by Hendrycks & Gimpel (2017).

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; one half for a score that says nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    from sklearn.metrics import roc_auc_score  # as in _average_precision

    return float(roc_auc_score(*_labelled(*_score_rows(in_scores, out_scores))))


class AurocParts(NamedTuple):
    """What each image adds to an AUROC, which is the mean of either array.

    Models that judged the same images have parts that can be averaged and subtracted.
    """

    of_in: Floats
    """The fraction of OOD images that score above each in-distribution one, `(num_in,)`."""
    of_out: Floats
    """The fraction of in-distribution images that score below each OOD one, `(num_out,)`."""

    def interval(self, level: float = 0.95) -> Interval:
        """The mean and its interval over both sets of images.

        DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988), eq. 4: the variances of the parts,
        each by its number of images.
        """
        level = check_fraction(level, "level", zero=False, one=False)
        mean = float(self.of_out.mean())
        variance = sum(float(part.var(ddof=1)) / len(part) for part in self if len(part) > 1)
        half = float(special.ndtri(0.5 + level / 2.0)) * math.sqrt(variance)
        least = 0.0 if min(float(part.min()) for part in self) >= 0.0 else -1.0  # of a difference
        return Interval(mean, max(least, mean - half), min(1.0, mean + half))


def auroc_parts(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> AurocParts:
    """What each image adds to `auroc`, ties counting half.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        The parts of both sets.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    inside, outside = _score_rows(in_scores, out_scores)

    def share_below(values: Floats, rivals: Floats) -> Floats:
        ranked = np.sort(rivals)
        below = np.searchsorted(ranked, values, side="left")
        return (below + np.searchsorted(ranked, values, side="right")) / (2.0 * len(ranked))

    return AurocParts(1.0 - share_below(inside, outside), share_below(outside, inside))


def _average_precision(is_positive: Floats, scores: Floats) -> float:
    # Here, since it takes a second: a table of runs needs no AUROC, and is there before.
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_positive, scores))


def aupr_out(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The area under the precision-recall curve with OOD images as positives.

    Average precision: precision summed over the steps of recall, without interpolation (by
    scikit-learn's `average_precision_score`). It depends on the sets' sizes.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; the fraction of OOD images for a score that says nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    return _average_precision(*_labelled(*_score_rows(in_scores, out_scores)))


def aupr_in(in_scores: npt.ArrayLike, out_scores: npt.ArrayLike) -> float:
    """The area under the precision-recall curve with in-distribution images as positives.

    This is `aupr_out` with the scores' signs turned.

    Args:
        in_scores: Scores of in-distribution images, `(num_in,)`.
        out_scores: Scores of OOD images, greater for more OOD, `(num_out,)`.

    Returns:
        A value between 0 and 1; the fraction of in-distribution images for a score that says
        nothing.

    Raises:
        MetricsError: A score is not finite, or a set is empty.
    """
    is_out, scores = _labelled(*_score_rows(in_scores, out_scores))
    return _average_precision(1.0 - is_out, -scores)


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


RESAMPLED: dict[Callable[..., float], Rows] = {fpr_at_tpr: (_score_rows, _fpr_at_tpr)}
