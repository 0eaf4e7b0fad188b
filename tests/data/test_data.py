"""The data sets, their checks, the partition over ranks, shifts and sets out of distribution."""

import dataclasses
import gzip
import hashlib
import io
import logging
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import ndimage

from bnnlib import data
from bnnlib.errors import DataError


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    """No BNN_DATA and no Keras cache."""
    home = tmp_path / "home"
    (home / ".keras" / "datasets").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("BNN_DATA", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return home


@pytest.fixture(params=["tiny", "tiny_cifar10"])
def dataset(request):
    return data.load(request.param)


@pytest.fixture
def constant():
    """Two test images of 28 x 28: left half 0, right half 200; and all 100."""
    images = np.zeros((2, 28, 28, 1), dtype=np.uint8)
    images[0, :, 14:] = 200
    images[1] = 100
    labels = np.array([0, 1])
    return data.Dataset("constant", images, labels, images, labels, 2, 1 / 255)


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


# --- data sets by name ---------------------------------------------------------------------------


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
    assert digest(digits.x_test)[:16] == "3f71e023a852885e"


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


# --- where mnist and cifar10 come from -----------------------------------------------------------


@pytest.fixture
def small_cifar10(monkeypatch):
    """CIFAR-10 shrunk to eight images, in the canonical form, with its checksums."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 6),
        "x_test": rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 2),
    }
    digests = {key: digest(array) for key, array in arrays.items()}
    monkeypatch.setitem(data.SHA256, "cifar10", digests)
    return arrays


@pytest.fixture
def small_mnist(monkeypatch):
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 6),
        "x_test": rng.integers(0, 256, (2, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 2),
    }
    monkeypatch.setitem(data.SHA256, "mnist", {key: digest(a) for key, a in arrays.items()})
    return arrays


def test_content_counts_whatever_the_container(tmp_path, monkeypatch, small_cifar10):
    # Keras gives CIFAR-10's labels as uint8 in a column; another writer may store in Fortran order.
    columns = {
        key: array.astype(np.uint8)[:, np.newaxis] if key[0] == "y" else np.asfortranarray(array)
        for key, array in small_cifar10.items()
    }
    np.savez_compressed(tmp_path / "cifar10.npz", **columns)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    loaded = data.load("cifar10")
    np.testing.assert_array_equal(loaded.x_train, small_cifar10["x_train"])
    np.testing.assert_array_equal(loaded.y_test, small_cifar10["y_test"])
    assert loaded.y_test.dtype == np.int64


def test_a_wrong_file_in_bnn_data_is_an_error_and_not_passed_over(
    tmp_path, monkeypatch, empty_home, small_mnist
):
    np.savez(empty_home / ".keras" / "datasets" / "mnist.npz", **small_mnist)
    swapped = small_mnist | {"y_test": (small_mnist["y_test"] + 1) % 10}
    np.savez(tmp_path / "mnist.npz", **swapped)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mnist\.npz: y_test .* is not that of 'mnist' .*SHA-256"):
        data.load("mnist")


def test_bnn_data_without_the_file_falls_through_to_keras_cache(
    tmp_path, monkeypatch, caplog, empty_home, small_mnist
):
    np.savez(empty_home / ".keras" / "datasets" / "mnist.npz", **small_mnist)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    loaded = data.load("mnist")
    assert "BNN_DATA is set, but has no" in caplog.text
    np.testing.assert_array_equal(loaded.x_test[..., 0], small_mnist["x_test"])


@pytest.mark.timeout(60)
def test_a_failed_download_names_every_place(tmp_path, monkeypatch, caplog, empty_home):
    caplog.set_level(logging.CRITICAL)
    (empty_home / ".keras" / "datasets" / "mnist.npz").write_bytes(b"half a file")
    file, _, sha256 = data.KERAS_FILES["mnist"]
    # Nothing listens on port 9, so this fails at once with and without a network.
    monkeypatch.setitem(data.KERAS_FILES, "mnist", (file, "http://127.0.0.1:9/mnist.npz", sha256))
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    message = str(caught.value)
    for part in (
        f"{tmp_path}/nowhere/mnist.npz (no such file)",
        f"{empty_home}/.keras/datasets/mnist.npz (damaged)",
        "Keras' download of http://127.0.0.1:9/mnist.npz (",
        "refused",
        "put a mnist.npz with x_train, y_train, x_test, y_test",
    ):
        assert part in message


@pytest.mark.timeout(60)
def test_keras_download_is_used_once(tmp_path, monkeypatch, empty_home, small_mnist):
    source = tmp_path / "source.npz"
    np.savez(source, **small_mnist)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(data.KERAS_FILES, "mnist", ("mnist.npz", source.as_uri(), sha256))
    np.testing.assert_array_equal(data.load("mnist").y_train, small_mnist["y_train"])
    source.unlink()
    np.testing.assert_array_equal(data.load("mnist").y_train, small_mnist["y_train"])


# Stands in for tf_keras in three processes that start together.
DOWNLOADER = """
import pathlib, sys, time, types
folder = pathlib.Path(sys.argv[1])
def get_file(name, origin, file_hash, cache_dir):
    target = pathlib.Path(cache_dir, "datasets", name)
    if not target.exists():
        (folder / "inside").touch(exist_ok=False)  # fails if another process is here too
        with open(folder / "calls", "a") as calls:
            calls.write("x")
        time.sleep(0.5)
        (folder / "inside").unlink()
        if sys.argv[2] == "fails":
            raise Exception("URL fetch failure")
        target.write_text("content")
    return str(target)
utils = types.ModuleType("tf_keras.utils")
utils.get_file = get_file
sys.modules["tf_keras"] = types.ModuleType("tf_keras")
sys.modules["tf_keras.utils"] = utils
from bnnlib import data
print("ready", flush=True)
sys.stdin.readline()
try:
    print(data._download("mnist").read_text())
except data.DataError as error:
    print("DataError", error)
"""


@pytest.mark.parametrize(
    ("outcome", "answer"), [("works", "content"), ("fails", "DataError URL fetch failure")]
)
def test_ranks_of_a_node_download_once(tmp_path, empty_home, outcome, answer):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", DOWNLOADER, str(tmp_path), outcome],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            cwd=pathlib.Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write("go\n")
        rank.stdin.flush()
    assert [rank.communicate(timeout=20)[0].strip() for rank in ranks] == [answer] * 3
    assert (tmp_path / "calls").read_text() == "x"


# --- CIFAR-10 in Keras' cache: pickles that are read and never run -------------------------------


def cifar10_batch(images, labels):
    """A batch file as CIFAR-10's authors wrote it: protocol 2 of Python 2's pickle."""
    pixels = images.transpose(0, 3, 1, 2).tobytes()
    groups = (labels[start : start + 1000] for start in range(0, len(labels), 1000))
    return b"".join(
        (
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
            b"U\x06labelsq\x04]q\x05",
            *(b"(" + b"".join(b"K" + bytes([k]) for k in group) + b"e" for group in groups),
            b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85U\x01b\x87Rq\t(K\x01J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff",
            b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb",
            b"U\tfilenamesq\x0c]q\r(U\x05a.pngU\x05b.pngeu.",
        )
    )


def test_a_batch_read_by_opcodes_is_what_unpickling_gives():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 1500)
    content = cifar10_batch(images, labels)
    unpickled = pickle.loads(content, encoding="bytes")
    read_images, read_labels = data._parse_cifar10_batch(content)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, unpickled[b"labels"])
    rows = read_images.transpose(0, 3, 1, 2).reshape(1500, 3072)
    np.testing.assert_array_equal(rows, unpickled[b"data"])


@pytest.mark.parametrize("form", ["cifar-10-batches-py", "cifar-10-batches-py.tar.gz"])
def test_cifar10_is_read_from_keras_cache(empty_home, small_cifar10, form):
    cache = empty_home / ".keras" / "datasets"
    x_train, y_train = small_cifar10["x_train"], small_cifar10["y_train"]
    cuts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4), slice(4, 6)]
    files = {
        f"data_batch_{number}": cifar10_batch(x_train[cut], y_train[cut])
        for number, cut in enumerate(cuts, start=1)
    }
    files["test_batch"] = cifar10_batch(small_cifar10["x_test"], small_cifar10["y_test"])
    if form.endswith(".tar.gz"):
        with tarfile.open(cache / form, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        (cache / form).mkdir()
        for name, content in files.items():
            (cache / form / name).write_bytes(content)
    loaded = data.load("cifar10")
    for key, array in small_cifar10.items():
        np.testing.assert_array_equal(getattr(loaded, key), array)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_pickles_are_never_run(tmp_path, empty_home):
    mark = tmp_path / "ran"
    folder = empty_home / ".keras" / "datasets" / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(DataError, match=r"test_batch|cannot be read|not that of"):
        data._read_keras(folder, "cifar10", data.ARRAY_KEYS)
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays() | {"y_test": np.array([Malicious(mark)], dtype=object)})
    with pytest.raises(DataError, match=r"own\.npz: y_test\.npy holds Python objects"):
        data.load(str(path))
    assert not mark.exists()


# --- the user's own file -------------------------------------------------------------------------


def own_arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, 8, 9), dtype=np.uint8),
        "y_train": np.array([0, 1, 3, 0, 1, 3]),
        "x_test": rng.integers(0, 256, (3, 8, 9), dtype=np.uint8),
        "y_test": np.array([0, 1, 4]),
    }


def test_own_file_of_bytes(tmp_path):
    arrays = own_arrays()
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    own = data.load(str(path), subtract_mean=True)
    assert own.name == str(path)
    assert own.image_shape == (8, 9, 1)
    # Class 2 has no example at all, and class 4 none to train on.
    assert (own.num_classes, own.scale) == (5, 1 / 255)
    np.testing.assert_array_equal(own.x_train[..., 0], arrays["x_train"])
    assert own.mean_image is not None
    np.testing.assert_allclose(
        own.mean_image[..., 0], arrays["x_train"].mean(axis=0) / 255, rtol=1e-6
    )


def test_own_file_of_floats_colours_and_label_columns(tmp_path):
    arrays = own_arrays()
    for key in ("x_train", "x_test"):
        arrays[key] = np.repeat(arrays[key][..., np.newaxis] / 100 - 1.0, 3, axis=-1)
    for key in ("y_train", "y_test"):
        arrays[key] = arrays[key].astype(">u2")[:, np.newaxis]
    path = tmp_path / "own.NPZ"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    own = data.load(str(path))
    assert own.x_train.dtype == np.float32
    assert own.scale == 1.0
    assert own.image_shape == (8, 9, 3)
    assert own.y_train.tolist() == [0, 1, 3, 0, 1, 3]
    assert own.pixel_range == (
        np.float32(min(arrays["x_train"].min(), arrays["x_test"].min())),
        np.float32(max(arrays["x_train"].max(), arrays["x_test"].max())),
    )


def test_wide_integers_in_the_range_of_bytes_are_bytes(tmp_path):
    arrays = own_arrays()
    wide = arrays | {key: arrays[key].astype(np.int64) for key in ("x_train", "x_test")}
    np.savez(tmp_path / "own.npz", **wide)
    own = data.load(str(tmp_path / "own.npz"))
    assert own.x_test.dtype == np.uint8
    np.testing.assert_array_equal(own.x_test[..., 0], arrays["x_test"])


NAN = np.full((6, 8, 9), np.nan)
HUGE = np.full((6, 8, 9), 1e300)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.zeros((6, 72), np.uint8)}, r"x_train has shape \(6, 72\), expected \(n, h"),
        ({"x_test": np.zeros((0, 8, 9), np.uint8)}, "x_test is empty"),
        ({"x_train": np.full((6, 8, 9), 256)}, "integer pixels from 256 to 256, expected 0..255"),
        ({"x_train": np.full((6, 8, 9), -1)}, "integer pixels from -1 to -1, expected 0..255"),
        ({"x_train": np.zeros((6, 8, 9), bool)}, "x_train is of type bool, expected uint8 or floa"),
        ({"x_train": NAN}, "x_train has 432 pixels that are not finite"),
        ({"x_train": HUGE}, "x_train has 432 pixels that are not finite in float32"),
        ({"x_train": np.zeros((6, 8, 9))}, "of float32 and x_test .* of uint8; expected the same"),
        (
            {"x_test": np.zeros((3, 9, 9), np.uint8)},
            r"x_test \(9, 9, 1\) of uint8; expected the sa",
        ),
        ({"y_train": np.arange(5)}, "y_train has 5 labels, expected one for each of the 6 images"),
        ({"y_test": np.array([0, -1, 2])}, "y_test goes from -1 to 2, expected labels 0..C-1"),
        ({"y_test": np.array([0, 1, 2.0])}, "y_test is of type float64, expected integers"),
        ({"y_test": np.eye(3, dtype=int)}, r"y_test has shape \(3, 3\), .*one-hot labels .*argmax"),
        ({"y_test": np.array([0, 1, 2**40])}, "y_test goes from 0 to 1099511627776"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "the largest label is 0"),
    ],
)
def test_own_files_that_are_wrong(tmp_path, changed, message):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays() | changed)
    with pytest.raises(DataError, match=message) as caught:
        data.load(str(path))
    assert str(path) in str(caught.value)


def test_own_file_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"own\.npz: no such file; expected .*x_train.*savez"):
        data.load(str(tmp_path / "own.npz"))
    (tmp_path / "own.npz").mkdir()
    with pytest.raises(DataError, match=r"own\.npz: is a folder"):
        data.load(str(tmp_path / "own.npz"))


def test_own_file_without_a_key(tmp_path):
    arrays = own_arrays()
    arrays["labels"] = arrays.pop("y_test")
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=r"has no y_test, expected .*; it has labels, x_test"):
        data.load(str(tmp_path / "own.npz"))


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_own_file_that_is_truncated(tmp_path, kept):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(DataError, match=r"own\.npz: cannot be read .*truncated, damaged"):
        data.load(str(path))


def test_own_file_with_a_flipped_bit(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays())
    content = bytearray(path.read_bytes())
    content[content.index(b"x_train.npy") + 300] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: cannot be read .*truncated, damaged.*CRC"):
        data.load(str(path))


def write_with_member(path, name, content):
    np.savez(path, **{key: value for key, value in own_arrays().items() if key != name})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", content)


def test_own_file_whose_header_promises_more_than_there_is(tmp_path):
    # numpy.load would take 73 GB for this before it reads a byte.
    content = io.BytesIO()
    header = {"shape": (10**9, 8, 9), "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(content, header)
    write_with_member(tmp_path / "own.npz", "x_train", content.getvalue() + b"\0" * 72)
    with pytest.raises(DataError, match=r"takes 72,000,000,000 bytes, but holds 72; write"):
        data.load(str(tmp_path / "own.npz"))


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118])
def test_own_file_with_a_member_that_is_no_array(tmp_path, content):
    write_with_member(tmp_path / "own.npz", "x_train", content)
    with pytest.raises(DataError, match=r"x_train\.npy is not a numpy array"):
        data.load(str(tmp_path / "own.npz"))


def test_own_file_with_a_member_whose_name_is_no_text(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays(), **{"ü": np.zeros(1)})
    content = path.read_bytes()
    path.write_bytes(content.replace("ü".encode(), b"\xdd\xdd"))
    with pytest.raises(DataError, match=r"own\.npz: cannot be read .*truncated, damaged.*utf-8"):
        data.load(str(path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_own_file_of_another_compression_that_is_damaged(tmp_path, compression):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays())
    with zipfile.ZipFile(path) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    data.load(str(path))
    content = bytearray(path.read_bytes())
    at = content.index(b"x_train.npy") + len(b"x_train.npy")
    content[at : at + 12] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: cannot be read .*truncated, damaged"):
        data.load(str(path))


@hypothesis.settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4),
    kept=st.floats(0, 1) | st.just(1.0),
    compressed=st.booleans(),
)
def test_any_damage_to_an_own_file_is_one_kind_of_error_or_harmless(
    tmp_path, changes, kept, compressed
):
    path = tmp_path / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, **own_arrays())
    content = bytearray(path.read_bytes())
    for place, new in changes:
        at = int(place * (len(content) - len(new)))
        content[at : at + len(new)] = new
    path.write_bytes(content[: int(kept * len(content))])
    try:
        dataset = data.load(str(path))
    except DataError:
        return
    assert np.isfinite(dataset.x_train).all()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    arrays = own_arrays() | {"x_train": np.zeros((100_000, 8, 9), np.uint8)}
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **arrays)
    assert path.stat().st_size < 20_000
    monkeypatch.setenv("BNN_DATA_MAX_BYTES", "1000000")
    with pytest.raises(DataError, match=r"take 7,200,\d+ bytes, expected at most 1,000,000; if"):
        data.load(str(path))
    monkeypatch.setenv("BNN_DATA_MAX_BYTES", "1 GB")
    with pytest.raises(DataError, match="BNN_DATA_MAX_BYTES is '1 GB', expected a number"):
        data.load(str(path))


# --- the partition over ranks --------------------------------------------------------------------


@hypothesis.given(
    num_examples=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    ranks=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_uses_no_example_twice_and_leaves_out_less_than_a_global_batch(
    num_examples, batch_size, ranks, seed, epoch
):
    hypothesis.assume(batch_size * ranks <= num_examples)
    steps = data.steps_per_epoch(num_examples, batch_size, ranks)
    shards = [
        data.epoch_batches(num_examples, batch_size, ranks, rank, seed, epoch)
        for rank in range(ranks)
    ]
    assert {shard.shape for shard in shards} == {(steps, batch_size)}
    assert {shard.dtype for shard in shards} == {np.dtype(np.int32)}
    used = np.concatenate(shards).ravel()
    assert len(np.unique(used)) == len(used)
    assert 0 <= used.min() <= used.max() < num_examples
    assert 0 <= num_examples - len(used) < batch_size * ranks


def test_ranks_share_the_global_batches_of_one_rank():
    # The same examples meet in a step however many ranks share it: what ELBO tests compare.
    one = data.epoch_batches(1000, 24, 1, 0, seed=3, epoch=2)
    four = [data.epoch_batches(1000, 6, 4, rank, seed=3, epoch=2) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(four, axis=1), one)


def test_each_epoch_and_seed_has_its_own_order_and_leaves_out_another_part():
    def left_out(seed, epoch):
        used = [data.epoch_batches(107, 10, 2, rank, seed, epoch) for rank in range(2)]
        return frozenset(range(107)) - frozenset(np.concatenate(used).ravel().tolist())

    parts = [left_out(0, epoch) for epoch in range(50)]
    assert {len(part) for part in parts} == {7}
    assert len(set(parts)) == 50
    # An example is left out of an epoch with probability 7/107, and of all 50 almost never used.
    assert len(frozenset().union(*parts)) > 90
    assert left_out(1, 0) != left_out(0, 0)
    assert left_out(0, 1) != left_out(1, 0)  # the two are not simply added


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"batch_size": 51},
            "batch_size 51 x ranks 2 = 102 images is more than num_examples = 100",
        ),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"ranks": 0}, "ranks is 0, expected at least 1"),
        ({"num_examples": 0}, "num_examples is 0, expected at least 1"),
        ({"rank": 2}, r"rank is 2, expected 0\.\.1"),
        ({"rank": -1}, r"rank is -1, expected 0\.\.1"),
        ({"seed": -1}, "seed is -1"),
        ({"epoch": -1}, "epoch is -1"),
    ],
)
def test_epochs_that_cannot_be(changed, message):
    good = {"num_examples": 100, "batch_size": 5, "ranks": 2, "rank": 0, "seed": 0, "epoch": 0}
    with pytest.raises(DataError, match=message):
        data.epoch_batches(**good | changed)


# --- shifted evaluation sets ---------------------------------------------------------------------


def as_float(dataset):
    """The same images as floating numbers in 0..1."""
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train.astype(np.float32) / 255,
        x_test=dataset.x_test.astype(np.float32) / 255,
        scale=1.0,
    )


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
    before = digest(real_images.x_test)
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
    assert digest(real_images.x_test) == before
    assert distances[0] > 1e-4
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize(
    "name", ["rotate-30", "translate-4", *(f"{c}-3" for c in data.CORRUPTIONS)]
)
def test_floating_images_are_shifted_like_bytes(dataset, name):
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
    images = np.full((data.CHUNK + 500, 28, 28, 1), 128, dtype=np.uint8)
    big = dataclasses.replace(constant, x_test=images, y_test=np.zeros(len(images), dtype=np.int64))
    noisy = data.evaluation_set(big, "gaussian_noise-1").images
    assert not np.array_equal(noisy[0], noisy[data.CHUNK])
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
    shifts = data.expand(["shifts"])
    assert len(shifts) == 15
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


# --- out of distribution -------------------------------------------------------------------------


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
    monkeypatch.setattr(data, "_canonical", lambda name, keys: {"x_test": red})
    assert np.unique(data.ood_set(dataset, "cifar10_grey").images).tolist() == [76]  # 0.299 x 255


def test_uniform_noise_fills_the_range(dataset):
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


def test_named_sets_are_brought_to_the_range_of_floating_images(bnn_data):
    tiny = data.load("tiny")
    floating = dataclasses.replace(as_float(tiny), x_train=as_float(tiny).x_train * 4 - 2)
    made = data.ood_set(floating, "kmnist").images
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, data.ood_set(tiny, "kmnist").images / 255 * 4 - 2, atol=1e-5)


def test_fashion_mnist_from_idx_files(tmp_path, monkeypatch, empty_home):
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    monkeypatch.setitem(data.SHA256, "fashion_mnist", {"x_test": digest(images)})
    monkeypatch.setattr(data, "DEBIAN_DATA", tmp_path / "share")
    content = struct.pack(">4i", 2051, 10_000, 28, 28) + images.tobytes()
    for folder in (
        tmp_path / "share" / "dataset-fashion-mnist" / "data",
        empty_home / ".keras" / "datasets" / "fashion-mnist",
    ):
        folder.mkdir(parents=True)
        path = folder / data.FASHION_MNIST_FILE
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
    monkeypatch.setattr(data, "DEBIAN_DATA", tmp_path / "share")
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


def test_shifted_sets_do_not_depend_on_what_is_held_out(dataset):
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
