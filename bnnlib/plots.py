"""Figures as functions of a DataFrame, one palette that gives each model its colour everywhere.

Every function draws on the data it is given and returns the matplotlib figure; :func:`save` keeps
picture, table and origin together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from bnnlib import metrics, results
from bnnlib.checkpoint import write_atomically

# Seaborn's colour-blind palette; hue says convolution (blues) or dense (oranges), the twins are
# grey and black, and marker and dash say the same again for print without colour.
_COLOURS = sns.color_palette("colorblind").as_hex()
PALETTE: dict[str, str] = {
    "BNN_conv_flip": _COLOURS[0],
    "BNN_conv_nonflip": _COLOURS[9],
    "BNN_FC_flip": _COLOURS[3],
    "BNN_FC_nonflip": _COLOURS[1],
    "CNN_conv": "#000000",
    "CNN_FC": _COLOURS[7],
    "BNN_VGG_flip": _COLOURS[4],
    "BNN_VGG_nonflip": _COLOURS[6],
    "CNN_VGG": _COLOURS[5],
}
MARKERS: dict[str, str] = {
    "BNN_conv_flip": "o",
    "BNN_conv_nonflip": "s",
    "BNN_FC_flip": "^",
    "BNN_FC_nonflip": "v",
    "CNN_conv": "X",
    "CNN_FC": "D",
    "BNN_VGG_flip": "P",
    "BNN_VGG_nonflip": "p",
    "CNN_VGG": "*",
}
ORDER = list(PALETTE)
# For a user's own models, in alphabetical order; again from the start when they are more.
_OWN_COLOURS = (_COLOURS[8], _COLOURS[2], "#332288", "#882255", "#117733", "#661100")
_OWN_MARKERS = ("h", "<", ">", "d", "H", "8")


def looks(models: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Colours and markers of `models` by name: the study's own, and others for a user's models."""
    present = set(models)
    colours = {model: PALETTE[model] for model in ORDER if model in present}
    markers = {model: MARKERS[model] for model in ORDER if model in present}
    for index, model in enumerate(sorted(present - set(ORDER))):
        colours[model] = _OWN_COLOURS[index % len(_OWN_COLOURS)]
        markers[model] = _OWN_MARKERS[index % len(_OWN_MARKERS)]
    return colours, markers


def set_style() -> None:
    """Sets sizes that stay legible when a figure is shown at the width of a README."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=1.05)
    plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 150, "savefig.bbox": "tight"})


def _subplots(*shape: int, **options: Any) -> tuple[Figure, Any]:
    """As pyplot's, but not left open: a notebook would show an open figure a second time."""
    figure, axes = plt.subplots(*shape, **options)
    plt.close(figure)
    return figure, axes


def training_curves(steps: pd.DataFrame) -> Figure:
    """Negative log-likelihood, KL and speed of one run against epochs.

    Args:
        steps: a row a line of ``steps.jsonl``; columns epoch, nll (nats), kl (nats),
            images_per_second.
    """
    set_style()
    panels = [
        ("nll", "NLL on training batches\n(nats an image)"),
        ("kl", "KL(q||p) (nats)"),
        ("images_per_second", "images/s, all ranks"),
    ]
    figure, axes = _subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for axis, (column, label) in zip(axes, panels, strict=True):
        sns.lineplot(steps, x="epoch", y=column, ax=axis, color=_COLOURS[0], marker="o", ms=4)
        axis.set(xlabel="epoch", ylabel=label)
    axes[2].set_ylim(bottom=0)
    return figure


def image_row(images: np.ndarray, labels: np.ndarray) -> Figure:
    """Images side by side under their labels.

    Args:
        images: ``(num_images, height, width, channels)``, one channel or three.
        labels: ``(num_images,)``.
    """
    figure, axes = _subplots(
        1, len(images), figsize=(0.9 * len(images), 1.2), squeeze=False, layout="constrained"
    )
    for axis, image, label in zip(axes[0], images, labels, strict=True):
        axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r")
        axis.set_title(str(label), fontsize=10)
        axis.set_axis_off()
    return figure


def comparison_table(table: pd.DataFrame) -> Styler:
    """The models' scores side by side, mean ± standard deviation over seeds, best means bold.

    Args:
        table: of :func:`bnnlib.results.load`.
    """
    best = {"accuracy": "max", "nll": "min", "brier": "min", "ece": "min"}
    best |= {"images_per_second": "max"}
    groups = table.groupby("model")[list(best)]
    means, spreads, counts = groups.mean(), groups.std(), groups.size()
    models = _models(table)

    def text(model: str, column: str) -> str:
        digits = 0 if column == "images_per_second" else 4
        mean = f"{means.loc[model, column]:.{digits}f}"
        return mean if counts[model] < 2 else f"{mean} ± {spreads.loc[model, column]:.{digits}f}"

    shown = pd.DataFrame({c: {m: text(m, c) for m in models} for c in best}, index=models)
    shown.insert(0, "runs", counts[models])
    shown.index.name = "model"

    def bold(column: pd.Series) -> list[str]:
        if column.name == "runs":
            return [""] * len(column)
        values = means.loc[models, column.name]
        top = values.max() if best[column.name] == "max" else values.min()
        return ["font-weight: bold" if value == top else "" for value in values]

    return shown.style.apply(bold)


def describe_accuracy(table: pd.DataFrame) -> str:
    """What :func:`accuracy_against_nll` shows for the runs loaded, computed from the numbers."""
    means = table.groupby("model")[["accuracy", "nll"]].mean()
    accurate, likely = means.accuracy.idxmax(), means.nll.idxmin()
    text = (
        f"Most accurate: **{accurate}** ({means.accuracy[accurate]:.4f}); lowest NLL: **{likely}** "
    )
    text += f"({means.nll[likely]:.4f} nats)."
    for bayesian, twin in _twins(means.index):
        gain = means.accuracy[bayesian] - means.accuracy[twin]
        cost = means.nll[bayesian] - means.nll[twin]
        text += f" {bayesian} against its twin {twin}: accuracy {gain:+.4f}, NLL {cost:+.4f}."
    return text


def describe_reliability(table: pd.DataFrame, bins: pd.DataFrame) -> str:
    """What :func:`reliability_diagrams` shows for the runs loaded, computed from the numbers."""
    sentences = []
    for model in _models(table):
        mine = bins[bins.model == model]
        gap = np.average(mine.accuracy - mine.confidence, weights=mine["count"])
        side = "too modest" if gap > 0 else "too sure"
        ece = table[table.model == model].ece.mean()
        sentences.append(f"{model}: ECE {ece:.4f}, on average {side} by {abs(gap):.4f}")
    return "; ".join(sentences) + "."


def describe_entropy(entropies: pd.DataFrame) -> str:
    """What :func:`entropy_of_right_and_wrong` shows for the runs loaded, from the numbers."""
    sentences = []
    for model in _models(entropies):
        mine = entropies[entropies.model == model]
        medians = mine.groupby("outcome").entropy.median()
        if "wrong" not in medians or "right" not in medians:
            sentences.append(f"{model}: all predictions {medians.index[0]}")
            continue
        auroc = metrics.auroc(
            mine[mine.outcome == "right"].entropy, mine[mine.outcome == "wrong"].entropy
        )
        sentences.append(
            f"{model}: median {medians['right']:.3f} nats where right, {medians['wrong']:.3f} "
            "where wrong; a wrong prediction has more entropy than a right one with probability "
            f"{auroc:.3f}"
        )
    return "; ".join(sentences) + "."


def _twins(models: pd.Index) -> list[tuple[str, str]]:
    """Pairs of a Bayesian network and its deterministic twin that are both among `models`."""
    pairs = [(m, "CNN_" + m.split("_")[1]) for m in _sorted(models) if m.startswith("BNN_")]
    return [(bayesian, twin) for bayesian, twin in pairs if twin in models]


def accuracy_against_nll(table: pd.DataFrame) -> Figure:
    """Each run's accuracy against its NLL; runs of one model share colour and marker.

    Args:
        table: of :func:`bnnlib.results.load`; columns model, accuracy, nll.
    """
    set_style()
    figure, axis = _subplots(figsize=(7, 4.6), layout="constrained")
    models = _models(table)
    palette, markers = looks(models)
    sns.scatterplot(
        table,
        x="nll",
        y="accuracy",
        hue="model",
        style="model",
        hue_order=models,
        style_order=models,
        palette=palette,
        markers=markers,
        s=120,
        ax=axis,
    )
    axis.set(xlabel="NLL on the test set (nats an image); lower is better", ylabel="accuracy")
    axis.legend(title=None, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def reliability_table(table: pd.DataFrame, num_bins: int = metrics.NUM_BINS) -> pd.DataFrame:
    """Reliability bins of every run: a row a run and bin that is not empty.

    Args:
        table: of :func:`bnnlib.results.load`.
        num_bins: bins of equal width of the confidence.

    Returns:
        Columns run, model, seed, ece and those of :class:`bnnlib.metrics.ReliabilityBins`.
    """
    rows = []
    for run in table.itertuples():
        prediction, labels = results.read_predictions(run.path)
        bins = pd.DataFrame(vars(metrics.reliability_bins(prediction.mean_probs, labels, num_bins)))
        # Seeds do not tell runs apart: the same one may have run on other numbers of ranks.
        bins.insert(0, "run", f"{run.group}/{run.run_id}")
        bins.insert(1, "model", run.model)
        bins.insert(2, "seed", run.seed)
        bins.insert(3, "ece", run.ece)
        rows.append(bins[bins["count"] > 0])
    return pd.concat(rows, ignore_index=True)


def reliability_diagrams(bins: pd.DataFrame) -> Figure:
    """Accuracy less confidence against confidence, a panel a model; below, the bins' counts.

    Args:
        bins: of :func:`reliability_table`; runs of one model are drawn over each other. The bars
            are the bins' intervals for the accuracy at 95 %.
    """
    set_style()
    models = _models(bins)
    palette, markers = looks(models)
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure, axes = _subplots(
        2 * rows,
        columns,
        figsize=(4.2 * columns, 4.0 * rows),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=[3, 1] * rows,
    )
    for index, model in enumerate(models):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        for _, run in bins[bins.model == model].groupby("run"):
            gap = run.accuracy - run.confidence
            upper.errorbar(
                run.confidence,
                gap,
                yerr=[run.accuracy - run.accuracy_low, run.accuracy_high - run.accuracy],
                color=palette[model],
                marker=markers[model],
                capsize=2,
                linewidth=1.5,
                elinewidth=1,
            )
            lower.bar(
                (run.lower + run.upper) / 2,
                run["count"],
                width=0.9 * (run.upper - run.lower),
                color=palette[model],
                alpha=0.6,
            )
        mean_ece = bins[bins.model == model].groupby("run").ece.first().mean()
        upper.axhline(0, color="0.3", linewidth=1, linestyle="--")
        upper.set_title(f"{model}   ECE {mean_ece:.3f}", fontsize=12)
        lower.set_yscale("log")
        lower.set(xlabel="confidence")
        lower.xaxis.set_tick_params(labelbottom=True)
        if column == 0:
            upper.set_ylabel("accuracy - confidence\n> 0: too modest, < 0: too sure")
            lower.set_ylabel("images")
    for index in range(len(models), rows * columns):
        row, column = divmod(index, columns)
        axes[2 * row, column].set_axis_off()
        axes[2 * row + 1, column].set_axis_off()
    return figure


def entropy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Predictive entropy of every test image of every run, and whether it was classified right.

    Returns:
        Columns model, seed, entropy (nats), outcome (``right`` or ``wrong``).
    """
    rows = []
    for run in table.itertuples():
        prediction, labels = results.read_predictions(run.path)
        right = prediction.mean_probs.argmax(axis=1) == labels
        rows.append(
            pd.DataFrame(
                {
                    "model": run.model,
                    "seed": run.seed,
                    "entropy": metrics.predictive_entropy(prediction.mean_probs),
                    "outcome": np.where(right, "right", "wrong"),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def entropy_of_right_and_wrong(entropies: pd.DataFrame) -> Figure:
    """Distribution of the predictive entropy of right and of wrong predictions, a row a model.

    Args:
        entropies: of :func:`entropy_table`.
    """
    set_style()
    models = _models(entropies)
    figure, axis = _subplots(figsize=(9, 1.1 + 0.75 * len(models)), layout="constrained")
    sns.boxplot(
        entropies,
        y="model",
        x="entropy",
        hue="outcome",
        order=models,
        hue_order=["right", "wrong"],
        palette={"right": _COLOURS[2], "wrong": _COLOURS[3]},
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


def save(
    figure: Figure, data: pd.DataFrame, directory: str | Path, name: str, origin: Mapping[str, Any]
) -> Path:
    """Keeps a figure so that it can be traced: picture, the table behind it, where it comes from.

    Args:
        figure: written as ``<name>.png``.
        data: written as ``<name>.csv``.
        directory: made if missing.
        name: of the three files.
        origin: of :func:`origin`, written as ``<name>.json``.

    Returns:
        The picture's path.

    Raises:
        RecordError: a file could not be written.
    """
    path = Path(directory) / f"{name}.png"
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
    write_atomically(
        path.with_suffix(".csv"), lambda file: file.write(data.to_csv(index=False).encode())
    )
    text = json.dumps(dict(origin), indent=2) + "\n"
    write_atomically(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    return path


def origin(table: pd.DataFrame, notebook: str, command: str) -> dict[str, Any]:
    """Where a figure comes from: notebook, its command, and of each run its id, commit, command.

    Args:
        table: of :func:`bnnlib.results.load`, the runs that the figure shows.
        notebook: that made the figure.
        command: that ran the notebook.
    """
    columns = ["group", "run_id", "path", "model", "dataset", "seed", "ranks", "commit", "clean"]
    columns += ["command", "started", "ended"]
    runs = table.astype(object).where(table.notna(), None)
    return {"notebook": notebook, "command": command, "runs": runs[columns].to_dict("records")}


def _models(table: pd.DataFrame) -> list[str]:
    return _sorted(table["model"])


def _sorted(models: Iterable[str]) -> list[str]:
    """The study's models in its order, then the user's own."""
    present = list(dict.fromkeys(models))
    return [m for m in ORDER if m in present] + [m for m in present if m not in ORDER]
