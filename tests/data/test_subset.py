"""A fixed part of a set: the same whatever the run, and every class has its share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnlib import data
from bnnlib.data import EvaluationSet

quick = settings(deadline=None, derandomize=True)
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=200).map(np.array)


@quick
@given(LABELS, st.integers(1, 200))
def test_every_class_has_its_share_up_to_rounding(labels, count):
    part = data.chosen(len(labels), count, labels)
    assert len(part) == min(count, len(labels))
    assert (np.diff(part) > 0).all()
    for one in np.unique(labels):
        share = (labels == one).mean() * len(part)
        assert abs((labels[part] == one).sum() - share) <= 3  # half an image for each of 5 classes


def test_equal_classes_have_equal_parts():
    labels = np.arange(1000) % 10
    assert np.bincount(labels[data.chosen(1000, 200, labels)]).tolist() == [20] * 10


@quick
@given(LABELS, st.integers(1, 200), st.integers(1, 200))
def test_a_greater_part_has_the_same_images_and_more(labels, one, other):
    parts = [set(data.chosen(len(labels), count, labels)) for count in sorted([one, other])]
    assert parts[0] <= parts[1]


def test_the_part_is_known_by_the_labels_alone():
    """Another seed or rule would give other images, and so change published numbers."""
    labels = np.array([0, 1] * 8)
    assert data.chosen(16, 4, labels).tolist() == PART
    assert data.chosen(16, 4).tolist() != PART


PART = [3, 6, 10, 15]


@pytest.mark.parametrize("labels", [np.arange(30) % 3, None])
def test_a_set_keeps_images_and_labels_together(labels):
    images = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)
    made = EvaluationSet("rotate-30", images, labels)
    part = data.subset(made, 12)
    assert part.name == "rotate-30"
    np.testing.assert_array_equal(part.images, images[data.chosen(30, 12, labels)])
    if labels is None:
        assert part.labels is None
    else:
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 3)
    for whole in (0, 30, 31):
        assert data.subset(made, whole) is made


@pytest.mark.parametrize("name", ["mnist_c/fog", "mnist_c/shot_noise", "rotate-30", "train"])
def test_a_part_of_a_set_is_that_part_of_the_whole_set(name):
    """MNIST-C is made of the chosen images alone, all others are made and then cut."""
    tiny = data.load("tiny")
    whole, part = data.evaluation_set(tiny, name), data.evaluation_set(tiny, name, 20)
    chosen = data.chosen(len(whole.images), 20, whole.labels)
    np.testing.assert_array_equal(part.images, whole.images[chosen])
    np.testing.assert_array_equal(part.labels, whole.labels[chosen])
    assert part.name == name
