"""Predictions that several tests of the metrics share."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from scipy import special

# Four images, two classes. Predictions 0 0 1 0, labels 0 1 1 1: right, wrong, right, wrong.
# Confidences 0.9 0.8 0.7 0.6.


PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])


LABELS = np.array([0, 1, 1, 1])


quick = settings(max_examples=40, deadline=None, derandomize=True)


def random_predictions(seed, num_images=300, num_classes=5, sharpness=2.0):
    rng = np.random.default_rng(seed)
    probs = special.softmax(sharpness * rng.normal(size=(num_images, num_classes)), axis=1)
    labels = np.array([rng.choice(num_classes, p=row) for row in probs])
    return probs, labels


def random_draws(seed, num_draws=8, num_images=200, num_classes=4):
    """Probabilities and logits of draws that agree about some images."""
    rng = np.random.default_rng(seed)
    images = 2 * rng.normal(size=(num_images, num_classes))
    logits = images + rng.normal(size=(num_draws, num_images, num_classes))
    return special.softmax(logits, axis=2), logits


@st.composite
def predictions(draw):
    """Few or many images, classes missing, tied and one-hot rows, all right, all wrong."""
    num_images = draw(st.integers(1, 40))
    num_classes = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "tied", "one-hot", "uniform"]))
    if kind == "smooth":
        probs = special.softmax(3 * rng.normal(size=(num_images, num_classes)), axis=1)
    elif kind == "tied":  # eighths are exact, so ties are
        probs = rng.multinomial(8, np.full(num_classes, 1 / num_classes), size=num_images) / 8
    elif kind == "one-hot":
        probs = np.eye(num_classes)[rng.integers(num_classes, size=num_images)]
    else:
        probs = np.full((num_images, num_classes), 1 / num_classes)
    labels = {
        "any": rng.integers(num_classes, size=num_images),
        "one class": np.full(num_images, rng.integers(num_classes)),
        "all right": probs.argmax(axis=1),
        "all wrong": (probs.argmax(axis=1) + 1) % num_classes,
    }[draw(st.sampled_from(["any", "one class", "all right", "all wrong"]))]
    return probs, labels


@st.composite
def score_sets(draw):
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10))
    sets = [draw(st.lists(values, min_size=1, max_size=30)) for _ in range(2)]
    return np.array(sets[0]), np.array(sets[1])


def changed(array, value):
    array = np.array(array, dtype=np.float64)
    array[1, 0] = value
    return array
