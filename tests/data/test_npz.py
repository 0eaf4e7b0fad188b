"""The user's own file: what is taken, and what every kind of damage ends in."""

import io
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from bnnlib import data
from bnnlib.data import npz
from bnnlib.errors import DataError


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
    loaded = data.load(str(path), subtract_mean=True)
    assert loaded.name == str(path)
    assert loaded.image_shape == (8, 9, 1)
    # Class 2 has no example at all, and class 4 none to train on.
    assert (loaded.num_classes, loaded.scale) == (5, 1 / 255)
    np.testing.assert_array_equal(loaded.x_train[..., 0], arrays["x_train"])
    assert loaded.mean_image is not None
    np.testing.assert_allclose(
        loaded.mean_image[..., 0], arrays["x_train"].mean(axis=0) / 255, rtol=1e-6
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
    loaded = data.load(str(path))
    assert loaded.x_train.dtype == np.float32
    assert loaded.scale == 1.0
    assert loaded.image_shape == (8, 9, 3)
    assert loaded.y_train.tolist() == [0, 1, 3, 0, 1, 3]
    assert loaded.pixel_range == (
        np.float32(min(arrays["x_train"].min(), arrays["x_test"].min())),
        np.float32(max(arrays["x_train"].max(), arrays["x_test"].max())),
    )


def test_wide_integers_in_the_range_of_bytes_are_bytes(tmp_path):
    arrays = own_arrays()
    wide = arrays | {key: arrays[key].astype(np.int64) for key in ("x_train", "x_test")}
    np.savez(tmp_path / "own.npz", **wide)
    loaded = data.load(str(tmp_path / "own.npz"))
    assert loaded.x_test.dtype == np.uint8
    np.testing.assert_array_equal(loaded.x_test[..., 0], arrays["x_test"])


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
        ({"x_train": np.ones((6, 8, 9))}, "of float32 and x_test .* of uint8; expected the same"),
        (
            {"x_test": np.full((3, 9, 9), 255, np.uint8)},
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


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/own.npz", "home directory of that user is not known"),
        ("own" * 100 + ".npz", "cannot be looked for .*too long"),
    ],
)
def test_paths_that_no_file_can_have(monkeypatch, path, message):
    with pytest.raises(DataError, match=message):
        data.load(path)
    with pytest.raises(DataError, match=message):
        data.ood_set(data.load("tiny"), path)
    monkeypatch.setenv("BNN_DATA", path)
    for name in ("svhn", "mnist"):
        with pytest.raises(DataError, match=message):
            data.ood_set(data.load("tiny"), name)


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


def test_pickles_in_an_own_file_are_never_run(tmp_path, malicious):
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays() | {"y_test": np.array([malicious], dtype=object)})
    with pytest.raises(DataError, match=r"own\.npz: y_test\.npy holds Python objects"):
        data.load(str(path))


# ------------------------------------------------------------------------------ images to predict


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["x", "images", "x_test"], "x"),
        (["y", "x_test", "images"], "images"),
        (["x_train", "y_train", "x_test", "y_test"], "x_test"),
        (["pictures"], "pictures"),
    ],
)
def test_which_array_of_a_file_holds_the_images(tmp_path, names, taken):
    arrays = {name: np.full((2, 3, 3), number) for number, name in enumerate(names)}
    np.savez(tmp_path / "some.npz", **arrays)
    assert np.array_equal(npz.read_images(tmp_path / "some.npz"), arrays[taken])


def test_a_bare_array_is_the_images(tmp_path):
    images = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.save(tmp_path / "some.npy", images)
    read = npz.read_images(tmp_path / "some.npy")
    assert np.array_equal(read, images)
    assert read.dtype == np.uint8


def test_images_that_cannot_be_told_or_read_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(DataError, match=r"two\.npz: has a, b, of which none is called x, images"):
        npz.read_images(tmp_path / "two.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"none\.npz: has no x"):
        npz.read_images(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"missing\.npz: no such file"):
        npz.read_images(tmp_path / "missing.npz")
    with pytest.raises(DataError, match="is a folder"):
        npz.read_images(tmp_path)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(DataError, match=r"text\.npy is not a numpy array"):
        npz.read_images(tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy holds Python objects, which are never unp"):
        npz.read_images(tmp_path / "objects.npy")
    np.save(tmp_path / "cut.npy", np.zeros(100))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cut\.npy says that it has shape"):
        npz.read_images(tmp_path / "cut.npy")
    content = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(content[:40] + b"\xff" * 9 + content[49:])
    with pytest.raises(DataError, match=r"damaged\.npz"):
        npz.read_images(tmp_path / "damaged.npz")
