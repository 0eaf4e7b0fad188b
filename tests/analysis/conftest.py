"""A group of records for the tests of its tables and figures."""

import numpy as np
import pytest

from tests.analysis.records import random_probs, write_run


@pytest.fixture
def runs(tmp_path):
    """Two seeds of CNN_FC, one run of it with dropout and one of BNN_FC_flip, with all sets."""
    labels = np.random.default_rng(0).integers(0, 3, 40)

    def sets(seed, draws=None):
        names = ["test", "holdout", "rotate-30", "noise"]
        return {
            name: (random_probs([seed, i], num_draws=draws), None if name == "noise" else labels)
            for i, name in enumerate(names)
        }

    write_run(tmp_path / "g" / "a0", "CNN_FC", 0, sets(0))
    write_run(tmp_path / "g" / "a1", "CNN_FC", 1, sets(1))
    write_run(tmp_path / "g" / "ad", "CNN_FC", 0, sets(2, 4), dropout=0.1)
    write_run(tmp_path / "g" / "b0", "BNN_FC_flip", 0, sets(3, 4))
    return tmp_path / "g"
