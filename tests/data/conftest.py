"""Fixtures that several test modules of the room need."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import pytest

from bnnlib import data


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


class Malicious:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def malicious(tmp_path):
    """An object that must never be unpickled; the test fails if it was."""
    mark = tmp_path / "ran"
    yield Malicious(mark)
    assert not mark.exists()


@pytest.fixture
def as_float():
    """Gives a data set's images as floating numbers in 0..1."""

    def convert(dataset):
        return dataclasses.replace(
            dataset,
            x_train=dataset.x_train.astype(np.float32) / 255,
            x_test=dataset.x_test.astype(np.float32) / 255,
            scale=1.0,
        )

    return convert
