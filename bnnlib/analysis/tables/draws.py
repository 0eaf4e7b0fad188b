"""Tables of the number of draws, and of the inside of one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bnnlib import data, metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import (
    SCORES,
    correct,
    in_model_order,
    labels_of,
    nll_by_image,
    of_mean,
    unknown,
)
from bnnlib.data import Dataset
from bnnlib.errors import DataError
from bnnlib.record.logs import LEVELS, LayerLog


def convergence(by_draws: Mapping[int, Sequence[Predicted]]) -> pd.DataFrame:
    """What the scores of the test set would have been with fewer draws.

    Args:
        by_draws: predictions of the mean over the first draws, by their number.

    Returns:
        A row a run, number of draws and score: model, run, draws, score, value, low, high. The
        scores are accuracy, nll, ece and mutual_information (nats), and nll_change and
        accuracy_change, the value of all draws less that of these. Those that are means over images
        have a 95 % interval over them; the others' ends are NaN. No rows without predictions.
    """
    all_draws = {one.run: one for _, runs in sorted(by_draws.items()) for one in runs}
    rows = []
    for draws, predictions in by_draws.items():
        for one in in_model_order(predictions):
            labels = labels_of(one)
            values = {
                name: unknown(SCORES[name](one.mean_probs, labels))
                for name in ("accuracy", "nll", "ece")
            }
            if one.expected_entropy is not None:
                information = metrics.mutual_information(one.mean_probs, one.expected_entropy)
                values["mutual_information"] = of_mean(information)
            last = all_draws[one.run]
            values["accuracy_change"] = of_mean(correct(last) - correct(one))
            if np.isfinite([nll_by_image(which) for which in (last, one)]).all():
                values["nll_change"] = of_mean(nll_by_image(last) - nll_by_image(one))
            row = {"model": one.model, "run": one.run, "draws": draws}
            rows += [
                row | {"score": score, "value": value, "low": low, "high": high}
                for score, (value, low, high) in values.items()
            ]
    return pd.DataFrame(rows, columns=["model", "run", "draws", "score", "value", "low", "high"])


def posterior_over_training(lines: Sequence[LayerLog]) -> pd.DataFrame:
    """The quantiles of every Bayesian layer's posterior, epoch by epoch.

    Args:
        lines: of :func:`bnnlib.record.logs.read_posterior`.

    Returns:
        A row an epoch, layer, quantity (``mean``, ``stddev``, ``snr``) and level: epoch, layer,
        quantity, level, value. No rows without lines.
    """
    rows = [
        {"epoch": line.epoch, "layer": line.layer, "quantity": q, "level": level, "value": value}
        for line in lines
        for q in ("mean", "stddev", "snr")
        for level, value in zip(LEVELS, getattr(line, q), strict=True)
    ]
    return pd.DataFrame(rows, columns=["epoch", "layer", "quantity", "level", "value"])


def signal_to_noise(entries: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """The distribution of abs(posterior mean) / standard deviation over each layer's weights.

    Blundell et al. 2015, section 5.1, prune the weights of the lowest ratios.

    Args:
        entries: means and standard deviations by layer, both ``(num_entries,)``, such as
            :func:`bnnlib.networks.posterior.entries` gives of a network.

    Returns:
        A row a layer and share of its weights: layer, share, snr (the ratio that this share of the
        weights does not exceed). No rows without layers.
    """
    shares = np.linspace(0.0, 1.0, 201)
    frames = [
        pd.DataFrame(
            {"layer": name, "share": shares, "snr": np.quantile(np.abs(mean) / stddev, shares)}
        )
        for name, (mean, stddev) in entries.items()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """An image to look at closely.

    Attributes:
        name: what it stands for.
        image: ``(height, width, channels)`` in the data set's own type.
        label: its class; -1 where it has none.
    """

    name: str
    image: np.ndarray
    label: int


def examples(
    dataset: Dataset, test: Predicted, degrees: int = 60, foreign: str = "kmnist"
) -> list[Example]:
    """A clear image, an ambiguous one, the clear one rotated, and one of another kind.

    Args:
        dataset: whose test images are chosen from.
        test: a run's predictions of all of them. Clear is the image with the least entropy among
            those predicted rightly, ambiguous the one with the most among all.
        degrees: by which the clear image is rotated, counter-clockwise.
        foreign: the set out of distribution whose first image is taken; uniform noise where it is
            not on this machine.

    Returns:
        The four, their names saying which image each is.
    """
    entropy = metrics.predictive_entropy(test.mean_probs)
    right = correct(test) > 0
    clear = int(np.argmin(np.where(right, entropy, np.inf)))
    ambiguous = int(np.argmax(entropy))
    one = dataclasses.replace(
        dataset, x_test=dataset.x_test[[clear]], y_test=dataset.y_test[[clear]]
    )
    rotated = data.evaluation_set(one, f"rotate-{degrees}").images[0]
    try:
        other = data.ood_set(one, foreign)
    except DataError:
        other = data.ood_set(one, "uniform_noise")
    labels = dataset.y_test
    return [
        Example(f"clear: test image {clear}", dataset.x_test[clear], int(labels[clear])),
        Example(
            f"ambiguous: test image {ambiguous}", dataset.x_test[ambiguous], int(labels[ambiguous])
        ),
        Example(f"rotated: the clear one by {degrees}°", rotated, int(labels[clear])),
        Example(f"foreign: {other.name}'s first image", other.images[0], -1),
    ]


def example_draws(chosen: Sequence[Example], draw_probs: np.ndarray) -> pd.DataFrame:
    """Class probabilities of single draws, as rows.

    Args:
        chosen: the images.
        draw_probs: ``(num_draws, num_images, num_classes)``, of
            :func:`bnnlib.networks.posterior.draw_probs` or any other model.

    Returns:
        A row an image, draw and class: image, label, draw, class, probability.
    """
    draws, _, classes = draw_probs.shape
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "image": example.name,
                    "label": example.label,
                    "draw": np.repeat(np.arange(draws), classes),
                    "class": np.tile(np.arange(classes), draws),
                    "probability": draw_probs[:, index].ravel(),
                }
            )
            for index, example in enumerate(chosen)
        ],
        ignore_index=True,
    )
