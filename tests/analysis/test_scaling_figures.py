"""Figures of the scaling study, of small tables made by hand: what they show, and how."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import scaling, style
from bnnlib.analysis.scaling import figures

MODELS = ["BNN_FC_flip", "CNN_FC", "BNN_conv_flip", "CNN_conv"]
SORTED = ["BNN_conv_flip", "CNN_conv", "BNN_FC_flip", "CNN_FC"]


@pytest.fixture(autouse=True)
def no_display():
    plt.switch_backend("agg")
    yield
    assert plt.get_fignums() == []  # an open figure would be shown a second time by a notebook


def draw(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def efficiencies(ranks, high=1.8):
    rows = []
    for number, model in enumerate(MODELS):
        for kind in ("weak", "strong"):
            for size in ranks:
                row = {"model": model, "kind": kind, "ranks": size, "batch": 64, "repeats": 3}
                row |= {"images_per_second": 1000.0 * size, "low": 900.0, "high": 8000.0}
                row |= {"efficiency": 1.0 if size == 1 else 0.9 - 0.1 * number}
                ends = (1.0, 1.0) if size == 1 else (0.3, high)
                row |= dict(zip(("efficiency_low", "efficiency_high"), ends, strict=True))
                rows.append(row)
    return pd.DataFrame(rows)


def assert_no_bar_is_cut(axis):
    low, high = axis.get_ylim()
    for container in axis.containers:
        for bars in container.lines[2]:
            ends = np.array([end for segment in bars.get_segments() for end in segment])
            assert len(ends) == 0 or (low <= ends[:, 1].min() and ends[:, 1].max() <= high)


def test_efficiency_of_two_ranks_is_points_with_whole_bars_and_no_line():
    figure = figures.efficiency(efficiencies([1, 2]))
    draw(figure)
    assert texts(figure.legends[0]) == sorted(MODELS, key=style.ORDER.index)
    assert figure.legends[0].get_title().get_text() == "mean and 95 % interval of 3 runs"
    speeds, shares = figure.axes[:2], figure.axes[2:]
    assert [axis.get_title() for axis in speeds] == [
        "weak scaling: a rank's batch stays 64",
        "strong scaling: all ranks' batch stays 64",
    ]
    for axis, ranks in [*((axis, ["1", "2"]) for axis in speeds), *((a, ["2"]) for a in shares)]:
        assert [label.get_text() for label in axis.get_xticklabels()] == ranks
        points = [container.lines[0] for container in axis.containers]
        assert {line.get_linestyle() for line in points} == {"None"}
        assert {len(line.get_xdata()) for line in points} == {len(ranks)}
        # Beside each other, in the space of their own number of ranks.
        places = np.array([line.get_xdata() for line in points])
        assert len(np.unique(places)) == places.size
        assert np.abs(places - np.arange(len(ranks))).max() < 0.5
        assert_no_bar_is_cut(axis)


def test_efficiency_of_three_numbers_of_ranks_is_joined():
    table = efficiencies([1, 2, 8])
    _, _, weak, _ = figures.efficiency(table).axes
    assert {container.lines[0].get_linestyle() for container in weak.containers} == {"None"}
    speed, *_ = figures.efficiency(table).axes
    assert {container.lines[0].get_linestyle() for container in speed.containers} == {"-"}


def test_efficiency_of_single_runs_has_no_bars():
    table = efficiencies([1, 2]).assign(
        repeats=1, low=np.nan, high=np.nan, efficiency_low=np.nan, efficiency_high=np.nan
    )
    figure = figures.efficiency(table)
    draw(figure)
    assert figure.legends[0].get_title().get_text() == ""


def test_time_to_accuracy():
    rows = [
        {"model": model, "ranks": ranks, "global_batch": batch, "seconds": seconds}
        for model, base in (("CNN_FC", 0.1), ("BNN_FC_flip", np.nan))
        for ranks, batch in ((1, 64), (2, 64), (2, 128))
        for seconds in (base * ranks, 3 * base * ranks)
    ]
    figure = figures.time_to_accuracy(pd.DataFrame(rows))
    draw(figure)
    for axis in figure.axes:
        container = axis.containers[1]  # CNN_FC, after BNN_FC_flip, which never gets there
        assert container.lines[0].get_ydata() == pytest.approx([0.2, 0.4])
        assert container.lines[0].get_linestyle() == "None"
        assert_no_bar_is_cut(axis)
        low, high = axis.get_ylim()
        ticks = [t for t in axis.get_yticks() if low <= t <= high]
        assert len(ticks) >= 2
        assert {0.1, 0.2, 0.5} <= set(np.round(ticks, 9))
        shown = [axis.yaxis.get_major_formatter()(tick, None) for tick in (0.2, 0.5)]
        assert shown == ["0.2", "0.5"]
    title = figure.legends[0].get_title().get_text()
    assert title == "mean over repeats; bars from the fastest to the slowest"


def test_predictions_are_a_panel_a_twin_and_kind():
    measured = pd.DataFrame(
        {
            "model": MODELS, "kind": "weak", "batch": 64, "ranks": 2, "images_per_second": 1.0,
            "speedup": 1.8, "efficiency": [0.9, 0.8, 0.95, 1.03],
        }
    )  # fmt: skip
    compute, sizes = dict.fromkeys(MODELS, (0.0, 1e-4)), dict.fromkeys(MODELS, 10**6)
    table = scaling.scenarios(measured, compute, sizes, 64, 0.0, 0.1, [1, 2, 8, 64, 512])
    figure = figures.predictions(table)
    draw(figure)
    titles = [f"PREDICTION, {kind}: {twin}" for kind in ("weak", "strong") for twin in SORTED[1::2]]
    assert [axis.get_title() for axis in figure.axes] == titles
    first = figure.axes[0]
    lines = {line.get_label(): line for line in first.lines if len(line.get_xdata()) > 1}
    # The twin is wide and pale below its network, which has markers.
    assert list(lines) == ["BNN_conv_flip", "CNN_conv"]
    assert lines["CNN_conv"].get_linewidth() >= 3 * lines["BNN_conv_flip"].get_linewidth()
    assert lines["CNN_conv"].get_zorder() < lines["BNN_conv_flip"].get_zorder()
    styles = {line.get_linestyle() for line in first.lines if len(line.get_xdata()) > 1}
    assert styles == {"--", ":"}
    points = [line for line in first.lines if len(line.get_xdata()) == 1]
    assert [float(line.get_ydata()[0]) for line in points] == [0.95, 1.03]
    title = figure.legends[0].get_title().get_text()
    assert title == (
        "dashed: Aries; dotted: Aries + waiting; filled points: measured on this machine"
    )


def by_ranks(seeds):
    rows = []
    for model in MODELS:
        for ranks in (1, 2, 4):
            for batch in ("per rank", "global"):
                for noise in ("independent", "shared"):
                    if noise == "shared" and model.startswith("CNN") and ranks > 1:
                        continue
                    for seed in range(seeds):
                        row = {"model": model, "ranks": ranks, "batch": batch, "noise": noise}
                        row |= {"seed": seed, "num_images": 1000}
                        rows.append(row | {"score": "accuracy", "value": 0.9 + 0.02 * seed})
                        rows.append(row | {"score": "nll", "value": 0.3 + 0.1 * seed})
    return pd.DataFrame(rows)


def test_calibration_of_one_seed_has_the_intervals_over_images():
    figure = figures.calibration(by_ranks(1))
    draw(figure)
    titles = [f"{twin},\nfixed {batch} batch" for twin in SORTED[1::2] for batch in
              ("global", "per rank")]  # fmt: skip
    assert [axis.get_title() for axis in figure.axes[:4]] == titles
    accuracy, nll = figure.axes[0], figure.axes[4]
    assert len(accuracy.containers) == 3  # two noises of the network, one of the twin
    half = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    for axis, ends in ((accuracy, (0.9 - half, 0.9 + half)), (nll, (0.3, 0.3))):
        (bars,) = axis.containers[0].lines[2]
        assert bars.get_segments()[0][:, 1] == pytest.approx(ends)
    assert "one seed" in figure.legends[0].get_title().get_text()


def test_calibration_fits_a_screen_with_five_scores():
    """At the 900 pixels of a README it is less than 720 high."""
    scores = ["accuracy", "nll", "ece", "AUROC a", "AUROC b"]
    first = by_ranks(1)
    table = pd.concat([first[first.score == "nll"].assign(score=score) for score in scores])
    width, height = figures.calibration(table).get_size_inches()
    assert 900 * height / width < 720


def test_calibration_of_several_seeds_has_the_intervals_over_seeds():
    figure = figures.calibration(by_ranks(3))
    nll = figure.axes[4]
    (bars,) = nll.containers[0].lines[2]
    # The mean of 0.3, 0.4 and 0.5; Student's t of two degrees of freedom, 4.3027, by 0.1 / sqrt 3.
    half = 4.3027 * 0.1 / np.sqrt(3)
    assert bars.get_segments()[0][:, 1] == pytest.approx((0.4 - half, 0.4 + half), abs=1e-4)
    assert "mean of 3 seeds and 95 % interval" in figure.legends[0].get_title().get_text()


def test_calibration_of_two_seeds_has_no_interval():
    figure = figures.calibration(by_ranks(2))
    (bars,) = figure.axes[4].containers[0].lines[2]
    assert bars.get_segments()[0][:, 1] == pytest.approx((0.35, 0.35))
    told = figure.legends[0].get_title().get_text()
    assert "mean of 2 seeds, too few for an interval" in told


def test_a_ladder_names_algorithms_that_say_the_same_in_one_line():
    table = pd.DataFrame({"bytes": [4, 4096], "ms": [0.3, 0.4], "ms_min": 0.2, "ms_max": 0.5})
    table["predicted ring, fitted"] = table["predicted doubling, fitted"] = [0.2, 0.3]
    table["predicted ring, Aries"] = [0.01, 0.02]
    figure = figures.ladder(table)
    draw(figure)
    shown = texts(figure.axes[0].get_legend())
    assert shown == [
        "ring, fitted and\ndoubling, fitted", "ring, Aries", "measured (least to most)",
    ]  # fmt: skip
    dashed = [line for line in figure.axes[0].lines if line.is_dashed()]
    assert len({line.get_color() for line in dashed}) == 2
