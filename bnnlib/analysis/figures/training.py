"""What a run is trained on, and how it trains."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.style import (
    COLOURS,
    set_style,
    subplots,
)


def training_curves(
    steps: pd.DataFrame,
    epochs: float | None = None,
    num_train_examples: int | None = None,
    validation: pd.DataFrame | None = None,
) -> Figure:
    """The parts of one run's loss, its NLL on other images, and its speed against epochs.

    Args:
        steps: a row a line of ``steps.jsonl``; columns epoch, nll (nats), kl (nats),
            images_per_second. It may have no row yet.
        epochs: of the whole run, for axes that stay while it trains; None: of the rows.
        num_train_examples: N, by which KL is divided as in the loss; None: KL as it is.
        validation: a row a line of ``accuracy.jsonl``; columns epoch, validation_nll (nats).
    """
    set_style()
    if validation is None:
        validation = pd.DataFrame(columns=["epoch", "validation_nll"])
    kl_label = "KL(q||p) (nats)" if num_train_examples is None else "KL(q||p)/N (nats an image)"
    panels = [
        (steps["nll"], "NLL on training batches\n(nats an image)"),
        (validation["validation_nll"], "validation NLL\n(nats an image)"),
        (steps["kl"] / (num_train_examples or 1), kl_label),
        (steps["images_per_second"], "images/s, all ranks"),
    ]
    figure, axes = subplots(2, 2, figsize=(10, 6), layout="constrained", sharex=True)
    for axis, (values, label) in zip(axes.flat, panels, strict=True):
        epoch = validation["epoch"] if values is panels[1][0] else steps["epoch"]
        axis.plot(epoch, values, color=COLOURS[0], marker="o", ms=4)
        axis.set(ylabel=label)
        if epochs is not None:
            axis.set_xlim(0, epochs)
    if validation["validation_nll"].isna().all():
        text = "not asked for (evaluate_every)"
        axes[0, 1].text(0.5, 0.5, text, ha="center", transform=axes[0, 1].transAxes)
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
