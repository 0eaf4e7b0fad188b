"""Sets out of distribution, in the form of the data set that they are held against."""

import dataclasses
import gzip
import hashlib
import re
import struct

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data import ood, sources
from bnnlib.errors import DataError, MissingDataError


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


def test_own_set_of_another_range_than_the_training_images_is_refused(tmp_path):
    """Masks of 0 and 1 would be black beside images in 0..255, and far from every class for it."""
    tiny = data.load("tiny", pixel_range="0..255")
    path = tmp_path / "masks.npz"
    np.savez(path, x_test=np.random.default_rng(0).integers(0, 2, (9, 28, 28), dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks\.npz: x_test: images .* 0 to 1.*multiply them by"):
        data.ood_set(tiny, str(path))
    unit = dataclasses.replace(
        tiny,
        x_train=tiny.x_train / np.float32(255),
        x_test=tiny.x_test / np.float32(255),
        told_range="0..1",
        scale=1.0,
    )
    np.savez(path, x_test=unit.x_test / np.float32(255))
    with pytest.raises(DataError, match=r"masks\.npz: x_test: .* divided by 255 twice"):
        data.ood_set(unit, str(path))


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


# ----------------------------------------------------------------------------- OpenOOD's two groups


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """A machine that has Fashion-MNIST, KMNIST, MNIST and CIFAR-10, of made-up images."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (1010, 28, 28, 1), dtype=np.uint8)
    colour = rng.integers(0, 256, (1010, 32, 32, 3), dtype=np.uint8)
    for name in ("fashion_mnist", "kmnist"):
        np.savez(tmp_path / f"{name}_test.npz", x_test=grey)
        digest = hashlib.sha256(grey.tobytes()).hexdigest()
        monkeypatch.setitem(sources.SHA256, name, {"x_test": digest})
    images = {"mnist": grey, "cifar10": colour}
    monkeypatch.setattr(ood, "canonical", lambda name, keys: {"x_test": images[name]})
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    return tmp_path


def test_groups_bring_the_members_at_hand(at_hand, digits):
    found = data.ood_sets(digits, ["near", "far"])
    assert [(group, one.name) for _, group, one in found] == [
        *(("near", name) for name in ("fashion_mnist", "kmnist")),
        *(("far", name) for name in ("cifar10_grey", "uniform_noise")),
    ]
    for name, _, one in found:
        np.testing.assert_array_equal(one.images, data.ood_set(digits, name).images)


def test_a_member_that_is_brought_joins_its_group(at_hand, digits):
    images = np.arange(1200, dtype=np.uint16)[:, None, None].repeat(28, 1).repeat(28, 2)
    np.savez(at_hand / "notmnist_test.npz", x_test=(images % 256).astype(np.uint8))
    found = {one.name: group for _, group, one in data.ood_sets(digits, ["near"])}
    assert found == dict.fromkeys(["notmnist", "fashion_mnist", "kmnist"], "near")
    # Its images may be sorted by class, so that they are drawn: not the first 1,000.
    drawn = data.ood_set(digits, "notmnist").images
    assert drawn.shape == digits.x_test.shape
    assert not np.array_equal(drawn[:, 0, 0, 0], np.arange(1000) % 256)
    np.testing.assert_array_equal(drawn, data.ood_set(digits, "notmnist").images)


def test_a_set_named_twice_is_loaded_once_and_keeps_its_group(at_hand, digits):
    found = data.ood_sets(digits, ["kmnist", "near", "uniform_noise"])
    assert [(name, group) for name, group, _ in found] == [
        ("kmnist", "near"),
        ("fashion_mnist", "near"),
        ("uniform_noise", ""),
    ]


def test_a_named_member_that_is_missing_is_an_error_with_its_remedy(at_hand, digits):
    for names in (["textures"], ["far", "textures"]):
        with pytest.raises(
            MissingDataError, match=r"Put a textures_test\.npz .*\(n, 32, 32, 3\).*vgg/data/dtd"
        ):
            data.ood_sets(digits, names)


def test_a_member_that_is_damaged_is_an_error_though_the_group_was_named(at_hand, digits):
    np.savez(at_hand / "notmnist_test.npz", x_test=np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"notmnist_test\.npz: .*expected uint8 of \(n, 28, 28, 1"):
        data.ood_sets(digits, ["near"])
    np.savez(at_hand / "notmnist_test.npz", x_test=np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(DataError, match=r"notmnist_test\.npz: .*shape \(0, 28, 28, 1\)"):
        data.ood_sets(digits, ["near"])


def test_a_group_without_any_member_is_an_error_with_every_remedy(at_hand, digits):
    cifar10 = dataclasses.replace(data.load("tiny_cifar10"), name="cifar10")
    with pytest.raises(MissingDataError) as error:
        data.ood_sets(cifar10, ["near", "far"])
    for words in ("'near' of 'cifar10'", "cifar100_test.npz", "tiny_imagenet_test.npz"):
        assert words in str(error.value)
    found = [one.name for _, _, one in data.ood_sets(cifar10, ["far"])]
    assert found == ["mnist", "uniform_noise"]


def test_a_data_set_without_groups_says_which_have_some():
    with pytest.raises(DataError, match=r"known for mnist, digits, cifar10, not for 'tiny'; name"):
        data.ood_sets(data.load("tiny"), ["near"])


@pytest.mark.parametrize("name", data.OOD_FILES)
def test_what_a_user_brings_is_read_from_the_file_that_its_remedy_names(
    name, tmp_path, monkeypatch, digits
):
    """The remedy's own words are followed: the file, its key, the images' type and shape."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("BNN_DATA", str(folder))
    monkeypatch.setattr(ood, "DEBIAN_DATA", tmp_path)
    monkeypatch.setattr(ood, "keras_caches", list)
    remedy = data.ood_remedy(name)
    with pytest.raises(MissingDataError, match=re.escape(remedy)):
        data.ood_set(digits, name)
    file, key = re.match(r"Put a (\S+) with the test images \(uint8\) as (\w+), ", remedy).groups()
    shape = [int(number) for number in re.search(r"\(n, ([\d, ]+)\)", remedy)[1].split(",")]
    images = np.random.default_rng(0).integers(0, 256, (1010, *shape), dtype=np.uint8)
    if name in sources.SHA256:
        digest = hashlib.sha256(images.tobytes()).hexdigest()
        monkeypatch.setitem(sources.SHA256, name, {"x_test": digest})
    np.savez(folder / file, **{key: images})
    made = data.ood_set(digits, name)
    assert (made.name, made.images.shape) == (name, digits.x_test.shape)


def test_groups_are_of_known_sets_and_none_is_of_both():
    for dataset, groups in data.OOD_GROUPS.items():
        members = [name for group in groups.values() for name in group.members]
        assert set(members) <= set(data.OOD_NAMES)
        assert len(set(members)) == len(members)
        assert list(groups) == list(data.OOD_GROUP_NAMES)
        for group, of in groups.items():
            assert {data.ood_group(dataset, name) for name in of.members} == {group}
    assert data.ood_group("mnist", "letters") == data.ood_group("tiny", "kmnist") == ""


def test_the_record_says_who_is_in_a_group_and_who_is_missing(at_hand, digits):
    members = ["fashion_mnist", "kmnist"]
    found = data.content(digits, [], {"near": members})["ood_groups"]
    assert found == {
        "near": {"members": members, "missing": {"notmnist": data.ood_remedy("notmnist")}}
    }
    assert "ood_groups" not in data.content(digits)


def test_a_data_sets_own_images_are_not_foreign():
    cifar10 = dataclasses.replace(data.load("tiny_cifar10"), name="cifar10")
    with pytest.raises(DataError, match="'cifar10_grey' is not out of distribution for models of"):
        data.ood_set(cifar10, "cifar10_grey")
