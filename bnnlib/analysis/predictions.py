"""What runs predict, what the ensembles of their seeds predict, and a user's own arrays."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.runs import MAY_DIFFER, load, load_evaluation, named
from bnnlib.analysis.variants import chosen, refuse_mixed_sets, refuse_too_many
from bnnlib.errors import BnnlibError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.metrics import Labels, Prediction
from bnnlib.names import in_order, variant_of
from bnnlib.record.predictions import read_all_predictions, read_predictions
from bnnlib.record.summary import speed


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """One model's predictions of one set of images.

    Attributes:
        model: its name in tables and figures.
        mean_probs: ``(num_images, num_classes)``.
        labels: int ``(num_images,)``; None for images out of distribution.
        expected_entropy: ``(num_images,)`` nats; None where only mean probabilities are known.
        run: tells the runs of one model apart.
        seed: of the run; of an ensemble, the number of its members.
        temperature: fitted on held-out images; NaN where none were held out.
        temperature_interval: of the same, over the images held out; None where it is unknown.
        images_per_second: of training, all ranks together; NaN if unknown or timed too shortly
            (:func:`bnnlib.record.summary.speed`).
        mean_logits: ``(num_images, num_classes)``, the mean over draws; None where it is unknown.
        votes: ``(num_images, num_classes)``, the draws that predict each class; None where they are
            unknown.
        soft_labels: ``(num_images, num_classes)``, how annotators label the images; None where the
            set has one label an image.
    """

    model: str
    mean_probs: np.ndarray
    labels: np.ndarray | None = None
    expected_entropy: np.ndarray | None = None
    run: str = ""
    seed: int = 0
    temperature: float = math.nan
    temperature_interval: metrics.Interval | None = None
    images_per_second: float = math.nan
    mean_logits: np.ndarray | None = None
    votes: np.ndarray | None = None
    soft_labels: np.ndarray | None = None

    @property
    def scaled_probs(self) -> np.ndarray:
        """The mean probabilities at `temperature`, ``(num_images, num_classes)``."""
        return metrics.apply_temperature(metrics.log_mean_probs(self.mean_probs), self.temperature)

    @property
    def uncertainties(self) -> dict[str, np.ndarray]:
        """What ranks the images by uncertainty, of :func:`bnnlib.metrics.uncertainty_scores`."""
        return metrics.uncertainty_scores(
            self.mean_probs, self.expected_entropy, self.mean_logits, self.votes
        )

    @property
    def is_stochastic(self) -> bool:
        """Whether the model's draws differ, so that some uncertainty is epistemic."""
        if self.expected_entropy is None:
            return False
        information = metrics.mutual_information(self.mean_probs, self.expected_entropy)
        return bool((information > 0).any())


def given(
    model: str, probs: npt.ArrayLike, labels: npt.ArrayLike | None = None, run: str = ""
) -> Predicted:
    """A user's own model, trained anywhere, for every function of this module.

    Args:
        model: its name in tables and figures.
        probs: class probabilities, of draws ``(num_draws, num_images, num_classes)`` or their mean
            ``(num_images, num_classes)``. From draws the epistemic part is known too.
        labels: ``(num_images,)``; None for images out of distribution.
        run: tells several runs of the model apart.

    Returns:
        The prediction.

    Raises:
        MetricsError: the arrays are no probabilities, or no labels of these images.
    """
    array = np.asarray(probs)
    expected = metrics.expected_entropy(array) if array.ndim == 3 else None
    mean = metrics.mean_probs(array if array.ndim == 3 else array[np.newaxis])
    truth = None if labels is None else np.asarray(labels)
    if truth is not None:
        metrics.accuracy(mean, truth)  # refuses labels that are none of these images
    votes = metrics.count_votes(array) if array.ndim == 3 else None
    return Predicted(model, mean, truth, expected, run or model, votes=votes)


class Group:
    """The finished runs of a group, the ensembles of their seeds, and what they predict.

    A run that cannot stand beside the others is left out, so that these can be compared.

    Attributes:
        runs: of :func:`bnnlib.analysis.runs.load`, the runs that are compared; `model` tells
            variants of a network apart, such as ``CNN_conv dropout(0.1)``.
        unfinished: the runs that have not finished.
        left_out: why a finished run, or a record that cannot be read, is left out, by directory:
            its files are damaged, it predicts no probabilities, or one of its shifted or foreign
            sets has other images than in the other runs of its model.
    """

    def __init__(self, path: str | Path, variants: str = "") -> None:
        """Reads the records below `path`.

        Args:
            path: a group, a single run's directory, or a folder of groups.
            variants: which runs, by their parameters (:func:`bnnlib.analysis.variants.chosen`).

        Raises:
            RecordError: there is no run to compare, `variants` chooses none, the runs are of
                several data sets or test sets, or they are more variants than one figure can tell
                apart. It says what to do.
        """
        self.left_out: dict[str, str] = {}
        table = chosen(load(path, self.left_out), variants)
        rows = load_evaluation(path, self.left_out)
        rows = rows[rows.path.isin(table.path)]
        self._kinds = dict(zip(rows["set"], rows["kind"], strict=True))
        self._sets = {path: set(selected["set"]) for path, selected in rows.groupby("path")}
        self.unfinished = table[table.status != "finished"]
        finished = table[table.status == "finished"]
        images = {one: self._images_of(one) for one in finished.path}
        finished = finished[~finished.path.isin(list(self.left_out))]
        if finished.empty:
            why = "".join(f"; {one}" for one in self.left_out.values())
            raise RecordError(f"{path}: no finished run among {len(table)}; train first{why}")
        refuse_mixed_sets(finished, {one: images[one][metrics.TEST] for one in finished.path})
        finished = named(finished)
        refuse_too_many(in_order(map(variant_of, finished.model)))
        for _, runs in finished.groupby("model"):
            self._leave_out_other_images({one: images[one] for one in runs.path})
        self.runs = finished[~finished.path.isin(list(self.left_out))].reset_index(drop=True)
        names = self.runs.group + "/" + self.runs.run_id
        self._paths = dict(zip(names, self.runs.path, strict=True))
        self._predicted: dict[str, list[Predicted]] = {}
        self._temperatures: dict[str, metrics.Interval | None] = {}

    def _images_of(self, path: str) -> dict[str, bytes]:
        """What each of a run's sets is judged on, after a look at its predictions.

        A run whose predictions are none is noted in `left_out`.
        """
        try:
            predictions = read_all_predictions(path)
            missing = {metrics.TEST, *self._sets.get(path, ())} - set(predictions)
            if missing:
                raise RecordError(f"{path}: no predictions of {', '.join(sorted(missing))}")
            return {name: _images(*predicted) for name, predicted in predictions.items()}
        except BnnlibError as error:
            self.left_out[path] = str(error)
            return {}

    def _leave_out_other_images(self, images: Mapping[str, Mapping[str, bytes]]) -> None:
        """Notes the runs of one model that were judged on other images than most of them."""
        for name in {name for sets in images.values() for name in sets}:
            counts = Counter(sets[name] for sets in images.values() if name in sets)
            usual = counts.most_common(1)[0][0]
            for path, sets in images.items():
                if sets.get(name, usual) != usual:
                    self.left_out[path] = (
                        f"{path}: judged on other images or labels of {name!r} than the other runs "
                        "of its model; compare runs of one data set"
                    )

    @property
    def models(self) -> list[str]:
        """The names of all that is compared: variants, and the ensembles of their seeds."""
        return in_order(one.model for one in self.predictions())

    def sets(self, kind: str) -> list[str]:
        """Names of the evaluation sets of a kind: ``test``, ``holdout``, ``shift`` or ``ood``."""
        return [name for name, its_kind in self._kinds.items() if its_kind == kind]

    def predictions(self, name: str = metrics.TEST) -> list[Predicted]:
        """The predictions of every run that has this set, then of the ensembles of their seeds.

        Raises:
            RecordError: a record's predictions are missing or damaged, or an ensemble's members
                were not judged on the same images.
        """
        if name not in self._predicted:
            self._predicted[name] = self._of_runs(name) + self._of_ensembles(name)
        return self._predicted[name]

    def reference(self) -> list[Predicted]:
        """:meth:`predictions` of the test images as shifted and foreign ones are predicted.

        Each run's ``reference``, of as many images and draws as these sets have, or the whole test
        set where a run has none, since there the two are the same.
        """
        if not any(metrics.REFERENCE in sets for sets in self._sets.values()):
            return self.predictions()
        return self.predictions(metrics.REFERENCE)

    def by_set(self, kind: str) -> dict[str, list[Predicted]]:
        """:meth:`predictions` of every set of a kind, by the set's name."""
        return {name: self.predictions(name) for name in self.sets(kind)}

    def by_draws(self) -> dict[int, list[Predicted]]:
        """Predictions of the test set by the mean over the first draws, by their number."""
        by_number: dict[int, list[Predicted]] = {}
        for one in self.predictions():
            if one.run in self._paths and one.is_stochastic:
                curve = read_predictions(self._paths[one.run])[0].draws_curve
                if curve is None:
                    continue
                for index, draws in enumerate(curve.draws):
                    probs, entropy = curve.mean_probs[index], curve.expected_entropy[index]
                    fewer = dataclasses.replace(
                        one,
                        mean_probs=probs,
                        expected_entropy=entropy,
                        mean_logits=None,
                        votes=None,
                    )
                    by_number.setdefault(int(draws), []).append(fewer)
        return by_number

    def _of_runs(self, name: str) -> list[Predicted]:
        predicted = []
        for run in self.runs.itertuples():
            its_name = self._name_in(run.path, name)
            if its_name != metrics.TEST and its_name not in self._sets.get(run.path, ()):
                continue
            prediction, labels = read_predictions(run.path, its_name)
            predicted.append(
                Predicted(
                    model=run.model,
                    mean_probs=prediction.mean_probs,
                    labels=labels,
                    expected_entropy=prediction.expected_entropy,
                    run=f"{run.group}/{run.run_id}",
                    seed=run.seed,
                    temperature=_number(run, "temperature"),
                    temperature_interval=self._temperature_interval(run.path),
                    images_per_second=_known(speed(run._asdict())),
                    mean_logits=prediction.mean_logits,
                    votes=prediction.votes,
                    soft_labels=prediction.soft_labels,
                )
            )
        return predicted

    def _name_in(self, path: str, name: str) -> str:
        """The name by which a run holds a set: ``test`` where it has no other reference."""
        if name == metrics.REFERENCE and name not in self._sets.get(path, ()):
            return metrics.TEST
        return name

    def _temperature_interval(self, path: str) -> metrics.Interval | None:
        if metrics.HOLDOUT not in self._sets.get(path, ()):
            return None
        if path not in self._temperatures:
            prediction, labels = read_predictions(path, metrics.HOLDOUT)
            self._temperatures[path] = metrics.temperature_interval(
                metrics.log_mean_probs(prediction.mean_probs), labels
            )
        return self._temperatures[path]

    def _of_ensembles(self, name: str) -> list[Predicted]:
        predicted = []
        # Of several runs with one seed the first is a member: the others predict the same.
        for _, runs in self.runs.drop_duplicates(["model", "seed"]).groupby("model"):
            sets = [self._sets.get(path, {metrics.TEST}) for path in runs.path]
            its_name = self._name_in(runs.path.iloc[0], name)
            if len(runs) > 1 and all(its_name in one for one in sets):
                predicted.append(ensemble(runs, its_name))
        return predicted


def ensemble(members: pd.DataFrame, name: str = metrics.TEST) -> Predicted:
    """A deep ensemble: runs of one network with different seeds, taken as one predictor.

    Lakshminarayanan et al. 2017, section 2.4: the members' probabilities are averaged with equal
    weights, and so are their expected entropies, so that the mutual information holds what the
    members disagree about, too. Nothing is trained.

    Args:
        members: rows of :func:`bnnlib.analysis.runs.load`, two or more.
        name: the evaluation set.

    Returns:
        The prediction, its model ``<model> ensemble(<members>)``. Its temperature is its own,
        fitted where every member has images held out.

    Raises:
        RecordError: there are fewer than two members, they differ in a parameter other than their
            seed, two have one seed, one lacks the set, or they were judged on other images.
    """
    _refuse_unlike_members(members)
    sets = [read_all_predictions(path) for path in members["path"]]
    for path, its_sets in zip(members["path"], sets, strict=True):
        if name not in its_sets:
            raise RecordError(
                f"{path}: no evaluation set {name!r}; it holds {', '.join(sorted(its_sets))}"
            )
    prediction, labels = _mean([one[name] for one in sets], name)
    temperature, interval = math.nan, None
    if all(metrics.HOLDOUT in one for one in sets):
        held_out, their_labels = _mean([one[metrics.HOLDOUT] for one in sets], metrics.HOLDOUT)
        interval = metrics.temperature_interval(
            metrics.log_mean_probs(held_out.mean_probs), their_labels
        )
        temperature = interval.estimate
    model = str(members.iloc[0]["model"])
    return Predicted(
        model=f"{model} ensemble({len(members)})",
        mean_probs=prediction.mean_probs,
        labels=labels,
        expected_entropy=prediction.expected_entropy,
        run=f"{model} ensemble",
        seed=len(members),
        temperature=temperature,
        temperature_interval=interval,
        mean_logits=prediction.mean_logits,
        votes=prediction.votes,
        soft_labels=prediction.soft_labels,
    )


def _images(prediction: Prediction, labels: Labels) -> bytes:
    """Tells the images of a set apart by number and labels, and checks the predictions of them.

    Raises:
        MetricsError: they are no probabilities, or no labels of these images.
    """
    entropy = metrics.predictive_entropy(prediction.mean_probs)
    metrics.uncertainty_scores(
        prediction.mean_probs,
        prediction.expected_entropy,
        prediction.mean_logits,
        prediction.votes,
    )
    if prediction.soft_labels is not None:
        metrics.total_variation(prediction.mean_probs, prediction.soft_labels)
    if labels is None:
        return str(len(entropy)).encode()
    metrics.accuracy(prediction.mean_probs, labels)
    return np.asarray(labels).astype(np.int64).tobytes()


def _mean(members: Sequence[tuple[Prediction, Labels]], name: str) -> tuple[Prediction, Labels]:
    """The members' mean prediction of one set, of the same images and labels."""
    labels = members[0][1]
    shape = members[0][0].mean_probs.shape
    for prediction, its_labels in members[1:]:
        same = (labels is None) == (its_labels is None) and prediction.mean_probs.shape == shape
        if not same or (labels is not None and not np.array_equal(labels, its_labels)):
            raise RecordError(
                f"the members of an ensemble were judged on different images or labels of "
                f"{name!r}; take runs of one data set"
            )
    predictions = [prediction for prediction, _ in members]
    mean_probs = np.mean([one.mean_probs for one in predictions], axis=0, dtype=np.float64)
    entropy = np.mean([one.expected_entropy for one in predictions], axis=0, dtype=np.float64)
    logits = [one.mean_logits for one in predictions if one.mean_logits is not None]
    votes = [one.votes for one in predictions if one.votes is not None]
    known = len(logits) == len(votes) == len(predictions)  # a record older than them has neither
    return Prediction(
        mean_probs.astype(np.float32),
        entropy.astype(np.float32),
        mean_logits=np.mean(logits, axis=0, dtype=np.float64).astype(np.float32) if known else None,
        votes=np.sum(votes, axis=0, dtype=np.int64) if known else None,
        soft_labels=predictions[0].soft_labels,
    ), labels


def _refuse_unlike_members(members: pd.DataFrame) -> None:
    if len(members) < 2:
        raise RecordError(f"an ensemble of {len(members)} run(s): select two or more")
    names = [name for name in Experiment.names() if name in members and name not in MAY_DIFFER]
    defaults = Experiment().to_dict()
    # A run older than a parameter was made with what is its default now.
    known = members[names].fillna({name: defaults[name] for name in names})
    different = [
        f"{name} ({', '.join(map(str, dict.fromkeys(values)))})"
        for name, values in [*known.items(), ("ranks", members["ranks"])]
        if len(set(values)) > 1
    ]
    what = f"{members.iloc[0]['model']} ({', '.join(members['run_id'])})"
    if different:
        raise RecordError(
            f"no ensemble of {what}: its runs differ in {', '.join(different)}; select runs "
            "that differ in their seed alone"
        )
    if members["seed"].duplicated().any():
        raise RecordError(f"no ensemble of {what}: two of its runs have one seed; select runs")


def _number(run: Any, name: str) -> float:
    return _known(getattr(run, name, None))


def _known(value: Any) -> float:
    return math.nan if value is None else float(value)
