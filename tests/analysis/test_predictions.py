"""What is read from the records of a group, ensembles, and a user's own arrays."""

import json
import math

import numpy as np
import pytest

from bnnlib import metrics
from bnnlib.analysis import listing, tables
from bnnlib.analysis import runs as run_tables
from bnnlib.errors import MetricsError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.metrics import Prediction
from tests.analysis.records import random_probs, write_record, write_run

LABELS = np.array([0, 1, 1, 0])
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])  # the third is wrong


# ----------------------------------------------------------------------------------- given arrays


def test_given_means():
    one = tables.given("mine", PROBS, LABELS)
    assert (one.model, one.run) == ("mine", "mine")
    assert np.array_equal(one.mean_probs, PROBS)
    assert one.expected_entropy is None
    assert not one.is_stochastic


def test_given_draws_by_hand():
    draws = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two draws, each sure, of different classes
    one = tables.given("mine", draws)
    assert one.mean_probs.tolist() == [[0.5, 0.5]]
    assert one.expected_entropy is not None
    assert one.expected_entropy.tolist() == [0.0]
    assert one.labels is None
    assert one.is_stochastic


@pytest.mark.parametrize(
    ("probs", "labels"),
    [(PROBS * 2, LABELS), (PROBS, LABELS[:3]), (PROBS, LABELS + 5), (np.zeros((0, 2)), None)],
)
def test_given_refuses_what_is_no_prediction(probs, labels):
    with pytest.raises(MetricsError):
        tables.given("mine", probs, labels)


def test_a_deterministic_network_in_float32_is_not_stochastic():
    probs = random_probs(0).astype(np.float32)
    entropy = metrics.predictive_entropy(probs).astype(np.float32)
    assert not tables.Predicted("a", probs, expected_entropy=entropy).is_stochastic


# ------------------------------------------------------------------------------------ from records


def test_group_reads_runs_variants_and_ensembles(runs):
    group = tables.Group(runs)
    test = group.predictions()
    assert [(one.model, one.run) for one in test] == [
        ("CNN_FC", "g/a0"),
        ("CNN_FC", "g/a1"),
        ("CNN_FC dropout(0.1)", "g/ad"),
        ("BNN_FC_flip", "g/b0"),
        ("CNN_FC ensemble(2)", "CNN_FC ensemble"),
    ]
    assert test[1].images_per_second == 101.0
    ensemble = test[-1]
    mean = (random_probs([0, 0]) + random_probs([1, 0])) / 2
    assert ensemble.mean_probs == pytest.approx(mean, abs=1e-6)
    assert ensemble.is_stochastic  # its members disagree
    held_out = (random_probs([0, 1]) + random_probs([1, 1])) / 2
    fitted = metrics.fit_temperature(np.log(held_out), ensemble.labels)
    assert ensemble.temperature == pytest.approx(fitted, rel=1e-3)
    assert group.sets("shift") == ["rotate-30"]
    assert list(group.by_set("ood")) == ["noise"]
    assert all(one.labels is None for one in group.by_set("ood")["noise"])
    assert len(group.by_set("shift")["rotate-30"]) == 5


def test_group_leaves_out_what_is_not_finished(runs):
    path = runs / "b0" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"status": "failed"}))
    group = tables.Group(runs)
    assert group.unfinished.run_id.tolist() == ["b0"]
    assert "BNN_FC_flip" not in {one.model for one in group.predictions()}
    for other in ("a0", "a1", "ad"):
        path = runs / other / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    with pytest.raises(RecordError, match="no finished run among 4"):
        tables.Group(runs)


def test_named_tells_variants_apart_and_repetitions_not(runs):
    table = run_tables.load(runs)
    other = table.assign(ranks=[1, 2, 1, 1], kl_weight=[1.0, 1.0, 1.0, 0.5])
    assert tables.named(table).model.tolist() == [
        "CNN_FC",
        "CNN_FC",
        "CNN_FC dropout(0.1)",
        "BNN_FC_flip",
    ]
    assert tables.named(other).model.tolist() == [
        "CNN_FC ranks(1)",
        "CNN_FC ranks(2)",
        "CNN_FC dropout(0.1) ranks(1)",
        "BNN_FC_flip",  # alone, whatever its weight
    ]
    mean = table.assign(predict_with=["draws", "mean", "draws", "mean"])
    assert tables.named(mean).model.tolist() == [
        "CNN_FC",
        "CNN_FC predict_with(mean)",
        "CNN_FC dropout(0.1)",
        "BNN_FC_flip predict_with(mean)",
    ]
    # A method is a variant of its own: what it needs otherwise does not rename the others.
    methods = table.assign(
        inference=["adam", "ivon", "adam", "adam"], learning_rate=[0.001, 0.2, 0.001, 0.001]
    )
    assert tables.named(methods).model.tolist()[:2] == ["CNN_FC", "CNN_FC inference(ivon)"]
    old = table.drop(columns="dropout")  # of before the parameter
    assert tables.named(old).model.tolist()[:3] == ["CNN_FC"] * 3


def test_a_posterior_that_has_not_converged_is_marked_and_still_compared_with_its_twin(runs):
    path = runs / "b0" / "run.json"
    record = json.loads(path.read_text())
    for converged, change, name in (
        (False, 0.03, "BNN_FC_flip converged(no)"),
        (True, 0.01, "BNN_FC_flip"),
        (False, None, "BNN_FC_flip"),  # of older records: unknown
        (None, None, "BNN_FC_flip"),
    ):
        found = {"converged": converged, "change": change}
        path.write_text(json.dumps(record | {"converged": found}))
        group = tables.Group(runs)
        assert name in {one.model for one in group.predictions()}
        pairs = tables.differences(group.predictions(), num_resamples=10)
        assert set(zip(pairs.kind, pairs.model, pairs.other, strict=True)) == {
            ("twin", name, "CNN_FC"),
            ("variant", "CNN_FC dropout(0.1)", "CNN_FC"),
        }
        row = run_tables.load(runs).set_index("run_id").loc["b0"]
        if change is None:
            assert row[["converged", "kl_change"]].isna().all()
        else:
            assert (row.converged, row.kl_change) == (converged, change)


def test_the_printed_table_tells_methods_apart(runs, capsys):
    path = runs / "a1" / "run.json"
    record = json.loads(path.read_text())
    record["parameters"] |= {"inference": "ivon", "learning_rate": 0.2}
    path.write_text(json.dumps(record))
    listing.print_table(runs)
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:6] == ["run_id", "model", "inference", "learning_rate", "dropout", "seed"]
    assert [row[:6] for row in rows] == [
        ["a0", "CNN_FC", "adam", "0.001", "0", "0"],
        ["a1", "CNN_FC", "ivon", "0.2", "0", "1"],
        ["ad", "CNN_FC", "adam", "0.001", "0.1", "0"],
        ["b0", "BNN_FC_flip", "adam", "0.001", "0", "0"],
    ]


# -------------------------------------------------------------------------------------- ensembles


def member(group, run_id, seed, first, labels=(0, 1), status="finished", **parameters):
    """A run that gives the first class these probabilities, with no entropy in any draw."""
    probs = np.array([[p, 1 - p] for p in first], np.float32)
    entropy = np.array([0.1 * (seed + 1)] * len(first), np.float32)
    one, outside = Prediction(probs, entropy), Prediction(probs[:1], entropy[:1])
    predictions = {
        "test": (one, np.array(labels)),
        "holdout": (one, np.array(labels)),
        "mine": (outside, None),
    }
    if seed == 0:
        predictions["rotate-30"] = (one, np.array(labels))
    experiment = Experiment(**{"dataset": "tiny", "seed": seed} | parameters)
    write_record(group / run_id, experiment, predictions, status=status)


@pytest.fixture
def group(tmp_path):
    return tmp_path / "g"


def test_an_ensemble_by_hand(group):
    member(group, "a", 0, [0.9, 0.6])
    member(group, "b", 1, [0.5, 0.2])
    members = run_tables.load(group)
    found = tables.ensemble(members)
    np.testing.assert_allclose(found.mean_probs, [[0.7, 0.3], [0.4, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(found.expected_entropy, [0.15, 0.15], rtol=1e-6)
    assert found.labels.tolist() == [0, 1]
    assert (found.model, found.seed) == ("BNN_conv_flip ensemble(2)", 2)
    assert tables.ensemble(members, "mine").labels is None

    # What a group has of it: what both members have.
    predicted = tables.Group(group)
    names = {n: [one.model for one in predicted.predictions(n)][-1] for n in ("test", "rotate-30")}
    assert names == {"test": "BNN_conv_flip ensemble(2)", "rotate-30": "BNN_conv_flip"}
    summary = metrics.summary(found.mean_probs, found.labels, found.expected_entropy)
    assert summary["accuracy"] == 1.0  # the members alone: 0.5 each
    assert summary["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2, rel=1e-6)
    assert summary["aleatoric"] == pytest.approx(0.15, rel=1e-6)
    entropy = [-sum(p * math.log(p) for p in row) for row in ([0.7, 0.3], [0.4, 0.6])]
    assert summary["epistemic"] == pytest.approx(np.mean(entropy) - 0.15, rel=1e-5)


def test_an_ensemble_votes_with_all_draws_of_its_members(group):
    probs, entropy = np.array([[0.6, 0.4]], np.float32), np.array([0.1], np.float32)
    soft = np.array([[0.7, 0.3]], np.float32)
    for seed, (logits, votes) in enumerate([([1.0, 3.0], [3, 0]), ([2.0, 0.0], [1, 2])]):
        one = Prediction(
            probs,
            entropy,
            mean_logits=np.array([logits], np.float32),
            votes=np.array([votes], np.uint8),
            soft_labels=soft,
        )
        experiment = Experiment(dataset="tiny", seed=seed)
        write_record(group / str(seed), experiment, {"test": (one, np.array([0]))})
    found = tables.Group(group).predictions()[-1]
    assert found.seed == 2
    assert found.mean_logits.tolist() == [[1.5, 1.5]]
    assert found.votes.tolist() == [[4, 2]]
    assert found.soft_labels is not None
    assert found.uncertainties["variation_ratio"] == pytest.approx([2 / 6])
    assert found.uncertainties["energy"] == pytest.approx([-1.5 - math.log(2)])


def test_an_ensemble_with_a_member_of_an_older_record_has_no_votes(group):
    member(group, "a", 0, [0.9, 0.6])
    member(group, "b", 1, [0.5, 0.2])
    found = tables.ensemble(run_tables.load(group))
    assert found.votes is found.mean_logits is found.soft_labels is None
    assert "energy" not in found.uncertainties


def test_an_ensembles_temperature_is_its_own(group):
    member(group, "a", 0, [0.9] * 4, labels=[0, 0, 0, 1])
    member(group, "b", 1, [0.7] * 4, labels=[0, 0, 0, 1])
    found = tables.ensemble(run_tables.load(group))
    # Together 0.8, right three times of four.
    assert metrics.nll(found.scaled_probs, found.labels) == pytest.approx(
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-6
    )


def test_a_model_of_one_run_is_no_ensemble_and_an_unfinished_run_no_member(group):
    member(group, "a", 0, [0.9, 0.6])
    member(group, "b", 1, [0.5, 0.2], status="running")
    assert [one.run for one in tables.Group(group).predictions()] == ["g/a"]


def test_the_runs_of_one_seed_are_one_member(group):
    member(group, "a", 0, [0.9, 0.6])
    member(group, "b", 0, [0.9, 0.6])
    assert len(tables.Group(group).predictions()) == 2
    member(group, "c", 1, [0.5, 0.2])
    *_, found = tables.Group(group).predictions()
    np.testing.assert_allclose(found.mean_probs, [[0.7, 0.3], [0.4, 0.6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"seed": 1, "epochs": 3},
            r"differ in epochs \(10, 3\); select runs that differ in their seed alone",
        ),
        ({"seed": 1, "dataset": "digits"}, r"differ in dataset \(tiny, digits\)"),
        ({"seed": 1, "dropout": 0.1}, r"differ in dropout \(0\.0, 0\.1\)"),
        ({"seed": 0}, "two of its runs have one seed"),
        ({"seed": 1, "labels": [1, 0]}, "different images or labels of 'test'"),
        ({"seed": 1, "first": [0.5], "labels": [0]}, "different images or labels of 'test'"),
    ],
)
def test_runs_that_are_no_ensemble_are_refused(group, other, message):
    member(group, "a", 0, [0.9, 0.6])
    member(group, **{"run_id": "b", "first": [0.5, 0.2]} | other)
    with pytest.raises(RecordError, match=message):
        tables.ensemble(run_tables.load(group))


def test_what_changes_no_prediction_may_differ(group):
    member(group, "a", 0, [0.9, 0.6], threads=1, log_every=10)
    member(group, "b", 1, [0.5, 0.2], threads=2, log_every=20, eval_sets=["rotations"])
    assert tables.ensemble(run_tables.load(group)).seed == 2


def test_variants_of_one_model_are_ensembles_of_their_own(group):
    for dropout in (0.0, 0.1):
        for seed in (0, 1):
            member(group, f"d{dropout}s{seed}", seed, [0.9, 0.6], model="CNN_FC", dropout=dropout)
    names = [one.model for one in tables.Group(group).predictions()]
    assert names[4:] == ["CNN_FC ensemble(2)", "CNN_FC dropout(0.1) ensemble(2)"]


def test_too_few_members_or_a_set_that_one_lacks_are_no_ensemble(group):
    member(group, "a", 0, [0.9, 0.6])
    member(group, "b", 1, [0.9, 0.6])
    members = run_tables.load(group)
    for count in (0, 1):
        with pytest.raises(RecordError, match=rf"an ensemble of {count} run\(s\): select two"):
            tables.ensemble(members[:count])
    with pytest.raises(RecordError, match="no evaluation set 'rotate-30'"):
        tables.ensemble(members, "rotate-30")


def test_seeds_of_one_posterior_after_training_are_its_ensembles(tmp_path):
    """MultiSWAG (Wilson and Izmailov 2020) is an ensemble of SWAG's runs; so it is of Laplace's."""
    labels = np.arange(40) % 3
    for method, parameters in (("adam", {}), ("swag", {"inference": "swag"})):
        for seed in (0, 1):
            sets = {"test": (random_probs(seed, num_draws=4), labels)}
            write_run(tmp_path / f"{method}-{seed}", "CNN_FC", seed, sets, **parameters)
    sets = {"test": (random_probs(9, num_draws=4), labels)}
    write_run(tmp_path / "adam-0-laplace", "CNN_FC", 0, sets, laplace=True)
    found = {one.model for one in tables.Group(tmp_path).predictions() if "ensemble" in one.model}
    assert found == {"CNN_FC ensemble(2)", "CNN_FC inference(swag) ensemble(2)"}
