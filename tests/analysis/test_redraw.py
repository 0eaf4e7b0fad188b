"""Kept figures are drawn again from their tables."""

import json

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import gallery, redraw, style
from bnnlib.errors import RecordError


@pytest.fixture
def kept(tmp_path):
    table = pd.DataFrame(
        [
            {"model": model, "score": score, "runs": 1, "mean": mean, "stddev": np.nan}
            | {"low": 0.1, "high": 0.9}
            for model, mean in (("CNN_FC", 0.5), ("BNN_FC_flip", 0.25))
            for score in ("accuracy", "nll")
        ]
    )
    figure, _ = style.subplots()
    gallery.save(figure, table, tmp_path, "accuracy_against_nll", {"runs": [1]})
    return tmp_path


def test_a_picture_is_drawn_again_and_its_table_stays(kept):
    before = {path.suffix: path.read_bytes() for path in kept.iterdir()}
    (kept / "other.csv").write_text("a\n1\n")  # no figure of a notebook
    assert redraw.redraw(kept) == [kept / "accuracy_against_nll.png"]
    after = {suffix: (kept / f"accuracy_against_nll{suffix}").read_bytes() for suffix in before}
    assert after[".csv"] == before[".csv"]
    assert after[".png"] != before[".png"]
    origin = json.loads(after[".json"])
    assert origin["runs"] == [1]
    assert origin["redrawn"]["from"] == "accuracy_against_nll.csv"
    assert set(origin["redrawn"]) == {"from", "commit", "clean"}


def test_a_folder_without_figures_and_an_origin_that_is_none_are_told(kept, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(RecordError, match=r"no table of a figure .* reliability\.csv"):
        redraw.redraw(empty)
    (kept / "accuracy_against_nll.json").write_text("{")
    with pytest.raises(RecordError, match=r"accuracy_against_nll\.json: no readable origin"):
        redraw.redraw(kept)
