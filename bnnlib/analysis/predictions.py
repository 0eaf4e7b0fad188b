"""Deep ensembles: the runs of one model with different seeds, judged as one predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.runs import EVALUATION_COLUMNS, evaluation_table
from bnnlib.errors import RecordError
from bnnlib.experiment import UPKEEP, Experiment
from bnnlib.metrics import Labels, Prediction
from bnnlib.record import predictions as recorded

# What may differ between the members of an ensemble: nothing of it changes a trained network's
# predictions, but for the seed. Other evaluation sets leave those that all members have.
MAY_DIFFER = {
    *("seed", "run_dir", "threads", "inter_threads", "log_every", "eval_sets", "ood_sets"),
    *UPKEEP,
}


def ensembles(table: pd.DataFrame, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Deep ensembles: the runs of one model with different seeds, judged as one predictor.

    Lakshminarayanan et al. 2017, section 2.4: the members' probabilities are averaged with equal
    weights. Nothing is trained: an ensemble is a group of runs that exist.

    Args:
        table: of :func:`load`; runs that are not finished are passed over.
        by: columns that the members of one ensemble share, such as ``("model", "dropout")``.

    Returns:
        As :func:`load_evaluation`, a row an ensemble and set that all its members have: ``model``
        is ``<model> ensemble(<members>)``, with what else of `by` is no default as in
        ``CNN_FC dropout(0.1) ensemble(5)``, ``run_id`` its members', joined by ``+``, and ``path``
        and ``seed`` are empty. A model with one run has none. The temperature is the ensemble's
        own, fitted on the images held out.

    Raises:
        RecordError: the members differ in a parameter other than their seed, or not in that, or
            were judged on other images.
    """
    rows: list[dict[str, Any]] = []
    defaults = Experiment().to_dict()
    finished = table[table["status"] == "finished"]
    for _, members in finished.groupby(list(by), sort=False, dropna=False):
        if len(members) < 2:
            continue
        _refuse_unlike_members(members, by)
        first = members.iloc[0]
        more = [
            f"{name}({first[name]})"
            for name in by
            if name not in EVALUATION_COLUMNS and first[name] != defaults.get(name)
        ]
        whose = {
            "group": first["group"],
            "run_id": "+".join(members["run_id"]),
            "path": "",
            "model": " ".join([first["model"], *more, f"ensemble({len(members)})"]),
            "dataset": first["dataset"],
            "seed": None,
            "ranks": first["ranks"],
        }
        predictions = [recorded.read_all_predictions(p) for p in members["path"]]
        common = [name for name in predictions[0] if all(name in one for one in predictions)]
        judged = metrics.judge(
            {name: _ensemble([one[name] for one in predictions], name) for name in common}
        )
        rows += [whose | row for row in judged.rows]
    return evaluation_table(rows)


def ensemble_predictions(
    paths: Sequence[str | Path], name: str = "test"
) -> tuple[Prediction, Labels]:
    """The prediction of an ensemble on one evaluation set, from its members' records.

    Args:
        paths: the members' directories, runs of one model with different seeds.
        name: the evaluation set.

    Returns:
        The members' mean probabilities, averaged, and the average of their expected entropies, so
        that the mutual information holds what the members disagree about, too; and the labels.

    Raises:
        RecordError: a member lacks the set, or the members were judged on other images.
    """
    return _ensemble([recorded.read_predictions(path, name) for path in paths], name)


def _ensemble(members: Sequence[tuple[Prediction, Labels]], name: str) -> tuple[Prediction, Labels]:
    if not members:
        raise RecordError(f"an ensemble for {name!r} without members: give the paths of its runs")
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
    return Prediction(mean_probs.astype(np.float32), entropy.astype(np.float32)), labels


def _refuse_unlike_members(members: pd.DataFrame, by: Sequence[str]) -> None:
    names = [name for name in Experiment.names() if name in members and name not in MAY_DIFFER]
    defaults = Experiment().to_dict()
    # A run older than a parameter was made with what is its default now.
    known = members[names].fillna({name: defaults[name] for name in names})
    different = [
        f"{name} ({', '.join(map(str, dict.fromkeys(values)))})"
        for name, values in [*known.items(), ("ranks", members["ranks"])]
        if len(set(values)) > 1
    ]
    what = f"{', '.join(map(str, members.iloc[0][list(by)]))} ({', '.join(members['run_id'])})"
    if different:
        raise RecordError(
            f"no ensemble of {what}: its runs differ in {', '.join(different)}; select runs, or "
            "add the parameter to `by`"
        )
    if members["seed"].duplicated().any():
        raise RecordError(f"no ensemble of {what}: two of its runs have one seed; select runs")
