"""The training images that each rank sees, step by step."""

import numpy as np
import numpy.typing as npt

from bnnlib.errors import DataError

# An epoch of so few steps, or that leaves out so large a share of the images, is worth a word.
FEW_STEPS, MANY_LEFT_OUT = 2, 0.2


def steps_per_epoch(num_examples: int, batch_size: int, ranks: int) -> int:
    """Number of steps that every rank takes in an epoch: whole global batches only.

    Args:
        num_examples: Number of training images.
        batch_size: Images a rank a step.
        ranks: Number of ranks.

    Returns:
        num_examples // (batch_size * ranks).

    Raises:
        DataError: One of them is below 1, or there is not one global batch.
    """
    for what, value in (
        ("num_examples", num_examples),
        ("batch_size", batch_size),
        ("ranks", ranks),
    ):
        if value < 1:
            raise DataError(f"{what} is {value}, expected at least 1.")
    steps = num_examples // (batch_size * ranks)
    if steps == 0:
        raise DataError(
            f"A global batch of batch_size {batch_size} x ranks {ranks} = {batch_size * ranks} "
            f"images is more than num_examples = {num_examples}, so an epoch would have no step; "
            "use a smaller batch_size or fewer ranks."
        )
    return steps


def told_waste(num_examples: int, batch_size: int, virtual_ranks: int) -> str:
    """Says where an epoch has one or two steps, or leaves out many images; empty elsewhere.

    Args:
        num_examples: Number of training images.
        batch_size: Images a virtual rank a step.
        virtual_ranks: On all processes.
    """
    steps = steps_per_epoch(num_examples, batch_size, virtual_ranks)
    images = batch_size * virtual_ranks
    left_out = num_examples - steps * images
    if steps > FEW_STEPS and left_out < MANY_LEFT_OUT * num_examples:
        return ""
    return (
        f"batch_size = {batch_size} on {virtual_ranks} virtual ranks: a step takes {images} of the "
        f"{num_examples} training images, so an epoch is {steps} step{'s' if steps > 1 else ''} "
        f"and leaves out {left_out} images ({left_out / num_examples:.0%}); use a smaller "
        "batch_size or fewer virtual ranks"
    )


def epoch_batches(
    num_examples: int, batch_size: int, ranks: int, rank: int, seed: int, epoch: int
) -> npt.NDArray[np.int32]:
    """The training images that one rank sees in one epoch, step by step.

    Each epoch has one permutation of the images. It is drawn from (seed, epoch), so all ranks draw
    the same one without communication. The permutation is cut into batches, and rank r takes the
    batches r, r + ranks, r + 2 ranks, … The permutation's last images, which fill no global batch,
    are left out; each epoch leaves out others.

    Args:
        num_examples: Number of training images.
        batch_size: Images a rank a step.
        ranks: Number of ranks.
        rank: This rank, 0..ranks-1.
        seed: The run's seed, not negative.
        epoch: Number of the epoch, from 0.

    Returns:
        Indices into the training set, `(steps, batch_size)`.

    Raises:
        DataError: An argument is out of range, or there is not one global batch.
    """
    steps = steps_per_epoch(num_examples, batch_size, ranks)
    if not 0 <= rank < ranks:
        raise DataError(f"rank is {rank}, expected 0..{ranks - 1} (ranks is {ranks}).")
    if seed < 0 or epoch < 0:
        raise DataError(f"seed is {seed} and epoch is {epoch}, expected neither to be negative.")
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    batches = order[: steps * ranks * batch_size].reshape(steps, ranks, batch_size)
    return batches[:, rank].astype(np.int32)
