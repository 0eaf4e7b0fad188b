"""MNIST-C and CIFAR-10-C: names, what each set is made of, and the same on every call."""

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data.corruptions import SETS, corrupt
from bnnlib.errors import DataError

SHAPES = {"mnist_c": (28, 28, 1), "cifar10_c": (32, 32, 3)}


@pytest.fixture(scope="module")
def images():
    """Eight digits, and the same in colour at CIFAR-10's size on a coloured ground."""
    digits = data.load("digits").x_test[:8]
    border = ((0, 0), (2, 2), (2, 2), (0, 0))
    ground = np.array([150, 80, 20], dtype=np.uint8)
    return {"mnist_c": digits, "cifar10_c": np.maximum(np.pad(digits, border), ground)}


def test_groups_have_the_fields_names_and_numbers():
    assert data.expand("mnist_c") == [
        f"mnist_c/{name}"
        for name in (
            *("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale"),
            *("rotate", "brightness", "translate", "stripe", "fog", "spatter", "dotted_line"),
            *("zigzag", "canny_edges"),
        )
    ]
    assert len(data.expand("cifar10_c")) == 15 * 5
    assert len(data.expand(["cifar10_c", "cifar10_c_extra"])) == 19 * 5
    assert data.expand("cifar10_c/fog") == [f"cifar10_c/fog-{level}" for level in range(1, 6)]
    assert set(SETS) == set(data.expand(["mnist_c", "cifar10_c", "cifar10_c_extra"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist_c/shot_noise-3", r"did you mean 'mnist_c/shot_noise'\?"),
        ("cifar10_c/gaussian_nose-3", r"did you mean 'cifar10_c/gaussian_noise-3'\?"),
        ("cifar10_c/fog-6", r"Unknown evaluation set .* cifar10_c/<corruption>-<1\.\.5>"),
    ],
)
def test_names_that_are_no_sets(name, message):
    with pytest.raises(DataError, match=message):
        data.expand(name)


def test_images_that_a_benchmark_is_not_defined_for():
    assert len(data.expand(["mnist_c"], (28, 28, 3))) == 15
    assert len(data.expand(["cifar10_c"], (32, 32, 1))) == 75
    for name, shape in (
        ("mnist_c", (32, 32, 1)),
        ("cifar10_c", (28, 28, 3)),
        ("cifar10_c", (32, 32, 4)),
        ("cifar10_c/saturate", (32, 32, 1)),  # grey has no saturation
    ):
        with pytest.raises(DataError, match=r"is defined for images of .* the group corruptions"):
            data.expand(name, shape)
    with pytest.raises(DataError, match="28 x 28 pixels and 1 or 3"):
        data.evaluation_set(data.load("tiny_cifar10"), "mnist_c/fog")


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_bytes_of_its_own_and_depends_on_the_images_number_alone(name, images):
    clean = images[name.partition("/")[0]]
    before = clean.copy()
    made = corrupt(name, clean)
    assert (made.dtype, made.shape) == (np.uint8, clean.shape)
    np.testing.assert_array_equal(clean, before)
    np.testing.assert_array_equal(corrupt(name, clean[[5, 2]], np.array([5, 2])), made[[5, 2]])
    assert 1 < np.abs(made.astype(int) - clean).mean() < 200 or name == "cifar10_c/defocus_blur-1"


@pytest.mark.parametrize("name", ["mnist_c/impulse_noise", "mnist_c/fog", "mnist_c/canny_edges"])
def test_floating_images_become_the_same_bytes(name, as_float):
    tiny = data.load("tiny")
    made = data.evaluation_set(as_float(tiny), name).images
    assert made.dtype == np.float32
    np.testing.assert_allclose(made * 255, corrupt(name, tiny.x_test), atol=1e-3)


def test_severities_share_their_draws_and_images_do_not(images):
    clean = np.full((2, 32, 32, 3), 128, dtype=np.uint8)
    weak, strong = (
        corrupt(f"cifar10_c/gaussian_noise-{severity}", clean).astype(float) - 127.5
        for severity in (1, 5)
    )
    assert np.corrcoef(weak.ravel(), strong.ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(weak[0].ravel(), weak[1].ravel())[0, 1]) < 0.1
