"""Accuracy and proper scores.

Here and in the other rooms a metric is a reduction over rows of per-image values: `_x_rows` makes
the rows once, `_x` reduces them. `RESAMPLED` names both to the bootstrap, which resamples the rows
and need not check and bin the arrays again.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bnnlib.metrics.checks import Floats, Integers, Rows, check_labelled


def _mean(values: Floats) -> float:
    return float(values.mean())


def hits(probs: Floats, labels: Integers) -> Floats:
    """1 where the prediction is the label, else 0, `(num_images,)`."""
    return (probs.argmax(axis=1) == labels).astype(np.float64)


def _accuracy_rows(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats]:
    return (hits(*check_labelled(probs, labels)),)


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
    probs, labels = check_labelled(probs, labels)
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
    probs, labels = check_labelled(probs, labels)
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


RESAMPLED: dict[Callable[..., float], Rows] = {
    accuracy: (_accuracy_rows, _mean),
    nll: (_nll_rows, _mean),
    brier: (_brier_rows, _mean),
}
