"""What does uncertainty say? Its two parts against training images, rotation and ambiguity.

The rows are of ``jobs/bench/uncertainty_decomposition.py``: of each network and set of images the
mean *aleatoric* part of the entropy (the mean entropy of the draws) and the mean *epistemic* part
(the mutual information between label and weights), in nats (Depeweg et al. 2018, equation 2). The
sum of both is the entropy of the mean prediction. Methods are the mean-field networks by name, and
``ensemble``, five of their deterministic twins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions.seeds import end_of, over_seeds, paired
from bnnlib.analysis.style import COLOURS, PALETTE, legend_above, plain_log, set_style, subplots
from bnnlib.analysis.words import between

Records = Sequence[Mapping[str, Any]]
ENSEMBLE = "ensemble"
METHODS = ("BNN_FC_nonflip", "BNN_FC_flip", ENSEMBLE)
PARTS = {"epistemic": COLOURS[0], "aleatoric": COLOURS[1]}
# The kinds of image that are compared, each with its words: the even mixture, the quarter turn, and
# the mean over the sets of a group.
KINDS = {
    "clean": "clean",
    "ambiguous": "ambiguous (λ = 0.5)",
    "turned": "turned by 90°",
    "near": "near (Fashion, Kuzushiji)",
    "far": "far (CIFAR-10, noise)",
}
UNKNOWN = ("near", "far")
FEW, ALL = 540, 54_000
_WHOSE = ["method", "train_images", "seed"]
NAMES = {"BNN_FC_nonflip": "mean-field", "BNN_FC_flip": "mean-field, Flipout", ENSEMBLE: ENSEMBLE}


def make(records: Records, measured: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, Any]]:
    """The tables of the question by name, each with what draws it.

    Args:
        records: compact records of ``jobs/studies/uncertainty_decomposition.yaml``.
        measured: ``figures/uncertainty_decomposition/uncertainties.csv``.
    """
    return {
        "training_images": (against_size(measured), draw_size),
        "rotation": (along(measured, "rotated"), draw_rotation),
        "mixture": (along(measured, "mixed"), draw_mixture),
        "detection": (detection(measured), None),
        "differences": (differences(measured), None),
        "beside_ensemble": (beside_ensemble(measured), None),
        "further": (further(measured), None),
        "longer": (longer(measured), None),
        "runs": (trained(records), None),
    }


# --- Tables --------------------------------------------------------------------------------------


def by_kind(measured: pd.DataFrame, columns: Sequence[str] = tuple(PARTS)) -> pd.DataFrame:
    """Of each network, kind of image and column one value: the mean over the kind's sets.

    Returns:
        Columns ``method``, ``train_images``, ``steps``, ``seed``, ``kind``, ``part``, ``value``;
        of the parts also their ``share``, the epistemic one in both.
    """
    is_half = (measured.kind == "mixed") & (measured.value.astype(str) == "0.5")
    is_quarter = (measured.kind == "rotated") & (measured.value.astype(str) == "90")
    kind = measured.kind.where(~is_half, "ambiguous").where(~is_quarter, "turned")
    table = measured.assign(kind=kind)[kind.isin(list(KINDS))]
    whose = [*_WHOSE, "steps", "kind"]
    means = table.groupby(whose, sort=False)[list(columns)].mean()
    if {*PARTS} <= {*columns}:
        means["share"] = means.epistemic / (means.epistemic + means.aleatoric)
    long = means.reset_index().melt(whose, var_name="part", value_name="value")
    return _ordered(long.dropna(subset="value"))


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Methods and kinds in the order of :data:`METHODS` and :data:`KINDS`, then sizes and seeds."""
    keys = pd.DataFrame(
        {
            "method": table.method.map(METHODS.index),
            "part": pd.factorize(table.part)[0],
            "kind": table.kind.map([*KINDS, "rotated", "mixed"].index) if "kind" in table else 0,
            "train_images": table.train_images,
            "seed": table.seed,
        }
    )
    return table.loc[keys.sort_values([*keys], kind="stable").index].reset_index(drop=True)


def longest(measured: pd.DataFrame) -> pd.DataFrame:
    """Of each method and size the trainings of the most steps."""
    steps = measured.groupby(["method", "train_images"]).steps
    return measured[measured.steps == steps.transform("max")]


def against_size(measured: pd.DataFrame) -> pd.DataFrame:
    """Each part of each kind of image against the number of training images, over seeds."""
    return over_seeds(by_kind(longest(measured)), ["method", "part", "kind", "train_images"])


def along(measured: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Each part along rotations (``rotated``) or mixtures (``mixed``), over seeds.

    Returns:
        Columns ``method``, ``train_images``, ``part``, ``value`` (degrees, or the share of the
        second image), ``mean``, ``low``, ``high``, ``seeds``.
    """
    table = longest(measured)
    table = table[table.kind == kind].rename(columns={"value": "place"})
    long = table.melt([*_WHOSE, "place"], [*PARTS], var_name="part", value_name="value")
    long = long.assign(place=long.place.astype(float))
    made = over_seeds(_ordered(long), ["method", "train_images", "part", "place"])
    return made.rename(columns={"place": "value"})


def detection(measured: pd.DataFrame) -> pd.DataFrame:
    """How well each part by itself tells unknown images from clean ones: AUROC, over seeds."""
    columns = [f"auroc_{part}" for part in PARTS]
    table = by_kind(longest(measured), columns)
    table = table[table.kind.isin([kind for kind in KINDS if kind != "clean"])]
    return over_seeds(table, ["method", "part", "kind", "train_images"])


def differences(measured: pd.DataFrame) -> pd.DataFrame:
    """What is compared, as it was said before anything was measured; paired by seed.

    Returns:
        Columns ``method``, ``what`` (``540 less 54,000 images`` or ``less ambiguous``), ``part``,
        ``kind``, ``mean``, ``low``, ``high``, ``seeds``.
    """
    table = by_kind(longest(measured))
    table = table.drop(columns="steps")
    few, whole = (
        table[table.train_images == size].drop(columns="train_images") for size in (FEW, ALL)
    )
    by = ["method", "part", "kind"]
    sizes = paired(few[few.part != "share"], whole, by).assign(what=f"{FEW} less {ALL:,} images")
    shares = whole[whole.part == "share"]
    ambiguous = shares[shares.kind == "ambiguous"].drop(columns="kind")
    unknown = paired(shares[shares.kind.isin(UNKNOWN)], ambiguous, by)
    made = pd.concat([sizes, unknown.assign(what="less ambiguous")], ignore_index=True)
    return made[["method", "what", "part", "kind", "mean", "low", "high", "seeds"]]


def beside_ensemble(measured: pd.DataFrame) -> pd.DataFrame:
    """The epistemic part of a mean-field network less the ensemble's, at the two sizes.

    They are paired by seed: both are trained on the same images.
    """
    table = by_kind(longest(measured)).drop(columns="steps")
    table = table[(table.part == "epistemic") & table.train_images.isin((FEW, ALL))]
    is_ensemble = table.method == ENSEMBLE
    others = table[is_ensemble].drop(columns="method")
    return paired(table[~is_ensemble], others, ["method", "part", "kind", "train_images"])


def further(measured: pd.DataFrame) -> pd.DataFrame:
    """What else the expectations need, paired by seed.

    Returns:
        Columns as :func:`differences`. At all training images ``share`` on clean images ``less
        ambiguous`` of each method; and of the first mean-field network what a turn adds up to 90°
        (``step of rotation``, kind ``15°``: less the step before), what the even mixture has more
        than another (``λ = 0.5 less another``, kind ``λ = 0.4``), and by how much more the
        aleatoric part of clean images falls with data (``540 less 54,000 images``, part
        ``aleatoric less epistemic``).
    """
    kinds = by_kind(longest(measured)).drop(columns="steps")
    shares = kinds[(kinds.part == "share") & (kinds.train_images == ALL)]
    clean, ambiguous = (shares[shares.kind == kind] for kind in ("clean", "ambiguous"))
    by = ["method", "part", "kind"]
    made = [paired(clean, ambiguous.drop(columns="kind"), by).assign(what="less ambiguous")]

    clean = kinds[(kinds.method == METHODS[0]) & (kinds.kind == "clean")]
    few, whole = (clean[clean.train_images == size] for size in (FEW, ALL))
    change = few.merge(whole, on=["method", "part", "kind", "seed"], suffixes=("_few", "_all"))
    change = change.assign(value=change.value_few - change.value_all)
    aleatoric, epistemic = (change[change.part == part] for part in ("aleatoric", "epistemic"))
    aleatoric = aleatoric.assign(part="aleatoric less epistemic")
    more = paired(aleatoric, epistemic.drop(columns="part"), by)
    made.append(more.assign(what=f"{FEW} less {ALL:,} images"))

    table = longest(measured)
    table = table[(table.method == METHODS[0]) & (table.train_images == ALL)]
    table = table[table.kind.isin(("rotated", "mixed"))]
    table = table.assign(place=table.value.astype(float)).drop(columns="value")
    long = table.melt(["method", "kind", "place", "seed"], [*PARTS], "part", "value")
    turned, mixed = (long[long.kind == kind] for kind in ("rotated", "mixed"))
    steps = sorted(turned.place[turned.place <= 90].unique())
    before = dict(pairwise(steps))
    first = turned.assign(kind=turned.place.map("{:g}°".format))
    second = turned.assign(place=turned.place.map(before)).drop(columns="kind")
    by_place = [*by, "place"]
    made.append(paired(first, second, by_place).assign(what="step of rotation"))
    even = mixed[mixed.place == 0.5].drop(columns=["kind", "place"])
    others = mixed[mixed.place != 0.5].assign(kind=mixed.place.map("λ = {:g}".format))
    apart = paired(others, even, by_place).assign(what="λ = 0.5 less another")
    apart[["mean", "low", "high"]] = -apart[["mean", "high", "low"]].to_numpy()
    made.append(apart)
    columns = ["method", "what", "part", "kind", "mean", "low", "high", "seeds"]
    return pd.concat([rows[columns] for rows in made], ignore_index=True)


def longer(measured: pd.DataFrame) -> pd.DataFrame:
    """What the longer training changes at all training images, paired by seed."""
    table = by_kind(measured[(measured.train_images == ALL) & (measured.method != ENSEMBLE)])
    most = table.groupby("method").steps.transform("max")
    first, second = table[table.steps == most], table[table.steps < most]
    return paired(first, second.drop(columns="steps"), ["method", "steps", "part", "kind"])


def accuracies(measured: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on the clean images with its interval, a row a method and a column a size."""
    clean = longest(measured)
    clean = clean[clean.kind == "clean"].drop(columns="value")
    rows = over_seeds(clean.rename(columns={"accuracy": "value"}), ["method", "train_images"])
    said = [between(row.mean, row.low, row.high, 3) for row in rows.itertuples()]
    by = {"index": "method", "columns": "train_images", "values": "said"}
    wide = rows.assign(said=said).pivot_table(**by, aggfunc="first")
    wide = wide.reindex([method for method in METHODS if method in wide.index])
    return wide.rename(index=NAMES).fillna("not measured")


def trained(records: Records) -> pd.DataFrame:
    """A row a run: its parameters, its end, whether it has converged, seconds, commit."""
    rows = []
    for record in records:
        parameters, last = record["parameters"], record["metrics"]
        rows.append(
            {"run": record["run"], "model": parameters["model"]}
            | {"train_images": parameters.get("train_images") or ALL}
            | {"seed": parameters["seed"], "steps": last.get("steps_done")}
            | {"batch_size": parameters.get("batch_size")}
            | end_of(record)
        )
    return pd.DataFrame(rows)


# --- Pictures ------------------------------------------------------------------------------------


def draw_size(table: pd.DataFrame) -> Figure:
    """Both parts against the number of training images, a column a kind of image.

    Args:
        table: of :func:`against_size`. Bands are 95 % intervals over seeds.
    """
    set_style()
    kinds = [kind for kind in KINDS if kind in set(table.kind)]
    figure, axes = subplots(
        len(PARTS),
        len(kinds),
        figsize=(2.6 * len(kinds) + 0.8, 6.2),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for row, part in enumerate(PARTS):
        for column, kind in enumerate(kinds):
            axis = axes[row, column]
            here = table[(table.part == part) & (table.kind == kind)]
            for method, lines in here.groupby("method", sort=False):
                _line(axis, lines.train_images, lines, **_look(str(method)))
            plain_log(axis, "x")
            sizes = sorted(set(table.train_images))
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=60, fontsize=10)
            axis.minorticks_off()
            if row == 0:
                axis.set_title(KINDS[kind].replace(" (", "\n("), fontsize=12)
            else:
                axis.set_xlabel("training images")
        axes[row, 0].set_ylabel(f"{part} (nats)")
    axes[0, 0].set_ylim(0, None)  # of all: last, since it ends autoscaling
    legend_above(figure)
    return figure


def _look(method: str) -> dict[str, Any]:
    """How a method's line is drawn."""
    if method == ENSEMBLE:
        colour = PALETTE["CNN_FC"]
        style = {"marker": "D", "linestyle": "--", "markerfacecolor": "white"}
    else:
        colour = PALETTE[method]
        style = {"marker": "v" if method.endswith("nonflip") else "^"}
    return {"color": colour, "label": NAMES[method], "markersize": 6} | style


def _line(axis: Any, x: pd.Series, rows: pd.DataFrame, **style: Any) -> None:
    axis.plot(x, rows["mean"], **style)
    axis.fill_between(x, rows.low, rows.high, color=style["color"], alpha=0.18, linewidth=0)


def draw_rotation(table: pd.DataFrame) -> Figure:
    """Both parts against the rotation; see :func:`_draw_along`."""
    return _draw_along(table, "rotation (degrees)", np.arange(0, 181, 45))


def draw_mixture(table: pd.DataFrame) -> Figure:
    """Both parts against the share of a second digit; see :func:`_draw_along`."""
    return _draw_along(table, "share λ of the second digit", np.linspace(0, 1, 5))


def _draw_along(table: pd.DataFrame, words: str, ticks: np.ndarray) -> Figure:
    """A column a method, a row a size of the training set: all images above, the fewest below.

    Args:
        table: of :func:`along`. Bands are 95 % intervals over seeds.
        words: of the horizontal axis.
        ticks: on it.
    """
    set_style()
    methods = [method for method in METHODS if method in set(table.method)]
    sizes = sorted({table.train_images.max(), table.train_images.min()}, reverse=True)
    figure, axes = subplots(
        len(sizes),
        len(methods),
        figsize=(3.4 * len(methods) + 0.8, 2.7 * len(sizes) + 1.0),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for row, size in enumerate(sizes):
        for column, method in enumerate(methods):
            axis = axes[row, column]
            here = table[(table.method == method) & (table.train_images == size)]
            axis.set_visible(len(here) > 0)
            for part, marker in zip(PARTS, "os", strict=True):
                lines = here[here.part == part]
                look = {"color": PARTS[part], "marker": marker, "markersize": 5, "label": part}
                _line(axis, lines.value, lines, **look)
            axis.set_xticks(ticks)
            if row == 0:
                axis.set_title(NAMES[method], fontsize=12)
            if row == len(sizes) - 1:
                axis.set_xlabel(words)
        axes[row, 0].set_ylabel(f"uncertainty (nats)\n{size:,} training images")
    axes[0, 0].set_ylim(0, None)  # of all: last, since it ends autoscaling
    legend_above(figure)
    return figure
