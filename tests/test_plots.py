"""Figures of small tables made by hand: what is drawn, in whose colour, and what is kept."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bnnlib import checkpoint, models, plots
from bnnlib.errors import RecordError

NAMES = ["CNN_conv", "BNN_conv_flip", "my_network", "another one"]
SORTED = ["BNN_conv_flip", "CNN_conv", "my_network", "another one"]


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    plt.switch_backend("agg")
    yield
    assert plt.get_fignums() == []  # an open figure would be shown a second time by a notebook


def rgb(colour: Any) -> tuple[float, ...]:
    return tuple(round(part, 3) for part in matplotlib.colors.to_rgb(colour))


def draw(figure: Figure) -> bytes:
    """Renders, which is where matplotlib finds most faults."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=40)
    return content.getvalue()


@pytest.fixture
def table(tmp_path):
    """Two seeds of four models, two of them the user's own, with predictions on disk."""
    rows = []
    for number, model in enumerate(NAMES):
        for seed in (0, 1):
            path = tmp_path / "runs" / "g" / f"{number}-{seed}"
            write_predictions(path, seed=10 * number + seed)
            rows.append(
                {
                    "group": "g",
                    "run_id": path.name,
                    "model": model,
                    "dataset": "tiny",
                    "seed": seed,
                    "ranks": 2,
                    "accuracy": 0.9 + 0.01 * number + 0.002 * seed,
                    "nll": 0.5 - 0.1 * number,
                    "brier": 0.2,
                    "ece": 0.05 + 0.01 * seed,
                    "images_per_second": 1000.0 + number,
                    "path": str(path),
                    "commit": None,
                    "clean": True,
                    "command": "papermill",
                    "started": "2020-01-01T00:00:00+00:00",
                    "ended": None,
                }
            )
    return pd.DataFrame(rows)


def write_predictions(path: Path, seed: int, right: float = 0.8) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    probs = rng.dirichlet([0.4, 0.4, 0.4], 60)
    order = np.argsort(-probs, axis=1)
    for image in np.flatnonzero(rng.random(60) < right):  # the largest probability to the label
        row = probs[image, order[image]]
        rest = [c for c in range(3) if c != labels[image]]
        probs[image, labels[image]], probs[image, rest] = row[0], row[1:]
    arrays: dict[str, np.ndarray] = {
        "test/labels": labels,
        "test/mean_probs": probs.astype(np.float32),
        "test/expected_entropy": np.full(60, 0.1, np.float32),
    }
    checkpoint.write_npz(path / "predictions.npz", arrays)


# --------------------------------------------------------------------------------- colours, order


def test_every_model_of_the_study_has_a_colour_and_a_marker_of_its_own():
    assert set(plots.PALETTE) == set(plots.MARKERS) == set(models.BUILDERS)
    assert len({rgb(colour) for colour in plots.PALETTE.values()}) == len(plots.PALETTE)
    assert len(set(plots.MARKERS.values())) == len(plots.MARKERS)


def test_a_models_colour_does_not_depend_on_the_others():
    for model in plots.ORDER:
        colours, markers = plots.looks([model])
        assert (colours, markers) == ({model: plots.PALETTE[model]}, {model: plots.MARKERS[model]})


def test_own_models_get_colours_that_no_other_has():
    own = ["z", "a", "m", "b", "k", "c"]
    colours, markers = plots.looks([*plots.ORDER, *own])
    assert len({rgb(colour) for colour in colours.values()}) == len(plots.ORDER) + len(own)
    assert len(set(markers.values())) == len(plots.ORDER) + len(own)
    assert plots.looks(reversed([*plots.ORDER, *own]))[0] == colours
    many = [f"own{index}" for index in range(40)]
    assert set(plots.looks(many)[0]) == set(many)


# ---------------------------------------------------------------------------------------- figures


def test_accuracy_against_nll(table):
    figure = plots.accuracy_against_nll(table)
    (axis,) = figure.axes
    assert "NLL" in axis.get_xlabel()
    assert "nats" in axis.get_xlabel()
    assert axis.get_ylabel() == "accuracy"
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == SORTED
    points = axis.collections[0]
    assert np.allclose(np.asarray(points.get_offsets()), table[["nll", "accuracy"]])
    colours = plots.looks(NAMES)[0]
    drawn = [rgb(colour) for colour in points.get_facecolor()]
    assert drawn == [rgb(colours[model]) for model in table.model]
    handles = [rgb(handle.get_markerfacecolor()) for handle in legend.legend_handles]
    assert handles == [rgb(colours[model]) for model in SORTED]
    draw(figure)


def test_accuracy_against_nll_of_a_run_without_metrics(table):
    table.loc[0, ["accuracy", "nll"]] = np.nan
    draw(plots.accuracy_against_nll(table))


def test_training_curves():
    steps = pd.DataFrame(
        {
            "epoch": [0.5, 1.0, 1.5],
            "nll": [2.0, 1.0, 0.5],
            "kl": [30.0, 20.0, 10.0],
            "images_per_second": [100.0, 90.0, 110.0],
        }
    )
    figure = plots.training_curves(steps)
    assert len(figure.axes) == 3
    for axis, column, unit in zip(
        figure.axes, ["nll", "kl", "images_per_second"], ["nats", "nats", "images/s"], strict=True
    ):
        (line,) = axis.lines
        assert line.get_xdata().tolist() == steps.epoch.tolist()
        assert line.get_ydata().tolist() == steps[column].tolist()
        assert axis.get_xlabel() == "epoch"
        assert unit in axis.get_ylabel()
    assert figure.axes[2].get_ylim()[0] == 0
    draw(figure)


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (3, (4, 5, 3))])
def test_image_row(channels, shape):
    images = np.arange(2 * 4 * 5 * channels, dtype=np.uint8).reshape(2, 4, 5, channels)
    figure = plots.image_row(images, np.array([7, 3]))
    assert [axis.get_title() for axis in figure.axes] == ["7", "3"]
    for axis, image in zip(figure.axes, images, strict=True):
        assert axis.images[0].get_array().shape == shape
        assert np.array_equal(axis.images[0].get_array(), image.reshape(shape))
    draw(figure)


def test_reliability_table_holds_every_image_once(table):
    bins = plots.reliability_table(table)
    assert list(bins.columns[:4]) == ["run", "model", "seed", "ece"]
    assert bins.groupby("run")["count"].sum().tolist() == [60] * len(table)
    assert sorted(bins.run.unique()) == sorted("g/" + table.run_id)
    assert (bins["count"] > 0).all()
    assert bins.notna().all().all()
    assert bins.groupby(["model", "seed"]).ece.first()["CNN_conv", 1] == pytest.approx(0.06)


def test_reliability_diagrams(table):
    figure = plots.reliability_diagrams(plots.reliability_table(table))
    draw(figure)
    panels = {axis.get_title().split("   ")[0]: axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == SORTED
    colours, markers = plots.looks(NAMES)
    for model, axis in panels.items():
        assert axis.get_title().endswith("ECE 0.055")  # the mean over two seeds, by hand
        curves = [container.lines[0] for container in axis.containers]
        assert len(curves) == 2
        assert {rgb(curve.get_color()) for curve in curves} == {rgb(colours[model])}
        assert {curve.get_marker() for curve in curves} == {markers[model]}
    assert "accuracy - confidence" in figure.axes[0].get_ylabel()
    labels = [axis.get_xlabel() for axis in figure.axes if axis.get_visible()]
    assert labels.count("confidence") == len(SORTED)
    counts = [axis for axis in figure.axes if axis.get_yscale() == "log" and axis.patches]
    bins = plots.reliability_table(table)
    drawn = sum(bar.get_height() for axis in counts for bar in axis.patches)
    assert drawn == bins["count"].sum()


def test_reliability_of_one_model_in_two_numbers_of_ranks_is_two_curves(table):
    two = table[(table.model == "CNN_conv")].assign(seed=0)
    figure = plots.reliability_diagrams(plots.reliability_table(two))
    assert len(figure.axes[0].containers) == 2
    draw(figure)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_figures_of_a_model_that_is_always_right_or_never(tmp_path, table, right):
    write_predictions(tmp_path / "one", seed=1, right=1.0)
    path = tmp_path / "one" / "predictions.npz"
    with np.load(path) as file:
        arrays = dict(file)
    if right == 0.0:
        arrays["test/labels"] = (arrays["test/mean_probs"].argmax(1) + 1) % 3
    checkpoint.write_npz(path, arrays)
    one = table[:1].assign(path=str(tmp_path / "one"))
    draw(plots.reliability_diagrams(plots.reliability_table(one)))
    entropies = plots.entropy_table(one)
    assert set(entropies.outcome) == {"right" if right else "wrong"}
    draw(plots.entropy_of_right_and_wrong(entropies))
    outcome = "right" if right else "wrong"
    assert plots.describe_entropy(entropies) == f"CNN_conv: all predictions {outcome}."


def test_entropy_table_by_hand(tmp_path, table):
    arrays = {
        "test/labels": np.array([0, 1, 1]),
        "test/mean_probs": np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], np.float32),
        "test/expected_entropy": np.zeros(3, np.float32),
    }
    checkpoint.write_npz(tmp_path / "one" / "predictions.npz", arrays)
    entropies = plots.entropy_table(table[:1].assign(path=str(tmp_path / "one")))
    assert list(entropies.columns) == ["model", "seed", "entropy", "outcome"]
    quarter = 0.25 * np.log(4) + 0.75 * np.log(4 / 3)
    assert entropies.entropy.tolist() == pytest.approx([np.log(2), 0.0, quarter], abs=1e-6)
    assert entropies.outcome.tolist() == ["right", "wrong", "right"]


def test_entropy_of_right_and_wrong(table):
    entropies = plots.entropy_table(table)
    figure = plots.entropy_of_right_and_wrong(entropies)
    draw(figure)
    (axis,) = figure.axes
    wrong = entropies[entropies.outcome == "wrong"].groupby("model").size()
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [f"{model}\n{wrong[model]} wrong" for model in SORTED]
    assert "entropy (nats)" in axis.get_xlabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["right", "wrong"]


# ------------------------------------------------------------------------------ tables, sentences


def test_comparison_table_by_hand(table):
    styler = plots.comparison_table(table)
    shown = styler.data
    assert shown.index.tolist() == SORTED
    assert shown.loc["BNN_conv_flip", "runs"] == 2
    # 0.910 and 0.912: mean 0.911, standard deviation 0.002 / sqrt 2.
    assert shown.loc["BNN_conv_flip", "accuracy"] == "0.9110 ± 0.0014"
    assert shown.loc["BNN_conv_flip", "images_per_second"] == "1001 ± 0"
    single = plots.comparison_table(table[table.seed == 0]).data
    assert single.loc["CNN_conv", "accuracy"] == "0.9000"
    html = styler.to_html()
    assert html.count("<tr>") == 2 + len(SORTED)
    styler._compute()
    bold = {place for place, styles in styler.ctx.items() if ("font-weight", "bold") in styles}
    rows = {name: index for index, name in enumerate(shown.index)}
    columns = {name: index for index, name in enumerate(shown.columns)}
    best = rows["another one"]  # made last: most accurate, lowest NLL, fastest
    assert (best, columns["accuracy"]) in bold
    assert (best, columns["nll"]) in bold
    assert (best, columns["images_per_second"]) in bold
    assert (rows["CNN_conv"], columns["accuracy"]) not in bold
    assert not {place for place in bold if place[1] == columns["runs"]}


def test_describe_accuracy_by_hand(table):
    text = plots.describe_accuracy(table)
    assert text == (
        "Most accurate: **another one** (0.9310); lowest NLL: **another one** (0.2000 nats). "
        "BNN_conv_flip against its twin CNN_conv: accuracy +0.0100, NLL -0.1000."
    )


def test_describe_reliability_by_hand():
    table = pd.DataFrame({"model": ["CNN_FC", "mine"], "ece": [0.1, 0.2]})
    bins = pd.DataFrame(
        {
            "model": ["CNN_FC", "CNN_FC", "mine"],
            "count": [1, 3, 5],
            "accuracy": [0.5, 0.9, 0.4],
            "confidence": [0.3, 0.9, 0.6],
        }
    )
    assert plots.describe_reliability(table, bins) == (
        "CNN_FC: ECE 0.1000, on average too modest by 0.0500; "
        "mine: ECE 0.2000, on average too sure by 0.2000."
    )


def test_describe_entropy_by_hand():
    entropies = pd.DataFrame(
        {
            "model": "mine",
            "entropy": [0.1, 0.2, 0.3, 0.25, 0.5],
            "outcome": ["right", "right", "right", "wrong", "wrong"],
        }
    )
    # Of 3 x 2 pairs, 5 have more entropy where wrong.
    assert plots.describe_entropy(entropies) == (
        "mine: median 0.200 nats where right, 0.375 where wrong; a wrong prediction has more "
        "entropy than a right one with probability 0.833."
    )


# ------------------------------------------------------------------------------------ kept on disk


def test_save_keeps_picture_table_and_origin(tmp_path, table):
    figure = plots.accuracy_against_nll(table)
    origin = plots.origin(table, "notebooks/02_calibration.ipynb", "papermill 02 out.ipynb")
    path = plots.save(figure, table, tmp_path / "figures", "a.b", origin)
    assert path == tmp_path / "figures" / "a.b.png"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.b.csv", "a.b.json", "a.b.png"]
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert min(width, height) > 400
    again = pd.read_csv(path.with_suffix(".csv"))
    pd.testing.assert_frame_equal(again[["model", "nll", "seed"]], table[["model", "nll", "seed"]])
    kept = json.loads(path.with_suffix(".json").read_text())
    assert kept == json.loads(json.dumps(origin))
    assert kept["notebook"] == "notebooks/02_calibration.ipynb"
    assert kept["command"] == "papermill 02 out.ipynb"
    assert [run["run_id"] for run in kept["runs"]] == table.run_id.tolist()
    first = kept["runs"][0]
    assert (first["seed"], first["ranks"], first["commit"], first["clean"]) == (0, 2, None, True)


def test_save_over_a_figure_replaces_all_three(tmp_path, table):
    figure = plots.accuracy_against_nll(table)
    plots.save(figure, table, tmp_path, "a", {"n": 1})
    plots.save(figure, table[:1], tmp_path, "a", {"n": 2})
    assert len(pd.read_csv(tmp_path / "a.csv")) == 1
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 2}
    assert len(list(tmp_path.glob("a.*"))) == 3


def test_origin_of_missing_values_is_null(table):
    table["seed"] = [0.0, np.nan, *[1.0] * 6]
    runs = plots.origin(table, "n", "c")["runs"]
    assert runs[1]["seed"] is None
    assert json.loads(json.dumps(runs, allow_nan=False)) == runs


def test_save_where_nothing_can_be_written(tmp_path, table):
    (tmp_path / "figures").write_text("")
    with pytest.raises(RecordError, match=r"figures/a\.png: could not be written"):
        plots.save(plots.accuracy_against_nll(table), table, tmp_path / "figures", "a", {})
