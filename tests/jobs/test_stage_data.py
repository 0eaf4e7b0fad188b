"""Data sets are brought to a cluster whole, or not at all."""

import sys

import numpy as np

from bnnlib import data
from jobs.local import stage_data


def test_a_staged_set_is_the_verified_one(bnn_data, tmp_path, monkeypatch, capsys):
    before = data.load("mnist")
    monkeypatch.setattr(sys, "argv", ["stage_data.py", str(tmp_path / "new"), "mnist"])
    assert stage_data.main() == 0
    told = capsys.readouterr().out
    assert f"{tmp_path / 'new' / 'mnist.npz'}: verified" in told
    assert f"export BNN_DATA={tmp_path / 'new'}" in told
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "new"))
    after = data.load("mnist")
    np.testing.assert_array_equal(after.x_test, before.x_test)
    np.testing.assert_array_equal(after.y_train, before.y_train)


def test_a_set_that_is_not_the_published_one_is_not_staged(tmp_path, monkeypatch, capsys):
    wrong = np.zeros((2, 28, 28), np.uint8)
    labels = np.zeros(2, np.int64)
    arrays = {"x_train": wrong, "y_train": labels, "x_test": wrong, "y_test": labels}
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["stage_data.py", str(tmp_path / "new"), "mnist"])
    assert stage_data.main() == 1
    assert "mnist: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
