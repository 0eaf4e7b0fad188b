"""Where a notebook's paths start, whoever runs it."""

from pathlib import Path

import pytest

from bnnlib import launcher
from bnnlib.interactive import place


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """The notebooks' folder of a repository, where JupyterLab starts their kernels."""
    (tmp_path / "jobs" / "local").mkdir(parents=True)
    (tmp_path / place.SITE).touch()
    (folder := tmp_path / "notebooks").mkdir()
    monkeypatch.delenv(launcher.PAPERMILL_VARIABLE, raising=False)
    monkeypatch.chdir(folder)
    return folder


def test_in_jupyterlab_paths_are_from_the_repository(notebooks):
    for _ in range(2):  # as when the cell is run again
        place.settle_paths()
        assert Path.cwd() == notebooks.parent


def test_papermill_and_a_folder_of_no_repository_are_left_as_they_are(notebooks, monkeypatch):
    monkeypatch.setenv(launcher.PAPERMILL_VARIABLE, "1")
    place.settle_paths()
    assert Path.cwd() == notebooks
    monkeypatch.delenv(launcher.PAPERMILL_VARIABLE)
    (notebooks.parent / place.SITE).unlink()
    place.settle_paths()
    assert Path.cwd() == notebooks
