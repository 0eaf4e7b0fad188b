"""Shifted evaluation sets: by hand, in limiting cases, and the same on every call."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from bnnlib import data
from bnnlib.data import shifts
from bnnlib.errors import DataError


@pytest.fixture
def constant():
    """Two test images of 28 x 28: left half 0, right half 200; and all 100."""
    images = np.zeros((2, 28, 28, 1), dtype=np.uint8)
    images[0, :, 14:] = 200
    images[1] = 100
    labels = np.array([0, 1])
    return data.Dataset("constant", images, labels, images, labels, 2, 1 / 255)


def test_clean_sets_are_the_data_sets_own(dataset):
    test, train = data.evaluation_set(dataset, "test"), data.evaluation_set(dataset, "train")
    assert test.images is dataset.x_test
    assert test.labels is dataset.y_test
    assert train.images is dataset.x_train
    assert train.labels is dataset.y_train


def test_rotations(dataset):
    def rotated(degrees):
        return data.evaluation_set(dataset, f"rotate-{degrees}").images

    np.testing.assert_array_equal(rotated(0), dataset.x_test)
    np.testing.assert_array_equal(rotated(90), np.rot90(dataset.x_test, axes=(1, 2)))
    np.testing.assert_array_equal(rotated(180), dataset.x_test[:, ::-1, ::-1])
    one = ndimage.rotate(dataset.x_test[5, :, :, 0].astype(float), 30, reshape=False, order=1)
    np.testing.assert_allclose(rotated(30)[5, :, :, 0], one, atol=0.51)
    assert (rotated(45)[:, 0, 0] == 0).all()  # the corner comes from outside


def test_translations(dataset):
    np.testing.assert_array_equal(
        data.evaluation_set(dataset, "translate-0").images, dataset.x_test
    )
    moved = data.evaluation_set(dataset, "translate-3").images
    x = dataset.x_test
    candidates = np.zeros((4, *x.shape), dtype=np.uint8)
    candidates[0, :, 3:] = x[:, :-3]
    candidates[1, :, :-3] = x[:, 3:]
    candidates[2, :, :, 3:] = x[:, :, :-3]
    candidates[3, :, :, :-3] = x[:, :, 3:]
    matches = (candidates == moved).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(matches.sum(axis=0), 1)
    assert (matches.sum(axis=1) > 5).all()  # 64 images in four directions


@pytest.fixture(scope="module", params=[(28, 1), (32, 3)], ids=["28x28x1", "32x32x3"])
def real_images(request):
    """100 real digits in either shape: the synthetic ones' blocks fit pixelate's cells."""
    size, channels = request.param
    digits = data.load("digits")
    border = (size - 28) // 2
    images = np.pad(digits.x_test[:100], ((0, 0), (border, border), (border, border), (0, 0)))
    images = images.repeat(channels, axis=3)
    return dataclasses.replace(
        digits, x_train=images, x_test=images, y_test=digits.y_test[:100], name="real"
    )


@pytest.mark.parametrize("corruption", data.CORRUPTIONS)
def test_corruptions(real_images, corruption):
    before = real_images.x_test.copy()
    distances = []
    for severity in range(1, 6):
        name = f"{corruption}-{severity}"
        made = data.evaluation_set(real_images, name)
        assert made.name == name
        assert made.images.dtype == np.uint8
        assert made.images.shape == real_images.x_test.shape
        assert made.labels is real_images.y_test
        again = data.evaluation_set(real_images, name)
        np.testing.assert_array_equal(made.images, again.images)
        distances.append(np.mean((made.images / 255 - real_images.x_test / 255) ** 2))
    np.testing.assert_array_equal(real_images.x_test, before)
    assert distances[0] > 1e-4
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize(
    "name", ["rotate-30", "translate-4", *(f"{c}-3" for c in data.CORRUPTIONS)]
)
def test_floating_images_are_shifted_like_bytes(dataset, name, as_float):
    assert (dataset.x_test.min(), dataset.x_test.max()) == (0, 255)  # so the ranges correspond
    floating = as_float(dataset)
    made = data.evaluation_set(floating, name).images
    assert made.dtype == np.float32
    assert 0.0 <= made.min() <= made.max() <= 1.0
    # Noise is where the float route and the byte route could draw differently; they do not.
    np.testing.assert_allclose(
        made * 255, data.evaluation_set(dataset, name).images, atol=0.51, rtol=0
    )


def test_sets_of_more_than_one_chunk_have_other_draws_in_each(constant):
    images = np.full((shifts.CHUNK + 500, 28, 28, 1), 128, dtype=np.uint8)
    big = dataclasses.replace(constant, x_test=images, y_test=np.zeros(len(images), dtype=np.int64))
    noisy = data.evaluation_set(big, "gaussian_noise-1").images
    assert not np.array_equal(noisy[0], noisy[shifts.CHUNK])
    # 1.2 million pixels: the standard deviation is known to 0.1 %.
    assert noisy.std() == pytest.approx(0.08 * 255, rel=0.01)
    assert noisy.mean() == pytest.approx(128, abs=0.1)


def test_corruptions_by_hand(constant):
    def made(name):
        return data.evaluation_set(constant, name).images.astype(float)

    # Mean 100; 0.4 of the distance from it is kept.
    assert np.unique(made("contrast-1")[0]).tolist() == [60, 140]
    assert np.unique(made("contrast-1")[1]).tolist() == [100]
    # 0.2 of 255 is added; at 0.3 the brighter half reaches the limit.
    assert np.unique(made("brightness-2")[0]).tolist() == [51, 251]
    assert np.unique(made("brightness-3")[0])[1] == 255
    # 14 x 14 cells of 2 x 2 pixels; the edge lies between two of them.
    np.testing.assert_array_equal(made("pixelate-2"), constant.x_test)
    # A square of 0.5 x 28 pixels, give or take one, as it need not lie on the grid.
    black = (made("occlusion-4")[1] == 0).sum()
    assert 13**2 <= black <= 15**2
    # Share of changed pixels: none of 100 is darkest or brightest to begin with.
    assert (made("impulse_noise-5")[1] != 100).mean() == pytest.approx(0.27, abs=0.06)
    # Blur keeps what is constant, and the sum; elastic displacement keeps what is constant.
    np.testing.assert_array_equal(made("gaussian_blur-5")[1], 100)
    assert made("gaussian_blur-5")[0].mean() == pytest.approx(100, abs=0.5)
    np.testing.assert_array_equal(made("elastic_transform-5")[1], 100)
    # 100/255 of 12 photons: a mean of 4.7 with a standard deviation of 2.2, in steps of 255/12.
    shot = made("shot_noise-3")[1]
    assert set(np.unique(shot)) <= set(np.rint(np.arange(13) * 255 / 12))
    assert shot.mean() == pytest.approx(100, abs=7)


def test_pixelate_takes_means_over_cells(dataset):
    x = dataset.x_test.astype(float)
    size, channels = x.shape[1], x.shape[3]
    cells = x.reshape(64, size // 2, 2, size // 2, 2, channels).mean(axis=(2, 4), keepdims=True)
    means = np.broadcast_to(cells, (64, size // 2, 2, size // 2, 2, channels)).reshape(x.shape)
    made = data.evaluation_set(dataset, "pixelate-2").images
    np.testing.assert_allclose(made, means, atol=0.51)
    # A coarse grid that does not divide the image still keeps each image's mean.
    uneven = data.evaluation_set(dataset, "pixelate-1").images
    np.testing.assert_allclose(uneven.mean(axis=(1, 2, 3)), x.mean(axis=(1, 2, 3)), atol=0.2)


def test_groups():
    assert len(data.expand(["shifts"])) == 15
    assert len(data.expand(["corruptions"])) == 50
    assert data.expand(["rotations"])[-1] == "rotate-180"
    assert data.expand(["test", "fog", "fog-2", "translations", "test"]) == [
        "test", "fog-1", "fog-2", "fog-3", "fog-4", "fog-5",
        "translate-2", "translate-4", "translate-6", "translate-8",
    ]  # fmt: skip
    assert data.expand([]) == []
    assert data.expand("test") == ["test"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gausian_noise-3",
            r"did you mean 'gaussian_noise-3'\?.*rotate-<0\.\.180>.*or for several",
        ),
        ("shift", r"did you mean 'shifts'\?"),
        ("fog-6", r"'6' for a severity, expected a whole number 1\.\.5, as in fog-3"),
        ("fog-0", "'0' for a severity"),
        ("rotate-181", r"'181' for degrees, expected a whole number 0\.\.180, as in rotate-30"),
        ("rotate--5", "Unknown evaluation set 'rotate--5'"),
        ("rotate-030", "'030' for degrees"),
        ("translate-2.5", "'2.5' for pixels, expected a whole number from 0"),
        ("", "Unknown evaluation set ''"),
    ],
)
def test_evaluation_sets_that_do_not_exist(name, message):
    with pytest.raises(DataError, match=message):
        data.expand(["test", name])


def test_evaluation_sets_that_a_data_set_cannot_give():
    tiny = data.load("tiny")
    with pytest.raises(DataError, match=r"'shifts' is a group of 15 .* such as rotate-15; expand"):
        data.evaluation_set(tiny, "shifts")
    with pytest.raises(DataError, match=r"28 x 28 pixels out of view; expected .* translate-27"):
        data.evaluation_set(tiny, "translate-28")


def test_shifted_sets_do_not_depend_on_what_is_held_out(dataset, as_float):
    """Also where the range of pixels is that of the images: its extremes may be held out."""
    whole = as_float(dataset)
    held_out = data.split(whole, 0.1).x_holdout[0]
    brighter = whole.x_train.copy()
    brighter[(brighter == held_out).all(axis=(1, 2, 3))] += 3.0
    whole = dataclasses.replace(whole, x_train=brighter)
    split = data.split(whole, 0.1)
    assert split.pixel_range == whole.pixel_range
    assert split.pixel_range[1] > split.x_train.max()
    for name in ("gaussian_noise-3", "brightness-2"):
        np.testing.assert_array_equal(
            data.evaluation_set(split, name).images, data.evaluation_set(whole, name).images
        )


def test_names_are_refused_for_the_size_of_the_images_before_any_is_made():
    assert data.expand(["translate-27"], (28, 30, 1)) == ["translate-27"]
    with pytest.raises(DataError, match="moves images of 28 x 30 pixels out of view"):
        data.expand(["translations", "translate-28"], (28, 30, 1))
