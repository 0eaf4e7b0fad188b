"""How the learning rate and the weight of KL change over a run: pure functions of the step.

Places are counted from the first epoch's start in steps of the present number of ranks; they and a
step's number differ only in a run whose number of ranks has changed.
"""

from __future__ import annotations

import numpy as np

from bnnlib.experiment import Experiment


def learning_rates(
    experiment: Experiment, places: np.ndarray, factor: float, steps_per_epoch: int, last: int
) -> np.ndarray:
    """The rate at each place: from `learning_rate` linearly to `factor` times it, then on.

    ``constant`` stays there. ``cosine`` multiplies all of it by (1 + cos(pi t)) / 2, with t from 0
    at the first step to 1 at the run's end (Loshchilov and Hutter 2017, equation 5, one period).
    SWAG's rate is `swag_rate` times `factor` times `learning_rate` from `swag_start` on.

    Args:
        experiment: its `learning_rate`, `warmup_epochs` and `learning_rate_schedule`.
        places: steps done before each step, ``(num_steps,)``.
        factor: :meth:`Experiment.learning_rate_factor`.
        steps_per_epoch: of all ranks together.
        last: the place of the run's end.

    Returns:
        float64 ``(num_steps,)``.
    """
    share = _ramp(places, experiment.warmup_epochs * steps_per_epoch)
    rates: np.ndarray = experiment.learning_rate * (1 + (factor - 1) * share)
    if experiment.learning_rate_schedule == "cosine":
        rates *= 0.5 * (1 + np.cos(np.pi * places / last))
    if experiment.inference == "swag":
        after = experiment.learning_rate * factor * experiment.swag_rate
        rates = np.where(places < experiment.swag_start * last, rates, after)
    return rates


def kl_weights(experiment: Experiment, places: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """The weight of KL/N at each place: annealed linearly from 0, then constant."""
    length = experiment.kl_annealing_epochs * steps_per_epoch
    return experiment.kl_weight * _ramp(places, length)


def _ramp(places: np.ndarray, length: float) -> np.ndarray:
    """A factor from nearly 0 at the first step to 1 after `length` steps; always 1 for 0 steps."""
    return np.minimum(1.0, (places + 1) / length) if length > 0 else np.ones(len(places))
