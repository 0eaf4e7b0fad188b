"""Inside one network: its posterior and its draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.style import (
    COLOURS,
    among,
    legend,
    legend_below,
    line,
    set_style,
    subplots,
)
from bnnlib.analysis.words import percent
from bnnlib.names import in_order


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
            selected = convergence[(convergence.model == model) & (convergence.score == score)]
            values = selected.groupby("draws").value
            style = line(model, among(convergence))
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


def posterior_over_training(quantiles: pd.DataFrame) -> Figure:
    """Posterior means, standard deviations and signal-to-noise over epochs, a row a layer.

    Args:
        quantiles: of :func:`bnnlib.analysis.tables.posterior_over_training`. Bands hold the middle
            50, 90 and 98 % of a layer's weights; the line is the median.
    """
    set_style()
    layers = list(dict.fromkeys(quantiles.layer))
    names = {"mean": "posterior mean", "stddev": "standard deviation", "snr": "abs(mean) / stddev"}
    figure, axes = subplots(
        len(layers), 3, figsize=(11, 0.6 + 2.7 * len(layers)), squeeze=False, layout="constrained"
    )
    for row, layer in enumerate(layers):
        for axis, (quantity, name) in zip(axes[row], names.items(), strict=True):
            selected = quantiles[(quantiles.layer == layer) & (quantiles.quantity == quantity)]
            levels = selected.pivot_table(index="epoch", columns="level", values="value")
            for low, high, alpha in ((0.01, 0.99, 0.15), (0.05, 0.95, 0.25), (0.25, 0.75, 0.4)):
                axis.fill_between(
                    levels.index,
                    levels[low],
                    levels[high],
                    color=COLOURS[0],
                    alpha=alpha,
                    linewidth=0,
                    label=f"middle {percent(high - low)} of the weights",
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
    for index, (layer, selected) in enumerate(shares.groupby("layer", sort=False)):
        colour = _LAYER_COLOURS[index % len(_LAYER_COLOURS)]
        axis.plot(selected.snr, 100 * selected.share, label=layer, color=colour, linewidth=2)
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
        selected = draws[draws.image == name]
        label = selected.label.iloc[0]
        columns = [selected[selected["class"] == c].probability.to_numpy() for c in classes]
        for place, values in enumerate(columns):
            is_label = classes[place] == label
            look = {"color": COLOURS[2 if is_label else 0], "marker": "^" if is_label else "o"}
            # Spread by rank, not at random: the same draws give the same picture.
            spread = 0.6 * (np.argsort(np.argsort(values)) / max(len(values) - 1, 1) - 0.5)
            axis.scatter(place + spread, values, s=12, alpha=0.5, linewidth=0, **look)
            axis.hlines(values.mean(), place - 0.38, place + 0.38, color="black", linewidth=2)
        axis.set(ylim=(-0.04, 1.04), xlim=(-0.6, len(classes) - 0.4))
        axis.set_xticks(range(len(classes)), classes)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel("probability")
        axis.set_title(name, fontsize=12, loc="left")
    axes[-1, 1].set_xlabel("class; a dot a draw (triangles: the label), lines are means over draws")
    return figure


def _show_image(axis: Any, image: np.ndarray) -> None:
    axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r")
    axis.set_axis_off()
