"""What a figure shows for the runs loaded, in sentences computed from its table.

There is one function for each figure of :mod:`bnnlib.analysis.figures`; it takes the figure's
table. Nothing is written in advance: where a Bayesian network is no better than its twin, the
sentence says so, and where the records lack what the figure needs, it says what is missing. Scores
stand with their 95 % interval in square brackets, over images and, of several runs, over seeds. A
difference is claimed only where its interval excludes zero. The text is Markdown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.words import between, number, percent, signed
from bnnlib.metrics import Interval
from bnnlib.names import in_order

# A gain in NLL of a single run, smaller than this, is called none: half of the last digit shown.
_TIE = 5e-4


def scores(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the table of scores.

    Args:
        table: of :func:`bnnlib.analysis.tables.scores`.
        differences: of :func:`bnnlib.analysis.tables.differences`.
    """
    names = set(table.score)
    text = (
        f"Most accurate: {_best(table, 'accuracy', 'max')}; lowest NLL: {_best(table, 'nll')}; "
        f"lowest debiased ECE: {_best(table, 'ece_debiased')}."
    )
    if "nll_scaled" in names:
        text += f" After temperature scaling: lowest NLL {_best(table, 'nll_scaled')}."
        temperatures = table[(table.score == "temperature") & table["mean"].notna()]
        text += _sure_and_modest(temperatures.set_index("model"))
    infinite = table.model[(table.score == "nll") & np.isposinf(table["mean"])]
    if len(infinite):
        text += f" Infinite NLL, from a label of probability 0: {_names(list(infinite))}."
    if table.runs.max() == 1:
        text += " One run a model: the intervals do not hold the luck of the seed."
    for (model, twin), pair in differences.groupby(["model", "twin"], sort=False):
        parts = []
        for row in pair.itertuples():
            better = row.difference > 0 if row.score == "accuracy" else row.difference < 0
            if np.isnan(row.difference):
                verdict = "since both are infinite"
            elif row.low <= 0 <= row.high:
                verdict = "no difference that these images and runs can show"
            else:
                verdict = "better" if better else "worse"
            label = {"nll": "NLL", "ece": "debiased ECE", "aurc": "AURC"}.get(row.score, row.score)
            parts.append(f"{label} {_signed_interval(row)}, {verdict}")
        text += f"\n- **{model}** less {twin}: " + "; ".join(parts) + "."
    return text


def _sure_and_modest(temperatures: pd.DataFrame) -> str:
    """Names the too sure and too modest models, by temperatures whose interval excludes 1."""
    text = ""
    shown = [
        f"{model} {between(row['mean'], row.low, row.high, 2)}"
        for model, row in temperatures.iterrows()
    ]
    sides = {
        "too sure": temperatures.index[temperatures.low > 1],
        "too modest": temperatures.index[temperatures.high < 1],
    }
    for side, some in sides.items():
        if len(some):
            who = "every model" if len(some) == len(temperatures) else _names(some)
            verb = "is" if len(some) == 1 or who == "every model" else "are"
            text += f" By the fitted temperature {who} {verb} {side}."
    if shown:
        text += f" The fitted temperatures: {', '.join(shown)}."
        if not any(map(len, sides.values())):
            text += " None differs from 1 by more than its interval."
    return text


def accuracy_against_nll(table: pd.DataFrame) -> str:
    """The paragraph under accuracy against NLL.

    Args:
        table: of :func:`bnnlib.analysis.tables.scores`.
    """
    accuracy, nll = (
        table[table.score == score].set_index("model") for score in ("accuracy", "nll")
    )
    order = in_order(accuracy.index)
    beaten = [
        model
        for model in order
        if ((accuracy.low > accuracy.high[model]) & (nll.high < nll.low[model])).any()
    ]
    best = [model for model in order if model not in beaten]
    text = (
        "By intervals that do not overlap, no other model is both more accurate and lower in NLL "
        f"than {_names(best)}"
    )
    if beaten:
        text += f"; {_names(beaten)} {'is' if len(beaten) == 1 else 'are'} beaten in both"
    return text + "."


def reliability(bins: pd.DataFrame) -> str:
    """The paragraph under the reliability diagrams.

    Args:
        bins: of :func:`bnnlib.analysis.tables.reliability`.
    """
    lines = []
    for model in in_order(bins.model):
        text = f"\n- **{model}**: "
        for scaled in sorted(bins[bins.model == model].scaled.unique()):
            selected = bins[(bins.model == model) & (bins.scaled == scaled)]
            runs = selected.groupby("run", sort=False)
            first = runs.first()
            debiased = _over_runs(first, "ece_debiased", "ece_low", "ece_high")
            text += "; after temperature scaling " if scaled else ""
            text += (
                f"ECE {first.ece.mean():.4f}, debiased {between(*debiased)}; a calibrated model "
                f"would show {first.ece_if_calibrated.mean():.4f}, up to "
                f"{first.ece_if_calibrated_high.mean():.4f}"
            )
            gap = metrics.over_runs([_mean_gap(run) for _, run in runs])
            if gap.low > 0 or gap.high < 0:
                side = "modest" if gap.low > 0 else "sure"
                text += f"; on average too {side}: accuracy less confidence {signed(gap.estimate)} "
                text += f"[{signed(gap.low)}, {signed(gap.high)}]"
            if not scaled:
                outside = (selected.accuracy < selected.calibrated_low) | (
                    selected.accuracy > selected.calibrated_high
                )
                text += (
                    f"; {int(outside.sum())} of {len(selected)} bins outside what a calibrated "
                    "model would show"
                )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def _mean_gap(run: pd.DataFrame) -> Interval:
    """Accuracy less confidence of one run, with its 95 % interval over images."""
    total = run["count"].sum()
    gap = float(np.average(run.accuracy - run.confidence, weights=run["count"]))
    # A calibrated model's variance where that is greater: a bin that is all right has none.
    chance = np.maximum(run.accuracy * (1 - run.accuracy), run.confidence * (1 - run.confidence))
    half = 1.96 * float(np.sqrt((run["count"] * chance).sum())) / total
    return Interval(gap, gap - half, gap + half)


def entropies(table: pd.DataFrame) -> str:
    """The paragraph under the entropies, of :func:`bnnlib.analysis.tables.entropies`."""
    lines = []
    for model in in_order(table.model):
        selected = table[table.model == model]
        medians = selected.groupby("outcome").entropy.median()
        if len(medians) < 2:
            lines.append(f"\n- **{model}**: all predictions {medians.index[0]}.")
            continue
        right, wrong = (
            selected[selected.outcome == outcome].entropy for outcome in ("right", "wrong")
        )
        lines.append(
            f"\n- **{model}**: median {medians['right']:.3f} nats where right, "
            f"{medians['wrong']:.3f} where wrong; a wrong prediction has more entropy than a right "
            f"one with probability {between(*metrics.auroc_parts(right, wrong).interval(), 3)}."
        )
    return "".join(lines).lstrip("\n")


def shifts(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under accuracy and ECE against severity.

    Args:
        table: of :func:`bnnlib.analysis.tables.shifts`.
        differences: of :func:`bnnlib.analysis.tables.shift_differences`.
    """
    if table.empty:
        return (
            "These records hold no shifted sets; train with `eval_sets`, for example "
            "`[test, shifts]`."
        )
    lines = []
    for family, selected in table.groupby("family", sort=False):
        strongest = selected[selected.severity == selected.severity.max()]
        text = f"\n- **{family}**, at {selected.severity.max()}: accuracy from "
        text += _range(strongest[strongest.score == "accuracy"])
        text += f"; debiased ECE from {_range(strongest[strongest.score == 'ece_debiased'])}."
        here = differences[differences["set"].isin(strongest["set"])]
        for score, name in (("accuracy", "accuracy"), ("ece", "debiased ECE")):
            text += _pairs(here[here.score == score], name, greater=score == "accuracy")
        lines.append(text)
    if "ece_scaled" in set(table.score):
        shifted = table[table.severity > 0]
        values = shifted.pivot_table(index=["model", "run"], columns="score", values="value")
        change = (values.ece_scaled - values.ece).dropna()
        means = values.loc[change.index].mean()
        zero = Interval(change.mean(), change.mean(), change.mean())
        interval = metrics.with_seeds(zero, [change])
        if len(change) < 2 or interval.low <= 0 <= interval.high:
            verdict = "does not change the mean ECE by more than its spread over models and runs"
        else:
            verdict = (
                f"{'lowers' if interval.high < 0 else 'raises'} the mean ECE over models and runs"
            )
        lines.append(
            f"\n- Over all shifted sets the temperature fitted on unshifted images {verdict}: "
            f"{means.ece:.3f} without it, {means.ece_scaled:.3f} with it"
            + (f", {_signed_interval(interval)}." if len(change) > 1 else ".")
        )
    return "".join(lines).lstrip("\n")


def risk_coverage(table: pd.DataFrame, scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the risk-coverage curves.

    Args:
        table: of :func:`bnnlib.analysis.tables.risk_coverage`.
        scores: of :func:`bnnlib.analysis.tables.scores`.
        differences: of :func:`bnnlib.analysis.tables.differences`.
    """
    runs = table.groupby(["model", "run"], sort=False)[["coverage_at_1_percent"]].first()
    kept = ", ".join(
        f"{model} {percent(selected.coverage_at_1_percent.min(), 1)}"
        + (f" to {percent(selected.coverage_at_1_percent.max(), 1)}" if len(selected) > 1 else "")
        for model, selected in runs.groupby("model", sort=False)
    )
    return (
        f"Lowest area under the curve: {_best(scores, 'aurc')}. Of these images, with at most 1 % "
        f"wrong, can be kept (the range over runs): {kept}."
        + _pairs(differences[differences.score == "aurc"], "area")
    )


def ood(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the histograms of sets out of distribution.

    Args:
        table: of :func:`bnnlib.analysis.tables.ood`.
        differences: of :func:`bnnlib.analysis.tables.ood_differences`.
    """
    if table.empty:
        return (
            "These records hold no sets out of distribution; train with `ood_sets`, for example "
            "`[uniform_noise]`."
        )
    lines = []
    for name, selected in table.groupby("set", sort=False):
        by_entropy = selected[selected.score == "entropy"]
        text = f"\n- **{name}**: the entropy tells it from the test images with an AUROC from "
        text += _range(by_entropy, "auroc", "auroc_low", "auroc_high") + "."
        lines.append(text + _pairs(differences[differences["set"] == name], "AUROC", greater=True))
    return "".join(lines).lstrip("\n")


def false_alarms(table: pd.DataFrame) -> str:
    """The paragraph under the ROC curves.

    Args:
        table: of :func:`bnnlib.analysis.tables.ood`.
    """
    if table.empty:
        return "Without sets out of distribution there is no such curve."
    lines = []
    for name, selected in table.groupby("set", sort=False):
        by_entropy = selected[selected.score == "entropy"]
        text = (
            f"\n- **{name}**: to find 95 % of it by the entropy, the share of the test images that "
            f"is taken for foreign is from {_range(by_entropy, 'fpr95', 'fpr95_low', 'fpr95_high')}"
        )
        gains = {
            model: _over_runs(rows, "gain", "gain_low", "gain_high")
            for model, rows in selected[selected.score == "mutual_information"].groupby("model")
        }
        if gains:
            better = [model for model in in_order(gains) if gains[model].low > 0]
            shown = [f"{model} {_signed_interval(gains[model])}" for model in in_order(gains)]
            text += (
                "; models whose mutual information alone does better than their entropy: "
                f"{_share(better, len(gains))}; its AUROC less the entropy's: {', '.join(shown)}"
            )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def uncertainties(table: pd.DataFrame) -> str:
    """The paragraph under the parts, of :func:`bnnlib.analysis.tables.uncertainties`."""
    if table.empty:
        return "No run loaded draws weights or dropout masks: none has an epistemic part."
    lines = []
    for model in in_order(table.model):
        selected = table[table.model == model].set_index("set")
        total = selected.aleatoric + selected.epistemic
        share = selected.epistemic / total.where(total > 0)
        right = selected[selected.kind == "right"].index
        text = f"\n- **{model}**: the epistemic share of the entropy is "
        text += (
            f"{percent(share[right[0]])} where it is right" if len(right) else "unknown where right"
        )
        wrong = selected[selected.kind == "wrong"].index
        text += f", {percent(share[wrong[0]])} where it is wrong" if len(wrong) else ""
        others = selected[selected.kind.isin(["shift", "ood"])].index
        if len(others):
            # Shares of next to nothing say nothing, so the set with the most nats is named.
            most = selected.epistemic[others].idxmax()
            text += (
                f", and largest in nats on {most} ({selected.epistemic[most]:.3f} of "
                f"{total[most]:.3f} nats, {percent(share[most])})"
            )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def convergence(table: pd.DataFrame) -> str:
    """The paragraph under the draws, of :func:`bnnlib.analysis.tables.convergence`."""
    if table.empty:
        return (
            "No record here holds predictions of fewer draws: no run is stochastic, or all are old."
        )
    means = table.groupby(["model", "score", "draws"]).value.mean()
    lines = []
    for model in in_order(table.model):
        nll, accuracy = means[model, "nll"], means[model, "accuracy"]
        last = nll.index[-1]
        if len(nll) < 2:
            lines.append(f"\n- **{model}**: only {last} draws.")
            continue
        if not np.isfinite(nll).all():
            shown = ", ".join(f"{number(value)} of {draws}" for draws, value in nll.items())
            lines.append(f"\n- **{model}**: NLL by the number of draws: {shown}.")
            continue
        # What remains to be gained is judged against the whole gain from the first draw on.
        gain = nll.iloc[0] - nll.iloc[-1]
        one, other = (
            table[(table.model == model) & (table.score == "nll") & (table.draws == draws)]
            for draws in (last, nll.index[0])
        )
        changes = (one.set_index("run").value - other.set_index("run").value).dropna()
        change = metrics.with_seeds(Interval(-gain, -gain, -gain), [changes])
        several = len(changes) > 1
        shown = _signed_interval(change) if several else f"{signed(-gain)} of one run"
        lowers = change.high < 0 if several else gain > _TIE
        near = nll[nll <= nll.iloc[-1] + 0.05 * max(gain, 0.0) + 1e-12].index[0]
        text = (
            f"\n- **{model}**: from 1 to {last} draws NLL {shown} (to {nll.iloc[-1]:.4f}) "
            f"and accuracy {signed(accuracy.iloc[-1] - accuracy.iloc[0])}"
        )
        if lowers:
            text += f"; {near} draws bring 95 % of the NLL's gain"
        else:
            text += "; these runs do not show that more draws lower the NLL"
        if (model, "mutual_information") in means.index.droplevel("draws"):
            information = means[model, "mutual_information"]
            text += f"; mutual information {information.iloc[-1]:.4f} nats"
            few = [draws for draws in information.index if 1 < draws < last]
            if few and information.iloc[-1] > 0:
                share = information[few[0]] / information.iloc[-1]
                text += f", of which {few[0]} draws show {percent(share)}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


# --- Inside one network --------------------------------------------------------------------------


def posterior_over_training(table: pd.DataFrame) -> str:
    """Says how the posterior moved, from :func:`bnnlib.analysis.tables.posterior_over_training`."""
    if table.empty:
        return "This run has no `posterior.jsonl`: its network has no posterior, or the run is old."
    lines = []
    for layer, selected in table.groupby("layer", sort=False):
        median = selected[selected.level == 0.5].pivot_table(
            index="epoch", columns="quantity", values="value"
        )
        first, last = median.iloc[0], median.iloc[-1]
        # The tails say more of the means than their median, which is near 0 by symmetry.
        spread = selected[(selected.quantity == "mean") & selected.level.isin([0.05, 0.95])]
        widths = spread.pivot_table(index="epoch", columns="level", values="value")
        width = widths[0.95] - widths[0.05]
        lines.append(
            f"\n- **{layer}**: over {median.index[-1]:g} epochs the middle 90 % of the posterior "
            f"means go from a width of {width.iloc[0]:.3f} to {width.iloc[-1]:.3f}, the median "
            f"standard deviation from {first['stddev']:.3f} to {last['stddev']:.3f}, the median "
            f"signal-to-noise ratio from {first.snr:.2f} to {last.snr:.2f}."
        )
    return "".join(lines).lstrip("\n")


def signal_to_noise(table: pd.DataFrame) -> str:
    """Says which weights stand out, from :func:`bnnlib.analysis.tables.signal_to_noise`."""
    if table.empty:
        return "This network has no posterior, so there is no signal-to-noise ratio."
    lines = []
    for layer, selected in table.groupby("layer", sort=False):
        shares = np.interp([0.5, 1.0, 2.0], selected.snr, selected.share)
        lines.append(
            f"\n- **{layer}**: {percent(shares[1])} of the weights have a mean smaller than "
            f"their standard deviation ({percent(shares[0])} below half of it); "
            f"{percent(1 - shares[2])} stand out by more than twice."
        )
    return "".join(lines).lstrip("\n")


def example_draws(table: pd.DataFrame) -> str:
    """Says what each image's draws are, from :func:`bnnlib.analysis.tables.example_draws`."""
    lines = []
    for image, selected in table.groupby("image", sort=False):
        probs = selected.pivot_table(index="draw", columns="class", values="probability")
        mean = probs.mean()
        first = int(mean.idxmax())
        votes = (probs.to_numpy().argmax(axis=1) == list(probs.columns).index(first)).mean()
        draws = probs.to_numpy()[:, np.newaxis]
        expected = float(metrics.expected_entropy(draws)[0])
        total = float(metrics.predictive_entropy(metrics.mean_probs(draws))[0])
        low, high = probs[first].quantile([0.05, 0.95])
        label = selected.label.iloc[0]
        verdict = ""
        if label >= 0:
            verdict = ", which is right" if label == first else f", but it is {int(label)}"
        lines.append(
            f"\n- **{image}**: class {first} with probability {mean[first]:.3f} (5 % to 95 % of "
            f"the draws: {low:.2f} to {high:.2f}){verdict}; {percent(votes)} of the draws choose "
            f"it. Entropy {total:.3f} nats, of which {max(total - expected, 0.0):.3f} epistemic."
        )
    return "".join(lines).lstrip("\n")


# --- Words ---------------------------------------------------------------------------------------


def _over_runs(rows: pd.DataFrame, value: str, low: str, high: str) -> Interval:
    """The mean over rows, a row a run, with its interval over images and seeds."""
    return metrics.over_runs([Interval(*row) for row in rows[[value, low, high]].to_numpy()])


def _best(table: pd.DataFrame, score: str, which: str = "min") -> str:
    """The best model in bold with its interval, and those whose intervals reach into it."""
    rows = table[(table.score == score) & table["mean"].notna()].set_index("model")
    if rows.empty or np.isinf(rows["mean"]).all():
        return "unknown" if rows.empty else "infinite for every model"
    rows = rows.loc[in_order(rows.index)]
    best = rows["mean"].idxmax() if which == "max" else rows["mean"].idxmin()
    first = rows.loc[best]
    apart = rows.low > first.high if which == "min" else rows.high < first.low
    others = [model for model in rows.index[~apart] if model != best]
    text = f"**{best}** {between(first['mean'], first.low, first.high)}"
    return text + (f", not told apart from {_names(others)}" if others else "")


def _range(rows: pd.DataFrame, value: str = "value", low: str = "low", high: str = "high") -> str:
    """The least and the greatest of the models' means over runs, each with its interval."""
    intervals = {
        model: _over_runs(selected, value, low, high) for model, selected in rows.groupby("model")
    }
    ends = [pick(intervals, key=lambda model: intervals[model].estimate) for pick in (min, max)]
    return " to ".join(f"{between(*intervals[model], 3)} ({model})" for model in ends)


def _signed_interval(interval: Any) -> str:
    """A difference and its interval, of a row of differences or an :class:`Interval`."""
    middle = interval.estimate if isinstance(interval, Interval) else interval.difference
    if np.isnan(interval.low):
        return signed(middle)
    return f"{signed(middle)} [{signed(interval.low)}, {signed(interval.high)}]"


def _pairs(differences: pd.DataFrame, name: str, greater: bool = False) -> str:
    """Counts Bayesian networks better or worse than their twin, by intervals without 0."""
    if differences.empty:
        return ""
    rows = differences.drop_duplicates("model").set_index("model")
    above, below = rows.index[rows.low > 0], rows.index[rows.high < 0]
    better, worse = (above, below) if greater else (below, above)
    sides = {"better": list(better), "worse": list(worse)}
    said = ", ".join(f"{_share(some, len(rows))} {side}" for side, some in sides.items() if some)
    shown = ", ".join(
        f"{model} {_signed_interval(rows.loc[model])}" for model in in_order(rows.index)
    )
    none = f"none of {len(rows)} Bayesian networks differs from its twin"
    return f" {name[0].upper() + name[1:]} less the twin's: {said or none} ({shown})."


def _names(names: pd.Index | list[str]) -> str:
    names = in_order(names)
    if not names:
        return "no model"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _share(names: list[str], of: int) -> str:
    return f"{len(names)} of {of}" + (f" ({', '.join(names)})" if names else "")
