"""Which sets a run is judged on, at which temperature, and alike at any number of ranks."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from bnnlib import data, metrics, networks
from bnnlib.errors import DataError, ExperimentError, MetricsError, MissingDataError
from bnnlib.experiment import Experiment
from bnnlib.inference import evaluation, prediction
from bnnlib.inference.prediction import predict
from bnnlib.metrics import Prediction

BIN = Path(sys.executable).parent
RUNNER = Path(__file__).parents[1] / "ranks" / "evaluations.py"


@pytest.fixture(scope="module")
def dataset():
    return data.load("tiny", holdout=0.125)


def experiment_of(**parameters):
    return Experiment(**{"model": "CNN_FC", "dataset": "tiny", "test_draws": 3} | parameters)


def names_of(dataset, **parameters):
    return [one.name for one in evaluation.sets(experiment_of(**parameters), dataset)]


def made(probs, labels=None, entropy=None):
    """A prediction by hand; of one draw if no entropy is given."""
    probs = np.asarray(probs, np.float32)
    entropy = scipy.stats.entropy(probs, axis=1) if entropy is None else np.asarray(entropy)
    return Prediction(probs, entropy.astype(np.float32)), (
        None if labels is None else np.asarray(labels, np.int64)
    )


# ------------------------------------------------------------------------------------- which sets


def test_test_comes_first_then_held_out_images_shifts_and_other_worlds(dataset):
    asked = {"eval_sets": ["rotate-30", "test", "gaussian_noise"], "ood_sets": ["uniform_noise"]}
    noises = [f"gaussian_noise-{severity}" for severity in range(1, 6)]
    found = names_of(dataset, **asked)
    assert found == ["test", "holdout", "rotate-30", *noises, "uniform_noise"]
    assert names_of(data.load("tiny"), **asked) == [name for name in found if name != "holdout"]
    assert names_of(data.load("tiny"), eval_sets=[]) == ["test"]


def test_each_set_is_what_its_name_says(dataset):
    asked = experiment_of(eval_sets=["train", "rotate-30"], ood_sets=["uniform_noise"])
    found = {one.name: one.make() for one in evaluation.sets(asked, dataset)}
    for name in ("test", "train", "rotate-30"):
        expected = data.evaluation_set(dataset, name)
        np.testing.assert_array_equal(found[name].images, expected.images)
        np.testing.assert_array_equal(found[name].labels, expected.labels)
    np.testing.assert_array_equal(found["holdout"].images, dataset.x_holdout)
    np.testing.assert_array_equal(found["holdout"].labels, dataset.y_holdout)
    noise = data.ood_set(dataset, "uniform_noise")
    np.testing.assert_array_equal(found["uniform_noise"].images, noise.images)
    assert found["uniform_noise"].labels is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eval_sets": ["rotate_30"]}, "Unknown evaluation set 'rotate_30'"),
        ({"eval_sets": ["holdout"]}, "Unknown evaluation set 'holdout'"),
        ({"eval_sets": ["translate-28"]}, "moves images of 28 x 28 pixels out of view"),
        ({"ood_sets": ["fashion"]}, "expected for 'fashion' a set's name or a path that ends in"),
        ({"ood_sets": ["missing.npz"]}, "missing.npz"),
    ],
)
def test_a_mistyped_set_is_told_when_the_sets_are_listed(dataset, parameters, message):
    with pytest.raises((DataError, ExperimentError)) as error:
        names_of(dataset, **parameters)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "stems",
    [["a", "sub/a"], ["test"], ["holdout"], ["reference"], ["rotate-30"]],
    ids=lambda stems: stems[0],
)
def test_two_sets_of_one_name_are_refused(dataset, tmp_path, stems):
    (tmp_path / "sub").mkdir()
    paths = [str(tmp_path / f"{stem}.npz") for stem in stems]
    for path in paths:
        np.savez(path, x_test=dataset.x_test[:3])
    with pytest.raises(DataError, match=r"would be the second set called .*; rename the file"):
        names_of(dataset, eval_sets=["rotate-30"], ood_sets=paths)


def test_a_users_own_set_has_its_files_name(dataset, tmp_path):
    path = tmp_path / "letters.npz"
    np.savez(path, x_test=dataset.x_test[:3])
    *_, last = evaluation.sets(experiment_of(ood_sets=[str(path)]), dataset)
    assert (last.name, len(last.make().images)) == ("letters", 3)


def test_a_group_brings_its_members_and_the_content_says_who_is_missing(monkeypatch):
    digits = data.load("digits")

    def nowhere(name, keys):
        raise MissingDataError(f"no {name} on this machine")

    monkeypatch.setattr(data.ood, "canonical", nowhere)
    monkeypatch.setenv("BNN_DATA", str(Path(__file__).parent))
    listed = evaluation.sets(experiment_of(dataset="digits", ood_sets=["far"]), digits)
    assert [str(one) for one in listed] == ["test", "uniform_noise (far)"]
    (group,) = evaluation.content(digits, listed)["ood_groups"].items()
    assert (group[0], group[1]["members"]) == ("far", ["uniform_noise"])
    assert list(group[1]["missing"]) == ["textures", "cifar10_grey", "tiny_imagenet", "places365"]
    assert "Put cifar10.npz in the folder that BNN_DATA" in group[1]["missing"]["cifar10_grey"]
    with pytest.raises(MissingDataError, match="no cifar10 on this machine"):
        evaluation.sets(experiment_of(dataset="digits", ood_sets=["far", "cifar10_grey"]), digits)


def test_the_content_says_which_corrupted_sets_are_made_and_which_are_files(dataset):
    listed = evaluation.sets(experiment_of(eval_sets=["mnist_c", "rotate-30"]), dataset)
    origins = evaluation.content(dataset, listed)["corruptions"]
    assert len(origins) == 15
    assert origins["mnist_c/fog"] == "made"


# ------------------------------------------------------------------------------------ predictions


def test_a_trained_network_is_predicted_on_every_set_and_scored_by_metrics(dataset):
    experiment = experiment_of(eval_sets=["rotate-30"], ood_sets=["uniform_noise"], test_draws=12)
    experiment = dataclasses.replace(experiment, dropout=0.2, seed=5)
    network = networks.build("CNN_FC", dataset.image_shape, 10, dropout=0.2)
    sets = evaluation.sets(experiment, dataset)
    told = []
    found = evaluation.evaluate(
        experiment, network, dataset, sets, after_set=lambda: told.append(1)
    )
    assert len(told) == len(sets) == 4
    assert list(found.predictions) == ["test", "holdout", "rotate-30", "uniform_noise"]
    for one in sets:
        prediction, labels = found.predictions[one.name]
        alone = predict(network, dataset, one.make().images, 12, seed=5)
        np.testing.assert_array_equal(prediction.mean_probs, alone.mean_probs)
        np.testing.assert_array_equal(prediction.expected_entropy, alone.expected_entropy)
        assert (prediction.draws_curve is not None) == (one.name == "test")
        assert (labels is None) == (one.name == "uniform_noise")
    rows = {row["set"]: row for row in found.rows}
    assert [row["kind"] for row in found.rows] == ["test", "holdout", "shift", "ood"]
    assert [row["num_images"] for row in found.rows] == [64, 32, 64, 64]
    temperature = found.metrics["temperature"]
    held_out, their_labels = found.predictions["holdout"]
    scaling = metrics.fit_vector_scaling(metrics.log_mean_probs(held_out.mean_probs), their_labels)
    for name in ("test", "holdout", "rotate-30"):
        prediction, labels = found.predictions[name]
        expected = metrics.summary(
            prediction.mean_probs, labels, prediction.expected_entropy, prediction.votes
        )
        scaled = metrics.apply_temperature(np.log(prediction.mean_probs), temperature)
        expected["nll_scaled"] = metrics.nll(scaled, labels)
        expected["brier_scaled"] = metrics.brier(scaled, labels)
        expected["ece_scaled"] = metrics.ece(scaled, labels)
        scaled = metrics.apply_vector_scaling(
            metrics.log_mean_probs(prediction.mean_probs), scaling
        )
        for score in ("accuracy", "nll", "brier", "ece"):
            expected[f"{score}_vector_scaled"] = getattr(metrics, score)(scaled, labels)
        expected |= metrics.conformal_summary(
            prediction.mean_probs, labels, held_out.mean_probs, their_labels
        )
        values = {key: rows[name][key] for key in expected}
        assert values == pytest.approx(expected, rel=1e-6)
        assert set(rows[name]) == {"set", "kind", "num_images", "num_draws", *expected}
    (inside, _), (outside, _) = found.predictions["test"], found.predictions["uniform_noise"]
    expected = metrics.ood_summary(
        *(inside.mean_probs, inside.expected_entropy),
        *(outside.mean_probs, outside.expected_entropy),
        *(inside.mean_logits, outside.mean_logits),
        *(inside.votes, outside.votes),
    )
    assert not np.isnan(list(expected.values())).any()
    assert rows["uniform_noise"] == {
        "set": "uniform_noise",
        "kind": "ood",
        "num_images": 64,
        "num_draws": 12,
        **expected,
    }
    seconds = found.metrics.pop("evaluation_seconds")
    named = ("set", "kind", "num_images", "num_draws")
    of_test = {key: value for key, value in rows["test"].items() if key not in named}
    assert found.metrics == of_test | {"temperature": temperature}
    assert seconds > 0


@pytest.fixture
def drawn(dataset):
    """A network whose draws disagree."""
    return networks.build("BNN_FC_flip", dataset.image_shape, 10, posterior_stddev=0.5)


def test_other_sets_have_draws_and_images_of_their_own_and_the_test_set_stays(dataset, drawn):
    asked = {"eval_sets": ["train", "rotate-30"], "ood_sets": ["uniform_noise"], "test_draws": 12}
    whole = experiment_of(model="BNN_FC_flip", **asked)
    fewer = dataclasses.replace(whole, eval_draws=5, eval_images=20)
    before, after = (
        evaluation.evaluate(one, drawn, dataset, evaluation.sets(one, dataset))
        for one in (whole, fewer)
    )
    rows = {row["set"]: row for row in after.rows}
    assert [(name, row["num_images"], row["num_draws"]) for name, row in rows.items()] == [
        ("test", 64, 12),
        ("holdout", 32, 12),
        ("reference", 20, 5),
        ("train", 20, 5),
        ("rotate-30", 20, 5),
        ("uniform_noise", 20, 5),
    ]
    assert [row["kind"] for row in after.rows] == [
        *("test", "holdout", "reference", "train", "shift", "ood")
    ]
    for name in ("test", "holdout"):
        one, other = before.predictions[name][0], after.predictions[name][0]
        np.testing.assert_array_equal(one.mean_probs, other.mean_probs)
        np.testing.assert_array_equal(one.expected_entropy, other.expected_entropy)
    assert rows["test"] == before.rows[0]
    # Another route to each: the images by the rule, predicted alone.
    part = data.chosen(64, 20, dataset.y_test)
    for name, shifted in (("reference", "test"), ("rotate-30", "rotate-30")):
        made = data.evaluation_set(dataset, shifted)
        expected = predict(drawn, dataset, made.images[part], 5, seed=0)
        np.testing.assert_array_equal(after.predictions[name][0].mean_probs, expected.mean_probs)
        np.testing.assert_array_equal(after.predictions[name][1], dataset.y_test[part])
    (inside, _), (outside, _) = (after.predictions[key] for key in ("reference", "uniform_noise"))
    expected = metrics.ood_summary(
        *(inside.mean_probs, inside.expected_entropy),
        *(outside.mean_probs, outside.expected_entropy),
        *(inside.mean_logits, outside.mean_logits),
        *(inside.votes, outside.votes),
    )
    assert {key: rows["uniform_noise"][key] for key in expected} == expected


@pytest.mark.parametrize(
    ("parameters", "has_reference"),
    [
        ({}, False),
        ({"eval_images": 64, "eval_draws": 3}, False),
        ({"eval_images": 0}, False),
        ({"eval_images": 63}, True),
        ({"eval_draws": 2}, True),
        ({"eval_images": 63, "eval_sets": [], "ood_sets": []}, False),  # nothing is held against it
    ],
)
def test_a_reference_is_there_where_other_sets_are_unlike_the_test_set(
    dataset, parameters, has_reference
):
    asked = {"eval_sets": ["rotate-30"], "ood_sets": ["uniform_noise"]} | parameters
    assert ("reference" in names_of(dataset, **asked)) == has_reference


def test_a_deterministic_network_has_one_draw_of_every_set(dataset):
    experiment = experiment_of(ood_sets=["uniform_noise"], eval_draws=7)
    network = networks.build("CNN_FC", dataset.image_shape, 10)
    found = evaluation.evaluate(experiment, network, dataset, evaluation.sets(experiment, dataset))
    assert {row["num_draws"] for row in found.rows} == {1}


# ------------------------------------------------------------------------------------ temperature

RIGHT_AND_WRONG = [[0.9, 0.1]] * 4, [0, 0, 0, 1]  # says 0.9, is right three times of four


def test_the_temperature_by_hand():
    """Softened to 3/4: (9)^(1/T) = 3, hence T = 2; the test set's own optimum is another."""
    found = metrics.judge(
        {"test": made([[0.9, 0.1]] * 10, [0] * 9 + [1]), "holdout": made(*RIGHT_AND_WRONG)}
    )
    assert found.metrics["temperature"] == pytest.approx(2.0, rel=1e-5)
    assert found.metrics["nll_scaled"] == pytest.approx(
        -0.9 * math.log(0.75) - 0.1 * math.log(0.25), rel=1e-5
    )
    assert found.metrics["nll"] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert found.metrics["nll_scaled"] > found.metrics["nll"]  # it was calibrated before
    assert found.metrics["ece_scaled"] == pytest.approx(0.15, rel=1e-5)
    holdout = found.rows[1]
    assert (holdout["kind"], holdout["ece_scaled"]) == ("holdout", pytest.approx(0, abs=1e-6))


def test_the_temperature_never_sees_the_test_set():
    held_out = made(*RIGHT_AND_WRONG)
    worlds = [made([[0.6, 0.4]] * 4, [1] * 4), made([[0.99, 0.01]] * 4, [0] * 4)]
    found = [
        metrics.judge({"test": test, "rotate-30": test, "holdout": held_out}).metrics
        for test in worlds
    ]
    assert found[0]["temperature"] == found[1]["temperature"] == pytest.approx(2.0, rel=1e-5)


def test_without_images_held_out_there_is_no_temperature():
    found = metrics.judge({"test": made(*RIGHT_AND_WRONG)})
    vector = [f"{name}_vector_scaled" for name in ("accuracy", "nll", "brier", "ece")]
    for key in ("temperature", "nll_scaled", "brier_scaled", "ece_scaled", *vector):
        assert found.metrics[key] is None
    for key in metrics.CONFORMAL_SCORES:
        assert found.metrics[key] is None
        assert key not in found.rows[0]
    assert not any(key.endswith("_scaled") for key in found.rows[0])


def test_soft_labels_are_scored_beside_their_modal_classes():
    tiny = data.load("tiny")
    rng = np.random.default_rng(0)
    soft = (0.7 * np.eye(10)[tiny.y_test] + 0.3 * rng.dirichlet(np.ones(10), 64)).astype("f4")
    annotated = dataclasses.replace(tiny, soft_test=soft)
    experiment = experiment_of(eval_sets=["rotate-30", "train"], ood_sets=["uniform_noise"])
    network = networks.build("CNN_FC", tiny.image_shape, 10)
    plain, found = (
        evaluation.evaluate(experiment, network, one, evaluation.sets(experiment, one))
        for one in (tiny, annotated)
    )
    for before, after in zip(plain.rows, found.rows, strict=True):
        name = after["set"]
        expected = {}
        if name in ("test", "rotate-30"):  # a shift leaves what annotators saw before it
            expected = metrics.soft_summary(found.predictions[name][0].mean_probs, soft)
        assert after == before | expected
    assert found.metrics["cross_entropy"] == found.rows[0]["cross_entropy"] > 1
    assert "cross_entropy" not in plain.metrics


def test_a_label_whose_probability_underflowed_leaves_a_temperature():
    probs, labels = [[1.0, 0.0]] * 3, [0, 0, 1]
    found = metrics.judge({"test": made(probs, labels), "holdout": made(probs, labels)})
    assert math.isinf(found.metrics["nll"])
    assert math.isfinite(found.metrics["nll_scaled"])
    # Right two times of three: softened to 2/3, ln(2) = 87.3 / T.
    gap = -math.log(metrics.SMALLEST_PROB)
    expected = min(gap / math.log(2), metrics.TEMPERATURE_RANGE[1])
    assert found.metrics["temperature"] == pytest.approx(expected, rel=1e-4)


def test_diverged_predictions_are_refused():
    probs = np.full((4, 2), np.nan)
    with pytest.raises(MetricsError, match="not finite"):
        metrics.judge({"test": made(probs, [0, 0, 0, 1], np.zeros(4))})


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("test", [0], "test"),
        ("holdout", [0], "holdout"),
        ("train", [0], "train"),
        ("reference", [0], "reference"),
        ("rotate-30", [0], "shift"),
        ("mine", None, "ood"),
    ],
)
def test_kinds(name, labels, kind):
    assert metrics.set_kind(name, labels) == kind


# ------------------------------------------------------------------------------------------ ranks


@pytest.fixture(scope="module")
def at_ranks(tmp_path_factory):
    """The folder with what 1, 2 and 4 ranks found, of one start of four processes."""
    folder = tmp_path_factory.mktemp("evaluations")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "PMI_"))}
    done = subprocess.run(
        [str(BIN / "mpiexec"), "-n", "4", sys.executable, str(RUNNER), str(folder)],
        env=environ | {"PYTHONPATH": str(RUNNER.parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.ranks
@pytest.mark.parametrize("network", ["BNN_FC_flip", "CNN_conv"])
def test_an_evaluation_is_the_same_at_1_2_and_4_ranks(at_ranks, network):
    """Bit by bit, on every rank: shifts, images out of distribution, dropout masks, fewer draws."""
    places = [f"{network}-{size}-{rank}" for size in (1, 2, 4) for rank in range(4)]
    first, *others = (np.load(at_ranks / f"{place}.npz") for place in places)
    sets = ("test", "holdout", "reference", "rotate-30", "gaussian_noise-3", "uniform_noise")
    assert {key.split("/")[0] for key in first.files} == {*sets, "ladder", "ladder_entropy"}
    for other in others:
        assert other.files == first.files
        for key in first.files:
            np.testing.assert_array_equal(other[key], first[key], err_msg=key)
    texts = {(at_ranks / f"{place}.json").read_text() for place in places}
    assert len(texts) == 1
    rows, values = json.loads(texts.pop())
    assert [row["set"] for row in rows] == list(sets)
    assert values["epistemic"] > 1e-3  # the draws do disagree


# ------------------------------------------------------------------------------ a look in training


@pytest.mark.parametrize("predict_with", ["draws", "mean"])
@pytest.mark.parametrize("holdout", [0.0, 0.25])
def test_the_validation_nll_is_of_the_images_held_out_else_of_the_test_images(
    holdout, predict_with
):
    tiny = data.load("tiny", holdout=holdout)
    network = networks.build("BNN_FC_flip", tiny.image_shape, 10, posterior_stddev=0.3)
    experiment = experiment_of(model="BNN_FC_flip", test_draws=3, predict_with=predict_with)
    images, labels = (tiny.x_holdout, tiny.y_holdout) if holdout else (tiny.x_test, tiny.y_test)
    predictor = evaluation.validation_predictor(experiment, network, tiny)
    at_mean = prediction.Predictor(network, tiny, 1, experiment.seed, at_mean=True)
    drawn = predict(network, tiny, images, 3, experiment.seed)
    expected = drawn if predict_with == "draws" else at_mean(images)
    found = evaluation.validation_nll(predictor, tiny)
    assert found == pytest.approx(metrics.nll(expected.mean_probs, labels), rel=1e-6)
