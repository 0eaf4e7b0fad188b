"""What a run is trained on, and how it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.style import (
    COLOURS,
    set_style,
    subplots,
)
from bnnlib.analysis.words import percent

# Of training, of other images, and of the posterior: the same in every panel.
_NLL, _VALIDATION, _KL = COLOURS[0], COLOURS[3], COLOURS[4]


def training_curves(
    steps: pd.DataFrame,
    epochs: float | None = None,
    num_train_examples: int | None = None,
    validation: pd.DataFrame | None = None,
    before: pd.DataFrame | None = None,
) -> Figure:
    """One run's NLL, its loss by parts, its KL, and its speed against epochs.

    Args:
        steps: a row a line of ``steps.jsonl``; columns epoch, loss and nll (nats an image), kl
            (nats), images_per_second. It may have no row yet.
        epochs: of the whole run, for axes that stay while it trains; None: of the rows.
        num_train_examples: N, by which KL is divided as in the loss; None: KL as it is.
        validation: a row a line of ``accuracy.jsonl``; columns epoch, validation_nll (nats).
        before: rows like `steps`, of the run that this one goes on from; drawn in grey.
    """
    set_style()
    figure, axes = subplots(2, 2, figsize=(10, 6), layout="constrained", sharex=True)
    (nll, loss), (kl, speed) = axes
    for rows, label in ((before, "the run before"), (steps, "training batches")):
        if rows is None:
            continue
        values = [rows["nll"], rows["kl"] / (num_train_examples or 1), rows["images_per_second"]]
        for axis, value, colour in zip((nll, kl, speed), values, (_NLL, _KL, _NLL), strict=True):
            style = {"color": "0.6"} if rows is before else {"color": colour, "marker": "o"}
            axis.plot(rows["epoch"], value, label=label, markersize=4, linewidth=1.2, **style)
    if validation is not None and validation["validation_nll"].notna().any():
        style = {"color": _VALIDATION, "marker": "s", "linestyle": "--", "label": "validation"}
        nll.plot(validation["epoch"], validation["validation_nll"], markersize=5, **style)
    if before is not None:
        loss.plot(before["epoch"], before["loss"], color="0.6", label="the run before")
    _parts_of_loss(loss, steps)
    nll.set_ylabel("NLL (nats an image)")
    nll.legend(fontsize=11)
    kl.set_ylabel("KL(q‖p) (nats)" if num_train_examples is None else "KL(q‖p)/N (nats an image)")
    speed.set_ylabel("images/s, all ranks")
    speed.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    if epochs is not None:
        nll.set_xlim(0, epochs)  # that of all panels
    return figure


def _parts_of_loss(axis: Any, steps: pd.DataFrame) -> None:
    """The loss as the NLL with the weighted KL/N on it, and how much of it KL is at last."""
    known = steps[np.isfinite(steps[["loss", "nll"]].to_numpy(float)).all(axis=1)]
    kl = (known["loss"] - known["nll"]).clip(lower=0)
    parts = {"NLL": known["nll"], "KL(q‖p)/N, as weighted": kl}
    colours = [_NLL, _KL]
    axis.stackplot(known["epoch"], *parts.values(), labels=[*parts], colors=colours, alpha=0.8)
    axis.set_ylabel("loss (nats an image)")
    axis.set_ylim(0, 1.4 * axis.dataLim.y1 if np.isfinite(axis.dataLim.y1) else 1)  # for the legend
    last = known[known["loss"] > 0].tail(1)
    share = kl[last.index] / last["loss"]
    title = f"KL is {percent(share.iloc[0])} of the loss" if len(last) else None
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="upper right", fontsize=11, title=title)


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
