"""Evaluates a trained network in one pass: makes each set, predicts it and scores it.

The sets are, in this order, the test set, the images held out from training, the reference (the
test images as the others are evaluated, where that differs), the shifted test sets and the sets out
of distribution. :func:`bnnlib.metrics.judge` scores what is predicted.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from bnnlib import data
from bnnlib.data import Dataset, EvaluationSet
from bnnlib.errors import DataError
from bnnlib.experiment import Experiment
from bnnlib.inference import laplace, prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.prediction import Predictor
from bnnlib.metrics import HOLDOUT, REFERENCE, TEST, Evaluation, Labels, Prediction, judge, nll
from bnnlib.networks import Network, to_inputs
from bnnlib.session import Session

VALIDATION_DRAWS = 10  # of a look at the predictive distribution while a network trains


@dataclasses.dataclass(frozen=True)
class Set:
    """A set to evaluate: its name in the record, and what makes its images when their turn comes.

    Shifted images are made one set at a time, so that memory does not grow with their number.
    `outside` holds a set out of distribution, which is read before training, and `group` the name
    of the group that has brought it.
    """

    name: str
    make: Callable[[], EvaluationSet]
    outside: EvaluationSet | None = None
    group: str = ""

    def __str__(self) -> str:
        """The name, and the group in brackets."""
        return f"{self.name} ({self.group})" if self.group else self.name


def sets(experiment: Experiment, dataset: Dataset) -> list[Set]:
    """The sets that an experiment is evaluated on, ``test`` first whether or not it is listed.

    Call it before training: it reports a mistyped name or a missing file now, not hours later.

    Args:
        experiment: its `eval_sets`, `ood_sets`, `eval_images` and `eval_draws`.
        dataset: what it is trained on; images held out are a set, too.

    Returns:
        The sets in the order of evaluation. Those but ``test`` and ``holdout`` have `eval_images`
        images; where this or `eval_draws` makes them unlike ``test``, there is a ``reference``.

    Raises:
        DataError: a name is unknown, a file is missing or damaged, or two sets have one name.
    """
    count = experiment.eval_images
    test = data.evaluation_set(dataset, TEST)
    listed = [Set(TEST, lambda: test)]
    if dataset.x_holdout is not None:
        held_out = EvaluationSet(HOLDOUT, dataset.x_holdout, dataset.y_holdout)
        listed.append(Set(HOLDOUT, lambda: held_out))
    others = [
        Set(name, functools.partial(data.evaluation_set, dataset, name, count))
        for name in data.expand(experiment.eval_sets, dataset.image_shape)
        if name != TEST
    ]
    for name, group, outside in data.ood_sets(dataset, experiment.ood_sets):
        if outside.name in (TEST, HOLDOUT, REFERENCE, *(other.name for other in others)):
            raise DataError(
                f"ood_sets: {name!r} would be the second set called {outside.name!r} in the "
                "record; rename the file."
            )
        make = functools.partial(data.subset, outside, count)
        others.append(Set(outside.name, make, outside, group))
    fewer_images = 0 < count < len(dataset.x_test)
    if others and (fewer_images or experiment.eval_draws not in (0, experiment.test_draws)):
        listed.append(Set(REFERENCE, functools.partial(data.subset, test, count)))
    return [*listed, *others]


def content(dataset: Dataset, sets: Sequence[Set]) -> dict[str, Any]:
    """What a run is trained and judged on, for :meth:`bnnlib.record.run.Run.note_data`."""
    groups: dict[str, list[str]] = {}
    for one in sets:
        if one.group:
            groups.setdefault(one.group, []).append(one.name)
    outside = [one.outside for one in sets if one.outside is not None]
    return data.content(dataset, outside, groups, [one.name for one in sets])


def evaluate(
    experiment: Experiment,
    network: Network,
    dataset: Dataset,
    sets: Sequence[Set],
    ranks: Ranks | None = None,
    after_set: Callable[[], object] = lambda: None,
    session: Session | None = None,
) -> Evaluation:
    """Predicts every set with all ranks together, and scores it; the same result on every rank.

    Args:
        experiment: its `test_draws`, `eval_draws`, `predict_with`, `seed` and `stall_minutes`.
        network: trained.
        dataset: what it was trained on.
        sets: of :func:`sets`.
        ranks: all must call; alone if not given.
        after_set: called after each set, for a progress bar.
        session: of this process, which may ask to stop and ends it when it hangs.

    Returns:
        Predictions, rows (each with its `num_draws`, and `ood_group` where a group has brought the
        set) and metrics; the test set's prediction has a draws curve.

    Raises:
        MetricsError: the network's predictions are no probabilities.
    """
    started = time.perf_counter()
    session = session or Session()
    others = experiment.eval_draws or experiment.test_draws
    at_mean = experiment.predict_with != "draws"
    if experiment.predict_with == "probit":
        network = laplace.Probit(network)
    predictor = Predictor(
        network, dataset, experiment.test_draws, experiment.seed, ranks, session, at_mean
    )
    predictions: dict[str, tuple[Prediction, Labels]] = {}
    num_draws: dict[str, int] = {}
    with session.watch(experiment.stall_minutes, "draw of the evaluation") as watch:
        for one in sets:
            made = one.make()
            # A copy of one that has its graph, since `test` is the first.
            of_set = predictor if one.name in (TEST, HOLDOUT) else predictor.with_draws(others)
            predicted = of_set(made.images, draws_curve=one.name == TEST, meanwhile=watch.alive)
            predicted = dataclasses.replace(predicted, soft_labels=made.soft_labels)
            predictions[one.name] = predicted, made.labels
            num_draws[one.name] = of_set.num_draws
            after_set()
    judged = judge(predictions)
    groups = {one.name: {"ood_group": one.group} for one in sets if one.group}
    rows = [
        row | {"num_draws": num_draws[row["set"]]} | groups.get(row["set"], {})
        for row in judged.rows
    ]
    metrics = judged.metrics | {"evaluation_seconds": time.perf_counter() - started}
    return dataclasses.replace(judged, rows=rows, metrics=metrics)


def validation_predictor(experiment: Experiment, network: Network, dataset: Dataset) -> Predictor:
    """What predicts for :func:`validation_nll`, of few draws; on one rank, traced when first used.

    Args:
        experiment: its `test_draws`, `predict_with` and `seed`.
        network: in training.
        dataset: what it is trained on.
    """
    draws = min(VALIDATION_DRAWS, experiment.test_draws)
    at_mean = experiment.predict_with == "mean"
    return Predictor(network, dataset, draws, experiment.seed, at_mean=at_mean)


def validation_nll(predictor: Predictor, dataset: Dataset) -> float:
    """NLL of the images held out from training, else of the test images; nats an image.

    It follows a training and chooses nothing. Who chooses by it holds images out (`holdout`).
    """
    images, labels = dataset.x_holdout, dataset.y_holdout
    if images is None or labels is None:
        images, labels = dataset.x_test, dataset.y_test
    return nll(predictor(images).mean_probs, labels)


def accuracy_of_means(network: Network, dataset: Dataset) -> float:
    """The share of the test images that the network of the posterior's means classifies rightly.

    A look at how far training has come, for the price of one draw; the predictive distribution may
    be right more often.
    """
    means, right = network.means(), 0
    for first in range(0, len(dataset.x_test), prediction.BLOCK):
        images = tf.constant(dataset.x_test[first : first + prediction.BLOCK])
        logits = network.predict(to_inputs(images, dataset), means)
        labels = dataset.y_test[first : first + prediction.BLOCK]
        right += int((logits.numpy().argmax(axis=1) == labels).sum())
    return right / len(dataset.x_test)
