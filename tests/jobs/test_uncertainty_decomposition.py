"""What networks are unsure of: the images that they are asked about, and the split itself."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bnnlib import data, metrics
from bnnlib.record import read_predictions
from jobs.bench import uncertainty_decomposition as bench
from tests.conftest import ROOT

STUDY = """
ranks: 1
common: {dataset: tiny, threads: 1, batch_size: 16, steps: 8, test_draws: 50}
parts:
- group: ensemble
  grid: {model: CNN_FC, train_images: 40, seed: [0, 1, 2, 3, 4], train_images_seed: 7}
- group: ensemble
  grid: {model: CNN_FC, train_images: 60, seed: 0}
- group: mean_field
  grid: {model: BNN_FC_nonflip, train_images: 40, seed: 3}
"""
# The runs of the study, and twice what `make reproduce` does then, on tiny's images.
MAKE = """
import sys
from pathlib import Path
from bnnlib import data
from bnnlib.launch import here
from jobs.bench.uncertainty_decomposition import Judged, measure
folder = Path(sys.argv[1])
here.train_all(here.read(folder / "study.yaml", folder / "runs"))
test = data.evaluation_set(data.load("tiny"), "test")
judged = [Judged("clean", "test", test.images, test.labels),
          Judged("far", "dark", test.images // 9, None)]
for _ in range(2):
    print(*measure(folder / "runs", folder / "uncertainties.csv", judged), sep="\\n", flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of seven tiny runs and their table, and what was said."""
    folder = tmp_path_factory.mktemp("uncertainty")
    (folder / "study.yaml").write_text(STUDY)
    words = [sys.executable, "-c", MAKE, folder]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def of_test(directory):
    return read_predictions(directory)[0]


def test_a_network_and_a_whole_ensemble_have_their_rows_once(made):
    folder, said = made
    table = pd.read_csv(folder / "uncertainties.csv")
    assert [*table.columns] == [*bench.COLUMNS]
    rows = table[["method", "train_images", "seed", "kind", "draws"]].to_numpy().tolist()
    assert rows == [
        ["BNN_FC_nonflip", 40, 3, "clean", 50],
        ["BNN_FC_nonflip", 40, 3, "far", 50],
        ["ensemble", 40, 7, "clean", 5],
        ["ensemble", 40, 7, "far", 5],
    ]  # the one twin of 60 images is no ensemble
    assert said.count("CPU seconds") == 2


def test_the_parts_are_those_of_the_runs_own_predictions(made):
    folder, _ = made
    table = pd.read_csv(folder / "uncertainties.csv").set_index(["method", "kind"])
    one = of_test(next((folder / "runs/mean_field").iterdir()))
    row = table.loc["BNN_FC_nonflip", "clean"]
    assert row.entropy == pytest.approx(metrics.predictive_entropy(one.mean_probs).mean(), rel=1e-4)
    assert row.aleatoric == pytest.approx(one.expected_entropy.mean(), rel=1e-4)
    folders = (folder / "runs/ensemble").glob("*=40-*")
    members = np.array([of_test(path).mean_probs for path in folders], np.float64)
    each = -np.where(members > 0, members * np.log(np.maximum(members, 1e-300)), 0.0).sum(axis=2)
    mean = members.mean(axis=0)
    whole = -(mean * np.log(mean)).sum(axis=1)
    row = table.loc["ensemble", "clean"]
    assert len(members) == 5
    assert row.aleatoric == pytest.approx(each.mean(), rel=1e-4)
    assert row.epistemic == pytest.approx((whole - each.mean(axis=0)).mean(), rel=1e-3)
    labels = data.load("tiny").y_test
    assert row.accuracy == pytest.approx((mean.argmax(axis=1) == labels).mean())
    assert 0 <= table.loc["ensemble", "far"].auroc_epistemic <= 1


def test_a_mixture_is_of_two_classes_and_ends_at_either_image():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * 40
    labels = np.array([0, 0, 1, 1, 2, 2])
    made = bench.mixtures(images, labels, (0.0, 0.25, 0.5, 1.0))
    np.testing.assert_array_equal(made[0.0], images)
    others = made[1.0][:, 0, 0, 0] // 40
    assert (labels[others] != labels).all()
    for share in (0.25, 0.5):
        mixed = (1 - share) * images + share * made[1.0]
        np.testing.assert_array_equal(made[share], np.rint(mixed))
    again = bench.mixtures(images, labels, (1.0,))
    np.testing.assert_array_equal(again[1.0], made[1.0])


def test_the_sets_begin_with_the_clean_images_and_hold_every_kind():
    digits = data.load("digits")
    made = bench.sets(digits, ["uniform_noise"])
    assert [one.kind for one in made] == ["clean", *["rotated"] * 13, *["mixed"] * 11, ""]
    turned = {one.value: one for one in made if one.kind == "rotated"}
    mixed = {one.value: one for one in made if one.kind == "mixed"}
    np.testing.assert_array_equal(turned["0"].images, mixed["0.0"].images)
    np.testing.assert_array_equal(turned["90"].labels, turned["0"].labels)
    assert np.abs(turned["180"].images[:, ::-1, ::-1].astype(int) - turned["0"].images).max() <= 1
    assert all(len(one.images) == 500 for one in made[1:])
