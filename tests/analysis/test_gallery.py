"""Who has which colour and dash, and what is kept of a figure."""

import json
import struct
from typing import Any

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import gallery, style
from bnnlib.errors import RecordError
from bnnlib.names import MODELS, REFERENCES


@pytest.fixture(autouse=True)
def no_display():
    plt.switch_backend("agg")
    yield
    assert plt.get_fignums() == []  # an open figure would be shown a second time by a notebook


def rgb(colour: Any) -> tuple[float, ...]:
    return tuple(round(part, 3) for part in matplotlib.colors.to_rgb(colour))


@pytest.fixture
def table():
    names = ["group", "run_id", "path", "model", "dataset"]
    rows = [
        dict.fromkeys(names, "x")
        | {"run_id": f"r{seed}", "seed": seed, "ranks": 2, "nll": 0.5 - 0.1 * seed}
        | {"commit": None, "clean": True, "command": "papermill"}
        | {"started": "2020-01-01T00:00:00+00:00", "ended": None}
        for seed in range(8)
    ]
    return pd.DataFrame(rows)


def figure_of(table):
    figure, axis = style.subplots()
    axis.plot(table.seed, table.nll)
    return figure


# --------------------------------------------------------------------------------- colours, order


def test_every_model_of_the_study_has_a_colour_and_a_marker_of_its_own():
    assert set(style.PALETTE) == set(style.MARKERS) == set(MODELS)
    assert len({rgb(colour) for colour in style.PALETTE.values()}) == len(style.PALETTE)
    assert len(set(style.MARKERS.values())) == len(style.MARKERS)


def test_a_models_colour_does_not_depend_on_the_others():
    for model in style.ORDER:
        colours, markers = style.looks([model])
        assert (colours, markers) == (
            {model: style.PALETTE[model]},
            {model: style.MARKERS[model]},
        )


def test_own_models_get_colours_that_no_other_has():
    own = ["z", "a", "m", "b", "k", "c"]
    study = style.ORDER[:6]
    colours, markers = style.looks([*study, *own])
    assert len({rgb(colour) for colour in colours.values()}) == len(study) + len(own)
    assert len(set(markers.values())) == len(study) + len(own)
    assert style.looks(reversed([*study, *own]))[0] == colours


def test_more_variants_than_a_figure_tells_apart_are_refused_with_what_to_do():
    priors = [f"BNN_FC_flip prior_stddev({value})" for value in range(1, 14)]
    ensembles = [f"{name} ensemble(3)" for name in priors[:12]]
    assert len({*style.looks([*priors[:12], *ensembles])[0].values()}) == 12
    with pytest.raises(RecordError, match=r"13 variants .* tell 12 apart: .*prior_stddev=1,2"):
        style.looks(priors)
    with pytest.raises(RecordError, match=r"40 variants .* model=own0,own1"):
        style.looks([f"own{index}" for index in range(40)])


def test_each_variant_has_a_colour_and_a_marker_and_its_ensemble_a_dash():
    names = [
        *("CNN_FC ensemble(3)", "CNN_FC", "CNN_FC dropout(0.1)", "CNN_FC dropout(0.1) ensemble(3)"),
        *("CNN_FC learning_rate(0.01)", "CNN_FC converged(no)"),
        "CNN_FC converged(no) ensemble(3)",
    ]
    colours, markers = style.looks(names)
    assert colours["CNN_FC"] == style.PALETTE["CNN_FC"]
    assert len(set(colours.values())) == len(set(markers.values())) == 3
    for name in names[:2], names[2:4], (names[1], names[5]):  # the same variant
        assert len({colours[one] for one in name}) == 1
    lines = {name: style.line(name, names) for name in names}
    assert {lines[name]["linestyle"] for name in (names[1], names[2], names[4])} == {"-"}
    assert lines[names[0]]["linestyle"] == lines[names[3]]["linestyle"] != "-"
    assert lines[names[0]]["markerfacecolor"] == "white"
    assert lines[names[5]]["fillstyle"] == "top"
    # One network, converged or not, single or an ensemble: four looks, of markers and of lines.
    of_network = [lines[names[index]] for index in (0, 1, 5, 6)]
    markers = {(one.get("fillstyle"), one.get("markerfacecolor")) for one in of_network}
    assert len(markers) == len({one["linestyle"] for one in of_network}) == 4
    assert "markerfacecolor" not in lines["CNN_FC"]  # the network itself: full


def test_two_priors_without_the_network_itself_take_its_colour_and_another():
    names = [f"BNN_FC_flip prior_stddev({value})" for value in (1.0, 0.1)]
    colours, _ = style.looks([*names, "CNN_FC"])
    assert colours[names[1]] == style.PALETTE["BNN_FC_flip"]  # the lesser is the first
    assert len({rgb(one) for one in colours.values()}) == 3
    # Whatever else is compared, so are the networks of the study coloured.
    own = [f"CNN_{one}" for one in REFERENCES]
    assert style.looks([*names, "CNN_FC", *own])[0]["CNN_FC"] == style.PALETTE["CNN_FC"]


def test_a_figure_of_some_gives_them_the_looks_that_they_have_among_all(table):
    everything = ["CNN_FC", "CNN_FC dropout(0.1)", "CNN_FC dropout(0.2)"]
    some = table.assign(model=everything[2])
    assert style.among(some) == everything[2:]
    some.attrs["models"] = everything
    assert style.among(some) == everything
    drawn = style.line(everything[2], style.among(some))
    assert drawn["label"] == "dropout 0.2"
    assert drawn["color"] == style.looks(everything)[0][everything[2]]


def test_gallery_notes_what_is_compared_and_says_labels(tmp_path, table, monkeypatch):
    shown = []
    monkeypatch.setattr(gallery, "display", shown.append)
    names = ["CNN_FC prior_stddev(0.1)", "CNN_FC prior_stddev(1.0)"]
    pictures = gallery.Gallery(tmp_path, {}, names)
    noted = []
    pictures.show(
        "a",
        table,
        lambda drawn: noted.extend(drawn.attrs["models"]) or figure_of(drawn),
        f"**{names[0]}** and {names[1]}",
    )
    assert noted == names
    assert shown[1].data == "**prior 0.1** and prior 1"


def test_gallery_shows_keeps_and_explains(tmp_path, table, monkeypatch):
    shown = []
    monkeypatch.setattr(gallery, "display", shown.append)
    pictures = gallery.Gallery(tmp_path, {"n": 1})
    pictures.show("a", table, figure_of, "what it **shows**")
    assert shown[0].axes
    assert shown[1].data == "what it **shows**"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".png"]


def test_gallery_without_rows_only_says_what_is_missing(tmp_path, table, monkeypatch):
    shown = []
    monkeypatch.setattr(gallery, "display", shown.append)
    gallery.Gallery(tmp_path, {}).show("a", table[:0], figure_of, "nothing there")
    assert [one.data for one in shown] == ["nothing there"]
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ kept on disk


def test_save_keeps_picture_table_and_origin(tmp_path, table):
    figure = figure_of(table)
    origin = gallery.origin(table, "notebooks/02_calibration.ipynb", "papermill 02 out.ipynb")
    path = gallery.save(figure, table, tmp_path / "figures", "a.b", origin)
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
    figure = figure_of(table)
    gallery.save(figure, table, tmp_path, "a", {"n": 1})
    gallery.save(figure, table[:1], tmp_path, "a", {"n": 2})
    assert len(pd.read_csv(tmp_path / "a.csv")) == 1
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 2}
    assert len(list(tmp_path.glob("a.*"))) == 3


def test_origin_of_missing_values_is_null(table):
    table["seed"] = [0.0, np.nan, *[1.0] * 6]
    runs = gallery.origin(table, "n", "c")["runs"]
    assert runs[1]["seed"] is None
    assert json.loads(json.dumps(runs, allow_nan=False)) == runs


def test_save_where_nothing_can_be_written(tmp_path, table):
    (tmp_path / "figures").write_text("")
    with pytest.raises(RecordError, match=r"figures/a\.png: could not be written"):
        gallery.save(figure_of(table), table, tmp_path / "figures", "a", {})


# ---------------------------------------------------------------------------------- groups, ticks


def test_networks_stand_beside_their_twin_and_a_users_own_beside_one_another():
    names = ["mine", "CNN_FC", "BNN_LeNet5_flip", "BNN_conv_flip", "CNN_FC inference(ivon)"]
    names += ["BNN_FC_flip converged(no)", "CNN_conv", "other.py:network"]
    assert style.beside_twin(names) == {
        "CNN_conv": ["BNN_conv_flip", "CNN_conv"],
        "CNN_FC": ["BNN_FC_flip converged(no)", "CNN_FC", "CNN_FC inference(ivon)"],
        "CNN_LeNet5": ["BNN_LeNet5_flip"],
        "": ["mine", "other.py:network"],
    }


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.11, 1.2), ["0.2", "0.5", "1"]),
        ((30, 4000), ["50", "100", "200", "500", "1,000", "2,000"]),
        ((0.9, 2e5), ["1", "10", "100", "1,000", "10,000", "100,000"]),
    ],
)
def test_logarithmic_axes_have_plain_numbers(values, ticks):
    figure, axis = style.subplots()
    axis.plot(values, values)
    style.plain_log(axis)
    axis.set(xlim=values, ylim=values)
    figure.canvas.draw()
    for one in (axis.xaxis, axis.yaxis):
        inside = [at for at in one.get_majorticklocs() if values[0] <= at <= values[1]]
        assert one.get_major_formatter().format_ticks(inside) == ticks
