"""No sentence says what its own numbers do not: generated tables, and a scan of what is said.

:func:`faults` finds the kinds of sentences that once were said: "0.8 to 0.8", "1 pairs", "lowers …
0.202 without it, 0.201 with it", and better or worse of a difference whose interval holds zero.
"""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnlib.analysis import findings, tables
from bnnlib.analysis.words import with_labels

NUMBER = r"[+−]?(?:\d[\d,]*(?:\.\d+)?|∞)(?: %)?"
INTERVAL = rf"\[({NUMBER}), ({NUMBER})\]"
NOUNS = "pairs|nodes|runs|draws|bins|networks|models|images|epochs|ranks|sets|seeds|times|others"


def value(text):
    return float(text.replace("−", "-").replace("∞", "inf").replace(",", "").removesuffix(" %"))


def holds_zero(low, high):
    return value(low) <= 0 <= value(high)


def faults(text):
    """What a text must not say, as it says it."""
    found = [
        match[0]
        for pattern in (
            rf"(?<![\d.,+−])({NUMBER})(?: {INTERVAL})?(?: \([^()]*\))? to \1(?![\d.])",
            rf"(?<![\d.,])1 (?:\w+ )?(?:{NOUNS})\b",
            r"\w\(s\)",
            r"\bnan\b",
            r"-\d+\.\d",
            r"(?:−\d[\d.]*|1\d\d\.[\d.]*[1-9]\d*|1[1-9]\d) %",
        )
        for match in re.finditer(pattern, text)
    ]
    # "better for a (−0.1 [−0.2, 0.0])", up to the next verdict or the end of the sentence
    for claim in re.finditer(r"\b(?:better|worse) for (.*?)(?:;|\.(?:\s|$))", text):
        found += [m[0] for m in re.finditer(INTERVAL, claim[1]) if holds_zero(m[1], m[2])]
    # "−0.1 [−0.2, 0.0], better" and "accuracy less confidence −0.1 [−0.2, 0.0]"
    for pattern in (
        rf"{INTERVAL}, (?:better|worse)\b",
        rf"accuracy less confidence \S+ {INTERVAL}",
    ):
        found += [m[0] for m in re.finditer(pattern, text) if holds_zero(m[1], m[2])]
    # "a (−0.1 [−0.2, 0.0]) and b (…) have a better ECE than …": the verdict that follows is theirs
    for match in re.finditer(INTERVAL, text):
        said = re.search(
            r"\bha(?:s|ve) a (?:better|worse)\b|\bshows? no diff|\. ", text[match.end() :]
        )
        if said and said[0].startswith("ha") and holds_zero(match[1], match[2]):
            found.append(match[0] + said[0])
    pattern = rf"\b(?:lowers|raises) .*?({NUMBER}) without it, ({NUMBER}) with it, \S+ {INTERVAL}"
    for match in re.finditer(pattern, text):
        without, at_t = value(match[1]), value(match[2])
        small = abs(without - at_t) < 0.03 * without  # 5 % before both are rounded
        if without == at_t or small or holds_zero(match[3], match[4]):
            found.append(match[0])
    return found


@pytest.mark.parametrize(
    "text",
    [
        "accuracy from 0.800 [0.7, 0.9] (a) to 0.800 [0.7, 0.9] (a)",
        "kept: 75.0 % to 75.0 %",
        "mean +0.1000 over 1 pairs",
        "reach 1 nodes",
        "none of 1 Bayesian networks differs",
        "at 1 rank(s)",
        "kept: a 28.0 % [−31.1 %, 89.2 %]",
        "kept: a 97.2 % [86.0 %, 105.9 %]",
        "debiased ECE -0.01",
        "lowers the mean ECE: 0.202 without it, 0.201 with it, −0.001 [−0.002, −0.0005]",
        "lowers the mean ECE: 0.302 without it, 0.201 with it, −0.101 [−0.202, +0.0005]",
        "AUROC less the twin's: better for a (+0.1 [+0.0, +0.2]); worse for b (−0.1 [−0.2, −0.1])",
        "NLL +0.1 [−0.1, +0.2], worse",
        "a (+0.1 [−0.1, +0.2]) and b (+0.1 [+0.1, +0.2]) have a better ECE than their twins",
        "on average overconfident: accuracy less confidence −0.1 [−0.2, +0.1]",
    ],
)
def test_the_scan_finds_what_once_was_said(text):
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy from 0.800 [0.7, 0.9] (a) to 0.900 [0.8, 1.0] (b)",
        "11 pairs, 1 pair; 2.1 times; 100.0 % [95 %, 100 %]",
        "lowers the mean ECE: 0.302 without it, 0.201 with it, −0.101 [−0.202, −0.05]",
        "better for a (+0.1 [+0.1, +0.2]); no difference shown for b (−0.1 [−0.2, +0.1]).",
        "a (+0.1 [+0.1, +0.2]) has a better ECE than b, c (+0.1 [−0.1, +0.2]) shows no difference",
    ],
)
def test_the_scan_passes_what_may_be_said(text):
    assert not faults(text)


# Values that are alike, or nearly, as they are written, and ends at, below and above zero.
VALUES = st.sampled_from([0.0, 0.00002, 0.001, 0.0016, 0.201, 0.2014, 0.202, 0.8, 0.80004, 1.0])
HALVES = st.sampled_from([0.0, 0.00001, 0.0009, 0.001, 0.05, 0.3])
SIGNS = st.sampled_from([-1.0, 1.0])
NAMES = [
    *("BNN_FC_flip", "CNN_FC", "BNN_conv_flip", "CNN_conv", "BNN_FC_flip prior_stddev(0.1)"),
    *("CNN_FC dropout(0.1)", "CNN_FC ensemble(2)", "mine"),
]
MODELS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)


@st.composite
def interval(draw, signed=False):
    middle, half = draw(VALUES) * (draw(SIGNS) if signed else 1.0), draw(HALVES)
    if draw(st.integers(0, 9)) == 0:
        return middle, math.nan, math.nan
    return middle, middle - half, middle + half


@st.composite
def rows(draw, keys, columns, signed=()):
    """A row for each of `keys`, with an interval under each three of `columns`."""
    made = []
    for key in keys:
        row = dict(key)
        for names in columns:
            row |= dict(zip(names, draw(interval(names[0] in signed)), strict=True))
        made.append(row)
    return pd.DataFrame(made)


def of_differences(draw, models, sets, scores):
    pairs = []
    for kind in ("twin", "variant", "model"):
        others = draw(st.lists(st.sampled_from(models), max_size=2, unique=True))
        pairs += [(kind, model, other) for other in others for model in models if model != other]
    keys = [
        {"set": name, "sets": draw(st.integers(1, 3)), "kind": kind, "model": model}
        | {"other": other, "score": score, "runs": draw(st.integers(1, 3))}
        | {"paired": draw(st.booleans()), "left_out": draw(st.integers(0, 3))}
        for name in sets
        for kind, model, other in pairs
        for score in scores
    ]
    columns = ("difference", "low", "high")
    if not keys:
        return pd.DataFrame(columns=tables.PAIR_COLUMNS)
    return draw(rows(keys, [columns], {"difference"}))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_no_sentence_says_what_its_numbers_do_not(data):
    draw = data.draw
    models = draw(MODELS)
    runs = [f"r{n}" for n in range(draw(st.integers(1, 2)))]
    of_runs = [{"model": model, "run": f"{model} {run}"} for model in models for run in runs]
    value_columns = [("value", "low", "high")]

    names = ("accuracy", "nll", "ece_debiased", "aurc", "nll_scaled", "temperature")
    keys = [{"model": m, "score": s, "runs": len(runs)} for m in models for s in names]
    scores = draw(rows(keys, [("mean", "low", "high")]))
    sets = ["rotate-30", "blur-1"]
    keys = [
        one | {"family": name.split("-")[0], "severity": severity, "score": score}
        | {"set": name if severity else "test"}
        for one in of_runs
        for name in sets
        for severity in (0, int(name.split("-")[1]))
        for score in ("accuracy", "ece", "ece_debiased", "ece_scaled")
    ]  # fmt: skip
    severities = draw(rows(keys, value_columns))
    keys = [
        one | {"set": name, "score": score}
        for one in of_runs
        for name in ("far", "near")
        for score in ("entropy", "mutual_information")
    ]
    three = [(f"{n}{a}", f"{n}{b}", f"{n}{c}") for n, a, b, c in _THREE]
    detection = draw(rows(keys, three, {"gain"}))
    on_test = of_differences(draw, models, ["test"], ("accuracy", "nll", "ece", "aurc"))
    shifted = of_differences(draw, models, [*sets, tables.ALL], ("accuracy", "ece"))
    outside = of_differences(draw, models, ["far", "near", tables.ALL], ("auroc",))

    keys = [one | {"coverage": 1.0, "risk": 0.1} for one in of_runs]
    kept = draw(rows(keys, [("coverage_at_1_percent", "coverage_low", "coverage_high")]))
    keys = [
        {"model": model, "images": 1, "set": name, "kind": kind, "aleatoric": 0.1}
        for model in models
        for name, kind in (("test, right", "right"), ("test, wrong", "wrong"), ("far", "ood"))
    ]
    columns = [
        ("epistemic", "epistemic_low", "epistemic_high"),
        ("share", "share_low", "share_high"),
    ]
    parts = draw(rows(keys, columns))
    keys = [
        one | {"draws": draws, "score": score}
        for one in of_runs
        for draws in draw(st.sampled_from([(1,), (1, 2), (1, 2, 30)]))
        for score in ("nll", "accuracy", "nll_change", "accuracy_change", "mutual_information")
    ]
    by_draws = draw(rows(keys, value_columns, {"value"}))
    keys = [
        one | {"scaled": scaled, "count": 10, "ece": 0.1, "ece_if_calibrated": 0.1}
        | {"ece_if_calibrated_high": 0.2, "calibrated_low": 0.1, "calibrated_high": 0.9}
        | {"confidence": 0.8}
        for one in of_runs
        for scaled in (False, True)
    ]  # fmt: skip
    columns = [
        ("ece_debiased", "ece_low", "ece_high"),
        ("accuracy", "accuracy_low", "accuracy_high"),
    ]
    bins = draw(rows(keys, columns))
    levels = [0.05, 0.5, 0.95]
    posterior = pd.DataFrame(
        [
            {
                "epoch": float(epoch),
                "layer": "l",
                "quantity": q,
                "level": level,
                "value": draw(VALUES),
            }
            for epoch in range(draw(st.integers(1, 2)) + 1)
            for q in ("mean", "stddev", "snr")
            for level in levels
        ]
    )
    texts = [
        findings.verdict(scores, severities, detection, (on_test, shifted, outside)),
        findings.scores(scores, on_test),
        findings.accuracy_against_nll(scores),
        findings.reliability(bins),
        findings.shifts(severities, shifted),
        findings.risk_coverage(kept, scores, on_test),
        findings.ood(detection, outside),
        findings.false_alarms(detection),
        findings.uncertainties(parts),
        findings.convergence(by_draws),
        findings.posterior_over_training(posterior),
    ]
    for text in texts:
        assert not faults(text), text
        assert not faults(with_labels(text, models)), with_labels(text, models)
    best_and_alike(findings.scores(scores, on_test), scores)
    beaten(findings.accuracy_against_nll(scores), scores)
    # The verdict is three sentences, whatever there is.
    assert len(re.findall(r"\.(?= (?:On|Over|Under|Out) |$)", texts[0])) == 3, texts[0]


_THREE = [(n, "", "_low", "_high") for n in ("auroc", "fpr95", "gain")]


def best_and_alike(text, scores):
    """Whoever's interval reaches into the best one's is named beside it."""
    table = scores[scores.score == "accuracy"].set_index("model")
    said = re.search(r"Most accurate: \*\*(.*?)\*\* .*?; lowest NLL", text)
    top = table.loc[said[1]]
    for model, row in table.drop(index=said[1]).iterrows():
        if not row.high < top.low:
            assert model in said[0], (model, text)


def beaten(text, scores):
    """A model is beaten only by one that is apart from it in both scores."""
    if "; " not in text:
        return
    accuracy, nll = (scores[scores.score == s].set_index("model") for s in ("accuracy", "nll"))
    named = text.split("; ")[1].split(" is beaten")[0].split(" are beaten")[0]
    for model in re.split(r", | and ", named):
        better = (accuracy.low > accuracy.high[model]) & (nll.high < nll.low[model])
        assert better.any(), text


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), MODELS, st.integers(1, 3), st.sampled_from([6, 40]))
def test_no_sentence_of_generated_predictions_does_either(seed, models, runs, images):
    """The same from predictions on: what the tables make of them is said rightly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)

    def predicted(truth=labels):
        made = []
        for model in models:
            for run in range(runs):
                probs = rng.dirichlet(np.ones(3), (4, images))
                one = tables.given(model, probs, truth, f"{model} {run}")
                made.append(dataclasses.replace(one, seed=run))
        return made

    test = predicted()
    shifted, foreign = {"rotate-30": predicted()}, {"far": predicted(None)}
    scores, bins = tables.scores(test, 20), tables.reliability(test)
    severities, detection = tables.shifts(test, shifted, 20), tables.ood(test, foreign, 20)
    differences = (
        tables.differences(test, 20),
        tables.shift_differences(shifted, 20),
        tables.ood_differences(test, foreign),
    )
    by_draws = {draws: test for draws in (1, 2, 4)}
    for text in (
        findings.verdict(scores, severities, detection, differences),
        findings.scores(scores, differences[0]),
        findings.reliability(bins),
        findings.entropies(tables.entropies(test)),
        findings.shifts(severities, differences[1]),
        findings.risk_coverage(tables.risk_coverage(test, 20), scores, differences[0]),
        findings.ood(detection, differences[2]),
        findings.false_alarms(detection),
        findings.uncertainties(tables.uncertainties(test, shifted, foreign)),
        findings.convergence(tables.convergence(by_draws)),
    ):
        assert not faults(text), text
