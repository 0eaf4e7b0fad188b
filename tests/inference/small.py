"""A few images of noise, for the tests that work a step's numbers by hand."""

import numpy as np

from bnnlib.data import Dataset


def dataset_of(num_train, shape, classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(num_train, *shape)).astype(np.uint8)
    labels = np.arange(num_train, dtype=np.int64) % classes
    return Dataset("small", images, labels, images[:6], labels[:6], classes, scale=1 / 255)
