"""Fixtures that several test modules need."""

import os
import pathlib

import pytest

import bnnlib  # noqa: F401  chooses Keras 2, before a test module imports TensorFlow

BESIDE_THE_REPOSITORY = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def bnn_data(monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder with the real data sets, in BNN_DATA; a test that needs it is skipped without."""
    folder = pathlib.Path(os.environ.get("BNN_DATA") or BESIDE_THE_REPOSITORY)
    if not folder.is_dir():
        pytest.skip(f"no real data: BNN_DATA is not set to a folder and {folder} is none")
    monkeypatch.setenv("BNN_DATA", str(folder))
    return folder
