"""Each Bayesian network less its deterministic twin, and whether the two differ.

The images are the same for both (paired), and the interval holds what other images and, where a
model has several runs, what other seeds might have given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import by_model, correct, labels_of, nll_by_image
from bnnlib.metrics import AurocParts, Interval
from bnnlib.names import twin_of

COLUMNS = ["set", "model", "twin", "score", "runs", "difference", "low", "high"]
Runs = Sequence[Predicted]
Difference = Callable[[Runs, Runs, int], Interval]


def differences(predictions: Runs, num_resamples: int = 1000) -> pd.DataFrame:
    """Every Bayesian network less its twin on a labelled set.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a pair and score: set (``test``), model, twin, score (accuracy, nll, ece, aurc), runs
        (the fewer of the two), difference, low, high (95 %). The ECE is the debiased one. No rows
        without pairs.
    """
    return _table("test", predictions, _LABELLED, num_resamples)


def shift_differences(shifted: Mapping[str, Runs], num_resamples: int = 1000) -> pd.DataFrame:
    """Differences of the accuracy and the ECE on every shifted set; rows of :func:`differences`.

    Args:
        shifted: predictions by the shifted set's name.
        num_resamples: of the bootstrap over images.
    """
    chosen = {name: _LABELLED[name] for name in ("accuracy", "ece")}
    tables = [_table(name, runs, chosen, num_resamples) for name, runs in shifted.items()]
    return _joined(tables)


def ood_differences(test: Runs, foreign: Mapping[str, Runs]) -> pd.DataFrame:
    """Differences of the AUROC of the entropy on every set out of distribution.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.
    """
    tables = []
    for name, outside in foreign.items():
        entropies = {one.run: metrics.predictive_entropy(one.mean_probs) for one in outside}

        def parts_of(one: Predicted, entropies: Mapping[str, np.ndarray] = entropies) -> AurocParts:
            inside = metrics.predictive_entropy(one.mean_probs)
            return metrics.auroc_parts(inside, entropies[one.run])

        def auroc(
            of_model: Runs, of_twin: Runs, _: int, of: Callable[[Predicted], AurocParts] = parts_of
        ) -> Interval:
            sides = [[of(one) for one in runs] for runs in (of_model, of_twin)]
            means = [[np.mean(part, axis=0) for part in zip(*side, strict=True)] for side in sides]
            parts = AurocParts(*(a - b for a, b in zip(*means, strict=True)))
            estimates = [[float(one.of_out.mean()) for one in side] for side in sides]
            return metrics.with_seeds(parts.interval(), estimates)

        both = [one for one in test if one.run in entropies]
        lengths = {run: len(entropy) for run, entropy in entropies.items()}
        tables.append(_table(name, both, {"auroc": auroc}, 0, lengths))
    return _joined(tables)


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)


def _pairs(predictions: Runs, lengths: Mapping[str, int]) -> Iterator[tuple[str, str, Runs, Runs]]:
    """Each Bayesian network and its twin, where all their runs were judged on the same images."""
    groups = by_model(predictions)
    for model, of_model in groups.items():
        twin = twin_of(model)
        if twin in groups:
            images = {
                (labels_of(one).tobytes(), lengths.get(one.run))
                for one in (*of_model, *groups[twin])
            }
            if len(images) == 1:
                yield model, twin, of_model, groups[twin]


def _table(
    name: str,
    predictions: Runs,
    scores: Mapping[str, Difference],
    num_resamples: int,
    lengths: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """The rows of one set; `lengths` are the images of a set out of distribution, by run."""
    rows = []
    for model, twin, of_model, of_twin in _pairs(predictions, lengths or {}):
        for score, difference in scores.items():
            interval = difference(of_model, of_twin, num_resamples)
            row: dict[str, Any] = {"set": name, "model": model, "twin": twin, "score": score}
            row |= {"runs": min(len(of_model), len(of_twin))}
            rows.append(row | dict(zip(("difference", "low", "high"), interval, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_means(per_image: Callable[[Predicted], np.ndarray]) -> Difference:
    """The difference of a score that is a mean over images; runs are averaged image by image.

    It is infinite where the score of one of the two is, and unknown (NaN) where both are.
    """

    def difference(of_model: Runs, of_twin: Runs, num_resamples: int) -> Interval:
        values = [np.array([per_image(one) for one in runs]) for runs in (of_model, of_twin)]
        if not any(np.isfinite(one).all() for one in values):
            return Interval(math.nan, math.nan, math.nan)
        by_image = values[0].mean(axis=0) - values[1].mean(axis=0)
        of_images = metrics.bootstrap_interval(np.mean, by_image, num_resamples=num_resamples)
        return metrics.with_seeds(of_images, [one.mean(axis=1) for one in values])

    return difference


def _ece(of_model: Runs, of_twin: Runs, _: int) -> Interval:
    """The difference of the ECEs, its interval from both models' intervals taken as independent.

    The interval is wider than a paired one.
    """
    first, second = (
        metrics.over_runs([metrics.ece_interval(one.mean_probs, labels_of(one)) for one in runs])
        for runs in (of_model, of_twin)
    )
    return metrics.difference(first, second)


def _aurc(of_model: Runs, of_twin: Runs, num_resamples: int) -> Interval:
    values, estimates = [], []
    for runs in (of_model, of_twin):
        arrays = [(one.mean_probs, labels_of(one)) for one in runs]
        estimates.append([metrics.aurc(*each) for each in arrays])
        # The same seed draws the same images for every run and for both models.
        of_runs = [
            metrics.bootstrap_values(metrics.aurc, *each, num_resamples=num_resamples)
            for each in arrays
        ]
        values.append(np.mean(of_runs, axis=0))
    middle = float(np.mean(estimates[0]) - np.mean(estimates[1]))
    of_images = metrics.percentile_interval(middle, values[0] - values[1])
    return metrics.with_seeds(of_images, estimates)


_LABELLED: dict[str, Difference] = {
    "accuracy": _of_means(correct),
    "nll": _of_means(nll_by_image),
    "ece": _ece,
    "aurc": _aurc,
}
