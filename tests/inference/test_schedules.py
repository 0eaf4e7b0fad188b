"""Schedules by hand: of warm-up and KL annealing tests/inference/test_trainer.py has more."""

import numpy as np
import pytest

from bnnlib.experiment import Experiment
from bnnlib.inference import schedules

STEPS = np.arange(8)


def rates(factor=1.0, last=8, **parameters):
    experiment = Experiment(learning_rate=0.01, **parameters)
    return schedules.learning_rates(experiment, STEPS, factor, steps_per_epoch=2, last=last) / 0.01


def test_a_constant_rate_grows_to_its_factor_and_stays():
    assert rates(3.0, warmup_epochs=2.0) == pytest.approx([1.5, 2, 2.5, 3, 3, 3, 3, 3])


def test_a_cosine_begins_at_the_rate_and_is_half_way_in_the_middle():
    found = rates(learning_rate_schedule="cosine")
    assert found[[0, 2, 4, 6]] == pytest.approx([1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])
    assert np.all(np.diff(found) < 0)
    assert found[-1] > 0


def test_a_cosine_multiplies_the_warm_up():
    warm = {"warmup_epochs": 2.0, "learning_rate_schedule": "cosine"}
    assert rates(3.0, **warm) == pytest.approx(
        rates(3.0, warmup_epochs=2.0) * rates(learning_rate_schedule="cosine")
    )


def test_a_cosine_of_a_longer_run_falls_more_slowly():
    short, long = (rates(last=last, learning_rate_schedule="cosine") for last in (8, 16))
    assert long[::2] == pytest.approx(
        [(1 + np.cos(np.pi * t)) / 2 for t in (0, 1 / 8, 1 / 4, 3 / 8)]
    )
    assert long[4] == pytest.approx(short[2])


def test_the_weight_of_kl_grows_to_its_value():
    experiment = Experiment(kl_weight=0.5, kl_annealing_epochs=2.0)
    found = schedules.kl_weights(experiment, STEPS, steps_per_epoch=2)
    assert found == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5])
