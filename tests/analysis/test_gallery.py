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
from bnnlib.names import MODELS


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
    colours, markers = style.looks([*style.ORDER, *own])
    assert len({rgb(colour) for colour in colours.values()}) == len(style.ORDER) + len(own)
    assert len(set(markers.values())) == len(style.ORDER) + len(own)
    assert style.looks(reversed([*style.ORDER, *own]))[0] == colours
    many = [f"own{index}" for index in range(40)]
    assert set(style.looks(many)[0]) == set(many)


def test_a_variant_has_its_networks_colour_and_another_dash():
    names = [
        "CNN_FC ensemble(3)",
        "CNN_FC",
        "CNN_FC dropout(0.1)",
        "CNN_FC dropout(0.1) ensemble(3)",
    ]
    names += ["CNN_FC learning_rate(0.01)"]
    colours, markers = style.looks(names)
    assert set(colours.values()) == {style.PALETTE["CNN_FC"]}
    assert set(markers.values()) == {style.MARKERS["CNN_FC"]}
    lines = [style.line(name, names) for name in names]
    assert len({str(line["linestyle"]) for line in lines}) == len(names)
    fillings = [(line.get("fillstyle"), line.get("markerfacecolor")) for line in lines]
    assert len(set(fillings)) == len(names)
    assert fillings[1] == (None, None)  # the network itself: full


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
