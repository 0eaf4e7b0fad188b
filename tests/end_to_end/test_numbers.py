"""The figures in the repository are of this code: a fixed seed still gives their numbers."""

import numpy as np
import pandas as pd

from bnnlib.analysis import runs
from jobs.local.publish import NUMBERS
from tests.conftest import ROOT

FIGURES = ROOT / "figures" / "digits"
# Processors add in other orders; after two epochs on tiny data that is far below this. Another draw
# of the weights changes the NLL by some hundredths.
TOLERANCE = 2e-3


def test_the_tiny_study_gives_the_numbers_of_the_published_figures(study):
    published = pd.read_csv(FIGURES / "numbers.csv").set_index("run_id").sort_index()
    now = runs.load(study.runs)[NUMBERS].set_index("run_id").sort_index()
    assert list(now.index) == list(published.index)
    far = ~np.isclose(now, published, rtol=TOLERANCE, equal_nan=True)
    changed = [f"{run}: {name}" for run, name in zip(*_names(now, far), strict=True)]
    assert not changed, (
        f"{', '.join(changed)} differ from figures/digits/numbers.csv, so figures/digits are of "
        "older code. Where the change is meant, commit it, and renew them in a fresh clone by "
        "`make publish`."
    )


def _names(table, where):
    rows, columns = np.nonzero(where)
    return table.index[rows], table.columns[columns]
