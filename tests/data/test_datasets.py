"""Data sets by name, the ones that come with the library, and images held out."""

import dataclasses
import hashlib

import numpy as np
import pytest

from bnnlib import data
from bnnlib.errors import DataError


def test_digits_are_stratified_real_images():
    digits = data.load("digits")
    assert digits.x_train.shape == (4000, 28, 28, 1)
    assert digits.x_test.shape == (1000, 28, 28, 1)
    assert digits.x_train.dtype == np.uint8
    assert digits.y_train.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(digits.y_train), [400] * 10)
    np.testing.assert_array_equal(np.bincount(digits.y_test), [100] * 10)
    train = {image.tobytes() for image in digits.x_train}
    test = {image.tobytes() for image in digits.x_test}
    assert len(train | test) == 5000  # the 5,000 are distinct, so none is in both


def test_digits_are_split_in_the_same_way_for_ever():
    # Published results name this split; a change of numpy's streams must not pass unseen.
    digits = data.load("digits")
    assert digits.y_test[:12].tolist() == [2, 0, 3, 8, 7, 3, 2, 5, 7, 6, 7, 9]
    assert hashlib.sha256(digits.x_test.tobytes()).hexdigest()[:16] == "3f71e023a852885e"


def test_digits_are_images_of_mnist_with_its_labels(bnn_data):
    digits, mnist = data.load("digits"), data.load("mnist")
    label_of = {
        image.tobytes(): label for image, label in zip(mnist.x_train, mnist.y_train, strict=True)
    }
    assert [label_of[image.tobytes()] for image in digits.x_test] == digits.y_test.tolist()


def test_mnist_is_the_canonical_one(bnn_data):
    mnist = data.load("mnist")
    assert mnist.image_shape == (28, 28, 1)
    assert mnist.num_train_examples == 60_000
    assert mnist.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert (mnist.num_classes, mnist.scale, mnist.mean_image) == (10, 1 / 255, None)


def test_cifar10_is_the_canonical_one_and_its_mean_image_centres_it(bnn_data):
    cifar10 = data.load("cifar10", subtract_mean=True)
    assert cifar10.image_shape == (32, 32, 3)
    assert cifar10.y_train[:5].tolist() == [6, 9, 9, 4, 1]
    assert cifar10.y_test[:5].tolist() == [3, 8, 8, 0, 6]
    assert cifar10.mean_image is not None
    assert cifar10.mean_image.dtype == np.float32
    pixel = cifar10.x_train[:, 3, 5, 2].astype(np.float64) * cifar10.scale
    assert pixel.mean() == pytest.approx(cifar10.mean_image[3, 5, 2], abs=1e-6)


def test_tiny_sets_have_both_shapes_and_can_be_learnt(dataset):
    assert dataset.image_shape == ((28, 28, 1) if dataset.name == "tiny" else (32, 32, 3))
    assert (len(dataset.x_train), len(dataset.x_test), dataset.num_classes) == (256, 64, 10)
    assert dataset.x_train.dtype == np.uint8
    means = np.stack([dataset.x_train[dataset.y_train == k].mean(axis=0) for k in range(10)])
    distances = ((dataset.x_test[:, np.newaxis] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == dataset.y_test).all()
    np.testing.assert_array_equal(data.load(dataset.name).x_train, dataset.x_train)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(
        DataError, match=r"'mnits' \(did you mean 'mnist'\?\); expected one of digit"
    ):
        data.load("mnits")


# --- images held out ------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 26), (0.25, 64), (0.499, 128), (0.002, 1)])
def test_a_split_is_a_partition_that_keeps_the_order(dataset, fraction, count):
    split = data.split(dataset, fraction)
    assert len(split.x_holdout) == len(split.y_holdout) == count
    assert split.num_train_examples == len(split.y_train) == 256 - count
    whole = [image.tobytes() for image in dataset.x_train]
    assert len(set(whole)) == 256  # so that an image tells its place
    for images, labels in ((split.x_train, split.y_train), (split.x_holdout, split.y_holdout)):
        places = [whole.index(image.tobytes()) for image in images]
        assert places == sorted(places)
        np.testing.assert_array_equal(labels, dataset.y_train[places])
    parts = [image.tobytes() for part in (split.x_train, split.x_holdout) for image in part]
    assert sorted(parts) == sorted(whole)
    np.testing.assert_array_equal(split.x_test, dataset.x_test)


def test_the_same_images_are_held_out_for_ever():
    """Records of years apart form one ensemble only if their members hold out the same images."""
    split = data.split(data.load("tiny"), 8 / 256)
    whole = [image.tobytes() for image in data.load("tiny").x_train]
    places = [whole.index(image.tobytes()) for image in split.x_holdout]
    assert places == [47, 66, 82, 119, 121, 153, 200, 229]


def test_a_greater_share_holds_out_the_same_images_and_more(dataset):
    few, many = (
        {image.tobytes() for image in data.split(dataset, share).x_holdout} for share in (0.1, 0.3)
    )
    assert few < many


def test_nothing_held_out_is_the_whole_set(dataset):
    assert data.split(dataset, 0.0) is dataset
    assert dataset.x_holdout is dataset.y_holdout is None


@pytest.mark.parametrize("fraction", [-0.1, 0.5, 1.0, float("nan"), 0.001])
def test_a_share_that_cannot_be_held_out(dataset, fraction):
    with pytest.raises(DataError, match=rf"holdout is {fraction!r}"):
        data.split(dataset, fraction)


def test_nothing_is_held_out_twice(dataset):
    with pytest.raises(DataError, match="held out already"):
        data.split(data.split(dataset, 0.1), 0.1)


def test_the_mean_image_is_that_of_the_images_trained_on():
    split = data.load("tiny", subtract_mean=True, holdout=0.25)
    mean = split.x_train.astype(np.float64).mean(axis=0) / 255
    np.testing.assert_allclose(split.mean_image, mean, atol=1e-6)
    assert np.abs(split.mean_image - data.load("tiny", subtract_mean=True).mean_image).max() > 1e-3


# --- a part of the training images ---------------------------------------------------------------


def _keys(images) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_a_part_has_every_class_and_keeps_the_order_and_what_is_held_out(dataset):
    whole = data.split(dataset, 0.25)
    part = data.load(dataset.name, holdout=0.25, train_images=40)
    assert part.num_train_examples == part.inputs.num_train_examples == 40
    np.testing.assert_array_equal(part.x_holdout, whole.x_holdout)
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    places = [_keys(whole.x_train).index(key) for key in _keys(part.x_train)]
    assert places == sorted(places)
    np.testing.assert_array_equal(part.y_train, whole.y_train[places])
    counts = np.bincount(part.y_train, minlength=10)
    shares = np.bincount(whole.y_train, minlength=10) * 40 / 192
    assert np.abs(counts - shares).max() <= 1


def test_a_greater_part_has_the_same_images_and_more_and_another_seed_has_others(dataset):
    small, large, other = (
        set(_keys(data.part_of(dataset, count, seed).x_train))
        for count, seed in ((30, 7), (90, 7), (30, 8))
    )
    assert small < large
    assert len(other) == 30
    assert other != small


def test_all_images_are_the_same_data_set_and_the_part_is_what_is_said_to_be_trained_on(dataset):
    assert data.part_of(dataset, 0) is dataset
    np.testing.assert_array_equal(data.part_of(dataset, 256, 3).x_train, dataset.x_train)
    one, other = (data.content(data.part_of(dataset, 30, seed)) for seed in (0, 1))
    assert one["arrays"]["x_train"]["sha256"] != other["arrays"]["x_train"]["sha256"]


def test_the_mean_image_is_that_of_the_part():
    part = data.load("tiny", subtract_mean=True, train_images=20)
    mean = part.x_train.astype(np.float64).mean(axis=0) / 255
    np.testing.assert_allclose(part.mean_image, mean, atol=1e-6)


def test_a_part_leaves_the_shifted_sets_as_they_are(dataset):
    """They are made within the range of the pixels, which the images left out take part in."""
    images = np.linspace(-3, 3, 256, dtype=np.float32)[:, None, None, None]
    images = np.broadcast_to(images, (256, 28, 28, 1))
    whole = dataclasses.replace(dataset, x_train=images, x_test=images[100:150], scale=1.0)
    part = data.part_of(whole, 20)
    assert part.x_train.max() < 3
    assert part.pixel_range == whole.pixel_range == (-3.0, 3.0)


@pytest.mark.parametrize(("count", "seed"), [(-1, 0), (193, 0), (20, -1)])
def test_a_part_that_cannot_be_is_refused(dataset, count, seed):
    told = r"train_images_seed is -1" if seed else rf"train_images is {count}, expected 1 to 192"
    with pytest.raises(DataError, match=told):
        data.part_of(data.split(dataset, 0.25), count, seed)


def test_a_refusal_says_what_is_held_out():
    with pytest.raises(DataError, match=r"of 'tiny' \(64 are held out\), or 0 for all"):
        data.load("tiny", holdout=0.25, train_images=256)
