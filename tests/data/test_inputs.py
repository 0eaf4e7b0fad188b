"""What a network takes: every way in which images can be other than the training images."""

import dataclasses
import json

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data import Inputs
from bnnlib.errors import DataError, RecordError

BYTES = Inputs("digits", (28, 28, 1), "uint8", "0..255", (0.0, 255.0), 10, 4000, 1 / 255)
UNIT = Inputs("mine.npz", (8, 6, 3), "float32", "0..1", (0.0, 1.0), 3, 50, 1.0)
FLOATS = dataclasses.replace(UNIT, pixels="0..255", pixel_range=(0.0, 255.0), scale=1 / 255)
STANDARDIZED = dataclasses.replace(UNIT, pixels="standardized", pixel_range=(-0.5, 2.5))
ANY = dataclasses.replace(UNIT, pixels="any", pixel_range=(-100.0, 300.0))


def of(inputs, low, high, dtype=None, count=2):
    """Images from `low` to `high`."""
    values = np.linspace(low, high, count * int(np.prod(inputs.image_shape)))
    dtype = dtype or inputs.dtype
    values = np.rint(values) if np.dtype(dtype).kind in "iu" else values
    return values.astype(dtype).reshape(count, *inputs.image_shape)


@pytest.mark.parametrize(
    ("inputs", "low", "high", "dtype"),
    [
        (BYTES, 0, 255, "uint8"),
        (BYTES, 0, 255, "int64"),
        (BYTES, 0, 0, "uint8"),  # a black image
        (BYTES, 0, 2, "uint8"),  # a dark one
        (UNIT, 0, 1, "float64"),
        (UNIT, 0, 1, "float16"),
        (UNIT, 0, 0.1, "float32"),
        (UNIT, 0, 1, "int8"),  # a mask
        (FLOATS, 0, 255, "float32"),
        (FLOATS, 0, 255, "uint8"),
        (STANDARDIZED, -3.5, 5.5, "float32"),
        (ANY, -500, 700, "float64"),
        (ANY, 0, 255, "uint8"),
    ],
)
def test_images_like_the_training_images_are_taken_with_their_values(inputs, low, high, dtype):
    images = of(inputs, low, high, dtype)
    taken = inputs.checked(images)
    assert taken.dtype == inputs.dtype
    assert np.array_equal(taken, images.astype(inputs.dtype))


@pytest.mark.parametrize(
    ("inputs", "low", "high", "dtype", "remedy"),
    [
        # Floats from 0 to 1 for a network of bytes: once cast they are all black.
        (BYTES, 0, 1, "float64", r"numpy.rint\(255 \* images\).astype\(numpy.uint8\)"),
        (BYTES, 0, 255, "float32", r"numpy.rint\(images\).astype\(numpy.uint8\)"),
        (BYTES, 0, 1, "uint8", "multiply them by 255"),
        (BYTES, 0, 256, "int64", "as the training images"),
        (BYTES, -1, 255, "int16", "as the training images"),
        (BYTES, 0, 1, "bool", r"convert them with 255 \* images.astype\(numpy.uint8\)"),
        (UNIT, 0, 255, "uint8", "divide them by 255"),
        (UNIT, 0, 255, "float32", "divide them by 255"),
        (UNIT, 0, 1 / 255, "float32", "divided by 255 twice"),
        (UNIT, -0.5, 1, "float32", "as the training images"),
        (UNIT, 0, 1, "bool", r"convert them with 1 \* images.astype\(numpy.float32\)"),
        (FLOATS, 0, 1, "float32", "multiply them by 255"),
        (FLOATS, 0, 300, "float32", "as the training images"),
        (STANDARDIZED, 0, 1, "float32", "by the training set's own numbers"),
        (STANDARDIZED, 0, 255, "float32", "by the training set's own numbers"),
        (STANDARDIZED, 0, 3, "uint8", "by the training set's own numbers"),
        (ANY, -600, 0, "float32", "by the training set's own numbers"),
    ],
)
def test_images_of_another_type_or_range_are_refused_with_what_to_do(
    inputs, low, high, dtype, remedy
):
    images = of(inputs, low, high, dtype)
    with pytest.raises(DataError, match=remedy) as error:
        inputs.checked(images)
    assert f"type {images.dtype}" in str(error.value)
    assert f"of {inputs.dtype}, pixels " in str(error.value)
    assert f"as in {inputs.name!r}" in str(error.value)


def test_whoever_says_so_gives_pixels_of_another_range_in_the_training_images_unit():
    between = of(BYTES, 0, 255, "float64") + 0.25  # such as an interpolation or an attack
    assert np.array_equal(BYTES.checked(between, any_range=True), between.astype(np.float32))
    bright = of(UNIT, 0, 3)
    assert np.array_equal(UNIT.checked(bright, any_range=True), bright)
    with pytest.raises(DataError, match="not finite"):
        UNIT.checked(np.full_like(bright, np.inf), any_range=True)
    with pytest.raises(DataError, match="type bool"):
        UNIT.checked(of(UNIT, 0, 1, "bool"), any_range=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_pixels_that_are_not_finite_are_counted(value):
    images = of(UNIT, 0, 1, "float64")
    images[0, 0, 0, 0] = images[1, 2, 3, 1] = value
    with pytest.raises(DataError, match="2 pixels that are not finite"):
        UNIT.checked(images)


def test_a_single_image_is_taken_as_one_and_a_single_channel_may_be_left_out():
    images = of(BYTES, 0, 255, count=3)
    for given, expected in (
        (images[1], images[1:2]),
        (images[1, ..., 0], images[1:2]),
        (images[..., 0], images),
        (list(images), images),
        (images[:1], images[:1]),
        (np.asfortranarray(images), images),
    ):
        assert np.array_equal(BYTES.checked(given), expected)
    colour = of(UNIT, 0, 1)
    assert np.array_equal(UNIT.checked(colour[1]), colour[1:])


def test_as_many_images_as_pixels_are_no_single_image():
    images = of(BYTES, 0, 255, count=28)
    assert BYTES.checked(images[..., 0]).shape == BYTES.checked(images).shape == (28, 28, 28, 1)


@pytest.mark.parametrize(
    ("inputs", "shape", "told"),
    [
        (BYTES, (0, 28, 28, 1), r"images are empty \(0, 28, 28, 1\)"),
        (BYTES, (0,), r"of shape \(0,\)"),
        (BYTES, (), r"of shape \(\)"),
        (BYTES, (5, 784), r"images.reshape\(-1, 28, 28, 1\)"),
        (BYTES, (5, 32, 32, 1), "to the size of the training images"),
        (BYTES, (5, 28, 28, 3), "to the size of the training images"),
        (BYTES, (5, 1, 28, 28), r"numpy.moveaxis\(images, 1, -1\)"),
        (UNIT, (5, 3, 8, 6), r"numpy.moveaxis\(images, 1, -1\)"),
        (UNIT, (3, 8, 6), r"numpy.moveaxis\(images, 0, -1\)"),
        (UNIT, (5, 8, 6), "to the size of the training images"),
        (UNIT, (2, 5, 8, 6, 3), "to the size of the training images"),
    ],
)
def test_another_shape_is_refused_with_what_to_do(inputs, shape, told):
    with pytest.raises(DataError, match=told) as error:
        inputs.checked(np.ones(shape, inputs.dtype))
    sizes = ", ".join(map(str, inputs.image_shape))
    assert f"expected (num_images, {sizes}) of {inputs.dtype}" in str(error.value)


@pytest.mark.parametrize("images", ["image.png", [[1, 2], [3]], None, {"x": 1}, [b"bytes"]])
def test_what_is_no_array_of_numbers_is_refused(images):
    with pytest.raises(DataError, match=r"expected \(num_images, 28, 28, 1\) of uint8"):
        BYTES.checked(images)
    with pytest.raises(DataError, match="type complex64"):
        BYTES.checked(np.ones((2, 28, 28, 1), np.complex64))


def test_a_data_set_says_what_its_networks_take():
    tiny = data.load("tiny", subtract_mean=True, holdout=0.25)
    inputs = tiny.inputs
    assert (inputs.image_shape, inputs.dtype, inputs.num_classes) == ((28, 28, 1), "uint8", 10)
    assert (inputs.pixels, inputs.pixel_range, inputs.scale) == ("0..255", (0.0, 255.0), 1 / 255)
    assert inputs.num_train_examples == 192
    assert inputs.mean_image is tiny.mean_image
    assert np.array_equal(data.checked_for(tiny, tiny.x_test), tiny.x_test)


@pytest.mark.parametrize(
    ("told", "low", "high", "pixels"),
    [
        ("auto", 0.0, 1.0, "0..1"),
        ("auto", -2.0, 3.0, "standardized"),
        ("0..1", 0.2, 0.4, "0..1"),
        ("0..255", 0.0, 200.0, "0..255"),
        ("any", 0.0, 1.0, "any"),
    ],
)
def test_a_users_own_file_says_what_its_networks_take(tmp_path, told, low, high, pixels):
    images = np.linspace(low, high, 6 * 4 * 4 * 3, dtype=np.float32).reshape(6, 4, 4, 3)
    labels = np.arange(6) % 2
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert data.load(str(path), pixel_range=told, channels="last").inputs.pixels == pixels


def test_the_record_gives_back_what_the_network_takes():
    for dataset in (data.load("tiny_cifar10", subtract_mean=True), data.load("tiny")):
        content = json.loads(json.dumps(data.content(dataset)))
        found = Inputs.from_record(dataset.name, content)
        for field in dataclasses.fields(Inputs):
            expected = getattr(dataset.inputs, field.name)
            assert np.array_equal(getattr(found, field.name), expected), field.name
        if found.mean_image is not None:
            assert found.mean_image.dtype == np.float32


def test_a_record_older_than_that_gives_nothing_and_a_damaged_one_says_so():
    content = data.content(data.load("tiny"))
    old = {k: v for k, v in content.items() if k not in ("pixels", "pixel_range", "mean_image")}
    assert Inputs.from_record("tiny", old) is Inputs.from_record("tiny", None) is None
    for damage in (
        {"mean_image": "?"},
        {"mean_image": "AAAA"},
        {"pixel_range": [0]},
        {"arrays": {}},
        {"scale": None},
        {"pixels": "0..2"},
        {"pixels": ["any"]},
    ):
        with pytest.raises(RecordError, match="key 'data' does not say what the network takes"):
            Inputs.from_record("tiny", content | damage)
