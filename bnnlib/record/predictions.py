"""``predictions.npz``: what a run predicts of each evaluation set.

The arrays of a set by name: ``<set>/labels`` int64 ``(num_images,)``, left out for a set out of
distribution, ``<set>/mean_probs`` float32 ``(num_images, num_classes)``,
``<set>/expected_entropy`` float32 ``(num_images,)`` in nats, ``<set>/mean_logits`` float32 and
``<set>/votes`` unsigned integers, both ``(num_images, num_classes)`` and absent in older records,
and ``<set>/soft_labels`` float32 ``(num_images, num_classes)`` where the set brings them. Sets are
``test``, ``holdout`` where images are held out, ``reference`` where the others are predicted
otherwise than ``test`` (see :mod:`bnnlib.inference.evaluation`), and those of `eval_sets` and
`ood_sets`. Of ``test`` also how the prediction came to be with the number of draws:
``test/ladder_draws`` int64 ``(num_counts,)``, ``test/ladder_mean_probs`` float32 ``(num_counts,
num_images, num_classes)`` and
``test/ladder_expected_entropy`` float32 ``(num_counts, num_images)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bnnlib.errors import RecordError
from bnnlib.metrics import DrawsCurve, Labels, Prediction
from bnnlib.record.files import read_npz, write_npz

FILE = "predictions.npz"
OPTIONAL = ("mean_logits", "votes", "soft_labels")  # fields of a Prediction that may be None


def write_predictions(
    directory: str | Path, predictions: Mapping[str, tuple[Prediction, Labels]]
) -> None:
    """Writes what a run predicts of each evaluation set.

    Raises:
        RecordError: the file could not be written.
    """
    arrays = {}
    for name, (prediction, labels) in predictions.items():
        if labels is not None:
            arrays[f"{name}/labels"] = labels
        arrays[f"{name}/mean_probs"] = prediction.mean_probs
        arrays[f"{name}/expected_entropy"] = prediction.expected_entropy
        for part in OPTIONAL:
            if getattr(prediction, part) is not None:
                arrays[f"{name}/{part}"] = getattr(prediction, part)
        if prediction.draws_curve is not None:
            for field in dataclasses.fields(DrawsCurve):
                key = f"{name}/ladder_{field.name}"
                arrays[key] = getattr(prediction.draws_curve, field.name)
    write_npz(Path(directory) / FILE, arrays)


def read_predictions(directory: str | Path, name: str = "test") -> tuple[Prediction, Labels]:
    """The prediction of one evaluation set of a run, and its labels ``(num_images,)``.

    Returns:
        The prediction, with its draws curve where the record has one; labels are None for a set out
        of distribution.

    Raises:
        RecordError: the file or the set in it is missing or damaged.
    """
    by_set = read_all_predictions(directory)
    if name not in by_set:
        raise RecordError(
            f"{Path(directory) / FILE}: no evaluation set {name!r}; it holds "
            f"{', '.join(sorted(by_set))}"
        )
    return by_set[name]


def read_all_predictions(directory: str | Path) -> dict[str, tuple[Prediction, Labels]]:
    """The predictions and labels of all evaluation sets of a run, in order of evaluation.

    Raises:
        RecordError: the file is missing or damaged.
    """
    path = Path(directory) / FILE
    sets: dict[str, dict[str, np.ndarray]] = {}
    for key, array in read_npz(path, "predictions").items():
        name, _, part = key.rpartition("/")
        sets.setdefault(name, {})[part] = array
    predictions: dict[str, tuple[Prediction, Labels]] = {}
    for name, parts in sets.items():
        missing = [part for part in ("mean_probs", "expected_entropy") if part not in parts]
        if missing:
            raise RecordError(f"{path}: {name!r} has no {', '.join(missing)}")
        of_counts = [parts.get(f"ladder_{field.name}") for field in dataclasses.fields(DrawsCurve)]
        curve = None if any(part is None for part in of_counts) else DrawsCurve(*of_counts)  # type: ignore[arg-type]
        optional = {part: parts.get(part) for part in OPTIONAL}
        prediction = Prediction(parts["mean_probs"], parts["expected_entropy"], curve, **optional)
        predictions[name] = prediction, parts.get("labels")
    return predictions
