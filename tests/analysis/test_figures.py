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


def step_lines(epochs, kl=(30.0, 20.0, 10.0)):
    """Lines of a run whose loss has a KL/N of `kl` / 10."""
    table = pd.DataFrame({"epoch": epochs, "nll": [2.0, 1.0, 0.5], "kl": kl})
    return table.assign(loss=table.nll + table.kl / 10, images_per_second=[100.0, 90.0, 110.0])


def labelled(axis):
    return {line.get_label(): line for line in axis.lines}


def test_training_curves_tell_nll_validation_and_kl_apart():
    steps = step_lines([0.5, 1.0, 1.5])
    validation = pd.DataFrame({"epoch": [1.0, 1.5], "validation_nll": [0.9, 0.7]})
    figure = figures.training_curves(steps, None, 10, validation)
    draw(figure)
    nll, loss, kl, speed = figure.axes
    assert list(labelled(nll)) == texts(nll.get_legend()) == ["training batches", "validation"]
    one, other = nll.lines
    assert one.get_color() != other.get_color()
    assert one.get_marker() != other.get_marker()
    for line, x, y in (
        (one, steps.epoch, steps.nll),
        (other, validation.epoch, validation.validation_nll),
        (kl.lines[0], steps.epoch, steps.kl / 10),
        (speed.lines[0], steps.epoch, steps.images_per_second),
    ):
        assert line.get_xdata().tolist() == x.tolist()
        assert line.get_ydata().tolist() == y.tolist()
    labels = ["NLL (nats an image)", "loss (nats an image)", "KL(q‖p)/N (nats an image)"]
    assert [axis.get_ylabel() for axis in figure.axes] == [*labels, "images/s, all ranks"]
    # KL lies on the NLL, up to the loss, and the legend says how much of it KL is.
    upper = loss.collections[1].get_datalim(loss.transData)
    assert upper.y1 == pytest.approx(steps.loss.max())
    assert upper.y0 == pytest.approx(steps.nll.min())
    assert texts(loss.get_legend()) == ["KL(q‖p)/N, as weighted", "NLL"]
    assert loss.get_legend().get_title().get_text() == "KL is 67 % of the loss"
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["epoch", "epoch"]
    assert speed.get_ylim()[0] == 0


def test_training_curves_of_a_loss_that_is_all_but_kl():
    figure = figures.training_curves(step_lines([1.0, 2.0, 3.0], (900.0, 700.0, 495.0)))
    assert figure.axes[1].get_legend().get_title().get_text() == "KL is 99 % of the loss"
    assert figure.axes[2].get_ylabel() == "KL(q‖p) (nats)"


@pytest.mark.parametrize("rows", [0, 2])
def test_training_curves_show_only_what_was_recorded(rows):
    columns = ["epoch", "loss", "nll", "kl", "images_per_second"]
    steps = pd.DataFrame(1.0, range(rows), columns)
    old = pd.DataFrame({"epoch": [1.0], "validation_nll": [None]}) if rows else None
    figure = figures.training_curves(steps, epochs=20, validation=old)
    draw(figure)
    assert [axis.get_xlim() for axis in figure.axes] == [(0, 20)] * 4
    assert texts(figure.axes[0].get_legend()) == ["training batches"]


def test_training_curves_go_on_over_those_of_the_run_before():
    before, steps = step_lines([0.5, 1.0, 1.5]), step_lines([2.0, 2.5, 3.0])
    figure = figures.training_curves(steps, 3, 10, before=before)
    draw(figure)
    nll, _, kl, speed = figure.axes
    assert labelled(figure.axes[1])["the run before"].get_ydata().tolist() == before.loss.tolist()
    for axis in (nll, kl, speed):
        lines = labelled(axis)
        assert list(lines) == ["the run before", "training batches"]
        assert lines["the run before"].get_xdata().tolist() == [0.5, 1.0, 1.5]
        assert lines["training batches"].get_xdata().tolist() == [2.0, 2.5, 3.0]
        assert rgb(lines["the run before"].get_color()) == (0.6, 0.6, 0.6)


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


def test_the_bars_of_accuracy_against_nll_are_intervals_of_several_runs_too():
    """They were one standard deviation of several runs, beside 95 % of one."""
    rows = [
        ("BNN_FC_flip", "accuracy", 3, 0.9, 0.01, 0.85, 0.96),
        ("BNN_FC_flip", "nll", 3, 0.4, 0.02, 0.3, 0.6),
        ("CNN_FC", "accuracy", 2, 0.8, 0.1, np.nan, np.nan),
        ("CNN_FC", "nll", 2, 0.5, 0.1, np.nan, np.nan),
    ]
    names = ["model", "score", "runs", "mean", "stddev", "low", "high"]
    (axis,) = figures.accuracy_against_nll(pd.DataFrame(rows, columns=names)).axes
    drawn = [[bars.get_segments()[0] for bars in one.lines[2]] for one in axis.containers]
    (across, up), (none, neither) = drawn
    assert across[:, 0] == pytest.approx([0.3, 0.6])
    assert up[:, 1] == pytest.approx([0.85, 0.96])
    assert none[:, 0] == pytest.approx([0.5, 0.5])  # of two runs
    assert neither[:, 1] == pytest.approx([0.8, 0.8])


def test_the_bands_against_severity_are_intervals_of_several_runs_too():
    def table(runs):
        rows = [
            {"model": "CNN_FC", "run": f"r{n}", "family": "rotate", "severity": severity}
            | {"score": score, "value": 0.1 * n + 0.2, "low": 0.1 * n + 0.1, "high": 0.1 * n + 0.3}
            for n in range(runs)
            for severity in (0, 30)
            for score in ("accuracy", "ece_debiased")
        ]
        return pd.DataFrame(rows).assign(**{"set": "rotate-30"})

    def ends(runs):
        (band,) = figures.against_severity(table(runs)).axes[0].collections
        found = [path.get_extents() for path in band.get_paths()]
        return [(one.y0, one.y1) for one in found if np.isfinite([one.y0, one.y1]).all()]

    assert ends(1) == [pytest.approx((0.1, 0.3))]
    # 0.2, 0.3, 0.4: t of two degrees of freedom, 4.3027, by 0.1 / sqrt 3; the images' 0.1 beside.
    half = np.hypot(0.1, 4.3027 * 0.1 / np.sqrt(3))
    assert ends(3) == [pytest.approx((0.3 - half, 0.3 + half), abs=1e-4)]
    assert ends(2) == []


def test_reliability_diagrams(test_set):
    test_set[0] = dataclasses.replace(test_set[0], temperature=2.0)
    bins = tables.reliability(test_set)
    figure = figures.reliability_diagrams(bins)
    draw(figure)
    panels = {axis.get_title().split("\n")[0]: axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == SORTED
    colours = style.looks(NAMES)[0]
    for model, axis in panels.items():
        # The ECE and the debiased one, as predicted and, where there is a temperature, at it.
        _, plain, debiased = axis.get_title().split("\n")
        for text, name, score in ((plain, "ECE", "ece"), (debiased, "debiased", "ece_debiased")):
            mine = bins[bins.model == model].groupby(["scaled", "run"])[score].first()
            at_t = f" → {mine[True].mean():.3f} at T" if model == "CNN_conv" else ""
            assert text == f"{name} {mine[False].mean():.3f}{at_t}"
        mine = bins[(bins.model == model) & ~bins.scaled]
        first = mine[mine.run == mine.run.iloc[0]]
        first = first[first["count"] >= 10]
        band = axis.collections[0].get_datalim(axis.transData)
        assert band.y0 == pytest.approx((first.calibrated_low - first.confidence).min())
        assert band.y1 == pytest.approx((first.calibrated_high - first.confidence).max())
        curves = [container.lines[0] for container in axis.containers]
        assert len(curves) == 2
        assert {rgb(curve.get_color()) for curve in curves} == {rgb(colours[model])}
        words = {text.get_text() for text in axis.texts}
        assert {"underconfident", "overconfident"} <= words
    assert set(texts(figure.legends[0])) == {
        "as predicted",
        "after temperature scaling, at T",
        "a calibrated model, 95 %",
    }
    counts = [axis for axis in figure.axes if axis.get_yscale() == "log" and axis.patches]
    drawn = sum(bar.get_height() for axis in counts for bar in axis.patches)
    assert drawn == bins[~bins.scaled]["count"].sum()


def few_and_many(counts, gaps):
    """Reliability bins of one run, made by hand."""
    confidence = np.linspace(0.3, 0.9, len(counts))
    table = pd.DataFrame({"count": counts, "confidence": confidence})
    table["accuracy"] = confidence + gaps
    for name, middle in (("accuracy", table.accuracy), ("calibrated", confidence)):
        table[f"{name}_low"], table[f"{name}_high"] = middle - 0.05, middle + 0.05
    table["lower"], table["upper"] = confidence - 0.05, confidence + 0.05
    return table.assign(model="CNN_FC", run="r", scaled=False, ece=0.1, ece_debiased=0.05)


def test_reliability_reaches_as_far_as_the_bins_with_enough_images():
    gaps = np.array([-0.9, 0.1, 0.1, -0.08])
    upper, lower = figures.reliability_diagrams(few_and_many([1, 10, 40, 9], gaps)).axes
    (curve,) = [container.lines[0] for container in upper.containers]
    assert curve.get_ydata() == pytest.approx(gaps[1:3])  # bins of 10 and of 40 images
    assert upper.get_ylim() == pytest.approx((-0.1875, 0.1875))  # 0.15 and a quarter
    # The bins of one image and of nine are counted.
    assert sorted(bar.get_height() for bar in lower.patches) == [1, 9, 10, 40]
    # Where no bin has enough, all are drawn.
    upper, _ = figures.reliability_diagrams(few_and_many([1, 2, 2, 9], gaps)).axes
    assert len(upper.containers[0].lines[0].get_ydata()) == 4


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
    # Networks stand beside their twin alone; a user's own make a part of their own.
    study, own = figure.subfigs
    assert texts(study.legends[0]) == ["BNN_conv_flip", "CNN_conv"]
    assert texts(own.legends[0]) == ["my_network", "another one"]
    for part in figure.subfigs:
        titles = [axis.get_title() for axis in part.axes if axis.get_title()]
        assert titles == [f"family{n}" for n in range(families)]
        drawn = [axis for axis in part.axes if axis.lines]
        assert len(drawn) == 2 * families
        assert {len(axis.lines) for axis in drawn} == {2}
        assert {"accuracy", "debiased ECE"} <= {axis.get_ylabel() for axis in drawn}
    for row, score in enumerate(("accuracy", "ece_debiased")):
        axis = study.axes[row * min(5, families)]
        selected = table[(table.model == "CNN_conv") & (table.score == score)]
        selected = selected[selected.family == "family0"]
        assert axis.lines[1].get_xdata().tolist() == [0, 1, 5]
        expected = selected.groupby("severity").value.mean()
        assert axis.lines[1].get_ydata() == pytest.approx(expected.to_numpy())
        # Two runs have no band.
        paths = axis.collections[1].get_paths()
        assert not any(len(one.vertices) and np.isfinite(one.vertices).all() for one in paths)


def test_against_severity_shows_the_whole_interval_of_one_run():
    shifted = {"rotate-30": predict(1, seeds=(0,))}
    table = tables.shifts(predict(0, seeds=(0,)), shifted, 10)
    for axis in figures.against_severity(table).axes:
        for band in axis.collections:
            assert axis.get_ylim()[0] <= band.get_datalim(axis.transData).y0
            assert axis.get_ylim()[1] >= band.get_datalim(axis.transData).y1


def test_corruptions_of_one_severity_are_dots_and_no_lines(test_set):
    shifted = {f"noise-{level}": predict(level) for level in (1, 5)}
    shifted |= {f"mnist_c/{name}": predict(n) for n, name in enumerate(("fog", "stripe", "shear"))}
    several, single = tables.by_severities(tables.shifts(test_set, shifted, 10))
    lines = figures.against_severity(several)
    assert {axis.get_title() for axis in lines.axes} == {"noise", ""}
    figure = figures.corruptions(single)
    draw(figure)
    study, own = figure.subfigs
    assert texts(study.legends[0]) == ["BNN_conv_flip", "CNN_conv"]
    assert texts(own.legends[0]) == ["my_network", "another one"]
    dots = single[single.severity > 0]
    for part, twin in ((study, "CNN_conv"), (own, "my_network")):
        means = dots[(dots.model == twin) & (dots.score == "ece_debiased")].groupby("set")
        order = means.value.mean().sort_values().index.tolist()
        assert sorted(order) == ["mnist_c/fog", "mnist_c/shear", "mnist_c/stripe"]
        assert [text.get_text() for text in part.axes[0].get_yticklabels()] == order
        assert part.axes[0].yaxis_inverted()
        for axis, score in zip(part.axes, ("accuracy", "ece_debiased"), strict=True):
            for container in axis.containers:
                mine = dots[(dots.model == container.get_label()) & (dots.score == score)]
                expected = mine.groupby("set").value.mean()[order]
                assert container.lines[0].get_xdata() == pytest.approx(expected.to_numpy())
                assert container.lines[0].get_ydata().round().tolist() == [0, 1, 2]
                assert container.lines[0].get_linestyle() == "None"
                assert rgb(container.lines[0].get_color()) == rgb(
                    style.looks(NAMES)[0][container.get_label()]
                )


def test_the_bar_of_a_corruption_is_the_interval_of_one_run():
    table = tables.shifts(predict(0, seeds=(0,)), {"mnist_c/fog": predict(1, seeds=(0,))}, 10)
    _, single = tables.by_severities(table)
    for axis, score in zip(
        figures.corruptions(single).axes[:2], ("accuracy", "ece_debiased"), strict=True
    ):
        for container in axis.containers:
            (bar,) = container.lines[2][0].get_segments()
            (row,) = single[
                (single.model == container.get_label())
                & (single.score == score)
                & (single.severity == 1)
            ].itertuples()
            assert bar[:, 0] == pytest.approx([row.low, row.high])
            assert axis.get_xlim()[0] <= row.low <= row.high <= axis.get_xlim()[1]


def test_ood_histograms(test_set, foreign):
    table = tables.ood_histograms(test_set, foreign)
    figure = figures.ood_histograms(table)
    draw(figure)
    assert len(figure.axes) == len(NAMES) * 2
    # A name stands whole on one line, above its row, and no other text is in its way.
    assert [axis.get_title(loc="left") for axis in figure.axes[::2]] == SORTED
    assert not any(axis.get_title() for axis in figure.axes)
    assert figure.get_supylabel().startswith("share of the images")
    first = table[(table.model == "BNN_conv_flip") & (table["set"] == "far")]
    (text,) = figure.axes[0].texts
    assert text.get_text() == f"far, AUROC {first.auroc.iloc[0]:.3f}"
    heights, *_ = figure.axes[0].patches[1].get_data()
    assert heights == pytest.approx(first.foreign.to_numpy())
    assert texts(figure.legends[0]) == ["test images", "foreign images"]


def test_ood_histograms_of_one_set_stand_side_by_side(test_set, foreign):
    table = tables.ood_histograms(test_set[:6], {"far": foreign["far"]})
    figure = figures.ood_histograms(table)
    draw(figure)
    assert [axis.get_title(loc="left") for axis in figure.axes] == SORTED[:3]
    assert len({axis.get_position().y0 for axis in figure.axes}) == 1


def test_roc_curves_have_a_row_a_score(test_set, foreign):
    figure = figures.roc_curves(tables.roc(test_set, foreign))
    draw(figure)
    assert len(figure.axes) == 4
    # The dotted line of chance has no label.
    drawn = [
        [line for line in axis.lines if line.get_label()[0] != "_" and len(line.get_xdata())]
        for axis in figure.axes
    ]
    assert list(map(len, drawn)) == [4, 4, 2, 2]  # mutual information: the stochastic models alone
    # Models are told apart by shape as well, at places of their own.
    markers = style.looks(NAMES)[1]
    assert [line.get_marker() for line in drawn[0]] == [markers[model] for model in SORTED]
    assert len({line.get_markevery() for line in drawn[0]}) == len(SORTED)
    plain = [one for one in test_set if one.model == "CNN_conv"]
    assert len(figures.roc_curves(tables.roc(plain, foreign)).axes) == 2


def test_epistemic_against_aleatoric_names_every_set(test_set, foreign):
    shifted = {name: predict(3 + n) for n, name in enumerate(["rotate-60", "rotate-30", "odd"])}
    table = tables.uncertainties(test_set, shifted, foreign)
    figure = figures.epistemic_against_aleatoric(table)
    draw(figure)
    assert [axis.get_title() for axis in figure.axes] == STOCHASTIC
    names = ["test, right", "test, wrong", "rotate", "odd", "far", "near"]
    assert texts(figure.legends[0]) == names
    drawn = labelled(figure.axes[1])
    assert len({(line.get_marker(), line.get_color()) for line in drawn.values()}) == len(names)
    mine = table[table.model == "my_network"].set_index("set")
    for label, sets in {"far": ["far"], "rotate": ["rotate-30", "rotate-60"]}.items():
        assert drawn[label].get_xdata() == pytest.approx(mine.aleatoric[sets].to_numpy())
        assert drawn[label].get_ydata() == pytest.approx(mine.epistemic[sets].to_numpy())
    assert drawn["rotate"].get_linestyle() == "-"  # from the least severe on


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
        "middle 98 % of the weights",
        "middle 90 % of the weights",
        "middle 50 % of the weights",
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
