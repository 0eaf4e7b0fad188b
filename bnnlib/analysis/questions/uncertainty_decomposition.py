"""What does uncertainty say? Its two parts against training images, rotation and ambiguity.

The rows are of ``jobs/bench/uncertainty_decomposition.py``: of each network and set of images the
mean *aleatoric* part of the entropy (the mean entropy of the draws) and the mean *epistemic* part
(the mutual information between label and weights), in nats (Depeweg et al. 2018, equation 2). The
sum of both is the entropy of the mean prediction. Methods are the mean-field networks by name, and
``ensemble``, five of their deterministic twins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions.seeds import end_of, over_seeds, paired
from bnnlib.analysis.style import COLOURS, PALETTE, legend_above, plain_log, set_style, subplots
from bnnlib.analysis.words import between, counted, number, percent, side, signed_between, span

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
_NAMES = {"BNN_FC_nonflip": "mean-field", "BNN_FC_flip": "mean-field, Flipout", ENSEMBLE: ENSEMBLE}


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


def _longest(measured: pd.DataFrame) -> pd.DataFrame:
    """Of each method and size the trainings of the most steps."""
    steps = measured.groupby(["method", "train_images"]).steps
    return measured[measured.steps == steps.transform("max")]


def against_size(measured: pd.DataFrame) -> pd.DataFrame:
    """Each part of each kind of image against the number of training images, over seeds."""
    return over_seeds(by_kind(_longest(measured)), ["method", "part", "kind", "train_images"])


def along(measured: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Each part along rotations (``rotated``) or mixtures (``mixed``), over seeds.

    Returns:
        Columns ``method``, ``train_images``, ``part``, ``value`` (degrees, or the share of the
        second image), ``mean``, ``low``, ``high``, ``seeds``.
    """
    table = _longest(measured)
    table = table[table.kind == kind].rename(columns={"value": "place"})
    long = table.melt([*_WHOSE, "place"], [*PARTS], var_name="part", value_name="value")
    long = long.assign(place=long.place.astype(float))
    made = over_seeds(_ordered(long), ["method", "train_images", "part", "place"])
    return made.rename(columns={"place": "value"})


def detection(measured: pd.DataFrame) -> pd.DataFrame:
    """How well each part by itself tells unknown images from clean ones: AUROC, over seeds."""
    columns = [f"auroc_{part}" for part in PARTS]
    table = by_kind(_longest(measured), columns)
    table = table[table.kind.isin([kind for kind in KINDS if kind != "clean"])]
    return over_seeds(table, ["method", "part", "kind", "train_images"])


def differences(measured: pd.DataFrame) -> pd.DataFrame:
    """What is compared, as it was said before anything was measured; paired by seed.

    Returns:
        Columns ``method``, ``what`` (``540 less 54,000 images`` or ``less ambiguous``), ``part``,
        ``kind``, ``mean``, ``low``, ``high``, ``seeds``.
    """
    table = by_kind(_longest(measured))
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
    table = by_kind(_longest(measured)).drop(columns="steps")
    table = table[(table.part == "epistemic") & table.train_images.isin((FEW, ALL))]
    is_ensemble = table.method == ENSEMBLE
    others = table[is_ensemble].drop(columns="method")
    return paired(table[~is_ensemble], others, ["method", "part", "kind", "train_images"])


def longer(measured: pd.DataFrame) -> pd.DataFrame:
    """What the longer training changes at all training images, paired by seed."""
    table = by_kind(measured[(measured.train_images == ALL) & (measured.method != ENSEMBLE)])
    most = table.groupby("method").steps.transform("max")
    first, second = table[table.steps == most], table[table.steps < most]
    return paired(first, second.drop(columns="steps"), ["method", "steps", "part", "kind"])


def accuracies(measured: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on the clean images, a row a method and a column a size; means over seeds."""
    clean = _longest(measured)
    clean = clean[clean.kind == "clean"]
    wide = clean.pivot_table(index="method", columns="train_images", values="accuracy")
    return wide.reindex([method for method in METHODS if method in wide.index])


def trained(records: Records) -> pd.DataFrame:
    """A row a run: its parameters, its end, whether it has converged, seconds, commit."""
    rows = []
    for record in records:
        parameters, last = record["parameters"], record["metrics"]
        rows.append(
            {"run": record["run"], "model": parameters["model"]}
            | {"train_images": parameters.get("train_images") or ALL}
            | {"seed": parameters["seed"], "steps": last.get("steps_done")}
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
    return {"color": colour, "label": _NAMES[method], "markersize": 6} | style


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
            for part, marker in zip(PARTS, "os", strict=True):
                lines = here[here.part == part]
                look = {"color": PARTS[part], "marker": marker, "markersize": 5, "label": part}
                _line(axis, lines.value, lines, **look)
            axis.set_xticks(ticks)
            if row == 0:
                axis.set_title(_NAMES[method], fontsize=12)
            if row == len(sizes) - 1:
                axis.set_xlabel(words)
        axes[row, 0].set_ylabel(f"uncertainty (nats)\n{size:,} training images")
    axes[0, 0].set_ylim(0, None)  # of all: last, since it ends autoscaling
    legend_above(figure)
    return figure


# --- Sentences -----------------------------------------------------------------------------------


def seeds(records: Records, measured: pd.DataFrame) -> str:
    """How many networks and seeds the answers rest on, and what they cost."""
    if measured.empty:
        return "Nothing has been measured yet."
    table = _longest(measured)
    parts = []
    for method in [name for name in METHODS if name in set(table.method)]:
        counts = table[table.method == method].groupby("train_images").seed.nunique()
        sizes = ", ".join(f"{count} on {size:,} images" for size, count in counts.items())
        parts.append(f"{_NAMES[method]} {sizes}")
    runs = trained(records)
    hours = runs.seconds.sum() / 3600 if len(runs) else 0.0
    return f"Seeds: {'; '.join(parts)}. All {counted(len(runs), 'run')}: {hours:.2f} core-hours."


def told_converged(records: Records) -> str:
    """How many posteriors have converged, by number of training images."""
    table = trained(records)
    table = table[table.converged.notna()] if len(table) else table
    if table.empty:
        return "No mean-field network has been trained yet."
    parts = [
        f"{int(runs.converged.astype(bool).sum())} of {len(runs)} on {size:,} images "
        f"(KL {span(number(runs.kl.min(), 0), number(runs.kl.max(), 0))} nats)"
        for size, runs in table.groupby("train_images")
    ]
    return (
        "KL(q‖p) has changed by less than 2 % over the last tenth of the training in "
        f"{', '.join(parts)}."
    )


def told_longer(measured: pd.DataFrame) -> str:
    """What the longer training changes of both parts."""
    table = longer(measured)
    table = table[table.part.isin(list(PARTS))]
    if table.empty:
        return "No shorter training on all images has been measured yet."
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = [
            f"{row.part} on {row.kind} images {signed_between(row.mean, row.low, row.high)}"
            for row in rows.itertuples()
        ]
        steps = measured[(measured.method == method) & (measured.train_images == ALL)].steps
        lines.append(
            f"- **{_NAMES[str(method)]}** ({_pairs(rows)}), {steps.max():,} steps less "
            f"{steps.min():,}: {'; '.join(said)}"
        )
    return f"Longer trainings on all {ALL:,} images, in nats:\n\n" + "\n".join(lines)


WORDS = {1: "falls with data", -1: "rises with data", 0: "no difference shown"}


def told_size(measured: pd.DataFrame, part: str) -> str:
    """What fewer training images change of one part, a line a method."""
    table = differences(measured)
    table = table[(table.part == part) & table.what.str.endswith("images")]
    if table.empty:
        return "Nothing to compare yet."
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = [
            f"{row.kind} {signed_between(row.mean, row.low, row.high)} "
            f"({WORDS[side(row.low, row.high)]})"
            for row in rows.itertuples()
        ]
        lines.append(f"- **{_NAMES[str(method)]}** ({_pairs(rows)}): {'; '.join(said)}")
    return f"The {part} part on {FEW} less on {ALL:,} images, in nats:\n\n" + "\n".join(lines)


def _pairs(rows: pd.DataFrame) -> str:
    return counted(int(rows.seeds.max()), "pair") + " of seeds"


def told_theory(measured: pd.DataFrame) -> str:
    """On how many kinds of image each part does what theory says, a line a method."""
    table = differences(measured)
    table = table[table.what.str.endswith("images")].dropna(subset="low")
    if table.empty:
        return "Nothing to compare with theory yet."
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = []
        for part in PARTS:
            of_part = rows[rows.part == part]
            sides = [side(row.low, row.high) for row in of_part.itertuples()]
            counts = {where: sides.count(where) for where in (1, -1, 0)}
            said.append(
                f"the {part} part falls with data on {counts[1]} of {len(sides)} kinds of image, "
                f"rises on {counts[-1]}, and shows no difference on {counts[0]}"
            )
        lines.append(f"- **{_NAMES[str(method)]}**: {'; '.join(said)}")
    theory = "Theory has the epistemic part fall on all kinds, and the aleatoric part stay:"
    return f"{theory}\n\n" + "\n".join(lines)


def told_share(measured: pd.DataFrame) -> str:
    """Whether the epistemic share tells unknown images from ambiguous ones, a line a method."""
    table = differences(measured)
    table = table[table.part == "share"]
    if table.empty:
        return "Nothing to compare yet."
    means = against_size(measured)
    means = means[(means.part == "share") & (means.train_images == ALL)]
    words = {1: "greater, as theory says", -1: "smaller", 0: "no difference shown"}
    lines = []
    for method, rows in table.groupby("method", sort=False):
        of = means[means.method == method].set_index("kind")["mean"]
        said = [
            f"{row.kind} {percent(of[row.kind])}, a difference of "
            f"{signed_between(row.mean, row.low, row.high)} ({words[side(row.low, row.high)]})"
            for row in rows.itertuples()
        ]
        lines.append(
            f"- **{_NAMES[str(method)]}** ({_pairs(rows)}): ambiguous {percent(of['ambiguous'])}; "
            f"{'; '.join(said)}"
        )
    head = f"The epistemic share of the whole at {ALL:,} images, and its difference to ambiguous:"
    return f"{head}\n\n" + "\n".join(lines)


def told_peaks(measured: pd.DataFrame, kind: str) -> str:
    """Where each part is greatest along rotations or mixtures, a line a method and size."""
    table = along(measured, kind)
    if table.empty:
        return "Nothing has been measured along it yet."
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        if size not in (FEW, ALL):
            continue
        said = []
        for part in PARTS:
            of_part = rows[rows.part == part].set_index("value")
            peak = float(of_part["mean"].idxmax())
            place = f"{peak:g}°" if kind == "rotated" else f"λ = {peak:g}"
            at = of_part.loc[[0.0, peak], ["mean", "low", "high"]].to_numpy()
            first, most = (between(mean, low, high, 2) for mean, low, high in at)
            said.append(f"{part} {first} at 0, greatest at {place}: {most}")
        lines.append(f"- **{_NAMES[str(method)]}, {size:,} images**: {'; '.join(said)}")
    return "Each part at the start and where it is greatest, in nats:\n\n" + "\n".join(lines)


def told_beside(measured: pd.DataFrame) -> str:
    """The epistemic part of the mean-field networks less the ensemble's, a line each."""
    table = beside_ensemble(measured)
    if table.empty:
        return "Nothing stands beside an ensemble yet."
    words = {1: "more", -1: "less", 0: "no difference shown"}
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        said = [
            f"{row.kind} {signed_between(row.mean, row.low, row.high)} "
            f"({words[side(row.low, row.high)]})"
            for row in rows.itertuples()
        ]
        lines.append(
            f"- **{_NAMES[str(method)]}, {size:,} images** ({_pairs(rows)}): {'; '.join(said)}"
        )
    return "The epistemic part less the ensemble's, in nats:\n\n" + "\n".join(sorted(lines))


def told_detection(measured: pd.DataFrame) -> str:
    """How well each part tells unknown images from clean ones, a line a method and size."""
    table = detection(measured)
    table = table[table.kind.isin(UNKNOWN) & table.train_images.isin((FEW, ALL))]
    if table.empty:
        return "Nothing has been measured yet."
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        said = [
            f"{row.kind} by the {str(row.part).removeprefix('auroc_')} part "
            f"{between(row.mean, row.low, row.high, 2)}"
            for row in rows.sort_values(
                "kind", key=lambda kinds: kinds.map([*KINDS].index)
            ).itertuples()
        ]
        lines.append(f"- **{_NAMES[str(method)]}, {size:,} images**: {'; '.join(said)}")
    return "AUROC against clean images:\n\n" + "\n".join(lines)


def told_comparisons(measured: pd.DataFrame) -> str:
    """How many comparisons the page makes, and how many exclude 0 by chance alone."""
    count = sum(
        len(table.dropna(subset="low"))
        for table in (differences(measured), beside_ensemble(measured))
    )
    return (
        f"The page makes {counted(count, 'comparison')}; if nothing differed, "
        f"{number(0.05 * count, 1)} of their intervals would exclude 0 by chance."
    )
