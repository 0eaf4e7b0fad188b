"""The calibration error without bins: residuals smoothed at a width that follows from the data."""

import numpy as np
import numpy.typing as npt

from bnnlib.metrics.calibration import confidence_and_hits
from bnnlib.metrics.checks import Floats

# Cells on which the residuals lie. Smoothing over less than a few of them shows the cells, so that
# an error below 1e-4 is not resolved; one of a million images is noise of 1e-3.
CELLS = 2**14


def smooth_ece(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The smooth calibration error of the confidence, smECE.

    Błasiok & Nakkiran, Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing (2023).
    With confidence f, outcome y (1 if right) and K the Gaussian kernel of width σ on [0, 1], whose
    tails are reflected at both ends,

        smECE_σ = ∫ |E[K_σ(t, f) (y − f)]| dt over t in [0, 1],

    which falls with σ; smECE is its value at the one σ that it equals, smECE_σ = σ. It has no bins
    to choose and does not jump as predictions move. As `ece` it is biased upwards: a calibrated
    model has one above zero.

    The residuals lie on `CELLS` cells, where the reflected kernel multiplies the k-th cosine by
    exp(−(πkσ)² / 2). The authors' package relplot searches σ in 2^10 steps down to 0.001; this one
    solves for it, so that the two differ by as much.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.

    Returns:
        A value between 0 and 1, less being better.

    Raises:
        MetricsError: The arrays are not probabilities and labels of the same images.
    """
    from scipy import fft, optimize  # they take long to import; see temperature

    confidence, correct = confidence_and_hits(probs, labels)
    cosines = fft.dct(_on_cells(confidence, correct - confidence))
    exponents = (np.pi * np.arange(CELLS)) ** 2 / 2.0

    def excess(width: float) -> float:
        smoothed = fft.idct(cosines * np.exp(-exponents * width**2))
        return float(np.abs(smoothed).sum()) - width

    # At 0 the excess is an error, so not negative; at 2 it is, for no error is greater than 1.
    return float(optimize.brentq(excess, 0.0, 2.0, xtol=1e-13, rtol=1e-12))


def _on_cells(confidence: Floats, residuals: Floats) -> Floats:
    """The mean residual by cell, `(CELLS,)`, each shared by the two cells nearest to it."""
    place = np.clip(confidence * CELLS - 0.5, 0.0, CELLS - 1.0)
    lower = np.minimum(place.astype(np.int64), CELLS - 2)
    upper_share = place - lower
    cells = np.bincount(lower, residuals * (1.0 - upper_share), minlength=CELLS)
    cells += np.bincount(lower + 1, residuals * upper_share, minlength=CELLS)
    return cells / len(residuals)
