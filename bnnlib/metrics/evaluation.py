"""Predictions, and what they are judged on: every labelled set, shifts, and images from elsewhere.

One function, :func:`judge`, judges all predictions: of networks, ensembles and a user's own model.
A temperature, the scales and biases of vector scaling and the thresholds of conformal sets are
fitted on the images held out, never on the test set, for deterministic and Bayesian networks alike,
so that the comparison after it is fair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bnnlib.metrics.calibration import ece
from bnnlib.metrics.conformal import CONFORMAL_SCORES, conformal_summary
from bnnlib.metrics.scores import accuracy, brier, nll
from bnnlib.metrics.soft_labels import soft_summary
from bnnlib.metrics.summaries import ood_summary, summary
from bnnlib.metrics.temperature import apply_temperature, fit_temperature
from bnnlib.metrics.vector_scaling import (
    VectorScaling,
    apply_vector_scaling,
    fit_vector_scaling,
)

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
# Vector scaling may change the most probable class, too.
VECTOR_SCALED = {"accuracy": accuracy} | SCALED
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
        mean_logits: float32 ``(num_images, num_classes)``, the mean over draws; None in records
            older than it.
        votes: unsigned integers ``(num_images, num_classes)``, the draws that predict each class;
            None in records older than it.
        soft_labels: float32 ``(num_images, num_classes)``, how annotators label the images, where
            their set brings that; the labels are then its modal classes.
    """

    mean_probs: np.ndarray
    expected_entropy: np.ndarray
    draws_curve: DrawsCurve | None = None
    mean_logits: np.ndarray | None = None
    votes: np.ndarray | None = None
    soft_labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's predictions and how good they are.

    Attributes:
        predictions: by set, the prediction and the labels ``(num_images,)``; None for a set out of
            distribution.
        rows: one a set: ``set``, ``kind`` (one of :data:`KINDS`), ``num_images``; for a labelled
            set the keys of :func:`bnnlib.metrics.summary`; where images are held out, those of
            :data:`SCALED` and :data:`VECTOR_SCALED` with the endings ``_scaled`` and
            ``_vector_scaled``, and of :func:`bnnlib.metrics.conformal_summary`; where the set has
            soft labels, of :func:`bnnlib.metrics.soft_summary`. For a set out of distribution the
            keys of :func:`bnnlib.metrics.ood_summary` against ``reference``, else ``test``.
        metrics: of the test set, with ``temperature`` (what needs images held out is None without
            them), and ``evaluation_seconds``.
    """

    predictions: Predictions
    rows: list[dict[str, Any]]
    metrics: dict[str, Any]


class _HeldOut(NamedTuple):
    """What is fitted on the images held out, and they."""

    temperature: float
    scaling: VectorScaling
    probs: np.ndarray
    labels: np.ndarray


def judge(predictions: Predictions) -> Evaluation:
    """Scores predictions, of a network or of an ensemble.

    Args:
        predictions: by set; ``test`` must be among them. What is fitted is fitted on ``holdout``
            where there is one, so that this set's own scaled scores and coverage flatter.

    Returns:
        Predictions, rows and metrics, without ``evaluation_seconds``.

    Raises:
        MetricsError: predictions are no probabilities, or labels are not of the same images.
    """
    held_out = None
    if HOLDOUT in predictions:
        prediction, labels = predictions[HOLDOUT]
        log_probs = log_mean_probs(prediction.mean_probs)
        temperature = fit_temperature(log_probs, labels)
        scaling = fit_vector_scaling(log_probs, labels)
        held_out = _HeldOut(temperature, scaling, prediction.mean_probs, labels)
    rows = [
        {"set": name, "kind": set_kind(name, labels), "num_images": len(prediction.mean_probs)}
        | (
            _outside(predictions.get(REFERENCE, predictions[TEST])[0], prediction)
            if labels is None
            else _labelled(prediction, labels, held_out)
        )
        for name, (prediction, labels) in predictions.items()
    ]
    unknown = [f"{name}_scaled" for name in SCALED]
    unknown += [f"{name}_vector_scaled" for name in VECTOR_SCALED]
    fitted = dict.fromkeys([*unknown, *CONFORMAL_SCORES])
    of_test = next(row for row in rows if row["set"] == TEST)
    values = {key: value for key, value in of_test.items() if key not in ("set", "kind")}
    del values["num_images"]
    known = {"temperature": held_out.temperature if held_out else None}
    return Evaluation(predictions, rows, known | fitted | values)


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
    prediction: Prediction, labels: np.ndarray, held_out: _HeldOut | None
) -> dict[str, float]:
    mean_probs = prediction.mean_probs
    values = summary(mean_probs, labels, prediction.expected_entropy, prediction.votes)
    if prediction.soft_labels is not None:
        values |= soft_summary(mean_probs, prediction.soft_labels)
    if held_out is not None:
        log_probs = log_mean_probs(mean_probs)
        scaled = apply_temperature(log_probs, held_out.temperature)
        values |= {f"{name}_scaled": metric(scaled, labels) for name, metric in SCALED.items()}
        scaled = apply_vector_scaling(log_probs, held_out.scaling)
        values |= {
            f"{name}_vector_scaled": metric(scaled, labels)
            for name, metric in VECTOR_SCALED.items()
        }
        values |= conformal_summary(mean_probs, labels, held_out.probs, held_out.labels)
    return values


def _outside(test: Prediction, outside: Prediction) -> dict[str, float]:
    return ood_summary(
        test.mean_probs,
        test.expected_entropy,
        outside.mean_probs,
        outside.expected_entropy,
        test.mean_logits,
        outside.mean_logits,
        test.votes,
        outside.votes,
    )
