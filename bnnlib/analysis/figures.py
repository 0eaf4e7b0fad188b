"""Figures as functions of a tidy table; :mod:`bnnlib.analysis.tables` makes the tables.

Every function draws what it is given and returns the matplotlib figure. Text keeps a size that can
be read where the picture is shown 800 pixels wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pandas.io.formats.style import Styler

from bnnlib.analysis.gallery import (
    COLOURS,
    hide_unused,
    legend,
    legend_below,
    line,
    set_style,
    subplots,
)
from bnnlib.names import in_order


def training_curves(steps: pd.DataFrame, epochs: float | None = None) -> Figure:
    """Loss, negative log-likelihood, KL and speed of one run against epochs.

    Args:
        steps: a row a line of ``steps.jsonl``; columns epoch, loss (nats), nll (nats), kl (nats),
            images_per_second. It may have no row yet.
        epochs: of the whole run, for axes that stay while it trains; None: of the rows.
    """
    set_style()
    panels = [
        ("loss", "loss (nats an image)"),
        ("nll", "NLL on training batches\n(nats an image)"),
        ("kl", "KL(q||p) (nats)"),
        ("images_per_second", "images/s, all ranks"),
    ]
    figure, axes = subplots(2, 2, figsize=(10, 6), layout="constrained", sharex=True)
    for axis, (column, label) in zip(axes.flat, panels, strict=True):
        axis.plot(steps["epoch"], steps[column], color=COLOURS[0], marker="o", ms=4)
        axis.set(ylabel=label)
        if epochs is not None:
            axis.set_xlim(0, epochs)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    axes[1, 1].set_ylim(bottom=0)
    return figure


def image_row(images: np.ndarray, labels: np.ndarray) -> Figure:
    """Images side by side under their labels.

    Args:
        images: ``(num_images, height, width, channels)``, one channel or three.
        labels: ``(num_images,)``.
    """
    figure, axes = subplots(
        1, len(images), figsize=(0.9 * len(images), 1.2), squeeze=False, layout="constrained"
    )
    for axis, image, label in zip(axes[0], images, labels, strict=True):
        axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r")
        axis.set_title(str(label), fontsize=10)
        axis.set_axis_off()
    return figure


def comparison_table(scores: pd.DataFrame) -> Styler:
    """The models' scores side by side, best means of a column bold.

    An entry is the mean ± the standard deviation over runs; of one run, the score and its 95 %
    interval over the test images.

    Args:
        scores: of :func:`bnnlib.analysis.tables.scores`.
    """
    means = scores.pivot_table(index="model", columns="score", values="mean")
    order = in_order(scores.model)
    columns = [c for c in _COLUMNS if c in means and means[c].notna().any()]
    entries = scores.set_index(["model", "score"])

    def text(model: str, column: str) -> str:
        if (model, column) not in entries.index or pd.isna(means.loc[model, column]):
            return "–"
        entry, digits = entries.loc[(model, column)], _COLUMNS[column][2]
        shown = f"{entry['mean']:.{digits}f}"
        if not pd.isna(entry.stddev):
            return f"{shown} ± {entry.stddev:.{digits}f}"
        if not pd.isna(entry.low):
            return f"{shown} [{entry.low:.{digits}f}, {entry.high:.{digits}f}]"
        return shown

    table = pd.DataFrame({_COLUMNS[c][0]: {m: text(m, c) for m in order} for c in columns})
    table = table.reindex(order)
    table.insert(0, "runs", scores.groupby("model").runs.first())
    table.index.name = "model"

    def bold(column: pd.Series) -> list[str]:
        named = {_COLUMNS[c][0]: c for c in columns if _COLUMNS[c][1]}
        if column.name not in named:
            return [""] * len(column)
        values = means.loc[order, named[column.name]]
        top = values.max() if _COLUMNS[named[column.name]][1] == "max" else values.min()
        return ["font-weight: bold" if value == top else "" for value in values]

    return table.style.apply(bold)


# Of a score: its heading, which end is best, and the digits shown.
_COLUMNS: dict[str, tuple[str, str, int]] = {
    "accuracy": ("accuracy", "max", 4),
    "nll": ("NLL", "min", 4),
    "brier": ("Brier", "min", 4),
    "ece": ("ECE", "min", 4),
    "aurc": ("AURC", "min", 4),
    "temperature": ("T", "", 2),
    "nll_scaled": ("NLL at T", "min", 4),
    "brier_scaled": ("Brier at T", "min", 4),
    "ece_scaled": ("ECE at T", "min", 4),
    "images_per_second": ("images/s", "max", 0),
}


def accuracy_against_nll(scores: pd.DataFrame) -> Figure:
    """Each model's accuracy against its NLL, with its spread over runs or interval over images.

    Args:
        scores: of :func:`bnnlib.analysis.tables.scores`.
    """
    set_style()
    figure, axis = subplots(figsize=(9, 4.6), layout="constrained")
    models = in_order(scores.model)
    entries = scores.set_index(["model", "score"])
    for model in models:
        x, y = entries.loc[(model, "nll")], entries.loc[(model, "accuracy")]
        style = line(model, models) | {"linestyle": "none", "markersize": 11}
        axis.errorbar(
            x["mean"], y["mean"], xerr=_ends(x), yerr=_ends(y), elinewidth=1, alpha=0.9, **style
        )
    axis.set(xlabel="NLL on the test set (nats an image); lower is better", ylabel="accuracy")
    legend(axis)
    return figure


def _ends(entry: pd.Series) -> np.ndarray:
    """Lengths of an error bar ``(2, 1)``: the standard deviation over runs, else the interval."""
    if not pd.isna(entry.stddev):
        return np.array([[entry.stddev], [entry.stddev]])
    return np.nan_to_num(np.array([[entry["mean"] - entry.low], [entry.high - entry["mean"]]]))


def reliability_diagrams(bins: pd.DataFrame) -> Figure:
    """Accuracy less confidence against confidence, a panel a model; below, the bins' counts.

    Args:
        bins: of :func:`bnnlib.analysis.tables.reliability`; runs of one model are drawn over each
        other. The
            bars are the bins' intervals for the accuracy at 95 %. Temperature scaling is dashed,
            without intervals.
    """
    set_style()
    models = in_order(bins.model)
    columns = _columns(len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(
        2 * rows,
        columns,
        figsize=(max(5.0, 3.7 * columns), 3.6 * rows),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=[3, 1] * rows,
    )
    for index, model in enumerate(models):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        style = line(model, models) | {"label": "as predicted", "linestyle": "-"}
        style |= {"markerfacecolor": style["color"], "fillstyle": "full"}
        eces: dict[bool, list[float]] = {}
        dashed = style | {"label": "after temperature scaling, at T", "linestyle": "--"}
        dashed |= {"markerfacecolor": "white", "alpha": 0.7}
        for (_, scaled), run in bins[bins.model == model].groupby(["run", "scaled"]):
            gap = run.accuracy - run.confidence
            eces.setdefault(bool(scaled), []).append(run.ece.iloc[0])
            if scaled:
                upper.plot(run.confidence, gap, **dashed)
                continue
            ends = [run.accuracy - run.accuracy_low, run.accuracy_high - run.accuracy]
            upper.errorbar(run.confidence, gap, yerr=ends, capsize=2, elinewidth=1, **style)
            middle, width = (run.lower + run.upper) / 2, 0.9 * (run.upper - run.lower)
            lower.bar(middle, run["count"], width=width, color=style["color"], alpha=0.6)
        upper.axhline(0, color="0.3", linewidth=1, linestyle="--")
        title = f"{model}\nECE {np.mean(eces[False]):.3f}"
        title += f", at T {np.mean(eces[True]):.3f}" if True in eces else ""
        upper.set_title(title, fontsize=12)
        upper.margins(y=0.15)
        upper.text(0.02, 0.97, "too modest", transform=upper.transAxes, va="top", color="0.35")
        upper.text(0.02, 0.03, "too sure", transform=upper.transAxes, va="bottom", color="0.35")
        lower.set_yscale("log")
        lower.set_ylim(bottom=0.7)
        if index + columns >= len(models):  # the last panel of its column
            lower.set(xlabel="confidence")
            lower.xaxis.set_tick_params(labelbottom=True)
        if column == 0:
            upper.set_ylabel("accuracy −\nconfidence")
            lower.set_ylabel("images")
    hide_unused(axes, len(models), columns, 2)
    if bins.scaled.any():
        legend_below(figure, 2)
    return figure


def _columns(panels: int) -> int:
    """At most three beside one another, so that their text stays legible; two rows of two for 4."""
    return 2 if panels == 4 else min(3, panels)


def entropy_of_right_and_wrong(entropies: pd.DataFrame) -> Figure:
    """Distribution of the predictive entropy of right and of wrong predictions, a row a model.

    Args:
        entropies: of :func:`bnnlib.analysis.tables.entropies`.
    """
    set_style()
    models = in_order(entropies.model)
    figure, axis = subplots(figsize=(10, 1.1 + 0.75 * len(models)), layout="constrained")
    sns.boxplot(
        entropies,
        y="model",
        x="entropy",
        hue="outcome",
        order=models,
        hue_order=["right", "wrong"],
        palette={"right": COLOURS[2], "wrong": COLOURS[3]},
        whis=(5, 95),
        fliersize=0,
        gap=0.1,
        ax=axis,
    )
    counts = entropies.groupby("model").outcome.agg(lambda o: (o == "wrong").sum())
    axis.set_yticks(range(len(models)), [f"{m}\n{counts[m]} wrong" for m in models])
    axis.set(xlabel="predictive entropy (nats); box: quartiles, whiskers: 5 % to 95 %", ylabel="")
    axis.legend(title="prediction", loc="lower right")
    return figure


def against_severity(shifts: pd.DataFrame) -> Figure:
    """Accuracy and calibration error against severity, a column a family of shifts.

    Args:
        shifts: of :func:`bnnlib.analysis.tables.shifts`; means over runs. The band is the interval
        over
            images of one run, or the range of several.
    """
    set_style()
    models = in_order(shifts.model)
    families = list(dict.fromkeys(shifts.family))
    columns = min(5, len(families))
    rows = -(-len(families) // columns)
    figure, axes = subplots(
        2 * rows,
        columns,
        figsize=(max(6.0, 2.3 * columns), 4.6 * rows + 0.3 * -(-len(models) // 3)),
        squeeze=False,
        layout="constrained",
    )
    for index, family in enumerate(families):
        row, column = divmod(index, columns)
        for axis, score in zip(
            axes[2 * row : 2 * row + 2, column], ("accuracy", "ece"), strict=True
        ):
            mine = shifts[(shifts.family == family) & (shifts.score == score)]
            for model in models:
                runs = mine[mine.model == model].groupby("severity")
                value, single = runs.value.mean(), runs.size().max() == 1
                low = runs.low.min() if single else runs.value.min()
                high = runs.high.max() if single else runs.value.max()
                style = line(model, models)
                axis.plot(value.index, value, **style)
                axis.fill_between(value.index, low, high, color=style["color"], alpha=0.12, lw=0)
            severities = sorted(mine.severity.unique())
            if len(severities) <= 6:
                axis.set_xticks(severities, [str(severity) for severity in severities])
            axis.set_ylim(0, 1.02 if score == "accuracy" else max(0.1, 1.05 * _top(shifts, "ece")))
            if column > 0:
                axis.set_yticklabels([])
            else:
                axis.set_ylabel({"accuracy": "accuracy", "ece": "ECE"}[score])
        axes[2 * row, column].set_title(family.replace("_", " "), fontsize=12)
        axes[2 * row, column].set_xticklabels([])
        axes[2 * row + 1, column].set_xlabel(_SEVERITY_UNITS.get(family, "severity"))
    hide_unused(axes, len(families), columns, 2)
    legend_below(figure)
    return figure


_SEVERITY_UNITS = {"rotate": "degrees", "translate": "pixels"}


def _top(shifts: pd.DataFrame, score: str) -> float:
    return float(shifts[shifts.score == score].groupby(["model", "set"]).value.mean().max())


def risk_against_coverage(curves: pd.DataFrame) -> Figure:
    """The error among the images kept, when the least certain are handed back.

    Args:
        curves: of :func:`bnnlib.analysis.tables.risk_coverage`; runs of one model are averaged.
    """
    set_style()
    figure, axis = subplots(figsize=(10, 4.8), layout="constrained")
    models = in_order(curves.model)
    for model in models:
        mine = curves[curves.model == model]
        risk = mine.groupby("coverage").risk.mean()
        style = line(model, models) | {"markevery": (0, 20)}
        style["label"] = f"{model}  ({1000 * mine.groupby('run').aurc.first().mean():.2f})"
        axis.plot(100 * risk.index, 100 * risk, **style)
    axis.set(xlabel="images kept (%), the most certain first", ylabel="wrong among them (%)")
    axis.set_ylim(bottom=0)
    legend(axis, title="area under the curve × 1000\nin brackets")
    return figure


def ood_histograms(histograms: pd.DataFrame) -> Figure:
    """Predictive entropy of test images and of foreign ones, a row a model, a column a set.

    Args:
        histograms: of :func:`bnnlib.analysis.tables.ood_histograms`.
    """
    set_style()
    models, sets = in_order(histograms.model), list(dict.fromkeys(histograms["set"]))
    figure, axes = subplots(
        len(models),
        len(sets),
        figsize=(max(5.5, 2.75 * len(sets)), 1.1 + 1.35 * len(models)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, model in enumerate(models):
        for column, name in enumerate(sets):
            axis = axes[row, column]
            mine = histograms[(histograms.model == model) & (histograms["set"] == name)]
            if len(mine):
                edges = [*mine.lower, mine.upper.iloc[-1]]
                axis.stairs(
                    mine.test, edges, fill=True, color="0.6", label="share of the test images"
                )
                axis.stairs(
                    mine.foreign,
                    edges,
                    color=_FOREIGN,
                    linewidth=2,
                    label="share of the foreign images",
                )
                axis.text(
                    0.97,
                    0.93,
                    f"AUROC {mine.auroc.iloc[0]:.3f}",
                    transform=axis.transAxes,
                    ha="right",
                    va="top",
                )
            # Most test images lie in the first bin; the root leaves the others to be seen.
            axis.set_yscale("function", functions=(np.sqrt, np.square))
            axis.set_ylim(0, 1)
            axis.set_yticks([0.1, 0.5, 1.0], ["10 %", "50 %", ""])
            if row == 0:
                axis.set_title(name, fontsize=12)
        axes[row, 0].set_ylabel(model.replace(" ", "\n").replace("NN_", "NN_\n", 1), fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("predictive entropy (nats)", fontsize=11)
    legend_below(figure, 2)
    return figure


_FOREIGN = COLOURS[3]


def roc_curves(curves: pd.DataFrame) -> Figure:
    """Foreign images found against test images taken for foreign, a column a set.

    Args:
        curves: of :func:`bnnlib.analysis.tables.roc`; a row for each score that the runs have.
    """
    set_style()
    models, sets = in_order(curves.model), list(dict.fromkeys(curves["set"]))
    scores = [s for s in ("entropy", "mutual_information") if s in set(curves.score)]
    figure, axes = subplots(
        len(scores),
        len(sets),
        figsize=(max(5.5, 2.75 * len(sets)), 2.6 * len(scores) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, score in enumerate(scores):
        for column, name in enumerate(sets):
            axis = axes[row, column]
            for model in models:
                mine = curves[
                    (curves.model == model) & (curves["set"] == name) & (curves.score == score)
                ]
                style = line(model, models) | {"marker": ""}
                axis.plot(mine.false_alarms, mine.found, **style)
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
            axis.set(xlim=(0, 1), ylim=(0, 1.02))
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            if row == 0:
                axis.set_title(name, fontsize=12)
        axes[row, 0].set_ylabel(f"foreign images found\nby {score.replace('_', ' ')}", fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("test images taken\nfor foreign", fontsize=11)
    legend_below(figure)
    return figure


def epistemic_against_aleatoric(uncertainties: pd.DataFrame) -> Figure:
    """The two parts of the entropy, a point a set of images, a panel a model.

    Args:
        uncertainties: of :func:`bnnlib.analysis.tables.uncertainties`.
    """
    set_style()
    models = in_order(uncertainties.model)
    columns = _columns(len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(max(6.5, 3.7 * columns), 3.2 * rows + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    foreign = list(dict.fromkeys(uncertainties[uncertainties.kind == "ood"]["set"]))
    kinds = [
        ("test, right", "right", "o", COLOURS[2]),
        ("test, wrong", "wrong", "X", COLOURS[3]),
        ("shifted sets", "shift", ".", "0.45"),
    ]
    kinds += [(name, name, "^v<>Dsph*P"[i % 10], COLOURS[4]) for i, name in enumerate(foreign)]
    for index, model in enumerate(models):
        axis = axes[divmod(index, columns)]
        mine = uncertainties[uncertainties.model == model]
        for label, kind, marker, colour in kinds:
            points = mine[(mine["set"] if kind in foreign else mine.kind) == kind]
            if len(points):
                size = 60 if kind == "shift" else 90
                axis.scatter(
                    points.aleatoric,
                    points.epistemic,
                    s=size,
                    marker=marker,
                    color=colour,
                    label=label,
                    zorder=3,
                )
        axis.set_title(model, fontsize=12)
        # Networks differ by a factor of ten, and so do the sets of one network.
        axis.set(xscale="log", yscale="log")
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter("{x:g}")
            one.set_minor_formatter("")
        if index + columns >= len(models):
            axis.set_xlabel("aleatoric (nats)")
            axis.xaxis.set_tick_params(labelbottom=True)
        if index % columns == 0:
            axis.set_ylabel("epistemic (nats)")
    hide_unused(axes, len(models), columns)
    legend_below(figure, 4)
    return figure


def convergence_with_draws(convergence: pd.DataFrame) -> Figure:
    """Scores of the test set against the number of draws that are averaged.

    Args:
        convergence: of :func:`bnnlib.analysis.tables.convergence`; means and range over runs.
    """
    set_style()
    models = in_order(convergence.model)
    labels = {"accuracy": "accuracy", "nll": "NLL (nats)", "ece": "ECE"}
    labels |= {"mutual_information": "mutual information (nats)"}
    figure, axes = subplots(
        2, 2, figsize=(10, 6.4), sharex=True, squeeze=False, layout="constrained"
    )
    draws = sorted(convergence.draws.unique())
    for axis, (score, label) in zip(axes.flat, labels.items(), strict=True):
        for model in models:
            mine = convergence[(convergence.model == model) & (convergence.score == score)]
            values = mine.groupby("draws").value
            style = line(model, models)
            axis.plot(values.mean().index, values.mean(), **style)
            axis.fill_between(
                values.min().index, values.min(), values.max(), color=style["color"], alpha=0.12
            )
        axis.set(ylabel=label, xscale="log")
        axis.set_xticks(draws, [str(number) for number in draws])
        axis.minorticks_off()
    for axis in axes[1]:
        axis.set_xlabel("draws averaged")
    legend_below(figure)
    return figure


# --- Inside one network --------------------------------------------------------------------------


def posterior_over_training(quantiles: pd.DataFrame) -> Figure:
    """Posterior means, standard deviations and signal-to-noise over epochs, a row a layer.

    Args:
        quantiles: of :func:`bnnlib.analysis.tables.posterior_over_training`. Bands hold the middle
        50, 90
            and 98 % of a layer's weights; the line is the median.
    """
    set_style()
    layers = list(dict.fromkeys(quantiles.layer))
    names = {"mean": "posterior mean", "stddev": "standard deviation", "snr": "abs(mean) / stddev"}
    figure, axes = subplots(
        len(layers), 3, figsize=(11, 0.6 + 2.7 * len(layers)), squeeze=False, layout="constrained"
    )
    for row, layer in enumerate(layers):
        for axis, (quantity, name) in zip(axes[row], names.items(), strict=True):
            mine = quantiles[(quantiles.layer == layer) & (quantiles.quantity == quantity)]
            levels = mine.pivot_table(index="epoch", columns="level", values="value")
            for low, high, alpha in ((0.01, 0.99, 0.15), (0.05, 0.95, 0.25), (0.25, 0.75, 0.4)):
                axis.fill_between(
                    levels.index,
                    levels[low],
                    levels[high],
                    color=COLOURS[0],
                    alpha=alpha,
                    linewidth=0,
                    label=f"middle {high - low:.0%} of the weights",
                )
            axis.plot(levels.index, levels[0.5], color=COLOURS[0], label="median")
            axis.set_ylabel(name)
            if quantity != "mean":
                axis.set_ylim(bottom=0)
            if row == len(layers) - 1:
                axis.set_xlabel("epoch")
        axes[row, 0].set_title(layer, fontsize=12, loc="left")
    legend_below(figure, 4)
    return figure


def signal_to_noise(shares: pd.DataFrame) -> Figure:
    """Share of a layer's weights that do not exceed a signal-to-noise ratio.

    Args:
        shares: of :func:`bnnlib.analysis.tables.signal_to_noise`.
    """
    set_style()
    figure, axis = subplots(figsize=(9, 4.2), layout="constrained")
    for index, (layer, mine) in enumerate(shares.groupby("layer", sort=False)):
        colour = _LAYER_COLOURS[index % len(_LAYER_COLOURS)]
        axis.plot(mine.snr, 100 * mine.share, label=layer, color=colour, linewidth=2)
    axis.axvline(1, color="0.3", linestyle="--", linewidth=1)
    axis.text(1.03, 4, "mean = standard deviation", color="0.3")
    axis.set(xscale="log", xlabel="abs(posterior mean) / standard deviation")
    axis.set(xlim=(0.01, None), ylim=(0, 100), ylabel="weights at or below (%)")
    legend(axis)
    return figure


_LAYER_COLOURS = [COLOURS[index] for index in (0, 1, 2, 3, 4, 5, 7, 9)]


def draws_of_images(draws: pd.DataFrame, images: Sequence[np.ndarray]) -> Figure:
    """The probability of each class in every draw, a row an image, the image beside it.

    Args:
        draws: of :func:`bnnlib.analysis.tables.example_draws`.
        images: ``(height, width, channels)`` each, in the same order.
    """
    set_style()
    names = list(dict.fromkeys(draws.image))
    classes = sorted(draws["class"].unique())
    figure, axes = subplots(
        len(names),
        2,
        figsize=(10, 0.6 + 2.0 * len(names)),
        width_ratios=[1, 5],
        squeeze=False,
        layout="constrained",
    )
    for row, (name, image) in enumerate(zip(names, images, strict=True)):
        picture, axis = axes[row]
        _show_image(picture, image)
        mine = draws[draws.image == name]
        label = mine.label.iloc[0]
        columns = [mine[mine["class"] == c].probability.to_numpy() for c in classes]
        for place, values in enumerate(columns):
            colour = COLOURS[2] if classes[place] == label else COLOURS[0]
            # Spread by rank, not at random: the same draws give the same picture.
            spread = 0.6 * (np.argsort(np.argsort(values)) / max(len(values) - 1, 1) - 0.5)
            axis.scatter(place + spread, values, s=9, color=colour, alpha=0.5, linewidth=0)
            axis.hlines(values.mean(), place - 0.38, place + 0.38, color="black", linewidth=2)
        axis.set(ylim=(-0.04, 1.04), xlim=(-0.6, len(classes) - 0.4))
        axis.set_xticks(range(len(classes)), classes)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel("probability")
        axis.set_title(name, fontsize=12, loc="left")
    axes[-1, 1].set_xlabel("class (green: the label); a dot a draw, lines are means over draws")
    return figure


def _show_image(axis: Any, image: np.ndarray) -> None:
    axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r")
    axis.set_axis_off()
