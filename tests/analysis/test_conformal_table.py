"""The table of conformal sets against each run's arrays, and without images held out."""

import math

import numpy as np
import pytest

from bnnlib import metrics
from bnnlib.analysis import tables
from tests.analysis.records import random_probs, write_run

LABELS = np.arange(40) % 3


@pytest.fixture
def group(tmp_path):
    for seed in (0, 1):
        probs = {name: random_probs(10 * seed + place) for place, name in enumerate("th")}
        sets = {"test": (probs["t"], LABELS), "holdout": (probs["h"], LABELS[::-1])}
        write_run(tmp_path / f"c{seed}", "CNN_FC", seed, sets)
    write_run(tmp_path / "b", "BNN_FC_flip", 0, {"test": (random_probs(5), LABELS)})
    return tables.Group(tmp_path)


def test_each_run_and_ensemble_with_images_held_out_has_its_rows(group):
    predictions, held_out = group.predictions(), group.predictions("holdout")
    table = tables.conformal(predictions, held_out, alpha=0.3)
    assert len(table) == 3 * 3 * 4  # two runs and their ensemble, three methods, all and 3 classes
    assert set(table.model) == {"CNN_FC", "CNN_FC ensemble(2)"}
    one, theirs = predictions[1], held_out[0]
    assert (one.model, one.run) == (theirs.model, theirs.run)
    for method in metrics.CONFORMAL_METHODS:
        arrays = one.mean_probs, theirs.mean_probs, theirs.labels
        sets, threshold = metrics.conformal_sets(*arrays, method, alpha=0.3)
        rows = table[(table.run == one.run) & (table.method == method)].set_index("class")
        assert rows.threshold.tolist() == [threshold] * 4
        for name, images in [
            ("all", LABELS >= 0),
            *((label, label == LABELS) for label in range(3)),
        ]:
            row = rows.loc[name]
            assert row.num_images == images.sum()
            right = sets[images, LABELS[images]]
            assert row.coverage == pytest.approx(right.mean())
            assert row.set_size == pytest.approx(sets[images].sum(axis=1).mean())


def test_too_few_images_held_out_show_as_an_infinite_threshold(group):
    table = tables.conformal(group.predictions(), group.predictions("holdout"), alpha=0.01)
    assert (table.threshold == math.inf).all()
    assert (table.set_size == 3).all()


def test_without_images_held_out_the_table_is_empty(group):
    assert tables.conformal(group.predictions(), []).empty
