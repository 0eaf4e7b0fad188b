"""Tables of the test set: scores, differences of twins, reliability, entropies, risk-coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import SCORES, by_model, correct, in_model_order, labels_of
from bnnlib.names import twin_of

COVERAGES = np.round(np.arange(0.5, 1.0001, 0.005), 3)


def scores(predictions: Sequence[Predicted], num_resamples: int = 1000) -> pd.DataFrame:
    """Every model's scores: mean and spread over runs, or an interval over images where one run.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a model and score: model, score (:data:`SCORES`, ``<score>_scaled`` after temperature
        scaling, ``temperature``, ``images_per_second``), runs, mean, stddev (over runs; NaN for one
        run), low and high (95 % over images; NaN for several runs, and for what is no mean of
        images).
    """
    rows = []
    for model, group in by_model(predictions).items():
        columns: dict[str, list[tuple[Any, ...]]] = {}
        for one in group:
            for score, metric in SCORES.items():
                columns.setdefault(score, []).append((metric, one.mean_probs, one.labels))
            if not math.isnan(one.temperature):
                scaled = one.scaled_probs
                for score in metrics.SCALED:
                    arrays = (SCORES[score], scaled, one.labels)
                    columns.setdefault(f"{score}_scaled", []).append(arrays)
        for score, arguments in columns.items():
            row: dict[str, Any] = {"model": model, "score": score, "runs": len(group)}
            if len(group) == 1:
                metric, probs, labels = arguments[0]
                _, low, high = metrics.interval(metric, probs, labels, num_resamples)
                row |= {"mean": metric(probs, labels), "low": low, "high": high}
            else:
                values = [metric(probs, labels) for metric, probs, labels in arguments]
                row |= {"mean": np.mean(values), "stddev": np.std(values, ddof=1)}
            rows.append(row)
        for score in ("temperature", "images_per_second"):
            values = [getattr(one, score) for one in group]
            spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
            row = {"model": model, "score": score, "runs": len(group)}
            rows.append(row | {"mean": np.mean(values), "stddev": spread})
    columns_in_order = ["model", "score", "runs", "mean", "stddev", "low", "high"]
    return pd.DataFrame(rows).reindex(columns=columns_in_order)


def differences(predictions: Sequence[Predicted], num_resamples: int = 1000) -> pd.DataFrame:
    """Every Bayesian network less its deterministic twin, on the same images.

    The images are resampled for both alike (paired), and an image's scores are averaged over runs
    first. So the interval says what other test images might have given, not other seeds.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a pair and score: model, twin, score (accuracy, nll), runs (the fewer of the two),
        difference, low, high (95 %). No rows without pairs.
    """
    groups = by_model(predictions)
    rows = []
    for model in groups:
        twin = twin_of(model)
        if twin is None or twin not in groups:
            continue
        for score, per_image in _PER_IMAGE.items():
            ours, theirs = (
                np.mean([per_image(one) for one in groups[name]], axis=0) for name in (model, twin)
            )
            interval = metrics.bootstrap_interval(
                np.mean, ours - theirs, num_resamples=num_resamples
            )
            row: dict[str, Any] = {"model": model, "twin": twin, "score": score}
            row |= {"runs": min(len(groups[model]), len(groups[twin]))}
            rows.append(row | dict(zip(("difference", "low", "high"), interval, strict=True)))
    columns = ["model", "twin", "score", "runs", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def reliability(predictions: Sequence[Predicted], num_bins: int = metrics.NUM_BINS) -> pd.DataFrame:
    """Reliability bins of every run, as predicted and after temperature scaling.

    Args:
        predictions: of one labelled set.
        num_bins: bins of equal width of the confidence.

    Returns:
        A row a run and bin that is not empty: run, model, seed, scaled, ece and the columns of
        :class:`bnnlib.metrics.ReliabilityBins`.
    """
    rows = []
    for one in in_model_order(predictions):
        variants = {False: one.mean_probs}
        if not math.isnan(one.temperature):
            variants[True] = one.scaled_probs
        for scaled, probs in variants.items():
            labels = labels_of(one)
            bins = pd.DataFrame(vars(metrics.reliability_bins(probs, labels, num_bins)))
            # Seeds do not tell runs apart: the same one may have run on other numbers of ranks.
            bins.insert(0, "run", one.run)
            bins.insert(1, "model", one.model)
            bins.insert(2, "seed", one.seed)
            bins.insert(3, "scaled", scaled)
            bins.insert(4, "ece", metrics.ece(probs, labels, num_bins))
            rows.append(bins[bins["count"] > 0])
    return pd.concat(rows, ignore_index=True)


def entropies(predictions: Sequence[Predicted]) -> pd.DataFrame:
    """Predictive entropy of every image of every run, and whether it was classified right.

    Args:
        predictions: of one labelled set.

    Returns:
        Columns model, seed, entropy (nats), outcome (``right`` or ``wrong``).
    """
    rows = []
    for one in in_model_order(predictions):
        right = one.mean_probs.argmax(axis=1) == labels_of(one)
        entropy = metrics.predictive_entropy(one.mean_probs)
        outcome = np.where(right, "right", "wrong")
        columns = {"model": one.model, "seed": one.seed, "entropy": entropy, "outcome": outcome}
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def risk_coverage(predictions: Sequence[Predicted]) -> pd.DataFrame:
    """The error among the most certain images, by confidence, for growing shares of them.

    Args:
        predictions: of one labelled set.

    Returns:
        A row a run and coverage (:data:`COVERAGES`): model, run, coverage, risk, aurc and
        coverage_at_1_percent, the greatest share of images with a risk of at most 1 %.
    """
    rows = []
    for one in in_model_order(predictions):
        labels = labels_of(one)
        curve = metrics.risk_coverage(one.mean_probs, labels)
        # The least number of images that reaches the coverage.
        index = np.maximum(np.ceil(COVERAGES * len(labels) - 1e-9).astype(int), 1) - 1
        columns = {"model": one.model, "run": one.run, "coverage": COVERAGES}
        columns |= {"risk": curve.risk[index], "aurc": metrics.aurc(one.mean_probs, labels)}
        kept = metrics.coverage_at_risk(one.mean_probs, labels, 0.01)
        rows.append(pd.DataFrame(columns | {"coverage_at_1_percent": kept}))
    return pd.concat(rows, ignore_index=True)


def _nll(one: Predicted) -> np.ndarray:
    return -metrics.log_mean_probs(one.mean_probs)[np.arange(len(labels_of(one))), labels_of(one)]


_PER_IMAGE: dict[str, Callable[[Predicted], np.ndarray]] = {"accuracy": correct, "nll": _nll}
