"""Pairs of models and whether they differ: a Bayesian network and its twin, variants of a network.

The images are the same for both (paired), and the interval holds what other images and, where a
model has several runs, what other seeds might have given; of two runs there is no interval
(:data:`FEWEST_RUNS`). Variants are paired by seed as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import (
    FEWEST_RUNS,
    by_model,
    correct,
    labels_of,
    nll_by_image,
    unknown,
)
from bnnlib.experiment import Experiment
from bnnlib.metrics import AurocParts, Interval
from bnnlib.names import in_order, network_of, settings_of, twin_of, variant_of

# A pair's kind is `twin` of a Bayesian network less its deterministic twin, `variant` of two
# variants of one network, `model` of any two models, where there is no pair of the other kinds.
COLUMNS = ["set", "sets", "kind", "model", "other", "score", "runs", "paired", "left_out"]
COLUMNS += ["difference", "low", "high"]
# The name of the mean over all sets among the sets' names.
ALL = "all"
Runs = Sequence[Predicted]


class Parts(NamedTuple):
    """A difference of two models' means over runs, and what its interval is made from."""

    of_images: Interval
    """The difference and its interval over images."""
    scores: tuple[Sequence[float], Sequence[float]]
    """The score of each run of the two."""


class Pair(NamedTuple):
    """Two models that are compared, and their runs: of one seed each where they are paired."""

    kind: str
    model: str
    other: str
    of_model: Runs
    of_other: Runs
    paired: bool
    left_out: int
    """How many runs of the two have a seed that the other lacks, and are not compared."""


Difference = Callable[[Runs, Runs, int], Parts]
# Of each set its predictions, its scores, and the number of foreign images by run.
Sets = Mapping[str, tuple[Runs, Mapping[str, Difference], Mapping[str, int]]]


def differences(predictions: Runs, num_resamples: int = 1000) -> pd.DataFrame:
    """The first model of each pair less the second, on a labelled set.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a pair and score: set (``test``), sets (1), kind (``twin``, ``variant`` or ``model``),
        model, other, score (accuracy, nll, ece, aurc), runs (the fewer of the two), paired (whether
        by seed), left_out (runs of a seed that the other lacks), difference, low, high (95 %, NaN
        where one of the two has two runs). The ECE is the debiased one. No rows without pairs.
    """
    return _table({metrics.TEST: (predictions, _LABELLED, {})}, num_resamples)


def shift_differences(shifted: Mapping[str, Runs], num_resamples: int = 1000) -> pd.DataFrame:
    """Differences of the accuracy and the ECE on every shifted set; rows of :func:`differences`.

    Args:
        shifted: predictions by the shifted set's name.
        num_resamples: of the bootstrap over images.

    Returns:
        The rows of every set, and of the mean over the sets under the name :data:`ALL`. The sets
        are made of the same images, so the interval of their mean is the mean of their intervals.
    """
    chosen = {name: _LABELLED[name] for name in ("accuracy", "ece")}
    sets: Sets = {name: (runs, chosen, {}) for name, runs in shifted.items()}
    return _table(sets, num_resamples, over_all=True)


def ood_differences(test: Runs, foreign: Mapping[str, Runs]) -> pd.DataFrame:
    """Differences of the AUROC of the entropy on every set out of distribution.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.

    Returns:
        As :func:`shift_differences`.
    """
    sets: dict[str, tuple[Runs, Mapping[str, Difference], Mapping[str, int]]] = {}
    for name, outside in foreign.items():
        entropies = {one.run: metrics.predictive_entropy(one.mean_probs) for one in outside}
        lengths = {run: len(entropy) for run, entropy in entropies.items()}
        both = [one for one in test if one.run in entropies]
        sets[name] = (both, {"auroc": _auroc(entropies)}, lengths)
    return _table(sets, 0, over_all=True)


# --- Which models are compared -------------------------------------------------------------------


def _pairs(predictions: Runs, lengths: Mapping[str, int]) -> Iterator[Pair]:
    """The pairs whose runs were all judged on the same images.

    `lengths` are the images of a set out of distribution, by run.
    """
    groups = by_model(predictions)
    for kind, model, other in _compared(list(groups)):
        both: tuple[Runs, Runs, bool] = (groups[model], groups[other], False)
        of_model, of_other, paired = both if kind == "twin" else _by_seed(*both[:2])
        images = {
            (labels_of(one).tobytes(), lengths.get(one.run)) for one in (*of_model, *of_other)
        }
        if len(images) == 1:
            left_out = sum(map(len, both[:2])) - len(of_model) - len(of_other)
            yield Pair(kind, model, other, of_model, of_other, paired, left_out)


def _compared(models: Sequence[str]) -> list[tuple[str, str, str]]:
    """Kind, model and other of all that are compared; ensembles are not."""
    single = in_order(name for name in models if " ensemble(" not in name)
    twins = [("twin", name, _twin(name, single)) for name in single]
    pairs = [(kind, name, twin) for kind, name, twin in twins if twin]
    # Of runs that have converged and others of the same variant, those that have.
    variants = {variant_of(name): name for name in sorted(single, key=lambda n: n == variant_of(n))}
    for network in in_order(map(network_of, variants)):
        of_network = [name for name in in_order(variants) if network_of(name) == network]
        usual = max(of_network, key=_is_default)
        for name in of_network:
            one, other = variants[name], variants[usual]
            if name != usual and ("twin", one, other) not in pairs:
                pairs.append(("variant", one, other))
    if not pairs:
        first, *others = [variants[name] for name in in_order(variants)] or [""]
        pairs = [("model", name, first) for name in others]
    return pairs


def _twin(model: str, present: Sequence[str]) -> str | None:
    """The deterministic twin of a network or of a variant, with its settings where that is here."""
    name = variant_of(model)
    network = network_of(name)
    of_network = twin_of(network)
    candidates = [twin_of(name)]
    if of_network:
        candidates += [of_network + name.removeprefix(network), of_network]
    return next((one for one in candidates if one in present), None)


def _is_default(name: str) -> tuple[bool, int]:
    """Orders variants: the network itself first of all, then that of the most defaults."""
    defaults = Experiment().to_dict() | {"ranks": 1}
    settings = settings_of(name)
    return not settings, sum(str(defaults.get(key)) == value for key, value in settings)


def _by_seed(of_model: Runs, of_other: Runs) -> tuple[Runs, Runs, bool]:
    """The runs of the seeds that both have; all runs where their seeds tell them not apart."""
    sides = [{one.seed: one for one in runs} for runs in (of_model, of_other)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds or (len(sides[0]), len(sides[1])) != (len(of_model), len(of_other)):
        return of_model, of_other, False
    one, other = ([side[seed] for seed in seeds] for side in sides)
    return one, other, True


# --- Rows ----------------------------------------------------------------------------------------


def _table(sets: Sets, num_resamples: int, over_all: bool = False) -> pd.DataFrame:
    """The rows of sets, and of the mean over all of them."""
    rows = []
    found: dict[tuple[str, ...], list[tuple[Pair, Parts]]] = {}
    for name, (predictions, scores, lengths) in sets.items():
        for pair in _pairs(predictions, lengths):
            for score, difference in scores.items():
                parts = difference(pair.of_model, pair.of_other, num_resamples)
                rows.append(_row(name, 1, pair, score, parts))
                runs = [one.run for one in (*pair.of_model, *pair.of_other)]
                found.setdefault((score, *pair[:3], *runs), []).append((pair, parts))
    if over_all:
        # Of runs that were asked of different sets, those that were asked of the most.
        most = {
            key[:4]: max((k for k in found if k[:4] == key[:4]), key=lambda k: len(found[k]))
            for key in found
        }
        for (score, *_), key in most.items():
            pair, every = found[key][0][0], [one for _, one in found[key]]
            mean = Interval(*np.mean([one.of_images for one in every], axis=0))
            of_runs = [np.mean([one.scores[side] for one in every], axis=0) for side in (0, 1)]
            parts = Parts(mean, (of_runs[0].tolist(), of_runs[1].tolist()))
            rows.append(_row(ALL, len(every), pair, score, parts))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(name: str, sets: int, pair: Pair, score: str, parts: Parts) -> dict[str, Any]:
    interval = parts.of_images
    if math.isfinite(interval.estimate):  # an infinite NLL has no spread
        one, other = map(np.asarray, parts.scores)
        each = [one - other] if pair.paired else [one, other]
        few = any(1 < len(values) < FEWEST_RUNS for values in each)
        interval = unknown(interval.estimate) if few else metrics.with_seeds(interval, each)
    row: dict[str, Any] = {"set": name, "sets": sets, "kind": pair.kind, "model": pair.model}
    row |= {"other": pair.other, "score": score, "paired": pair.paired}
    row |= {"runs": min(len(pair.of_model), len(pair.of_other)), "left_out": pair.left_out}
    return row | dict(zip(("difference", "low", "high"), interval, strict=True))


# --- Differences ---------------------------------------------------------------------------------


def _of_means(per_image: Callable[[Predicted], np.ndarray]) -> Difference:
    """The difference of a score that is a mean over images; runs are averaged image by image.

    It is infinite where the score of one of the two is, and unknown (NaN) where both are.
    """

    def difference(of_model: Runs, of_other: Runs, num_resamples: int) -> Parts:
        values = [np.array([per_image(one) for one in runs]) for runs in (of_model, of_other)]
        of_runs = (values[0].mean(axis=1), values[1].mean(axis=1))
        if not any(np.isfinite(one).all() for one in values):
            return Parts(Interval(math.nan, math.nan, math.nan), of_runs)
        by_image = values[0].mean(axis=0) - values[1].mean(axis=0)
        return Parts(
            metrics.bootstrap_interval(np.mean, by_image, num_resamples=num_resamples), of_runs
        )

    return difference


def _ece(of_model: Runs, of_other: Runs, num_resamples: int) -> Parts:
    """The difference of the ECEs, its interval from both models' intervals and their correlation.

    No bootstrap covers a calibration error, which noise biases; but it shows how the two models'
    errors go together over the same images.
    """
    sides, resampled = [], []
    for runs in (of_model, of_other):
        arrays = [(one.mean_probs, labels_of(one)) for one in runs]
        sides.append([metrics.ece_interval(*each) for each in arrays])
        # The same seed draws the same images for every run and for both models.
        of_runs = [metrics.ece_resampled(*each, num_resamples=num_resamples) for each in arrays]
        resampled.append(np.mean(of_runs, axis=0))
    means = [Interval(*np.mean(side, axis=0)) for side in sides]
    values = [[interval.estimate for interval in side] for side in sides]
    together = metrics.correlation(*resampled)
    return Parts(metrics.difference(means[0], means[1], together), (values[0], values[1]))


def _aurc(of_model: Runs, of_other: Runs, num_resamples: int) -> Parts:
    resampled, values = [], []
    for runs in (of_model, of_other):
        arrays = [(one.mean_probs, labels_of(one)) for one in runs]
        values.append([metrics.aurc(*each) for each in arrays])
        # The same seed draws the same images for every run and for both models.
        of_runs = [
            metrics.bootstrap_values(metrics.aurc, *each, num_resamples=num_resamples)
            for each in arrays
        ]
        resampled.append(np.mean(of_runs, axis=0))
    middle = float(np.mean(values[0]) - np.mean(values[1]))
    of_images = metrics.percentile_interval(middle, resampled[0] - resampled[1])
    return Parts(of_images, (values[0], values[1]))


def _auroc(entropies: Mapping[str, np.ndarray]) -> Difference:
    """The difference of the AUROCs of the entropy against foreign images' `entropies`, by run."""

    def difference(of_model: Runs, of_other: Runs, _: int) -> Parts:
        sides = [
            [
                metrics.auroc_parts(metrics.predictive_entropy(one.mean_probs), entropies[one.run])
                for one in runs
            ]
            for runs in (of_model, of_other)
        ]
        means = [[np.mean(part, axis=0) for part in zip(*side, strict=True)] for side in sides]
        parts = AurocParts(*(a - b for a, b in zip(*means, strict=True)))
        values = [[float(one.of_out.mean()) for one in side] for side in sides]
        return Parts(parts.interval(), (values[0], values[1]))

    return difference


_LABELLED: dict[str, Difference] = {
    "accuracy": _of_means(correct),
    "nll": _of_means(nll_by_image),
    "ece": _ece,
    "aurc": _aurc,
}
