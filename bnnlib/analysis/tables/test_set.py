"""Tables of the test set: scores, reliability, entropies, risk-coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import (
    SCORES,
    by_model,
    in_model_order,
    labels_of,
    over_runs,
    unknown,
)

COVERAGES = np.round(np.arange(0.5, 1.0001, 0.005), 3)


def scores(predictions: Sequence[Predicted], num_resamples: int = 1000) -> pd.DataFrame:
    """Every model's scores: mean, spread over runs, and the interval over images and seeds.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a model and score: model, score (:data:`SCORES`, ``<score>_scaled`` after temperature
        scaling, ``ece_debiased``, ``ece_if_calibrated``, ``temperature``, ``images_per_second``),
        runs, mean, stddev (over runs; NaN for one run or an infinite mean), low and high (95 % over
        images and seeds, NaN for two runs: :func:`bnnlib.analysis.tables.common.over_runs`; NaN for
        the plain ECE, whose bias no interval covers, and for images_per_second; of
        ``ece_if_calibrated`` what a calibrated model would show).
    """
    rows = []
    for model, group in by_model(predictions).items():
        by_score: dict[str, list[metrics.Interval]] = {}
        for one in group:
            labels = labels_of(one)
            variants = {"": (one.mean_probs, tuple(SCORES))}
            if not math.isnan(one.temperature):
                variants["_scaled"] = (one.scaled_probs, tuple(metrics.SCALED))
            for suffix, (probs, names) in variants.items():
                for name in names:
                    interval = (
                        unknown(metrics.ece(probs, labels))
                        if name == "ece"
                        else metrics.interval(SCORES[name], probs, labels, num_resamples)
                    )
                    by_score.setdefault(name + suffix, []).append(interval)
            by_score.setdefault("ece_debiased", []).append(
                metrics.ece_interval(one.mean_probs, labels)
            )
            calibrated = metrics.if_calibrated(one.mean_probs, num_resamples=num_resamples)
            by_score.setdefault("ece_if_calibrated", []).append(metrics.Interval(*calibrated[:3]))
            fitted = one.temperature_interval or unknown(one.temperature)
            by_score.setdefault("temperature", []).append(fitted)
            by_score.setdefault("images_per_second", []).append(unknown(one.images_per_second))
        for name, intervals in by_score.items():
            # Of some runs a temperature or a speed may be unknown; the others' mean is known.
            known = [one for one in intervals if not math.isnan(one.estimate)] or intervals
            estimates = [interval.estimate for interval in known]
            mean, low, high = over_runs(known)
            row: dict[str, Any] = {"model": model, "score": name, "runs": len(known)}
            row |= {"mean": mean, "low": low, "high": high}
            spread = len(estimates) > 1 and np.isfinite(estimates).all()
            row["stddev"] = np.std(estimates, ddof=1) if spread else math.nan
            rows.append(row)
    columns_in_order = ["model", "score", "runs", "mean", "stddev", "low", "high"]
    return pd.DataFrame(rows).reindex(columns=columns_in_order)


# Scores of the records that `scores` does not compute anew, some of them of newer records alone.
RECORDED = (
    *("augrc", "smooth_ece", "disagreement", "accuracy_vector_scaled", "nll_vector_scaled"),
    *("ece_vector_scaled", "coverage_thr", "set_size_thr", "coverage_aps", "set_size_aps"),
    *("coverage_raps", "set_size_raps", "cross_entropy", "soft_brier", "total_variation"),
    "entropy_correlation",
)


def recorded(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Further scores of the test set, as the records have them.

    Args:
        runs: of a :class:`bnnlib.analysis.predictions.Group`.
        rows: of :func:`bnnlib.analysis.runs.load_evaluation`, of the same folder.

    Returns:
        Rows of :func:`scores`, of :data:`RECORDED`, their intervals unknown. No rows of a score
        that no record has.
    """
    of_test = rows[rows["set"] == metrics.TEST].set_index("path").reindex(runs.path)
    names = [name for name in RECORDED if name in of_test]
    values = of_test[names].set_axis(runs.index).assign(model=runs.model)
    long = values.melt("model", var_name="score").dropna()
    groups = long.groupby(["model", "score"], sort=False).value
    table = groups.agg(runs="size", mean="mean", stddev="std").reset_index()
    return table.assign(low=math.nan, high=math.nan)


def reliability(predictions: Sequence[Predicted], num_bins: int = metrics.NUM_BINS) -> pd.DataFrame:
    """Reliability bins of every run, as predicted and after temperature scaling.

    Args:
        predictions: of one labelled set.
        num_bins: bins of equal width of the confidence.

    Returns:
        A row a run and bin that is not empty: run, model, seed, scaled, ece, the columns of
        :class:`bnnlib.metrics.ReliabilityBins`, ece_debiased with ece_low and ece_high, its 95 %
        interval, and what a calibrated model with these confidences would show: ece_if_calibrated
        (mean), ece_if_calibrated_high (97.5 %), calibrated_low and calibrated_high (the middle 95 %
        of the bin's accuracy).
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
            interval = metrics.ece_interval(probs, labels, num_bins)
            calibrated = metrics.if_calibrated(probs, num_bins)
            bins["ece_debiased"], bins["ece_low"], bins["ece_high"] = interval
            bins["ece_if_calibrated"] = calibrated.ece
            bins["ece_if_calibrated_high"] = calibrated.ece_high
            bins["calibrated_low"] = calibrated.accuracy_low
            bins["calibrated_high"] = calibrated.accuracy_high
            rows.append(bins[bins["count"] > 0])
    return pd.concat(rows, ignore_index=True)


def entropies(predictions: Sequence[Predicted]) -> pd.DataFrame:
    """Predictive entropy of every image of every run, and whether it was classified right.

    Args:
        predictions: of one labelled set.

    Returns:
        Columns model, run, seed, entropy (nats), outcome (``right`` or ``wrong``).
    """
    rows = []
    for one in in_model_order(predictions):
        right = one.mean_probs.argmax(axis=1) == labels_of(one)
        entropy = metrics.predictive_entropy(one.mean_probs)
        outcome = np.where(right, "right", "wrong")
        columns = {"model": one.model, "run": one.run, "seed": one.seed}
        columns |= {"entropy": entropy, "outcome": outcome}
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def _coverage_at_1_percent(probs: np.ndarray, labels: np.ndarray) -> float:
    return metrics.coverage_at_risk(probs, labels, 0.01)


def risk_coverage(predictions: Sequence[Predicted], num_resamples: int = 200) -> pd.DataFrame:
    """The error among the most certain images, by confidence, for growing shares of them.

    Args:
        predictions: of one labelled set.
        num_resamples: of the bootstrap over images, for the coverage.

    Returns:
        A row a run and coverage (:data:`COVERAGES`): model, run, coverage, risk, aurc and
        coverage_at_1_percent, the greatest share of images with a risk of at most 1 %, with the
        ends of its 95 % interval over images, coverage_low and coverage_high.
    """
    rows = []
    for one in in_model_order(predictions):
        labels = labels_of(one)
        curve = metrics.risk_coverage(one.mean_probs, labels)
        # The least number of images that reaches the coverage.
        index = np.maximum(np.ceil(COVERAGES * len(labels) - 1e-9).astype(int), 1) - 1
        columns = {"model": one.model, "run": one.run, "coverage": COVERAGES}
        columns |= {"risk": curve.risk[index], "aurc": metrics.aurc(one.mean_probs, labels)}
        kept = metrics.bootstrap_interval(
            _coverage_at_1_percent, one.mean_probs, labels, num_resamples=num_resamples
        )
        names = ("coverage_at_1_percent", "coverage_low", "coverage_high")
        rows.append(pd.DataFrame(columns | dict(zip(names, kept, strict=True))))
    return pd.concat(rows, ignore_index=True)
