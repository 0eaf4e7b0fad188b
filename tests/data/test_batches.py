"""The partition of the training images over ranks."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from bnnlib import data
from bnnlib.errors import DataError


@hypothesis.given(
    num_examples=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    ranks=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_uses_no_example_twice_and_leaves_out_less_than_a_global_batch(
    num_examples, batch_size, ranks, seed, epoch
):
    hypothesis.assume(batch_size * ranks <= num_examples)
    steps = data.steps_per_epoch(num_examples, batch_size, ranks)
    shards = [
        data.epoch_batches(num_examples, batch_size, ranks, rank, seed, epoch)
        for rank in range(ranks)
    ]
    assert {shard.shape for shard in shards} == {(steps, batch_size)}
    assert {shard.dtype for shard in shards} == {np.dtype(np.int32)}
    used = np.concatenate(shards).ravel()
    assert len(np.unique(used)) == len(used)
    assert 0 <= used.min() <= used.max() < num_examples
    assert 0 <= num_examples - len(used) < batch_size * ranks


def test_ranks_share_the_global_batches_of_one_rank():
    # The same examples meet in a step however many ranks share it: what ELBO tests compare.
    one = data.epoch_batches(1000, 24, 1, 0, seed=3, epoch=2)
    four = [data.epoch_batches(1000, 6, 4, rank, seed=3, epoch=2) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(four, axis=1), one)


def test_each_epoch_and_seed_has_its_own_order_and_leaves_out_another_part():
    def left_out(seed, epoch):
        used = [data.epoch_batches(107, 10, 2, rank, seed, epoch) for rank in range(2)]
        return frozenset(range(107)) - frozenset(np.concatenate(used).ravel().tolist())

    parts = [left_out(0, epoch) for epoch in range(50)]
    assert {len(part) for part in parts} == {7}
    assert len(set(parts)) == 50
    # An example is left out of an epoch with probability 7/107, and of all 50 almost never used.
    assert len(frozenset().union(*parts)) > 90
    assert left_out(1, 0) != left_out(0, 0)
    assert left_out(0, 1) != left_out(1, 0)  # the two are not simply added


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"batch_size": 51},
            "batch_size 51 x ranks 2 = 102 images is more than num_examples = 100",
        ),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"ranks": 0}, "ranks is 0, expected at least 1"),
        ({"num_examples": 0}, "num_examples is 0, expected at least 1"),
        ({"rank": 2}, r"rank is 2, expected 0\.\.1"),
        ({"rank": -1}, r"rank is -1, expected 0\.\.1"),
        ({"seed": -1}, "seed is -1"),
        ({"epoch": -1}, "epoch is -1"),
    ],
)
def test_epochs_that_cannot_be(changed, message):
    good = {"num_examples": 100, "batch_size": 5, "ranks": 2, "rank": 0, "seed": 0, "epoch": 0}
    with pytest.raises(DataError, match=message):
        data.epoch_batches(**good | changed)


@pytest.mark.parametrize(
    ("examples", "virtual_ranks", "told"),
    [
        # digits: one step of 1,024 images, and 413 of 1,437 that no step sees.
        (1437, 32, "1024 of the 1437 training images, so an epoch is 1 step and leaves out 413 im"),
        (2100, 32, "an epoch is 2 steps and leaves out 52 images (2%)"),
        (4000, 32, "an epoch is 3 steps and leaves out 928 images (23%)"),
        (4000, 8, ""),
    ],
)
def test_an_epoch_of_few_steps_or_with_many_images_left_out_is_told(examples, virtual_ranks, told):
    text = data.told_waste(examples, 32, virtual_ranks)
    assert told in text
    assert bool(text) == bool(told)
