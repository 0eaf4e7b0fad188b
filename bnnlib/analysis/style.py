"""How figures look: sizes, legends, and one palette that gives each model its colour everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from bnnlib.names import in_order, network_of

# Seaborn's colour-blind palette; hue says convolution (blues) or dense (oranges), the twins are
# grey and black, and marker and dash say the same again for print without colour.
COLOURS = sns.color_palette("colorblind").as_hex()
PALETTE: dict[str, str] = {
    "BNN_conv_flip": COLOURS[0],
    "BNN_conv_nonflip": COLOURS[9],
    "BNN_FC_flip": COLOURS[3],
    "BNN_FC_nonflip": COLOURS[1],
    "CNN_conv": "#000000",
    "CNN_FC": COLOURS[7],
    "BNN_conv_local": "#004488",
    "BNN_FC_local": "#994F00",
    "BNN_VGG_flip": COLOURS[4],
    "BNN_VGG_nonflip": COLOURS[6],
    "BNN_VGG_local": "#AA3377",
    "CNN_VGG": COLOURS[5],
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
# A variant has its network's colour and marker; its dash and what is filled of the marker are its
# own, one for lines and one for points.
_VARIANTS: dict[str, tuple[Any, str]] = {
    "ensemble": ((0, (5, 2)), "none"),
    "dropout": ((0, (1, 1.5)), "bottom"),
    "converged": ((0, (1, 3)), "top"),
}
_OTHER_VARIANTS: tuple[tuple[Any, str], ...] = (
    ((0, (6, 1.5, 1, 1.5)), "left"),
    ((0, (3, 1, 1, 1, 1, 1)), "right"),
    ((0, (8, 3)), "bottom"),
)
# For a user's own models, in alphabetical order; again from the start when they are more.
_OWN_COLOURS = (COLOURS[8], COLOURS[2], "#332288", "#882255", "#117733", "#661100")
# The tuples are stars of four, six and eight points.
_OWN_MARKERS: tuple[Any, ...] = ("h", ">", "H", (4, 1, 0), (6, 1, 0), (8, 1, 0))


def looks(models: Iterable[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Colours and markers of `models` by name: the study's own, and others for a user's models."""
    present = list(models)
    user_networks = sorted({network_of(name) for name in present} - set(ORDER))
    colours: dict[str, str] = {}
    markers: dict[str, Any] = {}
    for name in in_order(present):
        network = network_of(name)
        if network in PALETTE:
            colours[name], markers[name] = PALETTE[network], MARKERS[network]
        else:
            index = user_networks.index(network)
            colours[name] = _OWN_COLOURS[index % len(_OWN_COLOURS)]
            markers[name] = _OWN_MARKERS[index % len(_OWN_MARKERS)]
    return colours, markers


def line(model: str, models: Iterable[str]) -> dict[str, Any]:
    """How a model is drawn among `models`: a variant dashed, its markers wholly or half hollow."""
    models = list(models)
    colours, markers = looks(models)
    style = {"color": colours[model], "marker": markers[model], "label": model, "linewidth": 1.8}
    style |= {"markersize": 6.5, "markeredgecolor": colours[model], "markeredgewidth": 1.0}
    if network_of(model) == model:
        return style | {"linestyle": "-"}
    dash, filled = _variant(model, models)
    if filled == "none":  # white rather than nothing, so that lines behind it do not show
        return style | {"linestyle": dash, "markerfacecolor": "white"}
    return style | {"linestyle": dash, "fillstyle": filled, "markerfacecoloralt": "white"}


def _variant(model: str, models: Iterable[str]) -> tuple[Any, str]:
    """Dash and filling of a variant: of its kind, else by its place among the network's others."""

    def kind(name: str) -> str:
        parts = name.removeprefix(network_of(name)).split("(")
        return parts[0].strip() if len(parts) == 2 else ""

    if kind(model) in _VARIANTS:
        return _VARIANTS[kind(model)]
    network = network_of(model)
    others = [
        name
        for name in in_order(models)
        if network_of(name) == network != name and kind(name) not in _VARIANTS
    ]
    return _OTHER_VARIANTS[others.index(model) % len(_OTHER_VARIANTS)]


def set_style() -> None:
    """Sets sizes that stay legible when a figure is shown at the width of a README."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=1.05)
    plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 150, "savefig.bbox": "tight"})


def subplots(*shape: int, **options: Any) -> tuple[Figure, Any]:
    """Makes a figure and closes it: a notebook would show an open figure a second time."""
    figure, axes = plt.subplots(*shape, **options)
    plt.close(figure)
    return figure, axes


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


def panel_columns(panels: int) -> int:
    """Columns of a grid of panels: at most 3, so that their text stays legible; 2 for 4 panels."""
    return 2 if panels == 4 else min(3, panels)
