"""What the tables share: the scores, and predictions in the order of their models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.errors import RecordError
from bnnlib.metrics import Interval
from bnnlib.names import in_order

SCORES: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy,
    "nll": metrics.nll,
    "brier": metrics.brier,
    "ece": metrics.ece,
    "aurc": metrics.aurc,
}


def labels_of(one: Predicted) -> np.ndarray:
    """The labels of the images predicted, ``(num_images,)``.

    Raises:
        RecordError: there are none.
    """
    if one.labels is None:
        raise RecordError(f"{one.model}, {one.run}: no labels; give those of the images predicted")
    return one.labels


def correct(one: Predicted) -> np.ndarray:
    """1.0 for each image that is classified rightly, else 0.0; ``(num_images,)``."""
    return (one.mean_probs.argmax(axis=1) == labels_of(one)).astype(float)


def nll_by_image(one: Predicted) -> np.ndarray:
    """The negative log-likelihood of each image's label, nats; ``(num_images,)``."""
    labels = labels_of(one)
    with np.errstate(divide="ignore"):  # a label of probability 0 has an infinite score
        return -np.log(one.mean_probs[np.arange(len(labels)), labels].astype(np.float64))


def unknown(estimate: float) -> Interval:
    """An estimate whose interval is unknown."""
    return Interval(estimate, math.nan, math.nan)


# Student's t of two runs has one degree of freedom: its interval, 12.7 standard errors to a side,
# holds nearly everything, and its width is as much a matter of luck as the runs' distance is.
FEWEST_RUNS = 3


def over_runs(intervals: Sequence[Interval]) -> Interval:
    """The mean over a model's runs and its 95 % interval over images and seeds.

    As :func:`bnnlib.metrics.over_runs`, but of two runs the interval is unknown: an interval over
    seeds takes :data:`FEWEST_RUNS`.
    """
    found = metrics.over_runs(intervals)
    return unknown(found.estimate) if 1 < len(intervals) < FEWEST_RUNS else found


def of_mean(values: np.ndarray) -> Interval:
    """The mean over images ``(num_images,)`` and its 95 % interval, by its standard error."""
    return of_ratio(values, np.ones(len(values)))


def of_ratio(parts: np.ndarray, wholes: np.ndarray) -> Interval:
    """The share that parts have of their wholes, all images together, and its 95 % interval.

    Cochran, Sampling Techniques (1977), chapter 6: the variance of a ratio of means. Of one image
    the interval is unknown.

    Args:
        parts: ``(num_images,)``.
        wholes: ``(num_images,)``.
    """
    total, count = float(wholes.sum()), len(parts)
    if total <= 0.0:
        return unknown(math.nan)
    ratio = float(parts.sum()) / total
    if count < 2:
        return unknown(ratio)
    squares = float(((parts - ratio * wholes) ** 2).sum())
    half = 1.96 * math.sqrt(squares * count / (count - 1)) / total
    return Interval(ratio, ratio - half, ratio + half)


def in_model_order(predictions: Sequence[Predicted]) -> list[Predicted]:
    """The predictions in the study's order of models."""
    order = in_order(one.model for one in predictions)
    return sorted(predictions, key=lambda one: order.index(one.model))


def by_model(predictions: Sequence[Predicted]) -> dict[str, list[Predicted]]:
    """The predictions of each model's runs, in the study's order of models."""
    groups: dict[str, list[Predicted]] = {}
    for one in in_model_order(predictions):
        groups.setdefault(one.model, []).append(one)
    return groups
