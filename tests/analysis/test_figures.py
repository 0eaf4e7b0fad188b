"""Figures of small tables made by hand: what is drawn, in whose colour, and that it renders."""

import dataclasses
import io
from typing import Any

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bnnlib import metrics
from bnnlib.analysis import figures, style, tables
from bnnlib.networks import posterior

NAMES = ["CNN_conv", "BNN_conv_flip", "my_network", "another one"]
SORTED = ["BNN_conv_flip", "CNN_conv", "my_network", "another one"]
STOCHASTIC = ["BNN_conv_flip", "my_network"]


@pytest.fixture(autouse=True)
def no_display():
    plt.switch_backend("agg")
    yield
    assert plt.get_fignums() == []  # an open figure would be shown a second time by a notebook


def rgb(colour: Any) -> tuple[float, ...]:
    return tuple(round(part, 3) for part in matplotlib.colors.to_rgb(colour))


def draw(figure: Figure) -> None:
    """Renders, which is where matplotlib finds most faults."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def texts(legend: Any) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def random_probs(seed, draws=None, images=60):
    shape = (images, 3) if draws is None else (draws, images, 3)
    return np.random.default_rng(seed).dirichlet([0.4, 0.4, 0.4], shape[:-1])


def predict(set_number, labelled=True, seeds=(0, 1)):
    """Two runs of four models, two of them the user's own, on one set of 60 images."""
    labels = np.random.default_rng(set_number).integers(0, 3, 60) if labelled else None
    found = []
    for number, model in enumerate(NAMES):
        for seed in seeds:
            probs = random_probs([number, seed, set_number], 4 if model in STOCHASTIC else None)
            one = tables.given(model, probs, labels, f"{model}-{seed}")
            if one.expected_entropy is None:
                entropy = metrics.predictive_entropy(one.mean_probs)
                one = dataclasses.replace(one, expected_entropy=entropy)
            found.append(one)
    return found


@pytest.fixture
def test_set():
    return predict(0)


@pytest.fixture
def foreign():
    return {name: predict(number, labelled=False) for number, name in ((5, "far"), (6, "near"))}


def test_training_curves():
    steps = pd.DataFrame(
        {
            "epoch": [0.5, 1.0, 1.5],
            "nll": [2.0, 1.0, 0.5],
            "kl": [30.0, 20.0, 10.0],
            "images_per_second": [100.0, 90.0, 110.0],
        }
    )
    validation = pd.DataFrame({"epoch": [1.0, 1.5], "validation_nll": [0.9, 0.7]})
    figure = figures.training_curves(steps, None, 10, validation)
    curves = [
        (steps.epoch, steps.nll, "NLL on training batches\n(nats an image)"),
        (validation.epoch, validation.validation_nll, "validation NLL\n(nats an image)"),
        (steps.epoch, steps.kl / 10, "KL(q||p)/N (nats an image)"),
        (steps.epoch, steps.images_per_second, "images/s, all ranks"),
    ]
    for axis, (x, y, label) in zip(figure.axes, curves, strict=True):
        (line,) = axis.lines
        assert line.get_xdata().tolist() == x.tolist()
        assert line.get_ydata().tolist() == y.tolist()
        assert axis.get_ylabel() == label
        assert not axis.texts
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["epoch", "epoch"]
    assert figure.axes[3].get_ylim()[0] == 0
    draw(figure)


@pytest.mark.parametrize("rows", [0, 2])
def test_training_curves_without_what_was_not_recorded(rows):
    steps = pd.DataFrame(1.0, range(rows), ["epoch", "nll", "kl", "images_per_second"])
    old = pd.DataFrame({"epoch": [1.0], "validation_nll": [None]}) if rows else None
    figure = figures.training_curves(steps, epochs=20, validation=old)
    assert [axis.get_xlim() for axis in figure.axes] == [(0, 20)] * 4
    assert figure.axes[1].texts[0].get_text() == "not asked for (evaluate_every)"
    assert figure.axes[2].get_ylabel() == "KL(q||p) (nats)"
    draw(figure)


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (3, (4, 5, 3))])
def test_image_row(channels, shape):
    images = np.arange(2 * 4 * 5 * channels, dtype=np.uint8).reshape(2, 4, 5, channels)
    figure = figures.image_row(images, np.array([7, 3]))
    assert [axis.get_title() for axis in figure.axes] == ["7", "3"]
    for axis, image in zip(figure.axes, images, strict=True):
        assert axis.images[0].get_array().shape == shape
        assert np.array_equal(axis.images[0].get_array(), image.reshape(shape))
    draw(figure)


# ----------------------------------------------------------------------------------- the test set


def score_table():
    """Four models: two runs each, but for the last one, which has one run and an interval."""
    rows = []
    for number, model in enumerate(NAMES):
        single = model == "another one"
        for score, mean in (("accuracy", 0.91 + 0.01 * number), ("nll", 0.5 - 0.1 * number)):
            spread = {"low": mean - 0.02, "high": mean + 0.01} if single else {"stddev": 0.0014}
            row = {"model": model, "score": score, "runs": 1 if single else 2, "mean": mean}
            rows.append(row | spread)
        rows.append({"model": model, "score": "images_per_second", "runs": 2, "mean": 1001.0})
    return pd.DataFrame(rows)


def test_comparison_table_by_hand():
    styler = figures.comparison_table(score_table())
    shown = styler.data
    assert shown.index.tolist() == SORTED
    assert shown.runs.tolist() == [2, 2, 2, 1]
    assert shown.loc["BNN_conv_flip", "accuracy"] == "0.9200 ± 0.0014"
    assert shown.loc["another one", "NLL"] == "0.2000 [0.1800, 0.2100]"
    assert shown.loc["CNN_conv", "images/s"] == "1001"
    assert list(shown.columns) == ["runs", "accuracy", "NLL", "images/s"]  # no empty columns
    assert styler.to_html().count("<tr>") == 2 + len(SORTED)
    styler._compute()
    bold = {place for place, styles in styler.ctx.items() if ("font-weight", "bold") in styles}
    assert bold == {(3, 1), (3, 2), *((row, 3) for row in range(4))}  # all are as fast


def test_comparison_table_without_a_score_shows_a_dash():
    scores = score_table()
    extra = pd.DataFrame([{"model": "CNN_conv", "score": "ece_scaled", "runs": 2, "mean": 0.01}])
    shown = figures.comparison_table(pd.concat([scores, extra])).data
    assert shown["ECE at T"].tolist() == ["–", "0.0100", "–", "–"]


def test_accuracy_against_nll():
    figure = figures.accuracy_against_nll(score_table())
    (axis,) = figure.axes
    assert "nats" in axis.get_xlabel()
    assert axis.get_ylabel() == "accuracy"
    assert texts(axis.get_legend()) == SORTED
    colours, markers = style.looks(NAMES)
    points = [container.lines[0] for container in axis.containers]
    assert [float(point.get_xdata()[0]) for point in points] == pytest.approx([0.4, 0.5, 0.3, 0.2])
    assert [rgb(point.get_color()) for point in points] == [rgb(colours[m]) for m in SORTED]
    assert [point.get_marker() for point in points] == [markers[m] for m in SORTED]
    draw(figure)


def test_reliability_diagrams(test_set):
    test_set[0] = dataclasses.replace(test_set[0], temperature=2.0)
    bins = tables.reliability(test_set)
    figure = figures.reliability_diagrams(bins)
    draw(figure)
    panels = {axis.get_title().split("\n")[0]: axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == SORTED
    colours = style.looks(NAMES)[0]
    for model, axis in panels.items():
        ece = bins[(bins.model == model) & ~bins.scaled].groupby("run").ece.first().mean()
        assert f"ECE {ece:.3f}" in axis.get_title()
        assert (", at T" in axis.get_title()) == (model == "CNN_conv")
        # Beside it the ECE, and around the bins the band, of a calibrated model.
        mine = bins[(bins.model == model) & ~bins.scaled]
        calibrated = mine.groupby("run").ece_if_calibrated.first().mean()
        assert f"(calibrated: {calibrated:.3f})" in axis.get_title()
        bands = [band.get_datalim(axis.transData) for band in axis.collections[:1]]
        first = mine[mine.run == mine.run.iloc[0]]
        assert bands[0].y0 == pytest.approx((first.calibrated_low - first.confidence).min())
        assert bands[0].y1 == pytest.approx((first.calibrated_high - first.confidence).max())
        curves = [container.lines[0] for container in axis.containers]
        assert len(curves) == 2
        assert {rgb(curve.get_color()) for curve in curves} == {rgb(colours[model])}
        assert {"too modest", "too sure"} <= {text.get_text() for text in axis.texts}
    assert set(texts(figure.legends[0])) == {
        "as predicted",
        "after temperature scaling, at T",
        "a calibrated model, 95 %",
    }
    counts = [axis for axis in figure.axes if axis.get_yscale() == "log" and axis.patches]
    drawn = sum(bar.get_height() for axis in counts for bar in axis.patches)
    assert drawn == bins[~bins.scaled]["count"].sum()


@pytest.mark.parametrize("right", [True, False])
def test_figures_of_a_model_that_is_always_right_or_never(right):
    probs = random_probs(0)
    labels = probs.argmax(axis=1) if right else (probs.argmax(axis=1) + 1) % 3
    one = [tables.given("mine", probs, labels)]
    draw(figures.reliability_diagrams(tables.reliability(one)))
    draw(figures.risk_against_coverage(tables.risk_coverage(one)))
    entropies = tables.entropies(one)
    assert set(entropies.outcome) == {"right" if right else "wrong"}
    draw(figures.entropy_of_right_and_wrong(entropies))


def test_entropy_of_right_and_wrong(test_set):
    entropies = tables.entropies(test_set)
    figure = figures.entropy_of_right_and_wrong(entropies)
    draw(figure)
    (axis,) = figure.axes
    wrong = entropies[entropies.outcome == "wrong"].groupby("model").size()
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [f"{model}\n{wrong[model]} wrong" for model in SORTED]
    assert "entropy (nats)" in axis.get_xlabel()
    assert texts(axis.get_legend()) == ["right", "wrong"]


def test_risk_against_coverage(test_set):
    curves = tables.risk_coverage(test_set)
    figure = figures.risk_against_coverage(curves)
    (axis,) = figure.axes
    for model, line in zip(SORTED, axis.lines, strict=True):
        whole = curves[(curves.model == model) & (curves.coverage == 1)].risk.mean()
        assert line.get_xdata()[-1] == 100
        assert line.get_ydata()[-1] == pytest.approx(100 * whole)
        area = 1000 * curves[curves.model == model].groupby("run").aurc.first().mean()
        assert line.get_label() == f"{model}  ({area:.2f})"
    draw(figure)


# ------------------------------------------------------------------------------------- other sets


@pytest.mark.parametrize("families", [1, 7])
def test_against_severity(test_set, families):
    shifted = {
        f"family{n}-{level}": predict(10 * n + level) for n in range(families) for level in (1, 5)
    }
    table = tables.shifts(test_set, shifted, 10)
    figure = figures.against_severity(table)
    draw(figure)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [f"family{n}" for n in range(families)]
    assert texts(figure.legends[0]) == [*SORTED, "a calibrated model with the same confidences"]
    first = table[(table.model == "CNN_conv") & (table.score == "accuracy")]
    line = figure.axes[0].lines[1]
    assert line.get_xdata().tolist() == [0, 1, 5]
    expected = first[first.family == "family0"].groupby("severity").value.mean()
    assert line.get_ydata() == pytest.approx(expected.to_numpy())
    axes = [axis for axis in figure.axes if axis.lines]
    assert len(axes) == 2 * families
    # Each model's ECE has the ECE of a calibrated model beside it, dotted.
    (ece,) = (axis for axis in axes[: 2 * min(families, 5)] if axis.get_ylabel() == "ECE")
    dotted = [line for line in ece.lines if line.get_linestyle() == ":"]
    calibrated = table[(table.score == "ece_if_calibrated") & (table.family == "family0")]
    means = calibrated.groupby(["model", "severity"]).value.mean()
    assert len(dotted) == len(SORTED)
    for line, model in zip(dotted, SORTED, strict=True):
        assert line.get_ydata() == pytest.approx(means[model].to_numpy())


def test_ood_histograms(test_set, foreign):
    table = tables.ood_histograms(test_set, foreign)
    figure = figures.ood_histograms(table)
    draw(figure)
    assert len(figure.axes) == len(NAMES) * 2
    assert [axis.get_title() for axis in figure.axes[:2]] == ["far", "near"]
    first = table[(table.model == "BNN_conv_flip") & (table["set"] == "far")]
    (text,) = figure.axes[0].texts
    assert text.get_text() == f"AUROC {first.auroc.iloc[0]:.3f}"
    heights, *_ = figure.axes[0].patches[1].get_data()
    assert heights == pytest.approx(first.foreign.to_numpy())


def test_roc_curves_have_a_row_a_score(test_set, foreign):
    figure = figures.roc_curves(tables.roc(test_set, foreign))
    draw(figure)
    assert len(figure.axes) == 4
    drawn = [sum(len(line.get_xdata()) > 2 for line in axis.lines) for axis in figure.axes]
    assert drawn == [4, 4, 2, 2]  # the mutual information has the stochastic models alone
    plain = [one for one in test_set if one.model == "CNN_conv"]
    assert len(figures.roc_curves(tables.roc(plain, foreign)).axes) == 2


def test_epistemic_against_aleatoric(test_set, foreign):
    table = tables.uncertainties(test_set, {"rotate-30": predict(3)}, foreign)
    figure = figures.epistemic_against_aleatoric(table)
    draw(figure)
    assert [axis.get_title() for axis in figure.axes] == STOCHASTIC
    names = ["test, right", "test, wrong", "shifted sets", "far", "near"]
    assert texts(figure.legends[0]) == names
    points = figure.axes[1].collections[3].get_offsets()
    far = table[(table.model == "my_network") & (table["set"] == "far")]
    assert np.allclose(points, far[["aleatoric", "epistemic"]])


def test_convergence_with_draws():
    probs = random_probs(0, 5)
    labels = np.zeros(60, int)
    by_draws = {n: [tables.given("BNN_FC_flip", probs[:n], labels)] for n in (1, 2, 5)}
    table = tables.convergence(by_draws)
    figure = figures.convergence_with_draws(table)
    draw(figure)
    assert len(figure.axes) == 4
    for axis in figure.axes:
        assert axis.lines[0].get_xdata().tolist() == [1, 2, 5]
    assert figure.axes[3].lines[0].get_ydata()[0] == 0.0


# ----------------------------------------------------------------------------- inside one network


def test_posterior_over_training():
    rising = [float(level) for level in posterior.LEVELS]
    lines = [
        posterior.LayerLog(n, float(n), layer, 4, rising, rising, rising)
        for n in (0, 1, 2)
        for layer in ("layer0", "layer1")
    ]
    figure = figures.posterior_over_training(tables.posterior_over_training(lines))
    draw(figure)
    assert len(figure.axes) == 6
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5] * 3
    assert texts(figure.legends[0]) == [
        "middle 98% of the weights",
        "middle 90% of the weights",
        "middle 50% of the weights",
        "median",
    ]


def test_signal_to_noise():
    shares = np.linspace(0, 1, 5)
    table = pd.DataFrame({"layer": "layer0", "share": shares, "snr": 2 * shares})
    figure = figures.signal_to_noise(table)
    draw(figure)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0, 25, 50, 75, 100]
    assert texts(figure.axes[0].get_legend()) == ["layer0"]


def test_draws_of_images():
    images = [np.zeros((4, 4, 1)), np.zeros((4, 4, 3))]
    chosen = [tables.Example("first", images[0], 1), tables.Example("second", images[1], -1)]
    probs = random_probs(1, 7, images=2)
    figure = figures.draws_of_images(tables.example_draws(chosen, probs), images)
    draw(figure)
    titles = [axis.get_title(loc="left") for axis in figure.axes[1::2]]
    assert titles == ["first", "second"]
    clouds = figure.axes[1].collections[::2]
    for place, cloud in enumerate(clouds):
        assert sorted(cloud.get_offsets()[:, 1]) == sorted(probs[:, 0, place])
    green, blue = rgb(style.COLOURS[2]), rgb(style.COLOURS[0])
    assert [rgb(cloud.get_facecolor()[0][:3]) for cloud in clouds] == [blue, green, blue]
