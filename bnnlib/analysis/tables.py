"""The table behind each figure: predictions in, from records or from anywhere; tidy rows out.

A :class:`Predicted` is one model's predictions of one set of images. :meth:`Group.predictions`
reads those of a group of runs and of the ensembles of their seeds; :func:`given` takes a user's own
arrays. Every function below makes of them the rows that one figure of
:mod:`bnnlib.analysis.figures` draws and
one paragraph of :mod:`bnnlib.analysis.findings` reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bnnlib import data, metrics
from bnnlib.analysis import runs as run_tables
from bnnlib.analysis.predictions import MAY_DIFFER, ensemble_predictions
from bnnlib.data import Dataset
from bnnlib.errors import DataError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.names import in_order, twin_of
from bnnlib.networks import Network, posterior
from bnnlib.networks.posterior import LayerLog
from bnnlib.record.predictions import read_predictions

SCORES: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy,
    "nll": metrics.nll,
    "brier": metrics.brier,
    "ece": metrics.ece,
    "aurc": metrics.aurc,
}
# What temperature scaling changes: it leaves accuracy as it is, and the ranking of images nearly.
SCALED = ("nll", "brier", "ece")
OOD_SCORES = ("max_probability", "entropy", "mutual_information")
COVERAGES = np.round(np.arange(0.5, 1.0001, 0.005), 3)
FALSE_ALARMS = np.round(np.concatenate([np.arange(0, 0.1, 0.002), np.arange(0.1, 1.001, 0.01)]), 3)


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """One model's predictions of one set of images.

    Attributes:
        model: its name in tables and figures.
        mean_probs: ``(num_images, num_classes)``.
        labels: int ``(num_images,)``; None for images out of distribution.
        expected_entropy: ``(num_images,)`` nats; None where only mean probabilities are known.
        run: tells the runs of one model apart.
        seed: of the run; of an ensemble, the number of its members.
        temperature: fitted on held-out images; NaN where none were held out.
        images_per_second: of training, all ranks together; NaN if unknown.
    """

    model: str
    mean_probs: np.ndarray
    labels: np.ndarray | None = None
    expected_entropy: np.ndarray | None = None
    run: str = ""
    seed: int = 0
    temperature: float = math.nan
    images_per_second: float = math.nan

    @property
    def scaled_probs(self) -> np.ndarray:
        """The mean probabilities at `temperature`, ``(num_images, num_classes)``."""
        return metrics.apply_temperature(_log(self.mean_probs), self.temperature)

    @property
    def is_stochastic(self) -> bool:
        """Whether its draws differ, so that some uncertainty is epistemic."""
        if self.expected_entropy is None:
            return False
        information = metrics.mutual_information(self.mean_probs, self.expected_entropy)
        return bool((information > 0).any())


def given(
    model: str, probs: npt.ArrayLike, labels: npt.ArrayLike | None = None, run: str = ""
) -> Predicted:
    """A user's own model, trained anywhere, for every function of this module.

    Args:
        model: its name in tables and figures.
        probs: class probabilities, of draws ``(num_draws, num_images, num_classes)`` or their mean
            ``(num_images, num_classes)``. From draws the epistemic part is known too.
        labels: ``(num_images,)``; None for images out of distribution.
        run: tells several runs of the model apart.

    Returns:
        The prediction.

    Raises:
        MetricsError: the arrays are no probabilities, or no labels of these images.
    """
    array = np.asarray(probs)
    expected = metrics.expected_entropy(array) if array.ndim == 3 else None
    mean = metrics.mean_probs(array if array.ndim == 3 else array[np.newaxis])
    truth = None if labels is None else np.asarray(labels)
    if truth is not None:
        metrics.accuracy(mean, truth)  # refuses labels that are none of these images
    return Predicted(model, mean, truth, expected, run or model)


class Group:
    """The finished runs of a group, the ensembles of their seeds, and what they predict.

    Attributes:
        runs: of :func:`bnnlib.analysis.runs.load`, finished runs only; `model` tells variants of a
            network apart, such as ``CNN_conv dropout(0.1)``.
        unfinished: the runs that are left out.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the records below `path`.

        Raises:
            RecordError: there is no finished run, or a record is damaged.
        """
        table = run_tables.load(path)
        self.unfinished = table[table.status != "finished"]
        if len(self.unfinished) == len(table):
            raise RecordError(f"{path}: no finished run among {len(table)}; train first")
        self.runs = named(table[table.status == "finished"]).reset_index(drop=True)
        rows = run_tables.load_evaluation(path)
        names = self.runs.group + "/" + self.runs.run_id
        self._paths = dict(zip(names, self.runs.path, strict=True))
        rows = run_tables.load_evaluation(path)
        self._kinds = dict(zip(rows["set"], rows["kind"], strict=True))
        self._sets = {path: set(mine["set"]) for path, mine in rows.groupby("path")}
        self._predicted: dict[str, list[Predicted]] = {}

    def sets(self, kind: str) -> list[str]:
        """Names of the evaluation sets of a kind: ``test``, ``holdout``, ``shift`` or ``ood``."""
        return [name for name, its_kind in self._kinds.items() if its_kind == kind]

    def predictions(self, name: str = metrics.TEST) -> list[Predicted]:
        """What every run that has this set predicts on it, then the ensembles of their seeds.

        Raises:
            RecordError: a record's predictions are missing or damaged, or an ensemble's members
                were not judged on the same images.
        """
        if name not in self._predicted:
            self._predicted[name] = self._of_runs(name) + self._of_ensembles(name)
        return self._predicted[name]

    def by_set(self, kind: str) -> dict[str, list[Predicted]]:
        """:meth:`predictions` of every set of a kind, by the set's name."""
        return {name: self.predictions(name) for name in self.sets(kind)}

    def by_draws(self) -> dict[int, list[Predicted]]:
        """Predictions of the test set by the mean over the first draws, by their number."""
        found: dict[int, list[Predicted]] = {}
        for one in self.predictions():
            if one.run in self._paths and one.is_stochastic:
                curve = read_predictions(self._paths[one.run])[0].draws_curve
                if curve is None:
                    continue
                for index, draws in enumerate(curve.draws):
                    probs, entropy = curve.mean_probs[index], curve.expected_entropy[index]
                    fewer = dataclasses.replace(one, mean_probs=probs, expected_entropy=entropy)
                    found.setdefault(int(draws), []).append(fewer)
        return found

    def _of_runs(self, name: str) -> list[Predicted]:
        found = []
        for run in self.runs.itertuples():
            if name != metrics.TEST and name not in self._sets.get(run.path, ()):
                continue
            prediction, labels = read_predictions(run.path, name)
            found.append(
                Predicted(
                    model=run.model,
                    mean_probs=prediction.mean_probs,
                    labels=labels,
                    expected_entropy=prediction.expected_entropy,
                    run=f"{run.group}/{run.run_id}",
                    seed=run.seed,
                    temperature=_number(run, "temperature"),
                    images_per_second=_number(run, "images_per_second"),
                )
            )
        return found

    def _of_ensembles(self, name: str) -> list[Predicted]:
        found = []
        for model, runs in self.runs.drop_duplicates(["model", "seed"]).groupby("model"):
            sets = [self._sets.get(path, {metrics.TEST}) for path in runs.path]
            if len(runs) < 2 or not all(name in one for one in sets):
                continue
            paths = list(runs.path)
            prediction, labels = ensemble_predictions(paths, name)
            temperature = math.nan
            if all(metrics.HOLDOUT in one for one in sets):
                held_out, their_labels = ensemble_predictions(paths, metrics.HOLDOUT)
                temperature = metrics.fit_temperature(
                    metrics.log_mean_probs(held_out), their_labels
                )
            found.append(
                Predicted(
                    model=f"{model} ensemble({len(runs)})",
                    mean_probs=prediction.mean_probs,
                    labels=labels,
                    expected_entropy=prediction.expected_entropy,
                    run=f"{model} ensemble",
                    seed=len(runs),
                    temperature=temperature,
                )
            )
        return found


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with names that tell variants of a network apart, so that no mean mixes them.

    ``CNN_conv`` with dropout is ``CNN_conv dropout(0.1)``; where runs of one network differ in
    other parameters or in their number of ranks, these follow, as in ``CNN_FC kl_weight(0.5)``.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.

    Returns:
        A copy with other names in the column `model`.
    """
    runs = runs.copy()
    defaults = Experiment().to_dict()
    same_network = {"model", *MAY_DIFFER}
    parameters = [name for name in defaults if name in runs and name not in same_network]
    # A run older than a parameter was made with what is its default now.
    known = runs[[*parameters, "ranks"]].fillna({name: defaults[name] for name in parameters})
    for _, rows in runs.groupby("model").groups.items():
        for name, values in known.loc[rows].items():
            if name == "dropout":
                values = values[values > 0]
            elif values.astype(str).nunique() < 2:
                continue
            for row, value in values.items():
                runs.loc[row, "model"] += f" {name}({value})"
    return runs


# --- The test set --------------------------------------------------------------------------------


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
    for model, group in _grouped(predictions).items():
        columns: dict[str, list[tuple[Any, ...]]] = {}
        for one in group:
            for score, metric in SCORES.items():
                columns.setdefault(score, []).append((metric, one.mean_probs, one.labels))
            if not math.isnan(one.temperature):
                scaled = one.scaled_probs
                for score in SCALED:
                    arrays = (SCORES[score], scaled, one.labels)
                    columns.setdefault(f"{score}_scaled", []).append(arrays)
        for score, arguments in columns.items():
            row: dict[str, Any] = {"model": model, "score": score, "runs": len(group)}
            if len(group) == 1:
                interval = metrics.bootstrap_interval(*arguments[0], num_resamples=num_resamples)
                row |= {"mean": interval.estimate, "low": interval.low, "high": interval.high}
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
    groups = _grouped(predictions)
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
    for one in _in_order(predictions):
        variants = {False: one.mean_probs}
        if not math.isnan(one.temperature):
            variants[True] = one.scaled_probs
        for scaled, probs in variants.items():
            labels = _labels(one)
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
    for one in _in_order(predictions):
        right = one.mean_probs.argmax(axis=1) == _labels(one)
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
    for one in _in_order(predictions):
        labels = _labels(one)
        curve = metrics.risk_coverage(one.mean_probs, labels)
        # The least number of images that reaches the coverage.
        index = np.maximum(np.ceil(COVERAGES * len(labels) - 1e-9).astype(int), 1) - 1
        columns = {"model": one.model, "run": one.run, "coverage": COVERAGES}
        columns |= {"risk": curve.risk[index], "aurc": metrics.aurc(one.mean_probs, labels)}
        kept = metrics.coverage_at_risk(one.mean_probs, labels, 0.01)
        rows.append(pd.DataFrame(columns | {"coverage_at_1_percent": kept}))
    return pd.concat(rows, ignore_index=True)


# --- Other sets ----------------------------------------------------------------------------------


def shifts(
    test: Sequence[Predicted],
    shifted: Mapping[str, Sequence[Predicted]],
    num_resamples: int = 200,
) -> pd.DataFrame:
    """Accuracy and calibration error against severity, family by family.

    Args:
        test: predictions of the set that is shifted: severity 0 of every family.
        shifted: predictions by the shifted set's name, ``<family>-<severity>``.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a run, family, severity and score (accuracy, ece, ece_scaled): run, model, family,
        severity, set, score, value, low, high (95 % over images). No rows without shifted sets.
    """
    families = list(dict.fromkeys(_family(name)[0] for name in shifted))
    rows = []
    for name, predictions in {"test": test, **shifted}.items():
        family, severity = _family(name)
        for one in _in_order(predictions):
            arrays = {"accuracy": one.mean_probs, "ece": one.mean_probs}
            if not math.isnan(one.temperature):
                arrays["ece_scaled"] = one.scaled_probs
            for score, probs in arrays.items():
                metric = SCORES[score.removesuffix("_scaled")]
                interval = metrics.bootstrap_interval(
                    metric, probs, _labels(one), num_resamples=num_resamples
                )
                row: dict[str, Any] = {"run": one.run, "model": one.model, "set": name}
                row |= {"score": score} | dict(zip(("value", "low", "high"), interval, strict=True))
                # Every family begins with the set that it shifts.
                places = (
                    [(each, 0) for each in families] if name == "test" else [(family, severity)]
                )
                for each, at in places:
                    rows.append(row | {"family": each, "severity": at})
    columns = ["run", "model", "family", "severity", "set", "score", "value", "low", "high"]
    rows.sort(key=lambda row: (families.index(row["family"]), row["severity"]))
    return pd.DataFrame(rows, columns=columns)


def ood(test: Sequence[Predicted], foreign: Mapping[str, Sequence[Predicted]]) -> pd.DataFrame:
    """How well every uncertainty tells foreign images from the test images.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.

    Returns:
        A row a run, set and score (:data:`OOD_SCORES`): run, model, set, score, auroc, aupr_in,
        aupr_out, fpr95, and median (of the score on the set). The mutual information has no rows
        where all draws agree. No rows without sets.
    """
    rows = []
    for name, one, other in _pairs(test, foreign):
        values = metrics.ood_summary(
            one.mean_probs, one.expected_entropy, other.mean_probs, other.expected_entropy
        )
        found = metrics.uncertainty_scores(other.mean_probs, other.expected_entropy)
        for score in OOD_SCORES:
            if score == "mutual_information" and not one.is_stochastic:
                continue
            row: dict[str, Any] = {"run": one.run, "model": one.model, "set": name}
            row |= {"score": score}
            row |= {m: values[f"{m}_{score}"] for m in ("auroc", "aupr_in", "aupr_out", "fpr95")}
            rows.append(row | {"median": float(np.median(found[score]))})
    columns = ["run", "model", "set", "score", "auroc", "aupr_in", "aupr_out", "fpr95", "median"]
    return pd.DataFrame(rows, columns=columns)


def ood_histograms(
    test: Sequence[Predicted], foreign: Mapping[str, Sequence[Predicted]], num_bins: int = 24
) -> pd.DataFrame:
    """How the predictive entropy is distributed over test images and over foreign ones.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.
        num_bins: from 0 to the entropy of equal probabilities.

    Returns:
        A row a model, set and bin: model, set, lower, upper (nats), test and foreign (shares of the
        images, over all runs), auroc (of the entropy, mean over runs). No rows without sets.
    """
    rows: dict[tuple[str, str], list[Any]] = {}
    for name, one, other in _pairs(test, foreign):
        inside = metrics.predictive_entropy(one.mean_probs)
        outside = metrics.predictive_entropy(other.mean_probs)
        edges = np.linspace(0.0, math.log(one.mean_probs.shape[1]), num_bins + 1)
        shares = [
            # Rounding may lift equal probabilities' entropy over the last edge.
            np.histogram(np.minimum(entropy, edges[-1]), edges)[0] / len(entropy)
            for entropy in (inside, outside)
        ]
        entry = (edges, *shares, metrics.auroc(inside, outside))
        rows.setdefault((one.model, name), []).append(entry)
    frames = [
        pd.DataFrame(
            {
                "model": model,
                "set": name,
                "lower": runs[0][0][:-1],
                "upper": runs[0][0][1:],
                "test": np.mean([run[1] for run in runs], axis=0),
                "foreign": np.mean([run[2] for run in runs], axis=0),
                "auroc": np.mean([run[3] for run in runs]),
            }
        )
        for (model, name), runs in rows.items()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def roc(test: Sequence[Predicted], foreign: Mapping[str, Sequence[Predicted]]) -> pd.DataFrame:
    """Share of foreign images found against share of test images taken for foreign.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.

    Returns:
        A row a model, set, score (entropy, mutual_information) and share of false alarms
        (:data:`FALSE_ALARMS`): model, set, score, false_alarms, found (mean over runs). No rows
        without sets.
    """
    rows = []
    for name, one, other in _pairs(test, foreign):
        inside = metrics.uncertainty_scores(one.mean_probs, one.expected_entropy)
        outside = metrics.uncertainty_scores(other.mean_probs, other.expected_entropy)
        for score in ("entropy", "mutual_information"):
            if score not in inside or (score == "mutual_information" and not one.is_stochastic):
                continue
            false_alarms, found = _roc_curve(inside[score], outside[score])
            columns = {"model": one.model, "set": name, "score": score}
            # Where the curve rises at one share of false alarms, its upper end counts.
            last = np.searchsorted(false_alarms, FALSE_ALARMS, side="right") - 1
            exact = np.isclose(false_alarms[last], FALSE_ALARMS)
            at = np.where(exact, found[last], np.interp(FALSE_ALARMS, false_alarms, found))
            rows.append(pd.DataFrame(columns | {"false_alarms": FALSE_ALARMS, "found": at}))
    if not rows:
        return pd.DataFrame()
    keys = ["model", "set", "score", "false_alarms"]
    return pd.concat(rows).groupby(keys, sort=False, as_index=False).found.mean()


def uncertainties(
    test: Sequence[Predicted],
    shifted: Mapping[str, Sequence[Predicted]],
    foreign: Mapping[str, Sequence[Predicted]],
) -> pd.DataFrame:
    """The entropy's two parts on every set, for the models whose draws differ.

    Args:
        test: predictions of the test set, which is split in right and wrong ones.
        shifted: predictions by the shifted set's name.
        foreign: predictions by the name of the set out of distribution.

    Returns:
        A row a model and set: model, set, kind (``right``, ``wrong``, ``shift``, ``ood``), images,
        aleatoric, epistemic (nats, means over images and runs). No rows without such models.
    """
    stochastic = {one.run for one in test if one.is_stochastic}
    rows = []
    kinds = {"test": "test"} | dict.fromkeys(shifted, "shift") | dict.fromkeys(foreign, "ood")
    for name, predictions in {"test": test, **shifted, **foreign}.items():
        for one in _in_order(predictions):
            if one.run not in stochastic or one.expected_entropy is None:
                continue
            epistemic = metrics.mutual_information(one.mean_probs, one.expected_entropy)
            parts = {kinds[name]: np.ones(len(epistemic), bool)}
            if name == "test":
                right = one.mean_probs.argmax(axis=1) == _labels(one)
                parts = {"right": right, "wrong": ~right}
            for kind, chosen in parts.items():
                if not chosen.any():
                    continue
                row: dict[str, Any] = {"model": one.model, "kind": kind}
                row |= {"set": f"test, {kind}" if name == "test" else name}
                row |= {"images": int(chosen.sum())}
                row |= {"aleatoric": float(one.expected_entropy[chosen].mean())}
                rows.append(row | {"epistemic": float(epistemic[chosen].mean())})
    if not rows:
        return pd.DataFrame()
    keys = ["model", "set", "kind"]
    return pd.DataFrame(rows).groupby(keys, sort=False, as_index=False).mean()


# --- Number of draws -----------------------------------------------------------------------------


def convergence(by_draws: Mapping[int, Sequence[Predicted]]) -> pd.DataFrame:
    """What the scores of the test set would have been with fewer draws.

    Args:
        by_draws: predictions of the mean over the first draws, by their number.

    Returns:
        A row a run, number of draws and score (accuracy, nll, ece, mutual_information in nats):
        model, run, draws, score, value. No rows without predictions.
    """
    rows = []
    for draws, predictions in by_draws.items():
        for one in _in_order(predictions):
            labels = _labels(one)
            values = {
                name: SCORES[name](one.mean_probs, labels) for name in ("accuracy", "nll", "ece")
            }
            if one.expected_entropy is not None:
                information = metrics.mutual_information(one.mean_probs, one.expected_entropy)
                values["mutual_information"] = float(information.mean())
            row = {"model": one.model, "run": one.run, "draws": draws}
            rows += [row | {"score": score, "value": value} for score, value in values.items()]
    return pd.DataFrame(rows, columns=["model", "run", "draws", "score", "value"])


# --- Inside one network --------------------------------------------------------------------------


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
        for level, value in zip(posterior.LEVELS, getattr(line, q), strict=True)
    ]
    return pd.DataFrame(rows, columns=["epoch", "layer", "quantity", "level", "value"])


def signal_to_noise(network: Network) -> pd.DataFrame:
    """The distribution of abs(posterior mean) / standard deviation over each layer's weights.

    Blundell et al. 2015, section 5.1, prune the weights of the lowest ratios.

    Args:
        network: in its present state.

    Returns:
        A row a layer and share of its weights: layer, share, snr (the ratio that this share of the
        weights does not exceed). No rows for a deterministic network.
    """
    shares = np.linspace(0.0, 1.0, 201)
    frames = [
        pd.DataFrame(
            {"layer": name, "share": shares, "snr": np.quantile(np.abs(mean) / stddev, shares)}
        )
        for name, (mean, stddev) in posterior.entries(network).items()
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
    right = _correct(test) > 0
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


# --- Helpers -------------------------------------------------------------------------------------


def _log(probs: np.ndarray) -> np.ndarray:
    """As :func:`bnnlib.metrics.log_mean_probs`, of any probabilities."""
    return np.log(np.maximum(probs.astype(np.float64), metrics.SMALLEST_PROB))


def _number(run: Any, name: str) -> float:
    value = getattr(run, name, None)
    return math.nan if value is None else float(value)


def _labels(one: Predicted) -> np.ndarray:
    if one.labels is None:
        raise RecordError(f"{one.model}, {one.run}: no labels; give those of the images predicted")
    return one.labels


def _correct(one: Predicted) -> np.ndarray:
    return (one.mean_probs.argmax(axis=1) == _labels(one)).astype(float)


def _nll(one: Predicted) -> np.ndarray:
    return -_log(one.mean_probs)[np.arange(len(_labels(one))), _labels(one)]


_PER_IMAGE: dict[str, Callable[[Predicted], np.ndarray]] = {"accuracy": _correct, "nll": _nll}


def _family(name: str) -> tuple[str, int]:
    """The parts of a shifted set's name; a name of another form is a family of one severity."""
    family, _, severity = name.rpartition("-")
    return (family, int(severity)) if family and severity.isdecimal() else (name, 1)


def _in_order(predictions: Sequence[Predicted]) -> list[Predicted]:
    order = in_order(one.model for one in predictions)
    return sorted(predictions, key=lambda one: order.index(one.model))


def _grouped(predictions: Sequence[Predicted]) -> dict[str, list[Predicted]]:
    groups: dict[str, list[Predicted]] = {}
    for one in _in_order(predictions):
        groups.setdefault(one.model, []).append(one)
    return groups


def _pairs(
    test: Sequence[Predicted], foreign: Mapping[str, Sequence[Predicted]]
) -> list[tuple[str, Predicted, Predicted]]:
    """Each run's predictions of the test set and of a foreign one, by the model's order."""
    return [
        (name, one, other)
        for one in _in_order(test)
        for name, predictions in foreign.items()
        for other in predictions
        if (other.model, other.run) == (one.model, one.run)
    ]


def _roc_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of inside and outside scores at or above each threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    ranked_in, ranked_out = np.sort(inside), np.sort(outside)
    false_alarms = 1.0 - np.searchsorted(ranked_in, thresholds, side="left") / len(inside)
    found = 1.0 - np.searchsorted(ranked_out, thresholds, side="left") / len(outside)
    return np.concatenate([[0.0], false_alarms]), np.concatenate([[0.0], found])
