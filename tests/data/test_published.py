"""The published files of MNIST-C and CIFAR-10-C: read where they are, checked, and recorded."""

import dataclasses
import hashlib

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data.corruptions import corrupt
from bnnlib.errors import DataError

# Files of as many rows as the small data sets have test images.
MNIST = dataclasses.replace(data.load("tiny"), name="mnist")
CIFAR10 = dataclasses.replace(data.load("tiny_cifar10"), name="cifar10")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """$BNN_DATA with MNIST-C's fog and CIFAR-10-C's fog; images are told by their first pixel."""
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    fog = tmp_path / "mnist_c" / "fog"
    fog.mkdir(parents=True)
    images = np.zeros((64, 28, 28, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(64)
    np.save(fog / "test_images.npy", images)
    np.save(fog / "test_labels.npy", MNIST.y_test)
    (tmp_path / "CIFAR-10-C").mkdir()
    images = np.zeros((5 * 64, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(5 * 64) // 64 + 1
    images[:, 0, 0, 1] = np.arange(5 * 64) % 64
    np.save(tmp_path / "CIFAR-10-C" / "fog.npy", images)
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.tile(CIFAR10.y_test, 5).astype(np.uint8))
    return tmp_path


def test_published_files_win(folder, caplog):
    fog = data.evaluation_set(MNIST, "mnist_c/fog")
    assert (fog.name, fog.images.shape) == ("mnist_c/fog", (64, 28, 28, 1))
    assert fog.images[:, 0, 0, 0].tolist() == list(range(64))
    assert fog.labels is MNIST.y_test
    for severity in (1, 5):
        fog = data.evaluation_set(CIFAR10, f"cifar10_c/fog-{severity}")
        assert (fog.images[:, 0, 0, 0] == severity).all()
        assert fog.images[:, 0, 0, 1].tolist() == list(range(64))
    assert not caplog.records
    # What the folder lacks is made, and that is said.
    made = data.evaluation_set(CIFAR10, "cifar10_c/contrast-2")
    np.testing.assert_array_equal(made.images, corrupt("cifar10_c/contrast-2", CIFAR10.x_test))
    assert "CIFAR-10-C has no contrast.npy; cifar10_c/contrast-2 is made instead" in caplog.text


def test_published_files_are_of_one_data_set_alone(folder):
    tiny = data.load("tiny")
    made = data.evaluation_set(tiny, "mnist_c/fog").images
    np.testing.assert_array_equal(made, corrupt("mnist_c/fog", tiny.x_test))


def test_without_files_all_is_made_and_nothing_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    made = data.evaluation_set(MNIST, "mnist_c/stripe").images
    np.testing.assert_array_equal(made, corrupt("mnist_c/stripe", MNIST.x_test))
    assert not caplog.records


def test_the_record_says_which_were_used(folder):
    names = ["test", "mnist_c/fog", "mnist_c/stripe", "rotate-30"]
    content = data.content(MNIST, names=names)
    path = folder / "mnist_c" / "fog" / "test_images.npy"
    assert content["corruptions"] == {"mnist_c/fog": str(path), "mnist_c/stripe": "made"}
    assert content["arrays"]["eval/mnist_c/fog"] == {
        "shape": [64, 28, 28, 1],
        "dtype": "uint8",
        "sha256": hashlib.sha256(np.load(path).tobytes()).hexdigest(),
    }
    assert "eval/mnist_c/stripe" not in content["arrays"]
    assert "corruptions" not in data.content(MNIST, names=["test", "rotate-30"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fog.npy": np.zeros((64, 32, 32, 3), np.uint8)}, r"\(64, 32, 32, 3\) of uint8, expected"),
        (
            {"fog.npy": np.zeros((320, 32, 32, 3))},
            r"of float64, expected \(320, 32, 32, 3\) of uin",
        ),
        ({"fog.npy": np.array([{}])}, r"cannot be read as a \.npy file"),
        (
            {"labels.npy": np.zeros(320)},
            r"labels\.npy: has .* float64, expected \(320,\) of integer",
        ),
        (
            {"labels.npy": np.roll(np.tile(CIFAR10.y_test, 5), 1)},
            r"labels of 64 are not those of the test images of 'cifar10', the first in row \d+; "
            "expected CIFAR-10-C in its published order.*or move the file away",
        ),
    ],
)
def test_files_that_are_not_the_published_ones(folder, change, message):
    for name, array in change.items():
        np.save(folder / "CIFAR-10-C" / name, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        data.content(CIFAR10, names=["cifar10_c/fog-2"])
    with pytest.raises(DataError, match=message):
        data.evaluation_set(CIFAR10, "cifar10_c/fog-2")


def test_damaged_and_missing_files(folder):
    images = folder / "mnist_c" / "fog" / "test_images.npy"
    whole = images.read_bytes()
    for content in (b"", whole[:60], whole[:-1000], b"PK\x03\x04" + whole):
        images.write_bytes(content)
        with pytest.raises(DataError, match=r"test_images\.npy: cannot be read as a \.npy file"):
            data.evaluation_set(MNIST, "mnist_c/fog")
    images.write_bytes(whole)
    (images.parent / "test_labels.npy").unlink()
    with pytest.raises(DataError, match=r"test_labels\.npy: cannot be read"):
        data.evaluation_set(MNIST, "mnist_c/fog")


def test_nothing_is_unpickled(folder, malicious):
    np.save(folder / "CIFAR-10-C" / "fog.npy", np.array([malicious]), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as a \.npy file"):
        data.evaluation_set(CIFAR10, "cifar10_c/fog-1")
