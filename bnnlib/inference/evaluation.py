"""Everything that a trained network is judged on, in one pass: what is asked, predicted and scored.

The sets are, in this order, the test set, the images held out from training, the shifted test sets
and the sets out of distribution. A temperature is fitted on the images held out, never on the test
set, for deterministic and Bayesian networks alike, so that the comparison after it is fair.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bnnlib import data, metrics
from bnnlib.data import Dataset, EvaluationSet
from bnnlib.errors import DataError
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.prediction import Prediction, Predictor
from bnnlib.networks.layers import Reparameterization
from bnnlib.networks.networks import Network, to_inputs
from bnnlib.record import watchdog as stall

TEST, HOLDOUT, TRAIN = "test", "holdout", "train"
KINDS = (TEST, HOLDOUT, TRAIN, "shift", "ood")
# What temperature scaling changes; accuracy it does not.
SCALED: dict[str, Callable[..., float]] = {
    "nll": metrics.nll,
    "brier": metrics.brier,
    "ece": metrics.ece,
}
# Float32 softmax gives 0 below this. Its logarithm would make every temperature's NLL infinite for
# one image that is confidently wrong.
SMALLEST = float(np.finfo(np.float32).tiny)

Labels = Any  # int64 (num_images,), or None for images out of distribution
Predictions = Mapping[str, tuple[Prediction, Labels]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's predictions and how good they are.

    Attributes:
        predictions: by set, the prediction and the labels ``(num_images,)``; None for a set out of
            distribution.
        rows: one a set: ``set``, ``kind`` (one of :data:`KINDS`), ``num_images``; for a labelled
            set the keys of :func:`bnnlib.metrics.summary` and, where there is a temperature,
            ``nll_scaled``, ``brier_scaled`` and ``ece_scaled``; for one out of distribution the
            keys of :func:`bnnlib.metrics.ood_summary` against ``test``.
        metrics: of the test set, with ``temperature`` and the scaled ones (None without images held
            out), and ``evaluation_seconds``.
    """

    predictions: Predictions
    rows: list[dict[str, Any]]
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Set:
    """A set to evaluate: its name in the record, and what makes its images when their turn comes.

    Shifted images are made one set at a time, so that memory does not grow with their number.
    """

    name: str
    make: Callable[[], EvaluationSet]


def sets(experiment: Experiment, dataset: Dataset) -> list[Set]:
    """The sets that an experiment is evaluated on, ``test`` first whether or not it is listed.

    Call it before training: a mistyped name or a missing file is told here, not hours later.

    Args:
        experiment: its `eval_sets` and `ood_sets`.
        dataset: what it is trained on; images held out are a set, too.

    Returns:
        The sets in the order of evaluation.

    Raises:
        DataError: a name is unknown, a file is missing or damaged, or two sets have one name.
    """
    names = data.expand([TEST, *experiment.eval_sets], dataset.image_shape)
    found = [
        Set(name, lambda name=name: data.evaluation_set(dataset, name))  # type: ignore[misc]
        for name in names
    ]
    if dataset.x_holdout is not None:
        held_out = EvaluationSet(HOLDOUT, dataset.x_holdout, dataset.y_holdout)
        found.insert(1, Set(HOLDOUT, lambda: held_out))
    for name in experiment.ood_sets:
        outside = data.ood_set(dataset, name)
        if outside.name in (HOLDOUT, *(one.name for one in found)):
            raise DataError(
                f"ood_sets: {name!r} would be the second set called {outside.name!r} in the "
                "record; rename the file."
            )
        found.append(Set(outside.name, lambda outside=outside: outside))  # type: ignore[misc]
    return found


def evaluate(
    experiment: Experiment,
    network: Network,
    dataset: Dataset,
    sets: Sequence[Set],
    ranks: Ranks | None = None,
    after_set: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Predicts every set with all ranks together, and scores it; the same result on every rank.

    Args:
        experiment: its `test_draws`, `seed` and `stall_minutes`.
        network: trained.
        dataset: what it was trained on.
        sets: of :func:`sets`.
        ranks: all must call; alone if not given.
        after_set: called after each set, for a progress bar.

    Returns:
        Predictions, rows and metrics; the test set's prediction has a ladder.

    Raises:
        MetricsError: the network's predictions are no probabilities.
    """
    started = time.perf_counter()
    predictor = Predictor(network, dataset, experiment.test_draws, experiment.seed, ranks)
    predictions: dict[str, tuple[Prediction, Labels]] = {}
    with stall.Watch(60 * experiment.stall_minutes, sign="draw of the evaluation") as watch:
        for one in sets:
            made = one.make()
            found = predictor(made.images, ladder=one.name == TEST, meanwhile=watch.alive)
            predictions[one.name] = found, made.labels
            after_set()
    judged = judge(predictions)
    seconds = time.perf_counter() - started
    return dataclasses.replace(judged, metrics=judged.metrics | {"evaluation_seconds": seconds})


def accuracy_of_means(network: Network, dataset: Dataset) -> float:
    """The share of the test images that the network of the posterior's means classifies rightly.

    A look at how far training has come, for the price of one draw; the predictive distribution may
    be right more often.
    """
    unused = tf.zeros([2], tf.int64)  # a seed
    kernels = [
        layer.mean if isinstance(layer, Reparameterization) else layer.sample(unused)
        for layer in network.layers
    ]
    right = 0
    for first in range(0, len(dataset.x_test), prediction.BLOCK):
        images = tf.constant(dataset.x_test[first : first + prediction.BLOCK])
        logits = network.predict(to_inputs(images, dataset), kernels, unused)
        labels = dataset.y_test[first : first + prediction.BLOCK]
        right += int((logits.numpy().argmax(axis=1) == labels).sum())
    return right / len(dataset.x_test)


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
        temperature = metrics.fit_temperature(log_probs(held_out), labels)
    rows = [
        {"set": name, "kind": kind(name, labels), "num_images": len(prediction.mean_probs)}
        | (
            _outside(predictions[TEST][0], prediction)
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


def kind(name: str, labels: Labels) -> str:
    """Which of :data:`KINDS` a set is of."""
    if labels is None:
        return "ood"
    return name if name in (TEST, HOLDOUT, TRAIN) else "shift"


def log_probs(prediction: Prediction) -> np.ndarray:
    """Logarithm of the mean probabilities, none of them below :data:`SMALLEST`; for temperatures.

    Returns:
        float64 ``(num_images, num_classes)``.
    """
    return np.log(np.maximum(prediction.mean_probs.astype(np.float64), SMALLEST))


def _labelled(
    prediction: Prediction, labels: np.ndarray, temperature: float | None
) -> dict[str, float]:
    values = metrics.summary(prediction.mean_probs, labels, prediction.expected_entropy)
    if temperature is not None:
        probs = metrics.apply_temperature(log_probs(prediction), temperature)
        values |= {f"{name}_scaled": metric(probs, labels) for name, metric in SCALED.items()}
    return values


def _outside(test: Prediction, outside: Prediction) -> dict[str, float]:
    return metrics.ood_summary(
        test.mean_probs, test.expected_entropy, outside.mean_probs, outside.expected_entropy
    )
