"""A fixed part of a set's images, in which every class has its share."""

import numpy as np
import numpy.typing as npt

# The seed of the permutation by which every run draws the same images.
SUBSET_SEED = 0x5E75


def chosen(
    num_images: int,
    count: int,
    labels: npt.NDArray[np.int64] | None = None,
    seed: int | list[int] = SUBSET_SEED,
) -> npt.NDArray[np.int64]:
    """Which images a part of a set has: by its labels alone, whatever the run, rank or seed.

    Each class has its share of the part, up to rounding. A greater `count` has the same images and
    more, as `split` holds out the same images and more.

    Args:
        num_images: Images of the set.
        count: Images of the part.
        labels: `(num_images,)`; None where the images have no classes.
        seed: Of the order in which they are taken.

    Returns:
        Their indices, growing, `(min(count, num_images),)`.
    """
    classes = np.zeros(num_images, np.int64) if labels is None else labels
    order = np.random.default_rng(seed).permutation(num_images)
    place = np.empty(num_images)  # of an image among those of its class: from 0 to 1
    for one in np.unique(classes):
        of_class = order[classes[order] == one]
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return np.sort(order[np.argsort(place[order], kind="stable")][:count])
