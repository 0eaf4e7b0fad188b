"""The sentences by hand: what they say where Bayesian networks win, lose, or nothing is there."""

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import findings, tables
from bnnlib.networks import posterior

LABELS = np.array([0, 1, 1, 0])
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])


def scores(**means):
    """Rows of one run a model: accuracy, nll, ece."""
    return pd.DataFrame(
        [
            {"model": model, "score": score, "runs": 1, "mean": value}
            for model, values in means.items()
            for score, value in zip(("accuracy", "nll", "ece"), values, strict=True)
        ]
    )


def difference(score, low, middle, high):
    row = {"model": "BNN_FC_flip", "twin": "CNN_FC", "score": score, "runs": 1}
    return row | {"difference": middle, "low": low, "high": high}


NO_PAIRS = pd.DataFrame(columns=list(difference("nll", 0, 0, 0)))


def test_scores_name_the_best_and_the_luck_of_one_seed():
    text = findings.scores(scores(CNN_FC=(0.9, 0.3, 0.02), BNN_FC_flip=(0.8, 0.2, 0.03)), NO_PAIRS)
    assert text == (
        "Most accurate: **CNN_FC** (0.9000); lowest NLL: **BNN_FC_flip** (0.2000); "
        "lowest ECE: **CNN_FC** (0.0200). "
        "One run a model: differences include the luck of the seed."
    )


def test_scores_name_all_that_cannot_be_told_apart():
    text = findings.scores(scores(a=(0.9, 0.3, 0.1), b=(0.9, 0.3, 0.2)), NO_PAIRS)
    assert "Most accurate: **a** and **b** (0.9000)" in text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("accuracy", 0.01, 0.02, 0.03), "accuracy +0.0200 [+0.0100, +0.0300], better"),
        (("accuracy", -0.03, -0.02, -0.01), "accuracy −0.0200 [−0.0300, −0.0100], worse"),
        (("nll", 0.01, 0.02, 0.03), "NLL +0.0200 [+0.0100, +0.0300], worse"),
        (("nll", -0.03, -0.02, -0.01), "NLL −0.0200 [−0.0300, −0.0100], better"),
        (("nll", -0.01, 0.02, 0.03), "no difference that these images can show"),
    ],
)
def test_scores_say_whether_a_twin_is_beaten(rows, expected):
    text = findings.scores(scores(CNN_FC=(0.9, 0.3, 0.02)), pd.DataFrame([difference(*rows)]))
    assert "- **BNN_FC_flip** less CNN_FC: " in text
    assert expected in text


def test_scores_after_temperature_scaling():
    table = tables.scores(
        [
            tables.Predicted("a", PROBS, LABELS, temperature=2.0),
            tables.Predicted("b", PROBS, LABELS, temperature=0.5),
        ],
        10,
    )
    text = findings.scores(table, NO_PAIRS)
    assert "After temperature scaling: lowest NLL" in text
    assert "above 1 (too sure) for a." in text
    assert "below 1 (too modest) for b." in text
    both = table.assign(mean=table["mean"].where(table.score != "temperature", 3.0))
    assert "above 1 (too sure) for every model." in findings.scores(both, NO_PAIRS)


def test_accuracy_against_nll():
    table = scores(a=(0.9, 0.3, 0.1), b=(0.8, 0.2, 0.1), c=(0.7, 0.4, 0.1))
    assert findings.accuracy_against_nll(table) == (
        "No other model is both more accurate and lower in NLL than a and b; 1 other is beaten in "
        "both."
    )


def test_reliability_by_hand():
    bins = pd.DataFrame(
        {
            "run": ["a", "a", "b"],
            "model": ["CNN_FC", "CNN_FC", "mine"],
            "scaled": False,
            "ece": [0.05, 0.05, 0.2],
            "count": [1, 3, 5],
            "accuracy": [0.5, 0.9, 0.4],
            "confidence": [0.3, 0.9, 0.6],
            "accuracy_low": [0.1, 0.8, 0.3],
            "accuracy_high": [0.9, 0.95, 0.5],
        }
    )
    assert findings.reliability(bins) == (
        "- **CNN_FC**: ECE 0.0500, on average too modest by 0.0500, 0 of 2 bins further from "
        "calibrated than their intervals allow.\n"
        "- **mine**: ECE 0.2000, on average too sure by 0.2000, 1 of 1 bins further from "
        "calibrated than their intervals allow."
    )
    again = pd.concat([bins, bins.assign(scaled=True, ece=0.01)])
    assert "; after temperature scaling ECE 0.0100" in findings.reliability(again)


def test_entropies_by_hand():
    table = pd.DataFrame(
        {
            "model": "mine",
            "entropy": [0.1, 0.2, 0.3, 0.25, 0.5],
            "outcome": ["right", "right", "right", "wrong", "wrong"],
        }
    )
    # Of 3 x 2 pairs, 5 have more entropy where wrong.
    assert findings.entropies(table) == (
        "- **mine**: median 0.200 nats where right, 0.375 where wrong; a wrong prediction has more "
        "entropy than a right one with probability 0.833."
    )
    assert findings.entropies(table[:3]) == "- **mine**: all predictions right."


def shift_rows(bayesian, twin, scaled=None):
    rows = [
        {"model": model, "family": "rotate", "severity": severity, "score": score, "value": value}
        for model, ece in (("BNN_FC_flip", bayesian), ("CNN_FC", twin))
        for severity in (0, 60)
        for score, value in (("accuracy", 0.5), ("ece", ece), ("ece_scaled", scaled))
        if value is not None
    ]
    return pd.DataFrame(rows)


def test_shifts_say_who_wins_and_who_does_not():
    won = findings.shifts(shift_rows(0.1, 0.2))
    assert "**rotate**, at 60" in won
    assert "ECE from 0.100 (BNN_FC_flip) to 0.200 (CNN_FC)" in won
    assert "lower ECE than their twin: 1 of 1 (BNN_FC_flip)." in won
    assert "lower ECE than their twin: 0 of 1." in findings.shifts(shift_rows(0.2, 0.1))
    assert "lower ECE than their twin: 0 of 1." in findings.shifts(shift_rows(0.1, 0.1001))
    assert "lowers the mean ECE: 0.150 without it, 0.050" in findings.shifts(
        shift_rows(0.1, 0.2, 0.05)
    )
    assert "does not lower the mean ECE" in findings.shifts(shift_rows(0.1, 0.2, 0.3))


def test_risk_coverage():
    table = tables.risk_coverage(
        [tables.given("CNN_FC", PROBS, LABELS), tables.given("BNN_FC_flip", PROBS, 1 - LABELS)]
    )
    text = findings.risk_coverage(table)
    assert text.startswith("Lowest area under the curve: **CNN_FC** (0.0625).")
    assert "**CNN_FC** can keep 75.0 % of the images and BNN_FC_flip 0.0 %" in text
    assert "25.0 % (CNN_FC) to 75.0 % (BNN_FC_flip) are wrong" in text
    assert text.endswith("smaller area than their twin: 0 of 1.")


def ood_rows(**auroc):
    rows = [
        ("BNN_FC_flip", "entropy"),
        ("CNN_FC", "entropy"),
        ("BNN_FC_flip", "mutual_information"),
    ]
    values = [auroc["bayesian"], auroc["twin"], auroc["information"]]
    return pd.DataFrame(
        [
            {"model": model, "set": "far", "score": score, "auroc": value, "fpr95": 1 - value}
            for (model, score), value in zip(rows, values, strict=True)
        ]
    )


def test_ood_by_hand():
    table = ood_rows(bayesian=0.9, twin=0.8, information=0.95)
    assert findings.ood(table) == (
        "- **far**: the entropy tells it from the test images with an AUROC of 0.800 (CNN_FC) to "
        "0.900 (BNN_FC_flip); Bayesian networks that do better than their twin: 1 of 1 "
        "(BNN_FC_flip)."
    )
    assert findings.false_alarms(table) == (
        "- **far**: to find 95 % of it by the entropy, 10.0 % (BNN_FC_flip) to 20.0 % (CNN_FC) of "
        "the test images are taken for foreign; models whose mutual information alone does better "
        "than their entropy: 1 of 1 (BNN_FC_flip), AUROC by +0.0500 to +0.0500."
    )
    lost = ood_rows(bayesian=0.7, twin=0.8, information=0.6)
    assert "better than their twin: 0 of 1" in findings.ood(lost)
    assert "better than their entropy: 0 of 1, AUROC by −0.1000" in findings.false_alarms(lost)
    plain = table[table.score == "entropy"]
    assert "mutual information" not in findings.false_alarms(plain)


def test_uncertainties_by_hand():
    row = {"model": "mine", "images": 1}
    table = pd.DataFrame(
        [
            row | {"set": "test, right", "kind": "right", "aleatoric": 0.3, "epistemic": 0.1},
            row | {"set": "test, wrong", "kind": "wrong", "aleatoric": 0.5, "epistemic": 0.5},
            row | {"set": "far", "kind": "ood", "aleatoric": 0.1, "epistemic": 0.9},
            row | {"set": "near", "kind": "ood", "aleatoric": 0.0, "epistemic": 0.2},
        ]
    )
    assert findings.uncertainties(table) == (
        "- **mine**: the epistemic share of the entropy is 25 % where it is right, 50 % where it "
        "is wrong, and largest in nats on far (0.900 of 1.000 nats, 90 %)."
    )


def convergence(nll, information=(0.0, 0.01, 0.02)):
    rows = []
    for draws, one, other in zip((1, 2, 30), nll, information, strict=True):
        values = {"accuracy": 0.9, "nll": one, "ece": 0.1, "mutual_information": other}
        row = {"model": "m", "run": "r", "draws": draws}
        rows += [row | {"score": score, "value": value} for score, value in values.items()]
    return pd.DataFrame(rows)


def test_convergence_by_hand():
    assert findings.convergence(convergence((0.5, 0.31, 0.3))) == (
        "- **m**: from 1 to 30 draws NLL −0.2000 (to 0.3000) and accuracy +0.0000; 2 draws bring "
        "95 % of the NLL's gain; mutual information 0.0200 nats, of which 2 draws show 50 %."
    )
    assert "more draws do not lower the NLL" in findings.convergence(convergence((0.3, 0.3, 0.4)))


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
        (findings.shifts, "eval_sets"),
        (findings.ood, "ood_sets"),
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
