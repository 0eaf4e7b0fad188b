"""Sets out of distribution, in the form of the data set that they are held against."""

import dataclasses
import gzip
import hashlib
import struct

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data import ood, sources
from bnnlib.errors import DataError


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "mnist", "cifar10_grey"])
def test_named_sets_take_the_data_sets_shape_and_size(bnn_data, dataset, name):
    made = data.ood_set(dataset, name)
    assert made.labels is None
    assert made.name == name
    assert made.images.shape == dataset.x_test.shape
    assert made.images.dtype == np.uint8
    source = {"mnist": "mnist", "cifar10_grey": "cifar10"}.get(name, f"{name}_test")
    with np.load(bnn_data / f"{source}.npz") as file:
        first = file["x_test"][0]
    shown = made.images[0, :, :, 0].astype(float)
    if name == "cifar10_grey":
        grey = first @ [0.299, 0.587, 0.114]
        expected = grey if dataset.name == "tiny_cifar10" else grey[2:30, 2:30]
        np.testing.assert_allclose(shown, expected, atol=0.51)
    else:
        expected = np.pad(first, 2) if dataset.name == "tiny_cifar10" else first
        np.testing.assert_array_equal(shown, expected)


def test_grey_by_hand(dataset, monkeypatch):
    red = np.zeros((64, 32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255
    monkeypatch.setattr(ood, "canonical", lambda name, keys: {"x_test": red})
    assert np.unique(data.ood_set(dataset, "cifar10_grey").images).tolist() == [76]  # 0.299 x 255


def test_uniform_noise_fills_the_range(dataset, as_float):
    noise = data.ood_set(dataset, "uniform_noise")
    assert noise.images.dtype == np.uint8
    assert noise.images.shape == dataset.x_test.shape
    assert noise.images.mean() == pytest.approx(127.5, abs=2)
    assert (noise.images.min(), noise.images.max()) == (0, 255)
    np.testing.assert_array_equal(noise.images, data.ood_set(dataset, "uniform_noise").images)
    floating = dataclasses.replace(as_float(dataset), x_train=as_float(dataset).x_train * 4 - 2)
    values = data.ood_set(floating, "uniform_noise").images
    assert values.dtype == np.float32
    assert values.min() == pytest.approx(-2, abs=0.01)
    assert values.max() == pytest.approx(2, abs=0.01)


def test_named_sets_are_brought_to_the_range_of_floating_images(bnn_data, as_float):
    tiny = data.load("tiny")
    floating = dataclasses.replace(as_float(tiny), x_train=as_float(tiny).x_train * 4 - 2)
    made = data.ood_set(floating, "kmnist").images
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, data.ood_set(tiny, "kmnist").images / 255 * 4 - 2, atol=1e-5)


def test_fashion_mnist_from_idx_files(tmp_path, monkeypatch, empty_home):
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    monkeypatch.setitem(
        sources.SHA256, "fashion_mnist", {"x_test": hashlib.sha256(images.tobytes()).hexdigest()}
    )
    monkeypatch.setattr(ood, "DEBIAN_DATA", tmp_path / "share")
    content = struct.pack(">4i", 2051, 10_000, 28, 28) + images.tobytes()
    for folder in (
        tmp_path / "share" / "dataset-fashion-mnist" / "data",
        empty_home / ".keras" / "datasets" / "fashion-mnist",
    ):
        folder.mkdir(parents=True)
        path = folder / ood.FASHION_MNIST_FILE
        path.write_bytes(gzip.compress(content, compresslevel=1))
        made = data.ood_set(data.load("tiny"), "fashion_mnist")
        np.testing.assert_array_equal(made.images[..., 0], images[:64])
        # With a wrong file there, the other folder's turn shows whether it is really read.
        path.write_bytes(gzip.compress(content[:-1], compresslevel=1))
        with pytest.raises(DataError, match=f"{path}: is not 10,000 images of 28 x 28"):
            data.ood_set(data.load("tiny"), "fashion_mnist")


def test_own_set_out_of_distribution(tmp_path):
    tiny = data.load("tiny")
    letters = np.random.default_rng(0).integers(0, 256, (70, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "letters.npz", x_test=letters)
    made = data.ood_set(tiny, str(tmp_path / "letters.npz"))
    assert (made.name, made.labels) == ("letters", None)
    np.testing.assert_array_equal(made.images[..., 0], letters)
    with pytest.raises(
        DataError, match=r"letters\.npz: .*\(28, 28, 1\) of uint8, expected \(32, 3"
    ):
        data.ood_set(data.load("tiny_cifar10"), str(tmp_path / "letters.npz"))
    np.savez(tmp_path / "kmnist.npz", x_test=letters)
    with pytest.raises(DataError, match=r"would be called 'kmnist', .*rename"):
        data.ood_set(tiny, str(tmp_path / "kmnist.npz"))


def test_sets_out_of_distribution_that_cannot_be(tmp_path, monkeypatch, empty_home):
    monkeypatch.setattr(ood, "DEBIAN_DATA", tmp_path / "share")
    tiny = data.load("tiny")
    with pytest.raises(DataError, match=r"'fashon_mnist' \(did you mean 'fashion_mnist'\?\)"):
        data.ood_set(tiny, "fashon_mnist")
    with pytest.raises(
        DataError, match=r"'fashion_mnist' was not found; tried \$BNN_DATA \(not set"
    ):
        data.ood_set(tiny, "fashion_mnist")
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"svhn_test\.npz \(no such file\)\. Put a svhn_test\.npz"):
        data.ood_set(tiny, "svhn")
    np.savez(tmp_path / "svhn_test.npz", x_test=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(DataError, match=r"svhn_test\.npz: .*expected uint8 of \(n, 32, 32, 3\)"):
        data.ood_set(tiny, "svhn")
    np.savez(tmp_path / "kmnist_test.npz", x_test=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(DataError, match=r"kmnist_test\.npz: x_test .* is not that of 'kmnist'"):
        data.ood_set(tiny, "kmnist")
    with pytest.raises(
        DataError, match="'mnist' is not out of distribution for models of 'digits'"
    ):
        data.ood_set(data.load("digits"), "mnist")
    np.savez(tmp_path / "svhn_test.npz", x_test=np.zeros((2, 32, 32, 3), np.uint8))
    four = dataclasses.replace(tiny, x_train=tiny.x_train.repeat(4, axis=3))
    with pytest.raises(DataError, match="4 channels, but named out-of-distribution sets exist for"):
        data.ood_set(four, "svhn")
