"""The tables behind the figures, by hand on small predictions, and from records."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bnnlib import data, metrics, networks
from bnnlib.analysis import figures, load_evaluation, tables
from bnnlib.networks import posterior
from tests.analysis.records import random_probs

LABELS = np.array([0, 1, 1, 0])
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])  # the third is wrong


# ------------------------------------------------------------------------------------ the test set


def test_scores_of_one_run_have_an_interval_and_of_two_a_spread():
    one = tables.given("a", PROBS, LABELS)
    worse = tables.given("b", PROBS, 1 - LABELS, "b0"), tables.given("b", PROBS, LABELS, "b1")
    table = tables.scores([one, *worse], 50).set_index(["model", "score"])
    single = table.loc[("a", "accuracy")]
    assert single["mean"] == 0.75
    assert single.low <= 0.75 <= single.high
    assert np.isnan(single.stddev)
    two = table.loc[("b", "accuracy")]
    # 0.25 and 0.75: mean 0.5, standard deviation 0.5 / sqrt 2.
    assert (two["mean"], two.runs) == (0.5, 2)
    assert two.stddev == pytest.approx(0.5 / np.sqrt(2))
    assert np.isnan([two.low, two.high]).all()  # of two runs there is no interval
    third = tables.given("b", PROBS, LABELS, "b2")
    three = tables.scores([*worse, third], 50).set_index("score").loc["accuracy"]
    # 0.25, 0.75, 0.75: the seeds' part is added, Student's t of two degrees of freedom.
    assert three["mean"] - three.low > 4.302 * np.sqrt(1 / 12 / 3)
    # The plain ECE is biased, so no interval is about it; the debiased one has its own.
    assert np.isnan(table.loc[("a", "ece")].low)
    debiased = table.loc[("a", "ece_debiased")]
    assert tuple(debiased[["mean", "low", "high"]]) == metrics.ece_interval(PROBS, LABELS)
    assert 0 < table.loc[("a", "ece_if_calibrated")].high < 1
    assert table.loc[("a", "nll"), "mean"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())
    assert "nll_scaled" not in table.loc["a"].index


def test_scores_at_a_temperature_by_hand():
    one = tables.Predicted("a", PROBS, LABELS, temperature=0.5)
    table = tables.scores([one], 20).set_index("score")["mean"]
    squared = PROBS**2 / (PROBS**2).sum(axis=1, keepdims=True)  # 1 / T = 2
    assert table["nll_scaled"] == pytest.approx(metrics.nll(squared, LABELS))
    assert table["ece_scaled"] == pytest.approx(metrics.ece(squared, LABELS))
    assert table["temperature"] == 0.5


def test_differences_are_of_twins_and_paired():
    better = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    table = tables.differences(
        [
            tables.given("CNN_FC", PROBS, LABELS),
            tables.given("BNN_FC_flip", better, LABELS),
            tables.given("BNN_conv_flip", better, LABELS),  # its twin is not there
            tables.given("mine", better, LABELS),
        ],
        200,
    )
    assert table[["model", "other"]].drop_duplicates().to_numpy().tolist() == [
        ["BNN_FC_flip", "CNN_FC"]
    ]
    assert list(table.score) == ["accuracy", "nll", "ece", "aurc"]
    accuracy, nll, ece, aurc = table.itertuples()
    assert (accuracy.difference, accuracy.low) == (0.25, 0.0)  # never worse on any image
    assert nll.difference == pytest.approx((np.log(0.4) - np.log(0.6)) / 4)
    assert nll.high <= 0.0
    assert ece.low <= ece.difference <= ece.high
    assert aurc.high <= 0.0  # risks 0 0 0 1/4 against none
    assert tables.differences([tables.given("mine", PROBS, LABELS)]).empty


def correlated(seed, num_images=400):
    """Two overconfident networks that find the same images hard, and their labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_images, 5)) + 2 * np.eye(5)[rng.integers(0, 5, num_images)]
    probs = softmax(logits)
    labels = (probs.cumsum(axis=1) > rng.random(num_images)[:, np.newaxis]).argmax(axis=1)
    labels = np.minimum(labels, 4)
    return softmax(1.6 * logits), softmax(1.4 * logits), labels


def test_the_difference_of_the_ece_is_paired_over_images():
    """Taken as independent, its interval was twice as wide, and told nothing apart."""
    first, second, labels = correlated(0)
    pair = [tables.given("BNN_FC_flip", first, labels), tables.given("CNN_FC", second, labels)]
    table = tables.differences(pair, 300).set_index("score").loc["ece"]
    alone = [metrics.ece_interval(probs, labels) for probs in (first, second)]
    independent = metrics.difference(*alone)
    assert table.difference == independent.estimate
    assert independent.low < 0.0 < table.low
    assert table.high - table.low < 0.6 * (independent.high - independent.low)
    # Other images for each: there is no pair.
    other = tables.given("CNN_FC", second[::-1], labels[::-1])
    assert tables.differences([pair[0], other], 50).empty


def test_a_difference_of_two_seeds_has_no_interval():
    def runs(model, count):
        every = [tables.given(model, random_probs(s, 80), np.arange(80) % 3) for s in range(count)]
        return [dataclasses.replace(one, run=f"{model} {n}", seed=n) for n, one in enumerate(every)]

    for counts, known in (((1, 1), True), ((2, 2), False), ((2, 3), False), ((3, 3), True)):
        both = [*runs("BNN_FC_flip", counts[0]), *runs("CNN_FC", counts[1])]
        table = tables.differences(both, 20)
        assert table.difference.notna().all()
        assert table[["low", "high"]].notna().all(axis=None) == known
        assert table[["low", "high"]].notna().any(axis=None) == known
    names = ["BNN_FC_flip prior_stddev(0.1)", "BNN_FC_flip"]
    by_seed = tables.differences([*runs(names[0], 2), *runs(names[1], 2)], 20)
    assert by_seed.paired.all()
    assert by_seed.low.isna().all()


def test_reliability_holds_every_image_once_and_scaled_once_more():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    plain = tables.given("CNN_FC", random_probs(1), labels)
    warm = tables.Predicted("BNN_FC_flip", random_probs(2), labels, run="r", temperature=2.0)
    table = tables.reliability([plain, warm])
    counts = table.groupby(["model", "scaled"])["count"].sum()
    assert counts.to_dict() == {
        ("BNN_FC_flip", False): 40,
        ("BNN_FC_flip", True): 40,
        ("CNN_FC", False): 40,
    }
    assert table.model.iloc[0] == "BNN_FC_flip"  # in the study's order
    ece = table[table.scaled].ece.iloc[0]
    assert ece == metrics.ece(warm.scaled_probs, labels)
    assert table.notna().all().all()


def test_entropies_by_hand():
    table = tables.entropies([tables.given("a", PROBS[:3], LABELS[:3])])
    assert table.outcome.tolist() == ["right", "right", "wrong"]
    assert table.entropy[2] == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.4)))


def test_risk_coverage_by_hand():
    # By confidence: 0.9 right, 0.8 right, 0.7 right, 0.6 wrong.
    table = tables.risk_coverage([tables.given("a", PROBS, LABELS)]).set_index("coverage")
    assert table.risk[0.5] == table.risk[0.75] == 0.0
    assert table.risk[0.755] == table.risk[1.0] == 0.25
    assert table.coverage_at_1_percent.unique().tolist() == [0.75]
    assert table.aurc.unique().tolist() == [0.0625]
    assert (table.coverage_low <= 0.75).all()
    assert (table.coverage_high >= 0.75).all()


# -------------------------------------------------------------------------------------- other sets


def test_shifts_begin_every_family_with_the_test_set():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    test = [tables.given("a", random_probs(0), labels)]
    names = ["rotate-60", "rotate-15", "fog-1", "my own"]
    shifted = {
        name: [tables.given("a", random_probs(i + 1), labels)] for i, name in enumerate(names)
    }
    table = tables.shifts(test, shifted, 20)
    accuracy = table[table.score == "accuracy"]
    assert list(zip(accuracy.family, accuracy.severity, strict=True)) == [
        ("rotate", 0),
        ("rotate", 15),
        ("rotate", 60),
        ("fog", 0),
        ("fog", 1),
        ("my own", 0),
        ("my own", 1),
    ]
    at = accuracy[accuracy["set"] == "rotate-60"].iloc[0]
    assert at.value == metrics.accuracy(random_probs(1), labels)
    assert at.low <= at.value <= at.high
    assert tables.shifts(test, {}).empty


@pytest.fixture
def foreign():
    """A deterministic and a stochastic model, on test images and on two foreign sets."""
    labels = np.random.default_rng(0).integers(0, 3, 40)

    def both(seed, sharpness):
        plain = random_probs(seed, sharpness=sharpness).astype(np.float32)
        entropy = metrics.predictive_entropy(plain).astype(np.float32)
        draws = random_probs(seed, num_draws=5, sharpness=sharpness)
        return plain, entropy, draws

    def predicted(seed, sharpness, labels=None):
        plain, entropy, draws = both(seed, sharpness)
        return [
            tables.Predicted("CNN_FC", plain, labels, entropy, "c"),
            tables.given("BNN_FC_flip", draws, labels, "b"),
        ]

    test = predicted(1, 5.0, labels)
    return test, {"noise": predicted(2, 0.5), "letters": predicted(3, 2.0)}


def test_ood_has_no_mutual_information_where_draws_agree(foreign):
    test, sets = foreign
    table = tables.ood(test, sets)
    scores = table.groupby("model").score.unique().map(set)
    assert scores["CNN_FC"] == {"max_probability", "entropy"}
    assert scores["BNN_FC_flip"] == set(tables.OOD_SCORES)
    row = table.set_index(["model", "set", "score"]).loc["CNN_FC", "noise", "entropy"]
    inside = metrics.predictive_entropy(test[0].mean_probs)
    outside = metrics.predictive_entropy(sets["noise"][0].mean_probs)
    assert row.auroc == metrics.auroc(inside, outside)
    assert row.fpr95 == metrics.fpr_at_tpr(inside, outside)
    assert row["median"] == np.median(outside)
    assert tables.ood(test, {}).empty


def test_ood_histograms_hold_every_image(foreign):
    table = tables.ood_histograms(*foreign)
    shares = table.groupby(["model", "set"])[["test", "foreign"]].sum()
    assert len(shares) == 4
    assert np.allclose(shares, 1.0)
    assert table.upper.max() == np.log(3)
    assert tables.ood_histograms(foreign[0], {}).empty


def test_ood_histograms_hold_equal_probabilities():
    equal = tables.given("a", np.full((4, 10), 0.1))
    table = tables.ood_histograms([tables.given("a", np.eye(10))], {"s": [equal]})
    assert table.foreign.tolist()[-1] == 1.0
    assert table.test.tolist()[0] == 1.0


def test_roc_by_hand():
    # Entropies: test 0 and log 2, foreign log 2 twice: found only where half the test are taken.
    test = [tables.given("a", [[1.0, 0.0], [0.5, 0.5]])]
    table = tables.roc(test, {"s": [tables.given("a", [[0.5, 0.5], [0.5, 0.5]])]})
    found = table.set_index("false_alarms").found
    assert found[0.0] == 0.0
    assert found[0.25] == pytest.approx(0.5)  # ties: a straight line
    assert found[0.5] == found[1.0] == 1.0


def test_roc_area_is_the_auroc(foreign):
    test, sets = foreign
    table = tables.roc(test, sets)
    auroc = tables.ood(test, sets).set_index(["model", "set", "score"]).auroc
    for key, curve in table.groupby(["model", "set", "score"]):
        area = np.trapezoid(curve.found, curve.false_alarms)
        assert area == pytest.approx(auroc[key], abs=0.02)  # on a grid, so not exact
    assert set(table.score) == {"entropy", "mutual_information"}
    assert tables.roc(test, {}).empty


def test_uncertainties_by_hand():
    draws = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    # The first image: draws sure of different classes; the second: all undecided.
    test = [tables.given("a", draws, [0, 1]), tables.given("plain", PROBS[:2], [0, 1])]
    table = tables.uncertainties(test, {}, {"far": [tables.given("a", draws[:, :1])]})
    assert set(table.model) == {"a"}
    rows = table.set_index("set")
    assert rows.loc["test, right", ["aleatoric", "epistemic"]].tolist() == [0.0, np.log(2)]
    assert rows.loc["test, wrong", ["aleatoric", "epistemic"]].tolist() == [np.log(2), 0.0]
    assert rows.loc["far", "kind"] == "ood"
    assert tables.uncertainties([test[1]], {}, {}).empty


def test_the_epistemic_share_has_its_interval_over_images_and_seeds():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    one, *others = (
        tables.given("a", rng.dirichlet(np.full(3, c), (4, 400)), labels, str(c))
        for c in (1.0, 3.0, 2.0)
    )
    single = tables.uncertainties([one], {}, {}).set_index("kind")
    several = tables.uncertainties([one, *others], {}, {}).set_index("kind")
    two = tables.uncertainties([one, others[0]], {}, {})
    assert two[["share_low", "epistemic_high"]].isna().all(axis=None)
    for kind in ("right", "wrong"):
        row = single.loc[kind]
        assert row.share == pytest.approx(row.epistemic / (row.aleatoric + row.epistemic))
        assert 0 < row.share_low < row.share < row.share_high < 1
        assert row.epistemic_low < row.epistemic < row.epistemic_high
        # The seeds differ by far more than the images.
        wide = several.loc[kind]
        assert wide.share_high - wide.share_low > 3 * (row.share_high - row.share_low)
    # By the delta method as by the bootstrap.
    chosen = one.mean_probs.argmax(axis=1) == labels
    epistemic = metrics.mutual_information(one.mean_probs, one.expected_entropy)[chosen]
    total = metrics.predictive_entropy(one.mean_probs)[chosen]
    resampled = metrics.bootstrap_interval(lambda e, t: e.sum() / t.sum(), epistemic, total)
    ends = single.loc["right", ["share_low", "share_high"]].to_numpy(float)
    assert ends == pytest.approx(resampled[1:], abs=0.1 * (ends[1] - ends[0]))


def test_convergence_by_hand():
    draws = np.array([[[0.9, 0.1]], [[0.1, 0.9]], [[0.8, 0.2]]])
    by_draws = {n: [tables.given("a", draws[:n], [0])] for n in (1, 3)}
    table = tables.convergence(by_draws).set_index(["draws", "score"]).value
    assert table[1, "nll"] == pytest.approx(-np.log(0.9))
    assert table[3, "nll"] == pytest.approx(-np.log(0.6))
    assert table[1, "mutual_information"] == 0.0
    assert table[3, "mutual_information"] > 0.1
    assert tables.convergence({}).empty
    assert table[1, "nll_change"] == pytest.approx(np.log(0.9) - np.log(0.6))
    assert table[3, "nll_change"] == table[3, "accuracy_change"] == 0.0


def test_what_more_draws_change_is_known_within_an_interval_over_images():
    draws = np.random.default_rng(0).dirichlet(np.ones(3), (10, 400))
    labels = np.random.default_rng(1).integers(0, 3, 400)
    by_draws = {n: [tables.given("a", draws[:n], labels)] for n in (1, 10)}
    table = tables.convergence(by_draws).set_index(["draws", "score"])
    change = table.loc[(1, "nll_change")]
    assert change.value == pytest.approx(table.value[10, "nll"] - table.value[1, "nll"])
    assert change.low < change.value < change.high < 0
    information = table.loc[(10, "mutual_information")]
    assert information.low < information.value < information.high


# ------------------------------------------------------------------------------------ from records


def test_every_table_of_a_group_has_its_models(runs):
    group = tables.Group(runs)
    test, shifted, foreign = group.predictions(), group.by_set("shift"), group.by_set("ood")
    names = {one.model for one in test}
    for table in (
        tables.scores(test, 20),
        tables.reliability(test),
        tables.entropies(test),
        tables.risk_coverage(test),
        tables.shifts(test, shifted, 20),
        tables.ood(test, foreign),
        tables.ood_histograms(test, foreign),
        tables.roc(test, foreign),
    ):
        assert set(table.model) == names
    parts = tables.uncertainties(test, shifted, foreign)
    assert set(parts.model) == names - {"CNN_FC"}


# ------------------------------------------------------------------------------- inside one network


def test_posterior_over_training_is_tidy():
    levels = len(posterior.LEVELS)
    lines = [
        posterior.LayerLog(n, float(n), "layer0", 4, [1.0] * levels, [2.0] * levels, [0.5] * levels)
        for n in (0, 1)
    ]
    table = tables.posterior_over_training(lines)
    assert len(table) == 2 * 3 * levels
    assert table.groupby("quantity").value.first().to_dict() == {
        "mean": 1.0,
        "stddev": 2.0,
        "snr": 0.5,
    }
    assert tables.posterior_over_training([]).empty


def test_signal_to_noise_by_hand():
    network = networks.build("BNN_FC_flip", (2, 2, 1), 3)
    layer = network.layers[0]
    layer.mean.assign(np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64))
    layer.rho.assign(np.full((4, 64), np.log(np.expm1(0.5)), np.float32))
    table = tables.signal_to_noise(posterior.entries(network))
    assert set(table.layer) == {"layer0_dense"}
    # abs(mean) is even on 0 to 1, and the standard deviation 0.5.
    assert table.snr.to_numpy() == pytest.approx(2 * table.share.to_numpy(), abs=0.02)
    assert tables.signal_to_noise(posterior.entries(networks.build("CNN_FC", (2, 2, 1), 3))).empty


def test_examples_are_the_clear_the_ambiguous_the_rotated_and_another(monkeypatch):
    monkeypatch.delenv("BNN_DATA", raising=False)
    tiny = data.load("tiny")
    probs = np.full((len(tiny.x_test), tiny.num_classes), 1 / tiny.num_classes)
    sure = np.eye(tiny.num_classes)[tiny.y_test]
    probs = 0.5 * probs + 0.5 * sure
    probs[3] = sure[3]  # the surest that is right
    probs[4] = np.roll(sure[4], 1)  # as sure, and wrong
    probs[6] = 1 / tiny.num_classes
    chosen = tables.examples(tiny, tables.given("a", probs, tiny.y_test), 90, "uniform_noise")
    assert [one.name.split(":")[0] for one in chosen] == [
        "clear",
        "ambiguous",
        "rotated",
        "foreign",
    ]
    assert "test image 3" in chosen[0].name
    assert np.array_equal(chosen[0].image, tiny.x_test[3])
    assert np.array_equal(chosen[1].image, tiny.x_test[6])
    assert np.array_equal(chosen[2].image, np.rot90(tiny.x_test[3]))  # counter-clockwise
    assert [one.label for one in chosen] == [*tiny.y_test[[3, 6, 3]], -1]
    assert "uniform_noise" in chosen[3].name
    assert chosen[3].image.shape == tiny.image_shape


def test_a_foreign_set_that_is_not_here_gives_noise_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    tiny = data.load("tiny")
    test = tables.given("a", np.eye(tiny.num_classes)[tiny.y_test], tiny.y_test)
    assert "uniform_noise" in tables.examples(tiny, test, foreign="kmnist")[-1].name


def test_example_draws_by_hand():
    draws = np.array([[[1.0, 0.0], [0.25, 0.75]], [[0.5, 0.5], [0.0, 1.0]]])
    chosen = [
        tables.Example(name, np.zeros((1, 1, 1)), label) for name, label in [("a", 1), ("b", -1)]
    ]
    table = tables.example_draws(chosen, draws)
    assert len(table) == 8
    row = table[(table.image == "b") & (table.draw == 0) & (table["class"] == 1)].iloc[0]
    assert (row.probability, row.label) == (0.75, -1)
    assert pd.api.types.is_integer_dtype(table["class"])


def test_differences_hold_the_luck_of_the_seeds():
    labels = np.random.default_rng(0).integers(0, 3, 400)
    twins = [tables.given("CNN_FC", random_probs(1, 400), labels, "t")]
    one, *others = (  # whose luck is great: they know the labels the better, the later they come
        tables.given(
            "BNN_FC_flip",
            random_probs(int(s), 400) * (1 - know) + know * np.eye(3)[labels],
            labels,
            s,
        )
        for s, know in (("2", 0.0), ("3", 0.2), ("4", 0.4))
    )
    single = tables.differences([one, *twins], 200).set_index("score")
    several = tables.differences([one, *others, *twins], 200).set_index("score")
    for score in ("accuracy", "nll", "ece", "aurc"):
        wide, narrow = (t.high[score] - t.low[score] for t in (several, single))
        assert wide > narrow, score
    # A run that is repeated has no spread: what is left is the images' part.
    again = [tables.Predicted("BNN_FC_flip", one.mean_probs, labels, run=f"{n}") for n in (5, 6)]
    repeated = tables.differences([one, *again, *twins], 200).set_index("score")
    columns = ["difference", "low", "high"]
    assert repeated[columns].to_numpy() == pytest.approx(single[columns].to_numpy(), abs=1e-12)


def test_differences_of_models_that_are_alike_are_rarely_claimed():
    rng = np.random.default_rng(0)
    claims = dict.fromkeys(("accuracy", "nll", "ece", "aurc"), 0)
    for _ in range(40):
        # Twins that differ in noise alone, three runs each: other seeds, the same images.
        logits = 2 * rng.normal(size=(300, 3))
        labels = (logits - np.log(rng.exponential(size=logits.shape))).argmax(axis=1)
        predictions = [
            tables.given(model, softmax(logits + 0.5 * rng.normal(size=logits.shape)), labels, run)
            for model in ("CNN_FC", "BNN_FC_flip")
            for run in (f"{model} {k}" for k in range(3))
        ]
        for row in tables.differences(predictions, 100).itertuples():
            claims[row.score] += not row.low <= 0 <= row.high
    assert max(claims.values()) <= 5, claims  # 2 of 40 by chance


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_ood_differences_are_the_auroc_s():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    test = [
        tables.given("CNN_FC", random_probs(1), labels, "c"),
        tables.given("BNN_FC_flip", random_probs(2), labels, "b"),
    ]
    foreign = {
        "noise": [
            tables.given("CNN_FC", random_probs(3), run="c"),
            tables.given("BNN_FC_flip", random_probs(4), run="b"),
        ]
    }
    row, over_all = tables.ood_differences(test, foreign).itertuples()
    assert over_all[3:] == row[3:]  # of one set
    aurocs = tables.ood(test, foreign).query("score == 'entropy'").set_index("model").auroc
    assert row.difference == pytest.approx(aurocs["BNN_FC_flip"] - aurocs["CNN_FC"])
    assert row.low < row.difference < row.high
    assert tables.ood_differences(test, {}).empty


def test_shift_differences_are_of_every_set():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    runs = [
        tables.given(m, random_probs(k), labels) for k, m in enumerate(("CNN_FC", "BNN_FC_flip"))
    ]
    table = tables.shift_differences({"blur-1": runs, "blur-2": runs}, 50)
    assert table[["set", "score"]].to_numpy().tolist() == [
        ["blur-1", "accuracy"],
        ["blur-1", "ece"],
        ["blur-2", "accuracy"],
        ["blur-2", "ece"],
        [tables.ALL, "accuracy"],
        [tables.ALL, "ece"],
    ]
    assert tables.shift_differences({}).empty


def test_further_scores_are_the_records(runs):
    group = tables.Group(runs)
    rows = load_evaluation(runs)
    table = tables.recorded(group.runs, rows).set_index(["model", "score"])
    of_test = rows[rows["set"] == "test"].set_index("run_id")
    two = of_test.augrc[["a0", "a1"]]
    mean = table.loc[("CNN_FC", "augrc")]
    assert (mean["mean"], mean.runs) == (pytest.approx(two.mean()), 2)
    assert mean.stddev == pytest.approx(two.std())
    assert {"coverage_aps", "set_size_thr", "nll_vector_scaled"} <= set(table.loc["CNN_FC"].index)
    shown = figures.comparison_table(table.reset_index()).data
    assert shown.loc["CNN_FC", "AUGRC"] == f"{two.mean():.4f} ± {two.std():.4f}"
    old = rows.drop(columns=["augrc"])
    assert "augrc" not in set(tables.recorded(group.runs, old).score)
