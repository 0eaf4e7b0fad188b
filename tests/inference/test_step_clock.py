"""The clock inside a graph stamps the borders between the parts of a step."""

import pytest
import tensorflow as tf

from bnnlib.inference.step_clock import StepClock


@pytest.mark.parametrize("on", [True, False])
def test_the_clock_stamps_in_order_and_only_when_asked(on):
    @tf.function
    def run(matrix):
        clock = StepClock(on)
        with clock.after(matrix):
            product = matrix @ matrix @ matrix
        with clock.after(product):
            total = tf.reduce_sum(product)
        return total, tf.stack(clock.stamps) if on else tf.zeros([0], tf.float64)

    total, times = run(tf.ones([600, 600]))
    assert float(total) == pytest.approx(600.0**4)
    assert len(times) == (2 if on else 0)
    if on:
        assert times[1] > times[0]
