"""The questions of the study: of each its study files, looks on the way, and figures.

A question is a name: its records are in ``runs/<name>``, its compact records, tables and pictures
in ``figures/<name>``. `make reproduce QUESTION=<name>` makes the former, `make figures` the latter
from the compact records alone. Another question is one more entry here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions import (
    convergence,
    gradient_variance,
    prior_temperature,
    pruning,
    ranks,
    uncertainty_decomposition,
)
from bnnlib.errors import ExperimentError
from bnnlib.names import unknown_name

Records = Sequence[Mapping[str, Any]]
Draw = Callable[[pd.DataFrame], Figure] | None


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        title: as its notebook has it.
        studies: names in ``jobs/studies`` without ``.yaml``, in the order in which they are run.
        make: of the compact records, and of `tables`, the tables by name, each with what draws it;
            None: no picture.
        tables: csv files below ``figures`` that `make` takes after the records.
        measured_by: a module that measures the runs' networks, once they are trained: it is given
            their folder and that of the figures.
        epochs: of the looks at kept checkpoints (:mod:`jobs.local.looks`); none: no looks.
        beside: other questions whose compact records `make` takes together with its own.
    """

    title: str
    studies: tuple[str, ...]
    make: Callable[..., dict[str, tuple[pd.DataFrame, Draw]]]
    tables: tuple[str, ...] = ()
    measured_by: str = ""
    epochs: tuple[int, ...] = ()
    beside: tuple[str, ...] = ()


QUESTIONS: dict[str, Question] = {
    "convergence": Question(
        "When is a Bayesian network trained, and is it calibrated there?",
        ("convergence", "convergence_conv"),
        convergence.make,
        epochs=(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200),
    ),
    "ranks": Question(
        "Does the number of ranks change the uncertainty?",
        ("ranks_dense", "ranks_digits", "ranks_conv"),
        ranks.make,
    ),
    "gradient_variance": Question(
        "How many ranks make Flipout needless?",
        ("gradient_variance", "gradient_variance_time"),
        gradient_variance.make,
        tables=("gradient_variance/variances.csv", "bench/bench.csv"),
        measured_by="jobs.bench.gradient_variance",
    ),
    "prior_temperature": Question(
        "Is there a cold-posterior effect here?",
        ("prior_temperature",),
        prior_temperature.make,
        epochs=(5, 15, 30, 50, 70),
        beside=("convergence",),
    ),
    "uncertainty_decomposition": Question(
        "What does uncertainty say?",
        ("uncertainty_decomposition",),
        uncertainty_decomposition.make,
        tables=("uncertainty_decomposition/uncertainties.csv",),
        measured_by="jobs.bench.uncertainty_decomposition",
    ),
    "pruning": Question(
        "What of a trained network can be removed?",
        ("pruning",),
        pruning.make,
        tables=("pruning/pruned.csv", "pruning/speed.csv"),
        measured_by="jobs.local.prune",
    ),
}


def question(name: str) -> Question:
    """A question by its name.

    Raises:
        ExperimentError: there is none of that name; it offers the nearest.
    """
    if name not in QUESTIONS:
        raise ExperimentError(unknown_name(name, list(QUESTIONS), "question"))
    return QUESTIONS[name]
