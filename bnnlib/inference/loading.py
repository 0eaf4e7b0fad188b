"""A run on the disk for use: its numbers, its network, and predictions of a user's images."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bnnlib.data import Dataset, Inputs
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, laplace
from bnnlib.inference.prediction import Predictor
from bnnlib.inference.restore import dataset_of, inputs_of, network_of
from bnnlib.metrics import predictive_entropy
from bnnlib.networks import Network, draw_probs
from bnnlib.record.files import write_npz, write_text
from bnnlib.record.logs import StepLog, read_steps
from bnnlib.record.schema import read_record

if TYPE_CHECKING:
    import pandas as pd  # for whoever asks for a table: its import takes half a second

How = Literal["draws", "mean", "probit"]


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
        """Writes a row an image: its number, class, entropies (nats) and mean probabilities.

        ``entropy`` is the total, of the mean probabilities; ``expected_entropy`` as here.
        """
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        classes = [f"prob_{number}" for number in range(self.mean_probs.shape[1])]
        rows.writerow(["image", "predicted", "entropy", "expected_entropy", *classes])
        total = predictive_entropy(self.mean_probs)
        for number, (probs, *entropies) in enumerate(
            zip(self.mean_probs, total, self.expected_entropy, strict=True)
        ):
            rows.writerow([number, int(probs.argmax()), *entropies, *probs])
        write_text(Path(path), text.getvalue())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LoadedRun:
    """A run that is on the disk, ready to predict.

    Attributes:
        path: its directory.
        record: what ``run.json`` holds, of :func:`bnnlib.record.read_record`.
        experiment: its parameters.
        inputs: what its network takes: shape, type and range of images.
        network: as its last checkpoint has it.
    """

    path: Path
    record: dict[str, Any]
    experiment: Experiment
    inputs: Inputs
    network: Network
    _predictors: dict[Any, Predictor] = dataclasses.field(default_factory=dict, init=False)

    @property
    def metrics(self) -> dict[str, float]:
        """The test set's numbers by their names in the record, NaN where one is unknown.

        Of training there are ``train_nll`` and ``kl`` (nats), ``train_seconds``, ``steps_done`` and
        ``images_per_second``. A run that has not finished has none yet.
        """
        values = self.record["metrics"].items()
        return {name: math.nan if value is None else float(value) for name, value in values}

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The lines of ``steps.jsonl``, a row each: :class:`bnnlib.record.StepLog`."""
        import pandas as pd

        lines = read_steps(self.path) if (self.path / "steps.jsonl").exists() else []
        names = [field.name for field in dataclasses.fields(StepLog)]
        return pd.DataFrame([dataclasses.asdict(line) for line in lines], columns=names)

    @functools.cached_property
    def evaluation(self) -> pd.DataFrame:
        """A row a set that the run was judged on: :class:`bnnlib.metrics.Evaluation`."""
        import pandas as pd

        return pd.DataFrame(self.record["evaluation"])

    @functools.cached_property
    def dataset(self) -> Dataset:
        """What the run was trained on, read when it is first asked for.

        Raises:
            DataError: it is not on this machine, or is another now.
        """
        return dataset_of(self.path, self.record)

    def __repr__(self) -> str:
        shown = [f"{name} {self.metrics[name]:.4f}" for name in _SHOWN if name in self.metrics]
        what = f"{self.experiment.model} on {self.experiment.dataset}, {self.record['status']}"
        return f"<run {self.path}: {', '.join([what, *shown])}>"

    def predict(
        self,
        images: npt.ArrayLike,
        draws: int | None = None,
        keep_draws: bool = False,
        seed: int | None = None,
        predict_with: How | None = None,
        any_range: bool = False,
    ) -> Predicted:
        """The predictive distribution of images, or of a single one.

        Args:
            images: ``(num_images, height, width, channels)`` or one ``(height, width, channels)``,
                in the training images' own type and range; the axis of a single channel may be
                left out.
            draws: of the weights; the run's `test_draws` if not given.
            keep_draws: whether to keep each draw's probabilities; memory grows with draws times
                images.
            seed: of the draws; the run's own if not given, whose draws are those of its record.
            predict_with: ``draws``; ``mean``, the network at the posterior's mean; or ``probit``
                of a Laplace posterior. The run's own if not given.
            any_range: whether pixels are taken that the training images' type and range do not
                suggest, in the training images' unit.

        Raises:
            DataError: the images are of another shape, type or range than the network was trained
                on, or not finite, or there are none.
            ExperimentError: `draws` or `predict_with` cannot be.
        """
        checked = self.inputs.checked(images, any_range)
        experiment = dataclasses.replace(
            self.experiment,
            test_draws=self.experiment.test_draws if draws is None else draws,
            seed=self.experiment.seed if seed is None else seed,
            predict_with=predict_with or self.experiment.predict_with,
        )
        made = self._predictor(experiment)(checked)
        each = None
        if keep_draws:
            if experiment.predict_with == "draws":
                count = experiment.test_draws if self.network.is_stochastic else 1
                each = draw_probs(
                    self.network, self.inputs, checked, count, experiment.seed, any_range=True
                )
            else:
                each = made.mean_probs[np.newaxis]
        return Predicted(made.mean_probs, made.expected_entropy, each)

    def _predictor(self, experiment: Experiment) -> Predictor:
        """What predicts as asked; the last one is kept, with its traced graph."""
        how, network = experiment.predict_with, self.network
        key = experiment.test_draws, experiment.seed, how
        if key not in self._predictors:
            if how == "probit":
                if not experiment.laplace:
                    raise ExperimentError(
                        "predict_with = 'probit': expected draws or mean, since the run has no "
                        "Laplace posterior (python -m bnnlib laplace fits one)"
                    )
                network = laplace.Probit(network)
            self._predictors.clear()
            self._predictors[key] = Predictor(
                network, self.inputs, *key[:2], at_mean=how != "draws"
            )
        return self._predictors[key]


_SHOWN = ("accuracy", "nll", "ece")


def load_run(directory: str | Path) -> LoadedRun:
    """A run for use: its metrics, its history, and its network, which predicts.

    The data set need not be on this machine. A user's own network is made by the source in the
    record, which is executed: load only runs that you trust.

    Raises:
        RecordError: there is no record, or no readable checkpoint or Laplace posterior.
        DataError: the run is older than schema 8, and its data set is not on this machine.
        ExperimentError: the checkpoint is not of the network that the record describes.
    """
    distributed.set_threads()
    record = read_record(directory)
    experiment = Experiment.from_mapping(record["parameters"])
    inputs = inputs_of(directory, record)
    network = network_of(directory, record, inputs)
    return LoadedRun(Path(directory), record, experiment, inputs, network)
