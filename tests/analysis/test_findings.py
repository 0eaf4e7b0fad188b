"""The sentences by hand: what they say where Bayesian networks win, lose, or nothing is there."""

import math

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import findings, tables
from bnnlib.networks import posterior

LABELS = np.array([0, 1, 1, 0])
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])


def scores(half=0.0, **means):
    """Rows of one run a model: accuracy, nll, ece, each known within `half`."""
    return pd.DataFrame(
        [
            {"model": model, "score": score, "runs": 1, "mean": value}
            | {"low": value - half, "high": value + half}
            for model, values in means.items()
            for score, value in zip(("accuracy", "nll", "ece_debiased"), values, strict=True)
        ]
    )


def difference(score, low, middle, high, name="test", **changed):
    row = {"set": name, "sets": 1, "kind": "twin", "model": "BNN_FC_flip", "other": "CNN_FC"}
    row |= {"score": score, "runs": 1, "paired": False, "left_out": 0}
    return row | {"difference": middle, "low": low, "high": high} | changed


NO_PAIRS = pd.DataFrame(columns=list(difference("nll", 0, 0, 0)))


def test_scores_name_the_best_and_the_luck_of_one_seed():
    table = scores(0.01, CNN_FC=(0.9, 0.3, 0.02), BNN_FC_flip=(0.8, 0.2, 0.05))
    assert findings.scores(table, NO_PAIRS) == (
        "Most accurate: **CNN_FC** 0.9000 [0.8900, 0.9100]; lowest NLL: **BNN_FC_flip** 0.2000 "
        "[0.1900, 0.2100]; lowest debiased ECE: **CNN_FC** 0.0200 [0.0100, 0.0300]. "
        "One run a model: the intervals do not hold the luck of the seed."
    )


def test_scores_name_all_that_cannot_be_told_apart():
    text = findings.scores(scores(0.06, a=(0.9, 0.3, 0.1), b=(0.8, 0.3, 0.3)), NO_PAIRS)
    assert (
        "Most accurate: **a** 0.9000 [0.8400, 0.9600], "
        "not told apart from b by their own intervals;"
    ) in text
    assert "lowest debiased ECE: **a** 0.1000 [0.0400, 0.1600]." in text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("accuracy", 0.01, 0.02, 0.03), "accuracy +0.0200 [+0.0100, +0.0300], better"),
        (("accuracy", -0.03, -0.02, -0.01), "accuracy −0.0200 [−0.0300, −0.0100], worse"),
        (("nll", 0.01, 0.02, 0.03), "NLL +0.0200 [+0.0100, +0.0300], worse"),
        (("ece", -0.03, -0.02, -0.01), "debiased ECE −0.0200 [−0.0300, −0.0100], better"),
        (("nll", -0.01, 0.02, 0.03), "NLL +0.0200 [−0.0100, +0.0300], no difference shown"),
        (("nll", 0.00004, 0.02, 0.03), "NLL +0.0200 [+0.0000, +0.0300], no difference shown"),
    ],
)
def test_scores_say_whether_a_twin_is_beaten(rows, expected):
    text = findings.scores(scores(CNN_FC=(0.9, 0.3, 0.02)), pd.DataFrame([difference(*rows)]))
    assert "- **BNN_FC_flip** less CNN_FC: " in text
    assert expected in text


def temperatures(**intervals):
    """A table of scores after temperature scaling, with these temperatures."""
    table = scores(**dict.fromkeys(intervals, (0.9, 0.3, 0.02)))
    rows = [
        {"model": model, "score": score, "runs": 1, "mean": mean, "low": low, "high": high}
        for model, (low, mean, high) in intervals.items()
        for score in ("temperature", "nll_scaled")
    ]
    return pd.concat([table, pd.DataFrame(rows)])


def test_a_model_is_too_sure_only_where_the_temperature_s_interval_excludes_one():
    text = findings.scores(
        temperatures(a=(1.1, 1.3, 1.5), b=(0.9, 1.2, 1.4), c=(0.5, 0.7, 0.89)), NO_PAIRS
    )
    assert "After temperature scaling: lowest NLL **c** 0.7000 [0.5000, 0.8900]." in text
    assert (
        "By the fitted temperature a is overconfident. By the fitted temperature c is "
        "underconfident." in text
    )
    assert "a 1.30 [1.10, 1.50], b 1.20 [0.90, 1.40], c 0.70 [0.50, 0.89]." in text
    text = findings.scores(temperatures(a=(0.9, 1.3, 1.5), b=(0.9, 1.2, 1.4)), NO_PAIRS)
    assert "confident" not in text
    assert "None differs from 1 by more than its interval." in text
    text = findings.scores(temperatures(a=(1.1, 1.3, 1.5), b=(1.1, 1.2, 1.4)), NO_PAIRS)
    assert "every model is overconfident" in text
    text = findings.scores(
        temperatures(a=(1.1, 1.3, 1.5), b=(1.1, 1.2, 1.4), c=(0.9, 1.0, 1.1)), NO_PAIRS
    )
    assert "a and b are overconfident" in text


def test_a_temperature_of_unknown_interval_makes_no_model_too_sure():
    unknown = np.nan
    text = findings.scores(temperatures(a=(unknown, 3.0, unknown)), NO_PAIRS)
    assert "overconfident" not in text
    assert "a 3.00." in text


def test_accuracy_against_nll():
    table = scores(0.01, a=(0.9, 0.3, 0.1), b=(0.8, 0.2, 0.1), c=(0.7, 0.4, 0.1))
    bars = " Bars: 95 % intervals. One run a model: the intervals do not hold the luck of the seed."
    assert findings.accuracy_against_nll(table) == (
        "By intervals that do not overlap, none of a and b is beaten in both accuracy and NLL by "
        "another model; c is beaten in both." + bars
    )
    wide = scores(0.06, a=(0.9, 0.3, 0.1), b=(0.8, 0.2, 0.1), c=(0.7, 0.4, 0.1))
    assert "none of a, b and c is beaten in both" in findings.accuracy_against_nll(wide)
    apart = scores(0.01, a=(0.9, 0.2, 0.1), b=(0.8, 0.3, 0.1))
    assert findings.accuracy_against_nll(apart) == (
        "By intervals that do not overlap, a is not beaten in both accuracy and NLL by another "
        "model; b is beaten in both." + bars
    )


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"a": 1, "b": 1}, "One run a model: the intervals do not hold the luck of the seed."),
        ({"a": 3, "b": 3}, "Intervals are over images and seeds: 3 runs a model."),
        (
            {"a": 2, "b": 2},
            "Two runs a model are too few for an interval over seeds: none is given, and nothing "
            "is claimed.",
        ),
        (
            {"a": 2, "b": 5, "c": 3, "d": 1},
            "Intervals are over images and seeds: 3 runs of c; 5 runs of b. Of d there is one run, "
            "without the luck of the seed. Of a there are two runs, too few for an interval over "
            "seeds: none is given, and nothing is claimed.",
        ),
    ],
)
def test_it_is_said_of_how_many_seeds_an_interval_is(runs, said):
    table = scores(0.01, **dict.fromkeys(runs, (0.9, 0.3, 0.1)))
    table["runs"] = table.model.map(runs)
    assert findings.scores(table, NO_PAIRS).endswith(f". {said}")
    assert findings.accuracy_against_nll(table).endswith(f". Bars: 95 % intervals. {said}")


def test_a_difference_of_two_seeds_is_not_judged():
    """It had an interval of one degree of freedom, such as [−0.5, +0.5], and no remark."""
    unknown = math.nan
    twins = pd.DataFrame([difference("ece", unknown, 0.02, unknown, runs=2)])
    text = findings.scores(scores(CNN_FC=(0.9, 0.3, 0.02)), twins)
    few = "2 runs a model; 2 are too few for an interval"
    assert f"less CNN_FC, {few}: debiased ECE +0.0200, not judged." in text
    said = verdict(twins, NO_PAIRS, NO_PAIRS)
    assert said.startswith(
        "On the test images, BNN_FC_flip (+0.0200) is not judged in debiased ECE beside its twin "
        f"CNN_FC, {few}. Under"
    )
    shifted = pd.DataFrame([difference("ece", unknown, 0.02, unknown, "rotate-60", runs=2)])
    text = findings.shifts(shift_rows(0.1, 0.2), shifted)
    assert f"Debiased ECE less the twin's, {few}: not judged for BNN_FC_flip (+0.0200)." in text
    # Three seeds have one, and their number is said.
    three = pd.DataFrame([difference("ece", 0.01, 0.02, 0.03, runs=3)])
    assert "its twin CNN_FC, 3 runs a model. Under" in verdict(three, NO_PAIRS, NO_PAIRS)


def reliability_rows(**changed):
    return pd.DataFrame(
        {
            "run": ["a", "a", "b"],
            "model": ["CNN_FC", "CNN_FC", "mine"],
            "scaled": False,
            "ece": [0.05, 0.05, 0.2],
            "ece_debiased": [0.03, 0.03, 0.2],
            "ece_low": [0.0, 0.0, 0.1],
            "ece_high": [0.1, 0.1, 0.3],
            "ece_if_calibrated": [0.04, 0.04, 0.03],
            "ece_if_calibrated_high": [0.08, 0.08, 0.06],
            "count": [1, 3, 500],
            "accuracy": [0.5, 0.9, 0.4],
            "confidence": [0.3, 0.9, 0.6],
            "calibrated_low": [0.1, 0.8, 0.55],
            "calibrated_high": [0.9, 0.95, 0.65],
        }
        | changed
    )


def test_reliability_by_hand():
    # 500 images of confidence 0.6 miss by 0.2, with an error of sqrt(0.24 / 500) = 0.0219.
    assert findings.reliability(reliability_rows()) == (
        "- **CNN_FC**: ECE 0.0500, debiased 0.0300 [0.0000, 0.1000]; a calibrated model would show "
        "0.0400, up to 0.0800; bins outside what a calibrated model would show: 0 of 2.\n"
        "- **mine**: ECE 0.2000, debiased 0.2000 [0.1000, 0.3000]; a calibrated model would show "
        "0.0300, up to 0.0600; on average overconfident: accuracy less confidence −0.2000 "
        "[−0.2429, −0.1571]; bins outside what a calibrated model would show: 1 of 1."
    )
    bins = reliability_rows()
    again = pd.concat([bins, bins.assign(scaled=True, ece=0.01)])
    assert "; after temperature scaling ECE 0.0100" in findings.reliability(again)
    two = findings.reliability(bins.assign(model="mine"))
    assert "bins outside what a calibrated model would show: 1 of 3 over 2 runs." in two


def test_a_calibrated_model_is_neither_too_sure_nor_too_modest():
    rng = np.random.default_rng(0)
    called = 0
    for seed in range(100):
        confidence = rng.uniform(0.5, 1.0, size=400)
        probs = np.stack([confidence, 1 - confidence], axis=1)
        labels = (rng.random(400) > confidence).astype(int)
        called += "too" in findings.reliability(
            tables.reliability([tables.given("mine", probs, labels, str(seed))])
        )
    assert called <= 10  # 5 of 100 by chance


def test_entropies_by_hand():
    table = pd.DataFrame(
        {
            "model": "mine",
            "run": "r",
            "entropy": [0.1, 0.2, 0.3, 0.25, 0.5],
            "outcome": ["right", "right", "right", "wrong", "wrong"],
        }
    )
    # Of 3 x 2 pairs, 5 have more entropy where wrong.
    assert findings.entropies(table) == (
        "- **mine**: median 0.200 nats where right, 0.375 where wrong; a wrong prediction has more "
        "entropy than a right one with probability 0.833 [0.371, 1.000]."
    )
    assert findings.entropies(table[:3]) == "- **mine**: all predictions right."
    assert findings.entropies(table[3:]) == "- **mine**: all predictions wrong."


def shift_rows(bayesian, twin, scaled=None, runs=("r",)):
    rows = [
        {"model": model, "run": f"{model} {run}", "family": "rotate", "severity": severity}
        | {"set": "test" if severity == 0 else "rotate-60", "score": score, "value": value}
        | {"low": value - 0.01, "high": value + 0.01}
        for model, ece in (("BNN_FC_flip", bayesian), ("CNN_FC", twin))
        for run in runs
        for severity in (0, 60)
        for score, value in (
            *(("accuracy", 0.5), ("ece", ece), ("ece_debiased", ece), ("ece_scaled", scaled)),
        )
        if value is not None
    ]
    return pd.DataFrame(rows)


def test_shifts_say_who_wins_and_who_does_not():
    table = shift_rows(0.1, 0.2)
    won = pd.DataFrame([difference("ece", -0.2, -0.1, -0.05, "rotate-60")])
    text = findings.shifts(table, won)
    assert "**rotate**, at 60" in text
    assert (
        "debiased ECE from 0.100 [0.090, 0.110] (BNN_FC_flip) to 0.200 [0.190, 0.210] (CNN_FC)"
    ) in text
    assert "twin's: better for BNN_FC_flip (−0.1000 [−0.2000, −0.0500])." in text
    lost = pd.DataFrame([difference("ece", 0.05, 0.1, 0.2, "rotate-60")])
    assert "worse for BNN_FC_flip (+0.1000 [+0.0500, +0.2000])." in findings.shifts(table, lost)
    # The values differ by as much, but their interval holds 0.
    tied = pd.DataFrame([difference("ece", -0.2, -0.1, 0.01, "rotate-60")])
    text = findings.shifts(table, tied)
    assert "no difference shown for BNN_FC_flip (−0.1000 [−0.2000, +0.0100])." in text
    assert "better" not in text
    assert "twin" not in findings.shifts(table, NO_PAIRS)


def test_shifts_say_what_the_temperature_does():
    two = shift_rows(0.1, 0.101, 0.05)
    three = pd.concat([two, two[two.model == "CNN_FC"].assign(model="CNN_conv", run="c")])
    assert (
        "lowers the mean ECE over models and runs: 0.1007 without it, 0.0500 with it, −0.0507 ["
        in findings.shifts(three, NO_PAIRS)
    )
    assert "0.1005 without it, 0.0500 with it, of 2 runs." in findings.shifts(two, NO_PAIRS)
    # One model gains .05 and the other .15: two differ too much to speak of all.
    text = findings.shifts(shift_rows(0.1, 0.2, 0.05), NO_PAIRS)
    assert "is not shown to change the mean ECE over models and runs by much" in text
    # Sure, but next to nothing: "lowers … 0.202 without it, 0.201 with it" says no such thing.
    text = findings.shifts(shift_rows(0.202, 0.2021, 0.201), NO_PAIRS)
    assert "not shown to change" in text
    assert "lowers" not in text


def test_risk_coverage():
    predictions = [
        tables.given("CNN_FC", PROBS, LABELS),
        tables.given("BNN_FC_flip", PROBS, 1 - LABELS),
    ]
    table = tables.risk_coverage(predictions)
    scores = tables.scores(predictions, 50)
    text = findings.risk_coverage(table, scores, NO_PAIRS)
    assert text.startswith("Lowest area under the curve: **CNN_FC** 0.0625 [0.0000, ")
    kept = table.groupby("model")[["coverage_low", "coverage_high"]].first()
    assert kept.loc["CNN_FC"].tolist() == [25.0 / 100, 1.0]
    assert text.endswith("kept: BNN_FC_flip 0.0 % [0.0 %, 0.0 %], CNN_FC 75.0 % [25.0 %, 100.0 %].")
    worse = pd.DataFrame([difference("aurc", 0.1, 0.2, 0.3)])
    assert findings.risk_coverage(table, scores, worse).endswith(
        " Area less the twin's: worse for BNN_FC_flip (+0.2000 [+0.1000, +0.3000])."
    )


def ood_rows(gain=0.05, **auroc):
    rows = [
        ("BNN_FC_flip", "entropy", 0.0),
        ("CNN_FC", "entropy", 0.0),
        ("BNN_FC_flip", "mutual_information", gain),
    ]
    values = [auroc["bayesian"], auroc["twin"], auroc["information"]]
    return pd.DataFrame(
        [
            {"model": model, "run": model, "set": "far", "score": score, "auroc": value}
            | {"fpr95": 1 - value}
            | {"auroc_low": value - 0.01, "auroc_high": value + 0.01}
            | {"fpr95_low": 0.95 - value, "fpr95_high": 1.05 - value}
            | {"gain": gain, "gain_low": gain - 0.02, "gain_high": gain + 0.02}
            for (model, score, gain), value in zip(rows, values, strict=True)
        ]
    )


def test_ood_by_hand():
    table = ood_rows(bayesian=0.9, twin=0.8, information=0.95)
    better = pd.DataFrame([difference("auroc", 0.05, 0.1, 0.15, "far")])
    assert findings.ood(table, better) == (
        "- **far**: the entropy tells it from the test images with an AUROC from 0.800 "
        "[0.790, 0.810] (CNN_FC) to 0.900 [0.890, 0.910] (BNN_FC_flip). AUROC less the twin's: "
        "better for BNN_FC_flip (+0.1000 [+0.0500, +0.1500])."
    )
    assert findings.false_alarms(table) == (
        "- **far**: to find 95 % of it by the entropy takes a share of the test images for foreign "
        "from 0.100 [0.050, 0.150] (BNN_FC_flip) to 0.200 [0.150, 0.250] (CNN_FC); AUROC of the "
        "mutual information less the entropy's: better for BNN_FC_flip (+0.0500 [+0.0300, "
        "+0.0700])."
    )
    worse = pd.DataFrame([difference("auroc", -0.15, -0.1, -0.05, "far")])
    assert "worse for BNN_FC_flip (−0.1000" in findings.ood(table, worse)
    # A gain whose interval holds 0 is none.
    lost = ood_rows(gain=0.01, bayesian=0.7, twin=0.8, information=0.71)
    assert "entropy's: no difference shown for BNN_FC_flip (" in findings.false_alarms(lost)
    plain = table[table.score == "entropy"]
    assert "mutual information" not in findings.false_alarms(plain)


def test_uncertainties_by_hand():
    def row(name, kind, aleatoric, epistemic):
        share, half = epistemic / (aleatoric + epistemic), 0.05
        return (
            {"model": "mine", "images": 1, "set": name, "kind": kind, "aleatoric": aleatoric}
            | {"epistemic": epistemic, "epistemic_low": epistemic - half}
            | {"epistemic_high": epistemic + half}
            | {"share": share, "share_low": share - half, "share_high": share + half}
        )

    table = pd.DataFrame(
        [
            row("test, right", "right", 0.3, 0.1),
            row("test, wrong", "wrong", 0.5, 0.5),
            row("far", "ood", 0.1, 0.9),
            row("near", "ood", 0.0, 0.2),
        ]
    )
    text = (
        "- **mine**: the epistemic share of the entropy is 25 % [20 %, 30 %] where it is right, "
        "50 % [45 %, 55 %] where it is wrong; it is largest in nats on far (0.900 [0.850, 0.950] "
        "of 1.000 nats, 90 % [85 %, 95 %])"
    )
    assert findings.uncertainties(table) == text + "."
    more = pd.concat([table, pd.DataFrame([row("mid", "ood", 0.1, 0.85)])])
    assert findings.uncertainties(more) == text + ", not told apart from mid."


def convergence(nll, information=(0.0, 0.01, 0.02), half=0.01):
    rows = []
    for draws, one, other in zip((1, 2, 30), nll, information, strict=True):
        values = {"accuracy": 0.9, "nll": one, "ece": 0.1, "mutual_information": other}
        values |= {"nll_change": nll[-1] - one, "accuracy_change": 0.0}
        row = {"model": "m", "run": "r", "draws": draws}
        rows += [
            row | {"score": score, "value": value, "low": value - half, "high": value + half}
            for score, value in values.items()
        ]
    return pd.DataFrame(rows)


def test_convergence_by_hand():
    assert findings.convergence(convergence((0.5, 0.31, 0.3))) == (
        "- **m**: from 1 draw to 30 NLL −0.2000 [−0.2100, −0.1900] (to 0.3000) and accuracy "
        "+0.0000 [−0.0100, +0.0100]; 2 draws bring 95 % of the gain; mutual information 0.0200 "
        "[0.0100, 0.0300] nats, of which 2 draws show 50 %."
    )
    none = "these runs do not show that more draws lower the NLL"
    assert none in findings.convergence(convergence((0.3, 0.3, 0.4)))
    assert none in findings.convergence(convergence((0.5, 0.31, 0.3), half=0.3))
    # Of three runs one gains .2 and the others .02: their interval holds 0.
    first, second = convergence((0.5, 0.31, 0.3)), convergence((0.5, 0.49, 0.48)).assign(run="s")
    runs = [first, second, second.assign(run="t")]
    assert none in findings.convergence(pd.concat(runs))
    alike = convergence((0.5, 0.3, 0.29)).assign(run="s")
    third = convergence((0.5, 0.29, 0.28)).assign(run="t")
    text = findings.convergence(pd.concat([first, alike, third]))
    # Over images 0.01, over the three seeds t(2) 0.01 / √3 = 0.0248: together 0.0268.
    assert "NLL −0.2100 [−0.2368, −0.1832] (to 0.2900)" in text
    # Two have none.
    assert "NLL −0.2050 (to 0.2950)" in findings.convergence(pd.concat([first, alike]))


def test_posterior_over_training():
    levels = np.array(posterior.LEVELS)
    lines = [
        posterior.LayerLog(0, 0.0, "l", 9, [*levels], [0.1] * 9, [1.0] * 9),
        posterior.LayerLog(9, 3.0, "l", 9, [*(2 * levels)], [0.2] * 9, [4.0] * 9),
    ]
    assert findings.posterior_over_training(tables.posterior_over_training(lines)) == (
        "- **l**: over 3 epochs the middle 90 % of the posterior means go from a width of 0.900 to "
        "1.800, the median standard deviation from 0.100 to 0.200, the median signal-to-noise "
        "ratio from 1.00 to 4.00."
    )


def test_signal_to_noise():
    shares = np.linspace(0, 1, 101)
    table = pd.DataFrame({"layer": "l", "share": shares, "snr": 4 * shares})
    assert findings.signal_to_noise(table) == (
        "- **l**: 25 % of the weights have a mean smaller than their standard deviation (12 % "
        "below half of it); 50 % stand out by more than twice."
    )


def test_example_draws_by_hand():
    draws = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])

    def of(label):
        chosen = [tables.Example("clear", np.zeros((1, 1, 1)), label)]
        return findings.example_draws(tables.example_draws(chosen, draws))

    assert of(0).startswith("- **clear**: class 0 with probability 0.750 (5 % to 95 % of the draws")
    assert ", which is right; 75 % of the draws choose it." in of(0)
    assert ", but it is 1; 75 %" in of(1)
    assert "right" not in of(-1)
    assert "but it is" not in of(-1)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert of(-1).endswith(f"Entropy {entropy:.3f} nats, of which {entropy:.3f} epistemic.")


@pytest.mark.parametrize(
    ("finding", "missing"),
    [
        (lambda empty: findings.shifts(empty, NO_PAIRS), "eval_sets"),
        (lambda empty: findings.ood(empty, NO_PAIRS), "ood_sets"),
        (findings.false_alarms, "out of distribution"),
        (findings.uncertainties, "epistemic"),
        (findings.convergence, "draws"),
        (findings.posterior_over_training, "posterior"),
        (findings.signal_to_noise, "posterior"),
    ],
)
def test_without_rows_one_line_says_what_is_missing(finding, missing):
    text = finding(pd.DataFrame())
    assert missing in text
    assert "\n" not in text


def test_a_median_has_its_interval_and_few_values_none():
    values = np.arange(100.0)
    table = pd.DataFrame({"model": "m", "run": "r", "entropy": values, "outcome": "right"})
    wrong = table.assign(outcome="wrong", entropy=values + 5)
    # The 41st and 60th of 100: 50 less and more 9.8.
    text = findings.entropies(pd.concat([table, wrong]))
    assert "median 49.500 [39.000, 60.000] nats where right, 54.500 [44.000, 65.000]" in text
    assert "median 49.500 [39.000, 60.000] nats where right, 7.000 where" in findings.entropies(
        pd.concat([table, wrong[:5]])
    )
    # Of three runs the medians' spread is in it, too.
    others = [pd.concat([table, wrong]).assign(run=run) for run in "st"]
    for shift, other in enumerate(others, start=1):
        other["entropy"] += shift
    text = findings.entropies(pd.concat([table, wrong, *others]))
    # ± sqrt(10.5² + (4.303 / √3)²) = 10.8
    assert "median 50.500 [39.7" in text


def verdict(*frames, alone=False):
    table = scores(0.01, CNN_FC=(0.9, 0.3, 0.02), BNN_FC_flip=(0.8, 0.2, 0.05))
    if alone:
        table = table[table.model == "CNN_FC"]
    severities = shift_rows(0.1, 0.2)
    detection = ood_rows(bayesian=0.9, twin=0.8, information=0.95)
    if alone:
        severities, detection = (one[one.model == "CNN_FC"] for one in (severities, detection))
    return findings.verdict(table, severities, detection, frames)


def test_the_verdict_is_three_sentences():
    assert verdict(
        pd.DataFrame([difference("ece", -0.02, -0.01, -0.005)]),
        pd.DataFrame([difference("ece", -0.2, -0.1, 0.05, "all", sets=25)]),
        pd.DataFrame([difference("auroc", -0.2, -0.1, -0.05, "all", sets=1)]),
    ) == (
        "On the test images, BNN_FC_flip (−0.0100 [−0.0200, −0.0050]) has a better debiased ECE "
        "than its twin CNN_FC. Over 25 shifted sets, BNN_FC_flip (−0.1000 [−0.2000, +0.0500]) "
        "shows no difference in mean debiased ECE from its twin CNN_FC. Over 1 foreign set, "
        "BNN_FC_flip (−0.1000 [−0.2000, −0.0500]) has a worse mean AUROC of the entropy than its "
        "twin CNN_FC."
    )


def test_the_verdict_of_several_twins_and_of_sets_that_are_not_there():
    models = ["BNN_FC_flip", "BNN_conv_flip", "BNN_FC_nonflip", "BNN_conv_nonflip"]
    ends = [(-0.03, -0.01), (-0.03, -0.01), (-0.01, 0.03), (0.01, 0.03)]
    table = pd.DataFrame(
        [
            difference("ece", low, (low + high) / 2, high, model=model)
            for model, (low, high) in zip(models, ends, strict=True)
        ]
    )
    assert verdict(table, NO_PAIRS, NO_PAIRS) == (
        "On the test images, BNN_conv_flip (−0.0200 [−0.0300, −0.0100]) and BNN_FC_flip (−0.0200 "
        "[−0.0300, −0.0100]) have a better debiased ECE than their twins, BNN_conv_nonflip "
        "(+0.0200 [+0.0100, +0.0300]) has a worse one, and BNN_FC_nonflip (+0.0100 [−0.0100, "
        "+0.0300]) shows no difference. Under shift nothing is known: these runs share no "
        "shifted set (`eval_sets`). "
        "Out of distribution nothing is known: these runs share no foreign set (`ood_sets`)."
    )


def test_the_verdict_of_variants_and_of_one_model_alone():
    names = [f"BNN_FC_flip prior_stddev({value})" for value in (0.1, 1.0)]
    row = difference("ece", 0.01, 0.02, 0.03, kind="variant", runs=3, paired=True)
    row |= {"model": names[0], "other": names[1]}
    assert verdict(pd.DataFrame([row]), NO_PAIRS, NO_PAIRS).startswith(
        f"On the test images, {names[0]} (+0.0200 [+0.0100, +0.0300]) has a worse debiased ECE "
        f"than {names[1]}, paired by seed (3 seeds). Under"
    )
    assert verdict(NO_PAIRS, NO_PAIRS, NO_PAIRS, alone=True) == (
        "On the test images, the debiased ECE of CNN_FC is 0.0200 [0.0100, 0.0300]. Over 1 shifted "
        "set, the mean debiased ECE of CNN_FC is 0.2000 [0.1900, 0.2100]. Over 1 foreign set, the "
        "mean AUROC of the entropy of CNN_FC is 0.8000 [0.7900, 0.8100]."
    )


@pytest.mark.parametrize(
    ("runs", "left_out", "said"),
    [
        ([1], [0], ""),
        ([3], [0], ", paired by seed (3 seeds)"),
        ([2], [1], ", paired by seed (2 common seeds, 1 of 5 runs left out)"),
        (
            [1],
            [3],
            ", paired by seed (1 common seed, 3 of 5 runs left out; the luck of the seed is not in "
            "the interval)",
        ),
        (
            [1, 2],
            [3, 1],
            ", paired by seed (1 to 2 common seeds, up to 3 of 5 runs left out; the luck of the "
            "seed is not in the interval of the pairs of 1 seed)",
        ),
    ],
)
def test_runs_that_no_common_seed_pairs_are_said_to_be_left_out(runs, left_out, said):
    rows = [
        difference(
            "ece", 0.01, 0.02, 0.03, kind="variant", model=f"mine ranks({one})", other="mine"
        )
        | {"runs": one, "left_out": left, "paired": True}
        for one, left in zip(runs, left_out, strict=True)
    ]
    text = verdict(pd.DataFrame(rows), NO_PAIRS, NO_PAIRS)
    assert f" than mine{said}. Under" in text


def test_the_verdict_stays_short_where_many_agree():
    models = ["BNN_FC_flip", "BNN_conv_flip", "BNN_FC_nonflip"]
    rows = [
        difference("ece", middle - 0.01, middle, middle + 0.01, model=model)
        for model, middle in zip(models, (-0.02, -0.03, -0.04), strict=True)
    ]
    assert verdict(pd.DataFrame(rows), NO_PAIRS, NO_PAIRS).startswith(
        "On the test images, BNN_conv_flip, BNN_FC_flip and BNN_FC_nonflip (−0.0400 to −0.0200) "
        "have a better debiased ECE than their twins. Under shift"
    )


def test_means_over_groups_of_corruptions_and_of_foreign_sets():
    rows = [
        {"run": model, "model": model, "group": "mnist_c", "score": score, "value": value}
        | {"low": value - 0.1, "high": value + 0.1, "sets": 15, "images": 1000}
        for model, values in (("CNN_FC", (0.8, 1.5)), ("BNN_FC_flip", (0.7, 1.5)))
        for score, value in zip(("cA", "cNLL"), values, strict=True)
    ]
    assert findings.corruptions(pd.DataFrame(rows)) == (
        "- **mnist_c**, means over 15 sets of 1,000 images: cA from 0.700 [0.600, 0.800] "
        "(BNN_FC_flip) to 0.800 [0.700, 0.900] (CNN_FC); cNLL of 1.500 for every model."
    )
    row = {"run": "r", "model": "CNN_FC", "group": "near", "protocol": "OpenOOD"}
    row |= {"score": "entropy", "auroc": 0.9, "fpr95": 0.2, "sets": 1}
    row |= {"members": "fashion_mnist", "missing": "notmnist"}
    text = (
        "- **near** (the sets of OpenOOD's benchmark): mean over fashion_mnist of the AUROC of "
        "0.900 (CNN_FC) and of the false positive rate at 95 % true positive rate of 0.200 "
        "(CNN_FC); not evaluated: notmnist."
    )
    assert findings.ood_groups(pd.DataFrame([row]), ["near"]) == text
    # One set is no mean, unless its group was asked for.
    assert findings.ood_groups(pd.DataFrame([row]), ["uniform_noise"]) == ""
    more = row | {"protocol": "all", "sets": 2, "members": "fashion_mnist, kmnist"}
    two = findings.ood_groups(pd.DataFrame([row, more]))
    assert two.startswith(
        "- **near** (the sets of OpenOOD's benchmark and those that bnnlib adds): mean over "
        "fashion_mnist, kmnist of"
    )
