"""A finished run for use: its network, its data's scale, and predictions of a user's images."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from bnnlib.data import Dataset
from bnnlib.errors import DataError
from bnnlib.experiment import Experiment
from bnnlib.inference.prediction import predict
from bnnlib.inference.restore import restore
from bnnlib.networks import Network, draw_probs
from bnnlib.record.files import write_atomically, write_npz


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What a network predicts of a user's images.

    Attributes:
        mean_probs: float32 ``(num_images, num_classes)``, the mean over draws.
        expected_entropy: float32 ``(num_images,)``, nats; the mean over draws of each draw's
            entropy. The entropy of `mean_probs` less this is what the weights do not know.
        draw_probs: float32 ``(num_draws, num_images, num_classes)``, where it was asked for.
    """

    mean_probs: np.ndarray
    expected_entropy: np.ndarray
    draw_probs: np.ndarray | None = None

    def to_npz(self, path: str | Path) -> None:
        """Writes the arrays by their names; raises `RecordError` where it cannot."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        write_npz(Path(path), arrays)

    def to_csv(self, path: str | Path) -> None:
        """Writes a row an image: its number, class, expected entropy and mean probabilities."""
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        classes = [f"prob_{number}" for number in range(self.mean_probs.shape[1])]
        rows.writerow(["image", "predicted", "expected_entropy", *classes])
        for number, (probs, entropy) in enumerate(
            zip(self.mean_probs, self.expected_entropy, strict=True)
        ):
            rows.writerow([number, int(probs.argmax()), entropy, *probs])
        write_atomically(Path(path), lambda file: file.write(text.getvalue().encode()))


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run that is on the disk, ready to predict.

    Attributes:
        experiment: its parameters.
        dataset: what it was trained on, whose scale and mean image apply.
        network: as its last checkpoint has it.
    """

    experiment: Experiment
    dataset: Dataset
    network: Network

    def predict(
        self,
        images: np.ndarray,
        draws: int = 30,
        keep_draws: bool = False,
        seed: int | None = None,
    ) -> Predicted:
        """The predictive distribution of images, or of a single one.

        Args:
            images: ``(num_images, height, width, channels)`` or one ``(height, width, channels)``,
                in the data set's own type and range.
            draws: of the weights.
            keep_draws: whether to keep each draw's probabilities; memory grows with draws times
                images.
            seed: of the draws; the run's own if not given, whose draws are those of its record.

        Raises:
            DataError: the images are of another shape or type than the network was trained on.
        """
        images = np.asarray(images)
        stored = self.dataset.x_train
        if images.shape == self.dataset.image_shape:
            images = images[np.newaxis]
        if images.shape[1:] != self.dataset.image_shape or images.dtype != stored.dtype:
            raise DataError(
                f"images of shape {images.shape} and type {images.dtype}: expected "
                f"(num_images, {', '.join(map(str, self.dataset.image_shape))}) of {stored.dtype}, "
                f"as in {self.dataset.name!r}; reshape or convert them"
            )
        seed = self.experiment.seed if seed is None else seed
        made = predict(self.network, self.dataset, images, draws, seed)
        each = None
        if keep_draws:
            count = draws if self.network.is_stochastic else 1
            each = draw_probs(self.network, self.dataset, images, count, seed)
        return Predicted(made.mean_probs, made.expected_entropy, each)


def load_run(directory: str | Path) -> LoadedRun:
    """A run for use in another program; raises the errors of :func:`restore`.

    A user's own network is made by the source in the record, which is executed: load only runs
    that you trust.
    """
    return LoadedRun(*restore(directory))
