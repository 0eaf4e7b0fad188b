"""What a figure shows for the runs loaded, in sentences computed from its table.

One function a figure of :mod:`bnnlib.analysis.figures`, of the same table. Nothing is written in
advance:
where a Bayesian network is no better than its twin the sentence says so, and where the records lack
what the figure needs it says what is missing. The text is Markdown.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.words import percent as _percent
from bnnlib.analysis.words import signed as _signed
from bnnlib.names import in_order, twin_of

# Differences of a metric smaller than this are called none: half a unit of the last digit shown.
_TIE = 5e-4


def scores(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.scores` and :func:`bnnlib.analysis.tables.differences`."""
    means = table.pivot_table(index="model", columns="score", values="mean")
    runs = table.groupby("model").runs.first()
    text = (
        f"Most accurate: {_best(means.accuracy, 'max')}; lowest NLL: {_best(means.nll)}; "
        f"lowest ECE: {_best(means.ece)}."
    )
    if "nll_scaled" in means and means.nll_scaled.notna().any():
        text += (
            f" After temperature scaling: lowest NLL {_best(means.nll_scaled)}, "
            f"lowest ECE {_best(means.ece_scaled)}."
        )
        sure = means.temperature[means.temperature > 1].index
        modest = means.temperature[means.temperature < 1].index
        known = means.temperature.notna().sum()
        for side, some in (("above 1 (too sure)", sure), ("below 1 (too modest)", modest)):
            if len(some):
                who = "every model" if len(some) == known else _names(some)
                text += f" The fitted temperature is {side} for {who}."
    if runs.max() == 1:
        text += " One run a model: differences include the luck of the seed."
    for (model, twin), pair in differences.groupby(["model", "twin"], sort=False):
        parts = []
        for row in pair.itertuples():
            better = row.difference > 0 if row.score == "accuracy" else row.difference < 0
            if row.low <= 0 <= row.high:
                verdict = "no difference that these images can show"
            else:
                verdict = "better" if better else "worse"
            label = {"nll": "NLL"}.get(row.score, row.score)
            parts.append(
                f"{label} {_signed(row.difference)} "
                f"[{_signed(row.low)}, {_signed(row.high)}], {verdict}"
            )
        text += f"\n- **{model}** less {twin}: " + "; ".join(parts) + "."
    return text


def accuracy_against_nll(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.scores`."""
    means = table.pivot_table(index="model", columns="score", values="mean")
    best = [
        model
        for model, row in means.iterrows()
        if not ((means.accuracy > row.accuracy) & (means.nll < row.nll)).any()
    ]
    order = in_order(means.index)
    best = [model for model in order if model in best]
    beaten = len(means) - len(best)
    text = f"No other model is both more accurate and lower in NLL than {_names(best)}"
    if beaten:
        text += f"; {beaten} other{' is' if beaten == 1 else 's are'} beaten in both"
    return text + "."


def reliability(bins: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.reliability`."""
    lines = []
    for model in in_order(bins.model):
        text = f"\n- **{model}**: "
        for scaled in sorted(bins[bins.model == model].scaled.unique()):
            mine = bins[(bins.model == model) & (bins.scaled == scaled)]
            gap = np.average(mine.accuracy - mine.confidence, weights=mine["count"])
            outside = (mine.confidence < mine.accuracy_low) | (mine.confidence > mine.accuracy_high)
            ece = mine.groupby("run").ece.first().mean()
            text += "; after temperature scaling " if scaled else ""
            text += f"ECE {ece:.4f}, on average {_side(gap)}"
            if not scaled:
                text += (
                    f", {int(outside.sum())} of {len(mine)} bins further from calibrated "
                    "than their intervals allow"
                )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def entropies(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.entropies`."""
    lines = []
    for model in in_order(table.model):
        mine = table[table.model == model]
        medians = mine.groupby("outcome").entropy.median()
        if len(medians) < 2:
            lines.append(f"\n- **{model}**: all predictions {medians.index[0]}.")
            continue
        right, wrong = (mine[mine.outcome == outcome].entropy for outcome in ("right", "wrong"))
        lines.append(
            f"\n- **{model}**: median {medians['right']:.3f} nats where right, "
            f"{medians['wrong']:.3f} where wrong; a wrong prediction has more entropy than a right "
            f"one with probability {metrics.auroc(right, wrong):.3f}."
        )
    return "".join(lines).lstrip("\n")


def shifts(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.shifts`."""
    if table.empty:
        return (
            "These records hold no shifted sets; train with `eval_sets`, for example "
            "`[test, shifts]`."
        )
    lines = []
    for family, mine in table.groupby("family", sort=False):
        strongest = mine[mine.severity == mine.severity.max()]
        values = strongest.groupby(["score", "model"]).value.mean()
        accuracy, ece = values["accuracy"], values["ece"]
        text = (
            f"\n- **{family}**, at {mine.severity.max()}: accuracy from {accuracy.min():.3f} "
            f"({accuracy.idxmin()}) to {accuracy.max():.3f} ({accuracy.idxmax()}); ECE from "
            f"{ece.min():.3f} ({ece.idxmin()}) to {ece.max():.3f} ({ece.idxmax()})."
        )
        wins, pairs = _against_twins(ece)
        if pairs:
            text += f" Bayesian networks with a lower ECE than their twin: {_share(wins, pairs)}."
        lines.append(text)
    if "ece_scaled" in set(table.score):
        shifted = table[table.severity > 0].groupby("score").value.mean()
        change = "lowers" if shifted.ece_scaled < shifted.ece else "does not lower"
        lines.append(
            f"\n- Over all shifted sets the temperature fitted on unshifted images {change} the "
            f"mean ECE: {shifted.ece:.3f} without it, {shifted.ece_scaled:.3f} with it."
        )
    return "".join(lines).lstrip("\n")


def risk_coverage(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.risk_coverage`."""
    runs = table.groupby(["model", "run"], sort=False)[["aurc", "coverage_at_1_percent"]].first()
    means = runs.groupby("model").mean()
    kept = means.coverage_at_1_percent
    full = table[table.coverage == 1].groupby("model").risk.mean()
    wins, pairs = _against_twins(means.aurc)
    text = (
        f"Lowest area under the curve: {_best(means.aurc)}. With at most 1 % wrong, "
        f"**{kept.idxmax()}** can keep {_percent(kept.max(), 1)} of the images and "
        f"{kept.idxmin()} {_percent(kept.min(), 1)}; kept whole, {_percent(full.min(), 1)} "
        f"({full.idxmin()}) to {_percent(full.max(), 1)} ({full.idxmax()}) are wrong."
    )
    if pairs:
        text += f" Bayesian networks with a smaller area than their twin: {_share(wins, pairs)}."
    return text


def ood(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.ood`, for :func:`bnnlib.analysis.figures.ood_histograms`."""
    if table.empty:
        return (
            "These records hold no sets out of distribution; train with `ood_sets`, for example "
            "`[uniform_noise]`."
        )
    lines = []
    for name, mine in table.groupby("set", sort=False):
        means = mine.groupby(["score", "model"]).auroc.mean()
        auroc = means["entropy"]
        text = (
            f"\n- **{name}**: the entropy tells it from the test images with an AUROC of "
            f"{auroc.min():.3f} ({auroc.idxmin()}) to {auroc.max():.3f} ({auroc.idxmax()})"
        )
        wins, pairs = _against_twins(auroc, greater=True)
        if pairs:
            text += f"; Bayesian networks that do better than their twin: {_share(wins, pairs)}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def false_alarms(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.ood`, for :func:`bnnlib.analysis.figures.roc_curves`."""
    if table.empty:
        return "Without sets out of distribution there is no such curve."
    lines = []
    for name, mine in table.groupby("set", sort=False):
        means = mine.groupby(["score", "model"])[["auroc", "fpr95"]].mean()
        entropy = means.loc["entropy"]
        alarms = entropy.fpr95
        text = (
            f"\n- **{name}**: to find 95 % of it by the entropy, {_percent(alarms.min(), 1)} "
            f"({alarms.idxmin()}) to {_percent(alarms.max(), 1)} ({alarms.idxmax()}) of the test "
            "images are taken for foreign"
        )
        if "mutual_information" in means.index:
            gain = means.loc["mutual_information"].auroc - entropy.auroc
            gain = gain.dropna()
            better = [model for model in in_order(gain.index) if gain[model] > _TIE]
            text += (
                "; models whose mutual information alone does better than their entropy: "
                f"{_share(better, len(gain))}, AUROC by {_signed(gain.min())} to "
                f"{_signed(gain.max())}"
            )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def uncertainties(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.uncertainties`."""
    if table.empty:
        return "No run loaded draws weights or dropout masks: none has an epistemic part."
    lines = []
    for model in in_order(table.model):
        mine = table[table.model == model].set_index("set")
        total = mine.aleatoric + mine.epistemic
        share = mine.epistemic / total.where(total > 0)
        right = mine[mine.kind == "right"].index
        text = f"\n- **{model}**: the epistemic share of the entropy is "
        text += (
            f"{_percent(share[right[0]])} where it is right"
            if len(right)
            else "unknown where right"
        )
        wrong = mine[mine.kind == "wrong"].index
        text += f", {_percent(share[wrong[0]])} where it is wrong" if len(wrong) else ""
        others = mine[mine.kind.isin(["shift", "ood"])].index
        if len(others):
            # Shares of next to nothing say nothing, so the set with the most nats is named.
            most = mine.epistemic[others].idxmax()
            text += (
                f", and largest in nats on {most} ({mine.epistemic[most]:.3f} of "
                f"{total[most]:.3f} nats, {_percent(share[most])})"
            )
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def convergence(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.convergence`."""
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
        # What remains to be gained is judged against the whole gain from the first draw on.
        gain = nll.iloc[0] - nll.iloc[-1]
        near = nll[nll <= nll.iloc[-1] + 0.05 * max(gain, 0.0) + 1e-12].index[0]
        text = (
            f"\n- **{model}**: from 1 to {last} draws NLL {_signed(-gain)} (to {nll.iloc[-1]:.4f}) "
            f"and accuracy {_signed(accuracy.iloc[-1] - accuracy.iloc[0])}"
        )
        if gain > _TIE:
            text += f"; {near} draws bring 95 % of the NLL's gain"
        else:
            text += "; more draws do not lower the NLL"
        if (model, "mutual_information") in means.index.droplevel("draws"):
            information = means[model, "mutual_information"]
            text += f"; mutual information {information.iloc[-1]:.4f} nats"
            few = [draws for draws in information.index if 1 < draws < last]
            if few and information.iloc[-1] > 0:
                share = information[few[0]] / information.iloc[-1]
                text += f", of which {few[0]} draws show {_percent(share)}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


# --- Inside one network --------------------------------------------------------------------------


def posterior_over_training(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.posterior_over_training`."""
    if table.empty:
        return "This run has no `posterior.jsonl`: its network has no posterior, or the run is old."
    lines = []
    for layer, mine in table.groupby("layer", sort=False):
        median = mine[mine.level == 0.5].pivot_table(
            index="epoch", columns="quantity", values="value"
        )
        first, last = median.iloc[0], median.iloc[-1]
        # The tails say more of the means than their median, which is near 0 by symmetry.
        spread = mine[(mine.quantity == "mean") & mine.level.isin([0.05, 0.95])]
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
    """Of :func:`bnnlib.analysis.tables.signal_to_noise`."""
    if table.empty:
        return "This network has no posterior, so there is no signal-to-noise ratio."
    lines = []
    for layer, mine in table.groupby("layer", sort=False):
        shares = np.interp([0.5, 1.0, 2.0], mine.snr, mine.share)
        lines.append(
            f"\n- **{layer}**: {_percent(shares[1])} of the weights have a mean smaller than "
            f"their standard deviation ({_percent(shares[0])} below half of it); "
            f"{_percent(1 - shares[2])} stand out by more than twice."
        )
    return "".join(lines).lstrip("\n")


def example_draws(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.tables.example_draws`."""
    lines = []
    for image, mine in table.groupby("image", sort=False):
        probs = mine.pivot_table(index="draw", columns="class", values="probability")
        mean = probs.mean()
        first = int(mean.idxmax())
        votes = (probs.to_numpy().argmax(axis=1) == list(probs.columns).index(first)).mean()
        draws = probs.to_numpy()[:, np.newaxis]
        expected = float(metrics.expected_entropy(draws)[0])
        total = float(metrics.predictive_entropy(metrics.mean_probs(draws))[0])
        low, high = probs[first].quantile([0.05, 0.95])
        label = mine.label.iloc[0]
        verdict = ""
        if label >= 0:
            verdict = ", which is right" if label == first else f", but it is {int(label)}"
        lines.append(
            f"\n- **{image}**: class {first} with probability {mean[first]:.3f} (5 % to 95 % of "
            f"the draws: {low:.2f} to {high:.2f}){verdict}; {_percent(votes)} of the draws choose "
            f"it. Entropy {total:.3f} nats, of which {max(total - expected, 0.0):.3f} epistemic."
        )
    return "".join(lines).lstrip("\n")


# --- Words ---------------------------------------------------------------------------------------


def _best(means: pd.Series, which: str = "min") -> str:
    """The best model in bold with its value, and those that cannot be told from it by 4 digits."""
    means = means.dropna()
    best = means.max() if which == "max" else means.min()
    names = [model for model in in_order(means.index) if abs(means[model] - best) < 5e-5]
    return f"{_names([f'**{name}**' for name in names])} ({best:.4f})"


def _names(names: pd.Index | list[str]) -> str:
    names = in_order(names)
    if not names:
        return "no model"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _share(names: list[str], of: int) -> str:
    return f"{len(names)} of {of}" + (f" ({', '.join(names)})" if names else "")


def _side(gap: float) -> str:
    return f"too {'modest' if gap > 0 else 'sure'} by {abs(gap):.4f}"


def _against_twins(values: pd.Series, greater: bool = False) -> tuple[list[str], int]:
    """The Bayesian networks that beat their deterministic twins, and how many pairs there are."""
    pairs = [(name, twin_of(name)) for name in in_order(values.index)]
    present = [(name, twin) for name, twin in pairs if twin in values.index]
    sign = 1 if greater else -1
    wins = [name for name, twin in present if sign * (values[name] - values[twin]) > _TIE]
    return wins, len(present)
