"""How figures look: sizes, legends, and one palette that gives each variant its colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator

from bnnlib.analysis.variants import refuse_too_many
from bnnlib.analysis.words import labels
from bnnlib.names import ALL_MODELS, in_order, network_of, settings_of, twin_of, variant_of

# Seaborn's colour-blind palette, for what is no model.
COLOURS = sns.color_palette("colorblind").as_hex()
# Hue says convolution (blues), dense (oranges and red) or VGG (purples), the twins are grey and
# black; marker and dash say the same again for print without colour. The study's six networks are
# seaborn's colours, but for two that a deuteranope sees nearly alike; the others were searched for
# as far as can be from all before them, for every eye: tests/analysis/test_colours.py.
PALETTE: dict[str, str] = {
    "BNN_conv_flip": COLOURS[0],
    "BNN_conv_nonflip": COLOURS[9],
    "BNN_FC_flip": "#C44601",
    "BNN_FC_nonflip": "#E69F00",
    "CNN_conv": "#000000",
    "CNN_FC": COLOURS[7],
    "BNN_conv_local": "#0000CC",
    "BNN_FC_local": "#770000",
    "BNN_VGG_flip": "#774477",
    "BNN_VGG_nonflip": "#DDBBCC",
    "BNN_VGG_local": "#440055",
    "CNN_VGG": "#555555",
}
MARKERS: dict[str, str] = {
    "BNN_conv_flip": "o",
    "BNN_conv_nonflip": "s",
    "BNN_FC_flip": "^",
    "BNN_FC_nonflip": "v",
    "CNN_conv": "X",
    "CNN_FC": "D",
    "BNN_conv_local": "d",
    "BNN_FC_local": "<",
    "BNN_VGG_flip": "P",
    "BNN_VGG_nonflip": "p",
    "BNN_VGG_local": "8",
    "CNN_VGG": "*",
}
ORDER = list(PALETTE)
# For all other networks, and for a network's variants after the first, in this order.
_FURTHER_COLOURS = ("#AACC99", "#8877FF", "#AA7766", "#113333", "#884433", "#667777")
# The tuples are stars of four, six and eight points.
_FURTHER_MARKERS: tuple[Any, ...] = ("h", ">", "H", (4, 1, 0), (6, 1, 0), (8, 1, 0))


def looks(models: Iterable[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Colours and markers of `models` by name, each variant's its own.

    A network of the study has its own colour and marker whatever stands beside it, and so has the
    first of its variants where the network itself is not there. The others, and a user's networks
    in alphabetical order, take what is left. An ensemble has its members' colour and marker.

    Raises:
        RecordError: they are more variants than one figure can tell apart.
    """
    present = in_order(models)
    variants = in_order(variant_of(name) for name in present)
    refuse_too_many(variants)
    firsts = {network_of(name): name for name in reversed(variants)}
    own = {first: network for network, first in firsts.items() if network in PALETTE}
    others = [name for name in variants if name not in own]
    others.sort(key=lambda name: (1, "") if network_of(name) in PALETTE else (0, name))

    def of_each(study: Mapping[str, Any], further: Sequence[Any]) -> dict[str, Any]:
        given = {name: study[network] for name, network in own.items()}
        free = [one for one in (*further, *study.values()) if one not in given.values()]
        given |= dict(zip(others, free, strict=False))
        return {name: given[variant_of(name)] for name in present}

    return of_each(PALETTE, _FURTHER_COLOURS), of_each(MARKERS, _FURTHER_MARKERS)


def line(model: str, models: Iterable[str]) -> dict[str, Any]:
    """How a model is drawn among `models`, with its label: :func:`bnnlib.analysis.words.labels`.

    An ensemble is dashed and its markers are hollow; a posterior that has not converged is dotted
    and its markers are half hollow: below, or of an ensemble, whose line has dashes and dots, on
    the right.
    """
    models = list(models)
    colours, markers = looks(models)
    style = {"color": colours[model], "marker": markers[model], "label": labels(models)[model]}
    style |= {"linewidth": 1.8, "markersize": 6.5, "markeredgewidth": 1.0}
    style |= {"markeredgecolor": colours[model], "linestyle": "-"}
    kinds = {key for key, _ in settings_of(model)}
    if "ensemble" in kinds:  # white rather than nothing, so that lines behind it do not show
        style |= {"linestyle": (0, (5, 2)), "markerfacecolor": "white"}
    if "converged" in kinds:
        ensemble = "ensemble" in kinds
        style |= {"linestyle": (0, (5, 2, 1, 2)) if ensemble else (0, (1, 3))}
        style |= {"fillstyle": "left" if ensemble else "top", "markerfacecoloralt": "white"}
        style["markerfacecolor"] = colours[model]
    return style


def among(table: pd.DataFrame) -> list[str]:
    """The names that a figure's models are told apart from: all of one comparison.

    A figure that shows some of them, such as the Bayesian ones, gives each the colour and the label
    that it has in the others: :class:`bnnlib.analysis.gallery.Gallery` notes all names with the
    table that it draws. Without that note they are the table's own.
    """
    return in_order([*table.attrs.get("models", ()), *table.model])


def set_style() -> None:
    """Sets sizes that stay legible when a figure is shown at the width of a README."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=1.05)
    plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 150, "savefig.bbox": "tight"})


def subplots(*shape: int, **options: Any) -> tuple[Figure, Any]:
    """Makes a figure and closes it: a notebook would show an open figure a second time."""
    figure, axes = plt.subplots(*shape, **options)
    plt.close(figure)
    return figure, axes


def parts(
    count: int, height_ratios: Sequence[float] | None = None, **options: Any
) -> tuple[Figure, list[SubFigure]]:
    """Makes a figure of `count` parts below each other, each with panels and a legend of its own.

    It is closed, as that of :func:`subplots`.
    """
    figure = plt.figure(layout="constrained", **options)
    plt.close(figure)
    return figure, list(
        figure.subfigures(count, 1, squeeze=False, height_ratios=height_ratios)[:, 0]
    )


def beside_twin(models: Iterable[str]) -> dict[str, list[str]]:
    """The models in groups that are compared: each twin with its Bayesian networks and variants.

    Returns:
        The groups' models by the twin's name, in the study's order, Bayesian networks first; a
        user's own networks, which no name joins, make one group, ``""``.
    """
    groups: dict[str, list[str]] = {}
    for model in in_order(models):
        network = network_of(model)
        own = network not in ALL_MODELS
        groups.setdefault("" if own else twin_of(network) or network, []).append(model)
    return groups


def legend(axis: Any, **options: Any) -> None:
    """A legend to the right of the axis."""
    place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False} | options
    handles, labels = _handles(axis)
    axis.legend(handles, labels, **place)


def _handles(*axes: Any) -> tuple[list[Any], list[str]]:
    """The first artist of each label. A legend shows an error bar's marker, not its bars."""
    artists: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            artists.setdefault(label, handle[0] if isinstance(handle, tuple) else handle)
    return list(artists.values()), list(artists)


def hide_unused(axes: np.ndarray, used: int, columns: int, height: int = 1) -> None:
    """Hides the panels after the last one of a grid whose panels are `height` axes high."""
    for index in range(used, len(axes) // height * columns):
        row, column = divmod(index, columns)
        for axis in axes[height * row : height * (row + 1), column]:
            axis.set_axis_off()


def legend_below(figure: Figure, columns: int = 3) -> None:
    """Adds one legend below all panels, with each label once."""
    handles, labels = _handles(*figure.axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def legend_above(figure: Figure | SubFigure, columns: int = 4, title: str | None = None) -> None:
    """Adds one legend above all panels, with each label once; `title` says what is drawn."""
    handles, labels = _handles(*figure.axes)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, title=title, **place)


def panel_columns(panels: int) -> int:
    """Columns of a grid of panels: at most 3, so that their text stays legible; 2 for 4 panels."""
    return 2 if panels == 4 else min(3, panels)


def plain_log(axes: Any, which: str = "xy") -> None:
    """Makes axes logarithmic, with ticks at plain numbers such as 0.2, 50 or 1,000.

    Args:
        axes: matplotlib's.
        which: ``x``, ``y`` or ``xy``.
    """
    for one in which:
        axes.set(**{f"{one}scale": "log"})
        axis = getattr(axes, f"{one}axis")
        axis.set_major_locator(_PlainLog())
        axis.set_major_formatter(lambda value, _: f"{value:,.12g}")
        axis.set_minor_formatter("")


class _PlainLog(LogLocator):
    """Ticks at 1, 2 and 5 times the powers of ten, at the powers alone where they are many."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        few = vmin > 0 and vmax / vmin < 200
        self.set_params(subs=(1, 2, 5) if few else (1,))
        return super().tick_values(vmin, vmax)
