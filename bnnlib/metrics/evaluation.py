"""Predictions, and what they are judged on: every labelled set, shifts, and images from elsewhere.

One function, :func:`judge`, judges all predictions: of networks, ensembles and a user's own model.
A temperature is fitted on the images held out, never on the test set, for deterministic and
Bayesian networks alike, so that the comparison after it is fair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnnlib.metrics.calibration import ece
from bnnlib.metrics.scores import brier, nll
from bnnlib.metrics.summaries import ood_summary, summary
from bnnlib.metrics.temperature import apply_temperature, fit_temperature

TEST, HOLDOUT, TRAIN = "test", "holdout", "train"
# The test images as the shifted and foreign ones are predicted, where that is not as `test` is: as
# many images and as many draws, so that only what is shifted or foreign differs.
REFERENCE = "reference"
KINDS = (TEST, HOLDOUT, TRAIN, REFERENCE, "shift", "ood")
# What temperature scaling changes; accuracy it does not.
SCALED: dict[str, Callable[..., float]] = {
    "nll": nll,
    "brier": brier,
    "ece": ece,
}
# Float32 softmax gives 0 below this. Its logarithm would make every temperature's NLL infinite for
# one image that is confidently wrong.
SMALLEST_PROB = float(np.finfo(np.float32).tiny)

Labels = Any  # int64 (num_images,), or None for images out of distribution
Predictions = Mapping[str, tuple["Prediction", Labels]]


@dataclasses.dataclass(frozen=True)
class DrawsCurve:
    """A prediction as it stood after growing numbers of draws.

    Attributes:
        draws: int64 ``(num_counts,)``, growing; the last is all draws.
        mean_probs: float32 ``(num_counts, num_images, num_classes)``, means over the first draws.
        expected_entropy: float32 ``(num_counts, num_images)``, nats.
    """

    draws: np.ndarray
    mean_probs: np.ndarray
    expected_entropy: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Predictive distribution of a set of images.

    Attributes:
        mean_probs: float32 ``(num_images, num_classes)``, the mean over draws.
        expected_entropy: float32 ``(num_images,)``, nats; the mean over draws of each draw's
            entropy. The entropy of `mean_probs` less this is the mutual information between label
            and weights (Depeweg et al. 2018, equation 2).
        draws_curve: the same after fewer draws, where it was asked for.
    """

    mean_probs: np.ndarray
    expected_entropy: np.ndarray
    draws_curve: DrawsCurve | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's predictions and how good they are.

    Attributes:
        predictions: by set, the prediction and the labels ``(num_images,)``; None for a set out of
            distribution.
        rows: one a set: ``set``, ``kind`` (one of :data:`KINDS`), ``num_images``; for a labelled
            set the keys of :func:`bnnlib.metrics.summary` and, where there is a temperature,
            ``nll_scaled``, ``brier_scaled`` and ``ece_scaled``; for one out of distribution the
            keys of :func:`bnnlib.metrics.ood_summary` against ``reference``, else ``test``.
        metrics: of the test set, with ``temperature`` and the scaled ones (None without images held
            out), and ``evaluation_seconds``.
    """

    predictions: Predictions
    rows: list[dict[str, Any]]
    metrics: dict[str, Any]


def judge(predictions: Predictions) -> Evaluation:
    """Scores predictions, of a network or of an ensemble.

    Args:
        predictions: by set; ``test`` must be among them. The temperature is fitted on ``holdout``
            where there is one.

    Returns:
        Predictions, rows and metrics, without ``evaluation_seconds``.

    Raises:
        MetricsError: predictions are no probabilities, or labels are not of the same images.
    """
    temperature = None
    if HOLDOUT in predictions:
        held_out, labels = predictions[HOLDOUT]
        temperature = fit_temperature(log_mean_probs(held_out.mean_probs), labels)
    rows = [
        {"set": name, "kind": set_kind(name, labels), "num_images": len(prediction.mean_probs)}
        | (
            _outside(predictions.get(REFERENCE, predictions[TEST])[0], prediction)
            if labels is None
            else _labelled(prediction, labels, temperature)
        )
        for name, (prediction, labels) in predictions.items()
    ]
    scaled = {"temperature": temperature, **{f"{name}_scaled": None for name in SCALED}}
    of_test = next(row for row in rows if row["set"] == TEST)
    values = {key: value for key, value in of_test.items() if key not in ("set", "kind")}
    del values["num_images"]
    return Evaluation(predictions, rows, scaled | values)


def set_kind(name: str, labels: Labels) -> str:
    """The kind of a set, one of :data:`KINDS`."""
    if labels is None:
        return "ood"
    return name if name in (TEST, HOLDOUT, TRAIN, REFERENCE) else "shift"


def log_mean_probs(mean_probs: np.ndarray) -> np.ndarray:
    """Logarithms of the mean probabilities, for temperatures; none is below :data:`SMALLEST_PROB`.

    Returns:
        float64 ``(num_images, num_classes)``.
    """
    return np.log(np.maximum(mean_probs.astype(np.float64), SMALLEST_PROB))


def _labelled(
    prediction: Prediction, labels: np.ndarray, temperature: float | None
) -> dict[str, float]:
    values = summary(prediction.mean_probs, labels, prediction.expected_entropy)
    if temperature is not None:
        probs = apply_temperature(log_mean_probs(prediction.mean_probs), temperature)
        values |= {f"{name}_scaled": metric(probs, labels) for name, metric in SCALED.items()}
    return values


def _outside(test: Prediction, outside: Prediction) -> dict[str, float]:
    return ood_summary(
        test.mean_probs, test.expected_entropy, outside.mean_probs, outside.expected_entropy
    )
