"""Tables of shifted sets and of sets out of distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import data, metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import (
    correct,
    in_model_order,
    labels_of,
    nll_by_image,
    of_mean,
    of_ratio,
    over_runs,
)
from bnnlib.errors import RecordError
from bnnlib.metrics import AurocParts

OOD_SCORES = ("max_probability", "entropy", "mutual_information")
FALSE_ALARMS = np.round(np.concatenate([np.arange(0, 0.1, 0.002), np.arange(0.1, 1.001, 0.01)]), 3)


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
        A row a run, family, severity and score: run, model, family, severity, set, score, value,
        low, high (95 % over images). The scores are accuracy, ece and ece_scaled (plain, without
        an interval, since they are biased), ece_debiased, and ece_if_calibrated, what a calibrated
        model with the same confidences would show. No rows without shifted sets.
    """
    families = list(dict.fromkeys(_family(name)[0] for name in shifted))
    rows = []

    def accuracy(probs: np.ndarray, labels: np.ndarray) -> metrics.Interval:
        return metrics.interval(metrics.accuracy, probs, labels, num_resamples)

    for name, predictions in {"test": test, **shifted}.items():
        family, severity = _family(name)
        for one in in_model_order(predictions):
            measures: dict[str, tuple[np.ndarray, Callable[..., metrics.Interval]]] = {
                "accuracy": (one.mean_probs, accuracy),
                "ece": (one.mean_probs, _plain_ece),
                "ece_debiased": (one.mean_probs, metrics.ece_interval),
                "ece_if_calibrated": (one.mean_probs, _ece_if_calibrated),
            }
            if not math.isnan(one.temperature):
                measures["ece_scaled"] = (one.scaled_probs, _plain_ece)
            for score, (probs, measure) in measures.items():
                value, low, high = measure(probs, labels_of(one))
                row: dict[str, Any] = {"run": one.run, "model": one.model, "set": name}
                row |= {"score": score, "value": value, "low": low, "high": high}
                # Every family begins with the set that it shifts.
                places = (
                    [(each, 0) for each in families] if name == "test" else [(family, severity)]
                )
                for each, at in places:
                    rows.append(row | {"family": each, "severity": at})
    columns = ["run", "model", "family", "severity", "set", "score", "value", "low", "high"]
    rows.sort(key=lambda row: (families.index(row["family"]), row["severity"]))
    return pd.DataFrame(rows, columns=columns)


def by_severities(shifts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of families that have several severities, and those of families that have one.

    A line against severity shows the first; of the others it would have no course to show.

    Args:
        shifts: of :func:`shifts`.
    """
    levels = shifts[shifts.severity > 0].groupby("family").severity.nunique()
    single = shifts.family.isin(levels.index[levels == 1])
    return shifts[~single].reset_index(drop=True), shifts[single].reset_index(drop=True)


def _plain_ece(probs: np.ndarray, labels: np.ndarray) -> metrics.Interval:
    return metrics.Interval(metrics.ece(probs, labels), math.nan, math.nan)


def _ece_if_calibrated(probs: np.ndarray, labels: np.ndarray) -> metrics.Interval:
    return metrics.Interval(*metrics.if_calibrated(probs, num_resamples=200)[:3])


def corruption_means(
    shifted: Mapping[str, Sequence[Predicted]], baseline: str = "", num_resamples: int = 200
) -> pd.DataFrame:
    """Mean scores over the members of groups of shifted sets, as uncertainty-baselines prints them.

    cA, cNLL and cECE are the means of accuracy, NLL (nats) and ECE over all corruptions and
    severities. mCE is Hendrycks and Dietterich's (2019, arXiv 1903.12261, section 4.2): the errors
    of a corruption, summed over its severities, as a share of the baseline's; then the mean over
    corruptions. Papers print 100 times it. It is infinite where the baseline alone makes no error
    in a corruption, and unknown (NaN) where neither does.

    Args:
        shifted: predictions by the shifted set's name, ``<family>-<severity>`` or ``<family>``.
        baseline: a run or a model, whose runs' errors are averaged, that mCE is relative to; no
            mCE without it.
        num_resamples: of the bootstrap over images.

    Returns:
        A row a run, group and score: run, model, group (of :data:`bnnlib.data.GROUPS`), score (cA,
        cNLL, cECE, mCE), value, low, high (95 % over images; unknown for cECE and mCE), sets and
        images (of a set). Only groups of several corruptions, all of whose members were evaluated.

    Raises:
        RecordError: no run or model is called as the baseline.
    """
    groups = {
        name: members
        for name, members in data.GROUPS.items()
        if set(members) <= set(shifted) and len({_family(member)[0] for member in members}) > 1
    }
    rows = []
    for group, members in groups.items():
        by_run: dict[tuple[str, str], dict[str, Predicted]] = {}
        for name in members:
            for one in in_model_order(shifted[name]):
                by_run.setdefault((one.model, one.run), {})[name] = one
        whole = {key: sets for key, sets in by_run.items() if len(sets) == len(members)}
        errors = {key: _errors(sets) for key, sets in whole.items()}
        of_baseline = [errors[key] for key in errors if baseline in key]
        if baseline and not of_baseline:
            known = ", ".join(dict.fromkeys(name for key in errors for name in key))
            raise RecordError(f"baseline = {baseline!r}: no such run or model; expected {known}")
        for (model, run), sets in whole.items():
            row: dict[str, Any] = {"run": run, "model": model, "group": group}
            row |= {"sets": len(sets), "images": len(next(iter(sets.values())).mean_probs)}
            values = _corrupted(sets, num_resamples)
            if baseline:
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratios = errors[model, run] / np.mean(of_baseline, axis=0)
                values["mCE"] = metrics.Interval(float(ratios.mean()), math.nan, math.nan)
            rows += [
                row | {"score": score} | dict(zip(("value", "low", "high"), value, strict=True))
                for score, value in values.items()
            ]
    columns = ["run", "model", "group", "score", "value", "low", "high", "sets", "images"]
    return pd.DataFrame(rows, columns=columns)


def _errors(sets: Mapping[str, Predicted]) -> np.ndarray:
    """The share of wrong predictions of each family, summed over its severities."""
    sums: dict[str, float] = {}
    for name, one in sets.items():
        family = _family(name)[0]
        sums[family] = sums.get(family, 0.0) + 1.0 - float(correct(one).mean())
    return np.array(list(sums.values()))


def _corrupted(sets: Mapping[str, Predicted], num_resamples: int) -> dict[str, metrics.Interval]:
    """cA, cNLL and cECE; an image keeps its corruptions together when images are drawn again."""
    scores = {"cA": correct, "cNLL": nll_by_image}
    values = {}
    for name, score in scores.items():
        by_image = np.mean([score(one) for one in sets.values()], axis=0)
        values[name] = (
            metrics.bootstrap_interval(np.mean, by_image, num_resamples=num_resamples)
            if np.isfinite(by_image).all()
            else metrics.Interval(float(by_image.mean()), math.nan, math.nan)
        )
    eces = [metrics.ece(one.mean_probs, labels_of(one)) for one in sets.values()]
    return values | {"cECE": metrics.Interval(float(np.mean(eces)), math.nan, math.nan)}


def ood(
    test: Sequence[Predicted],
    foreign: Mapping[str, Sequence[Predicted]],
    num_resamples: int = 200,
) -> pd.DataFrame:
    """How well every uncertainty tells foreign images from the test images.

    Args:
        test: predictions of the test set.
        foreign: predictions by the name of the set out of distribution, of the same runs.
        num_resamples: of the bootstrap over images, for the false alarms.

    Returns:
        A row a run, set and score (:data:`OOD_SCORES`): run, model, set, score, auroc, aupr_in,
        aupr_out, fpr95, median (of the score on the set), the ends of the 95 % intervals over
        images (auroc_low, auroc_high, fpr95_low, fpr95_high), and the AUROC less the entropy's,
        paired (gain, gain_low, gain_high). The mutual information has no rows where all draws
        agree. No rows without sets.
    """
    rows = []
    for name, one, other in _pairs(test, foreign):
        values = metrics.ood_summary(
            one.mean_probs, one.expected_entropy, other.mean_probs, other.expected_entropy
        )
        inside = metrics.uncertainty_scores(one.mean_probs, one.expected_entropy)
        scores_outside = metrics.uncertainty_scores(other.mean_probs, other.expected_entropy)
        for score in OOD_SCORES:
            if score == "mutual_information" and not one.is_stochastic:
                continue
            row: dict[str, Any] = {"run": one.run, "model": one.model, "set": name}
            row |= {"score": score}
            row |= {m: values[f"{m}_{score}"] for m in ("auroc", "aupr_in", "aupr_out", "fpr95")}
            row |= {"median": float(np.median(scores_outside[score]))}
            parts = metrics.auroc_parts(inside[score], scores_outside[score])
            by_entropy = metrics.auroc_parts(inside["entropy"], scores_outside["entropy"])
            gain = AurocParts(*(a - b for a, b in zip(parts, by_entropy, strict=True)))
            alarms = metrics.bootstrap_interval(
                metrics.fpr_at_tpr,
                inside[score],
                scores_outside[score],
                num_resamples=num_resamples,
            )
            _, row["auroc_low"], row["auroc_high"] = parts.interval()
            _, row["fpr95_low"], row["fpr95_high"] = alarms
            row["gain"], row["gain_low"], row["gain_high"] = gain.interval()
            rows.append(row)
    columns = ["run", "model", "set", "score", "auroc", "aupr_in", "aupr_out", "fpr95", "median"]
    columns += ["auroc_low", "auroc_high", "fpr95_low", "fpr95_high"]
    columns += ["gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=columns)


def ood_groups(detection: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Mean detection scores over the members of OpenOOD's groups near and far.

    Args:
        detection: of :func:`ood`.
        dataset: that the models were trained on, by name.

    Returns:
        A row a run, group, protocol and score: run, model, group, protocol, score, auroc, aupr_in,
        aupr_out, fpr95 (means over the members), sets (how many), members, missing (those that were
        not evaluated). The protocol ``OpenOOD`` has its members alone; ``all`` has this study's
        additions, too, and no rows where there are none. No rows where no member was evaluated, or
        for a data set without groups.
    """
    rows = []
    keys = ["model", "run", "score"]
    scores = ["auroc", "aupr_in", "aupr_out", "fpr95"]
    for group, of in data.OOD_GROUPS.get(dataset, {}).items():
        for protocol, members in {"OpenOOD": of.openood, "all": of.members}.items():
            found = detection[detection["set"].isin(members)]
            if protocol == "all" and not found["set"].isin(of.added).any():
                continue
            for (model, run, score), selected in found.groupby(keys, sort=False):
                present = [name for name in members if name in set(selected["set"])]
                row: dict[str, Any] = {"run": run, "model": model, "group": group}
                row |= {"protocol": protocol, "score": score, **selected[scores].mean()}
                row |= {"sets": len(present), "members": ", ".join(present)}
                missing = [name for name in members if name not in present]
                rows.append(row | {"missing": ", ".join(missing)})
    columns = ["run", "model", "group", "protocol", "score", *scores]
    return pd.DataFrame(rows, columns=[*columns, "sets", "members", "missing"])


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
            false_alarms, detected = _roc_curve(inside[score], outside[score])
            columns = {"model": one.model, "set": name, "score": score}
            # Where the curve rises at one share of false alarms, its upper end counts.
            last = np.searchsorted(false_alarms, FALSE_ALARMS, side="right") - 1
            exact = np.isclose(false_alarms[last], FALSE_ALARMS)
            at = np.where(exact, detected[last], np.interp(FALSE_ALARMS, false_alarms, detected))
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
        aleatoric, epistemic (nats, means over images and runs), share (the epistemic one of both
        together), and the ends of the 95 % intervals over images and seeds (epistemic_low,
        epistemic_high, share_low, share_high). No rows without such models.
    """
    stochastic = {one.run for one in test if one.is_stochastic}
    rows = []
    kinds = {"test": "test"} | dict.fromkeys(shifted, "shift") | dict.fromkeys(foreign, "ood")
    for name, predictions in {"test": test, **shifted, **foreign}.items():
        for one in in_model_order(predictions):
            if one.run not in stochastic or one.expected_entropy is None:
                continue
            epistemic = metrics.mutual_information(one.mean_probs, one.expected_entropy)
            parts = {kinds[name]: np.ones(len(epistemic), bool)}
            if name == "test":
                right = one.mean_probs.argmax(axis=1) == labels_of(one)
                parts = {"right": right, "wrong": ~right}
            for kind, chosen in parts.items():
                if not chosen.any():
                    continue
                row: dict[str, Any] = {"model": one.model, "kind": kind}
                row |= {"set": f"test, {kind}" if name == "test" else name}
                row |= {"images": int(chosen.sum())}
                aleatoric = one.expected_entropy[chosen].astype(np.float64)
                row |= {"aleatoric": float(aleatoric.mean())}
                row |= {"epistemic": of_mean(epistemic[chosen])}
                total = aleatoric + epistemic[chosen]
                rows.append(row | {"share": of_ratio(epistemic[chosen], total)})
    if not rows:
        return pd.DataFrame()
    merged = []
    keys = ["model", "set", "kind"]
    for key, runs in pd.DataFrame(rows).groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True))
        row |= {name: runs[name].mean() for name in ("images", "aleatoric")}
        for name in ("epistemic", "share"):
            known = [one for one in runs[name] if not math.isnan(one.estimate)]
            value, low, high = over_runs(known or list(runs[name]))
            most = 1.0 if name == "share" else math.inf
            row |= {name: value, f"{name}_low": max(low, 0.0), f"{name}_high": min(high, most)}
        merged.append(row)
    return pd.DataFrame(merged)


def _family(name: str) -> tuple[str, int]:
    """The parts of a shifted set's name; a name of another form is a family of one severity."""
    family, _, severity = name.rpartition("-")
    return (family, int(severity)) if family and severity.isdecimal() else (name, 1)


def _pairs(
    test: Sequence[Predicted], foreign: Mapping[str, Sequence[Predicted]]
) -> list[tuple[str, Predicted, Predicted]]:
    """Each run's predictions of the test set and of a foreign one, by the model's order."""
    return [
        (name, one, other)
        for one in in_model_order(test)
        for name, predictions in foreign.items()
        for other in predictions
        if (other.model, other.run) == (one.model, one.run)
    ]


def _roc_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of inside and outside scores at or above each threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    ranked_in, ranked_out = np.sort(inside), np.sort(outside)
    false_alarms = 1.0 - np.searchsorted(ranked_in, thresholds, side="left") / len(inside)
    detected = 1.0 - np.searchsorted(ranked_out, thresholds, side="left") / len(outside)
    return np.concatenate([[0.0], false_alarms]), np.concatenate([[0.0], detected])
