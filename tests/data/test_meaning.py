"""What a user's arrays mean is checked: range, layout and labels; and each error's advice works."""

import os

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data.sources import canonical
from bnnlib.errors import DataError
from bnnlib.experiment import Experiment

TINY = data.load("tiny")
COLOUR = data.load("tiny_cifar10")
NAMES = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture
def load(tmp_path):
    """Writes the arrays, those of `tiny` for the rest, and loads them as a run would."""

    def write_and_load(arrays=None, **parameters):
        given = {name: getattr(TINY, name) for name in NAMES} | (arrays or {})
        np.savez(tmp_path / "own.npz", **given)
        experiment = Experiment(dataset=str(tmp_path / "own.npz"), **parameters)
        return data.load_for(experiment)

    return write_and_load


def images(change, dataset=TINY):
    """All four arrays, the images changed."""
    arrays = {name: getattr(dataset, name) for name in NAMES}
    return arrays | {name: change(arrays[name]) for name in ("x_train", "x_test")}


def refused(load, arrays, *advice, **parameters):
    """The error's text, which must hold the advice."""
    with pytest.raises(DataError) as error:
        load(arrays, **parameters)
    text = str(error.value)
    assert "own.npz: " in text
    for part in advice:
        assert part in text
    return text


def inputs_of(dataset):
    """What a network is given."""
    return dataset.x_train.astype(np.float32) * np.float32(dataset.scale)


def assert_same(loaded, expected=TINY):
    """The networks' inputs and labels are those of the data set as it was meant."""
    np.testing.assert_allclose(inputs_of(loaded), inputs_of(expected), atol=1e-6)
    np.testing.assert_array_equal(loaded.y_train, expected.y_train)
    np.testing.assert_array_equal(loaded.y_test, expected.y_test)
    assert loaded.num_classes == expected.num_classes


# ---------------------------------------------------------------------------------- range and dtype


def test_bytes_of_zeros_and_ones_are_refused_until_their_range_is_told(load):
    binary = images(lambda x: (x > 127).astype(np.uint8))
    refused(load, binary, "integer pixels from 0 to 1", "pixel_range to 0..255", "or to 0..1")
    loaded = load(binary, pixel_range="0..1")
    np.testing.assert_array_equal(inputs_of(loaded), TINY.x_train > 127)
    assert loaded.pixel_range == (0.0, 1.0)
    dark = load(binary, pixel_range="0..255")
    assert (dark.x_train.dtype, inputs_of(dark).max()) == (np.uint8, np.float32(1 / 255))


def test_floats_up_to_255_are_refused_until_their_range_is_told(load):
    floats = images(lambda x: x.astype(np.float32))
    refused(load, floats, "floating pixels from 0 to 255", "to 0..255 for pixels that are divided")
    loaded = load(floats, pixel_range="0..255")
    assert_same(loaded)
    assert loaded.pixel_range == (0.0, 255.0)
    assert load(floats, pixel_range="any").scale == 1.0


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float32) / 255 / 255,  # divided twice
        lambda x: np.rint(x / 255.0 * 16),  # scikit-learn's digits: 0 to 16, as floats
        lambda x: np.rint(x / 255.0 * 15).astype(np.uint8),  # four bits
        lambda x: (x / 2).astype(np.int8),  # 0 to 127
        lambda x: x.astype(float) * 257,  # sixteen bits
        lambda x: x.astype(float) - 127.5,  # centred, not standardized
    ],
    ids=["divided twice", "0 to 16", "four bits", "int8", "sixteen bits", "centred"],
)
def test_other_ranges_in_doubt_are_refused_and_any_takes_them_as_they_are(load, change):
    arrays = images(change)
    text = refused(load, arrays, "set the parameter pixel_range to ")
    told = "0..1" if "0..1 for pixels" in text else "any"
    loaded = load(arrays, pixel_range=told)
    np.testing.assert_allclose(inputs_of(loaded), arrays["x_train"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "dtype"),
    [
        (lambda x: x, np.uint8),
        (lambda x: x.astype(np.int64), np.uint8),
        (lambda x: x / 255.0, np.float32),
        (lambda x: x.astype(np.float16) / 255, np.float32),
        (lambda x: x / 127.5 - 1, np.float32),
        (lambda x: (x - TINY.x_train.mean()) / TINY.x_train.std(), np.float32),
    ],
)
def test_what_is_clear_needs_no_parameter(load, change, dtype):
    loaded = load(images(change))
    assert loaded.x_train.dtype == loaded.x_test.dtype == dtype


def test_train_and_test_images_of_two_ranges_are_refused(load):
    """The test images were forgotten when the training images were prepared, or the other way."""
    forgotten = {"x_train": TINY.x_train / 127.5 - 1, "x_test": TINY.x_test / 255.0}
    refused(load, forgotten, "x_test from 0 to 1", "Prepare both alike")
    load({name: getattr(TINY, name) / 127.5 - 1 for name in ("x_train", "x_test")})
    load(forgotten, pixel_range="any")
    cast = {"x_test": (TINY.x_test / 255.0).astype(np.uint8)}
    refused(load, cast, "x_test has integer pixels from 0 to 1")
    mixed = {"x_train": TINY.x_train / 255.0}
    refused(load, mixed, "x_train has images (28, 28, 1) of float32", "Prepare both alike")
    load(mixed | {"x_test": TINY.x_test / 255.0})


def test_what_the_user_says_is_held_against_the_values(load):
    refused(load, {}, "expected 0..1 as the parameter pixel_range says", pixel_range="0..1")
    below = images(lambda x: x.astype(float) - 1)
    refused(load, below, "from -1 to 254, expected 0..255", "or to any", pixel_range="0..255")
    load(below, pixel_range="any")
    assert_same(load({}, pixel_range="0..255"))


def test_integers_beyond_bytes_follow_their_advice(load):
    wide = images(lambda x: x.astype(np.uint16) * 257)
    refused(load, wide, "divide them by the greatest value", "store floating numbers in 0..1")
    assert_same(load(images(lambda x: x.astype(np.uint16) * 257 / 65535)))


def test_bools_follow_their_advice(load):
    bools = images(lambda x: x > 127)
    refused(load, bools, "of type bool", "convert it with astype(numpy.float32)")
    loaded = load(images(lambda x: (x > 127).astype(np.float32)))
    np.testing.assert_array_equal(inputs_of(loaded), TINY.x_train > 127)


def test_pixels_that_are_not_finite_are_replaced_or_dropped(load):
    broken = TINY.x_train / 255.0
    broken[3, 5, 5] = np.nan
    arrays = {"x_train": broken, "x_test": TINY.x_test / 255.0}
    refused(load, arrays, "1 pixels that are not finite", "replace or drop them")
    load(arrays | {"x_train": np.nan_to_num(broken)})
    kept = np.isfinite(broken).all(axis=(1, 2, 3))
    assert (
        len(load(arrays | {"x_train": broken[kept], "y_train": TINY.y_train[kept]}).x_train) == 255
    )


# ---------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("dataset", [TINY, COLOUR], ids=["grey", "colour"])
def test_channels_first_are_refused_until_they_are_told(load, dataset):
    first = images(lambda x: np.moveaxis(x, -1, 1), dataset)
    refused(load, first, "does not tell where the channels stand", "channels to first for (n, chan")
    assert_same(load(first, channels="first"), dataset)
    assert load(first, channels="last").image_shape == first["x_train"].shape[1:]


def test_many_channels_stand_where_the_images_are_square(load):
    bands = images(lambda x: np.repeat(x, 13, axis=-1))
    assert load(bands).image_shape == (28, 28, 13)
    refused(load, images(lambda x: np.moveaxis(np.repeat(x, 13, axis=-1), -1, 1)), "channels")


@pytest.mark.parametrize("shape", [(-1, 3, 3, 3), (-1, 4, 4, 1), (-1, 28, 28, 28)])
def test_shapes_that_mean_two_things_are_refused(load, shape):
    size = int(np.prod(shape[1:]))
    few = {
        "x_train": np.resize(TINY.x_train, (4, size)).reshape(shape),
        "x_test": np.resize(TINY.x_test, (4, size)).reshape(shape),
        "y_train": np.array([0, 1, 0, 1]),
        "y_test": np.array([0, 1, 0, 1]),
    }
    refused(load, few, "does not tell where the channels stand")
    assert load(few, channels="last").image_shape == shape[1:]
    assert load(few, channels="first").image_shape == (shape[2], shape[3], shape[1])


@pytest.mark.parametrize("shape", [(-1, 784, 1), (-1, 1, 784), (-1, 784, 1, 1), (-1, 784)])
def test_flattened_images_follow_their_advice(load, shape):
    flat = images(lambda x: x.reshape(shape))
    refused(load, flat, "reshape it" if len(shape) < 4 else "channels")
    assert_same(load(images(lambda x: x.reshape(shape).reshape(-1, 28, 28))))


@pytest.mark.parametrize("dataset", [TINY, COLOUR], ids=["grey", "colour"])
def test_images_along_the_last_axis_follow_their_advice(load, dataset):
    """As MATLAB's files have them, and SVHN's."""
    last = images(lambda x: np.moveaxis(x, 0, -1), dataset)
    refused(load, last, "expected images along the first axis", "numpy.moveaxis(images, -1, 0)")
    assert_same(load(images(lambda x: np.moveaxis(np.moveaxis(x, 0, -1), -1, 0), dataset)), dataset)


def test_what_the_user_says_of_the_axes_is_recorded_with_the_run(load):
    told = Experiment(channels="first", pixel_range="0..1").to_dict()
    assert (told["channels"], told["pixel_range"]) == ("first", "0..1")


# ---------------------------------------------------------------------------------------- labels

TEXT = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def both(change):
    return {"y_train": change(TINY.y_train), "y_test": change(TINY.y_test)}


@pytest.mark.parametrize(
    ("change", "advice", "follow"),
    [
        (lambda y: np.eye(10)[y], "take the argmax over the last axis", lambda y: y.argmax(-1)),
        (lambda y: np.eye(10, dtype=bool)[y], "take the argmax", lambda y: y.argmax(-1)),
        (lambda y: y.astype(float), "convert them with astype(int)", lambda y: y.astype(int)),
        (lambda y: y - 1, "renumber the classes from 0, alike", lambda y: y + 1),
        (lambda y: y + 2**40, "renumber the classes from 0, alike", lambda y: y - 2**40),
    ],
    ids=["one-hot", "one-hot bools", "floats", "from minus one", "large identifiers"],
)
def test_the_advice_on_labels_gives_the_labels(load, change, advice, follow):
    refused(load, both(change), advice)
    assert_same(load(both(lambda y: follow(change(y)))))


def test_names_of_classes_are_numbered_alike_in_both_sets(load):
    refused(load, both(lambda y: TEXT[y]), "number the classes from 0, alike in y_train and y_test")
    names, numbers = np.unique(np.concatenate([TEXT[TINY.y_train], TEXT[TINY.y_test]]), False, True)
    loaded = load({"y_train": numbers[:256], "y_test": numbers[256:]})
    np.testing.assert_array_equal(names[loaded.y_test], TEXT[TINY.y_test])


def test_votes_are_no_one_hot_labels(load):
    votes = both(lambda y: 0.8 * np.eye(10)[y] + 0.02)
    assert "argmax" not in refused(load, votes, "expected (256,) or (256, 1), a class number an im")


def votes_of(labels, num_classes=10):
    """What annotators make of the images of some labels: most agree, one in ten chooses at will."""
    rng = np.random.default_rng(0)
    return 0.9 * np.eye(num_classes)[labels] + 0.1 * rng.dirichlet(
        np.ones(num_classes), len(labels)
    )


def test_annotators_distributions_of_the_test_images_are_kept_beside_their_modal_classes(load):
    votes = votes_of(TINY.y_test)
    loaded = load({"y_test": votes}, holdout=0.25)
    np.testing.assert_array_equal(loaded.y_test, TINY.y_test)
    np.testing.assert_allclose(loaded.soft_test, votes, atol=1e-7)
    assert (loaded.soft_test.dtype, loaded.y_test.dtype) == (np.float32, np.int64)
    assert loaded.num_classes == 10
    assert load().soft_test is None
    # A class that no label has but some annotator might have chosen.
    assert load({"y_test": votes_of(TINY.y_test, 12)}).num_classes == 12
    # The sets made of the test images have what annotators saw before; the others have nothing.
    for name in ("test", "rotate-30"):
        assert data.evaluation_set(loaded, name).soft_labels is loaded.soft_test
    assert data.evaluation_set(loaded, "train").soft_labels is None
    assert data.content(loaded)["arrays"]["soft_test"]["shape"] == [64, 10]
    assert "soft_test" not in data.content(load())["arrays"]


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda votes: 51 * votes, ("y_test sums to 51 in row", "divide each row by its sum")),
        (
            lambda votes: np.rint(51 * votes).astype(int),
            ("y_test sums to", "divide each row by its"),
        ),
        (lambda votes: votes - 0.2, ("negative value", "the share of annotators that chose each")),
        (lambda votes: votes * [[np.nan] + [1.0] * 9], ("y_test has a value that is not finite",)),
        (lambda votes: votes[1:], ("shape (63, 10), expected (64, num_classes) with 10 classes",)),
        (
            lambda votes: votes[:, 1:],
            ("shape (64, 9), expected (64, num_classes) with 10 classes",),
        ),
    ],
    ids=["sums", "counts", "negative", "not finite", "images", "classes"],
)
def test_annotators_distributions_that_are_none_are_refused(load, change, advice):
    refused(load, {"y_test": change(votes_of(TINY.y_test))}, *advice)


def test_training_takes_one_class_an_image(load):
    refused(
        load,
        {"y_train": votes_of(TINY.y_train)},
        "y_train has shape (256, 10)",
        "take the class that most chose; y_test alone may hold",
    )


def test_a_column_of_labels_is_taken(load):
    assert_same(load(both(lambda y: y[:, None])))


# --------------------------------------------------------------------- sets out of distribution


def test_a_set_out_of_distribution_is_read_as_its_data_set_is(load, tmp_path):
    path = str(tmp_path / "outside.npz")
    unit = load(images(lambda x: x / 255.0))

    np.savez(path, x_test=TINY.x_test.astype(np.float32))
    with pytest.raises(DataError, match="floating pixels from 0 to 255"):
        data.ood_set(unit, path)
    np.savez(path, x_test=TINY.x_test / 127.5 - 1)
    with pytest.raises(DataError, match="x_test has pixels from -1 to 1, expected 0 to 1 or so"):
        data.ood_set(unit, path)
    np.savez(path, x_test=TINY.x_test / 255.0)
    assert data.ood_set(unit, path).images.max() == 1.0

    np.savez(path, x_test=np.moveaxis(COLOUR.x_test, -1, 1))
    with pytest.raises(DataError, match="set the parameter channels to first"):
        data.ood_set(data.load("tiny_cifar10"), path)
    told = data.load("tiny_cifar10", channels="first")
    np.testing.assert_array_equal(data.ood_set(told, path).images, COLOUR.x_test)

    np.savez(path, x_test=TINY.x_test / 255.0)
    with pytest.raises(DataError, match=r"expected \(28, 28, 1\) of uint8 .*; convert them"):
        data.ood_set(TINY, path)
    np.savez(path, x_test=np.rint(TINY.x_test / 255.0 * 255).astype(np.uint8))
    np.testing.assert_array_equal(data.ood_set(TINY, path).images, TINY.x_test)
    os.rename(path, tmp_path / "kmnist.npz")
    with pytest.raises(DataError, match="rename the file"):
        data.ood_set(TINY, str(tmp_path / "kmnist.npz"))
    os.rename(tmp_path / "kmnist.npz", path)
    assert data.ood_set(TINY, path).name == "outside"


def test_told_ranges_reach_shifts_and_noise(load):
    binary = load(images(lambda x: (x > 127).astype(np.uint8)), pixel_range="0..1")
    shifted = data.evaluation_set(binary, "gaussian_noise-3").images
    assert (shifted > 0).any()
    assert ((shifted > 0) & (shifted < 1)).any()
    assert shifted.max() <= 1
    noise = data.ood_set(binary, "uniform_noise").images
    assert 0.9 < noise.max() <= 1.0
    floats = load(images(lambda x: x.astype(np.float32)), pixel_range="0..255")
    assert data.ood_set(floats, "uniform_noise").images.max() > 250


def test_colours_beyond_three_channels_want_a_file_of_the_users(load, tmp_path):
    four = load(images(lambda x: np.repeat(x, 4, axis=-1)))
    os.environ["BNN_DATA"] = str(tmp_path)
    np.savez(tmp_path / "svhn_test.npz", x_test=COLOUR.x_test)
    with pytest.raises(DataError, match=r"give a \.npz file of your own with x_test"):
        data.ood_set(four, "svhn")
    np.savez(tmp_path / "mine.npz", x_test=np.repeat(TINY.x_test, 4, axis=-1))
    assert data.ood_set(four, str(tmp_path / "mine.npz")).images.shape[-1] == 4


def test_a_data_sets_own_images_are_not_foreign_and_another_set_is(bnn_data):
    with pytest.raises(DataError, match="take another set, such as fashion_mnist"):
        data.ood_set(data.load("digits"), "mnist")
    assert len(data.ood_set(data.load("digits"), "fashion_mnist").images) == 1000


# ------------------------------------------------------------------------------ the file as a whole


def test_the_advice_on_files_gives_the_data(load, tmp_path, monkeypatch):
    path = str(tmp_path / "own.npz")
    with pytest.raises(DataError, match=r"no such file.*numpy.savez_compressed\(path, x_train=…"):
        data.load(path)
    np.savez_compressed(path, **{name: getattr(TINY, name) for name in NAMES})
    assert_same(data.load(path))

    monkeypatch.setenv("BNN_DATA_MAX_BYTES", "1000")
    with pytest.raises(DataError, match="set BNN_DATA_MAX_BYTES to more"):
        data.load(path)
    monkeypatch.setenv("BNN_DATA_MAX_BYTES", "8 GiB")
    with pytest.raises(DataError, match="a number of bytes such as 8589934592"):
        data.load(path)
    monkeypatch.setenv("BNN_DATA_MAX_BYTES", "8589934592")
    assert_same(data.load(path))

    ragged = np.empty(256, object)
    ragged[:] = [image[: 20 + number % 2] for number, image in enumerate(TINY.x_train)]
    refused(load, {"x_train": ragged}, "images of different shapes give objects")
    same = np.array([image[:20] for image in ragged])
    load({"x_train": same, "x_test": TINY.x_test[:, :20]})


def test_a_home_that_is_not_known_wants_a_path(load, tmp_path):
    load()
    with pytest.raises(DataError, match=r"expected a path such as /data/images\.npz"):
        data.load("~nobody-of-this-name/own.npz")
    assert_same(data.load(str(tmp_path / "own.npz")))


def test_a_set_that_is_missing_or_damaged_is_put_where_the_error_says(bnn_data, tmp_path):
    arrays = canonical("mnist", NAMES)
    os.environ["BNN_DATA"] = str(tmp_path)
    np.savez(tmp_path / "mnist.npz", **arrays | {"y_test": arrays["y_test"][::-1]})
    with pytest.raises(DataError, match=r"put a mnist\.npz with x_train, y_train"):
        data.load("mnist")
    keras = {name: array[..., 0] if name[0] == "x" else array for name, array in arrays.items()}
    np.savez(tmp_path / "mnist.npz", **keras)
    np.testing.assert_array_equal(data.load("mnist").y_test, arrays["y_test"])
    with pytest.raises(
        DataError, match=r"Put a svhn_test\.npz with the test images \(uint8\) as x"
    ):
        data.ood_set(TINY, "svhn")
    np.savez(tmp_path / "svhn_test.npz", x_test=COLOUR.x_test)
    assert data.ood_set(TINY, "svhn").images.shape == (64, 28, 28, 1)


@pytest.mark.parametrize(
    ("action", "advice", "followed"),
    [
        (lambda: data.load("tinny"), "did you mean 'tiny'", lambda: data.load("tiny")),
        (lambda: data.split(TINY, 0.001), "hold out more", lambda: data.split(TINY, 0.1)),
        (
            lambda: data.split(data.split(TINY, 0.1), 0.1),
            "split the whole set once",
            lambda: data.split(TINY, 0.2),
        ),
        (
            lambda: data.steps_per_epoch(256, 100, 4),
            "use a smaller batch_size or fewer ranks",
            lambda: (data.steps_per_epoch(256, 64, 4), data.steps_per_epoch(256, 100, 2)),
        ),
        (
            lambda: data.evaluation_set(TINY, "rotate-30.5"),
            "as in rotate-30",
            lambda: data.evaluation_set(TINY, "rotate-30"),
        ),
        (
            lambda: data.evaluation_set(TINY, "rotations"),
            "expand it first",
            lambda: [data.evaluation_set(TINY, one) for one in data.expand(["rotations"])],
        ),
        (
            lambda: data.evaluation_set(TINY, "translate-28"),
            "translate-0 to translate-27",
            lambda: data.evaluation_set(TINY, "translate-27"),
        ),
        (
            lambda: data.ood_set(TINY, "uniform_nois"),
            "did you mean 'uniform_noise'",
            lambda: data.ood_set(TINY, "uniform_noise"),
        ),
    ],
)
def test_the_advice_on_names_and_numbers_works(action, advice, followed):
    with pytest.raises(DataError) as error:
        action()
    assert advice in str(error.value)
    followed()
