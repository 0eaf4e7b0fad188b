"""The palette stays apart for every eye, by the simulation of tests/analysis/colour_vision.py.

`palette_seen.png` beside this file shows the palette as it is simulated here (``python -m
tests.analysis.colour_vision``).
"""

import numpy as np
import pytest

from bnnlib.analysis import style
from bnnlib.names import MODELS
from tests.analysis import colour_vision


def test_the_colour_difference_is_that_of_its_authors_test_data():
    """Pairs 1, 7, 17 and 25 of Sharma, Wu & Dalal 2005, table 1."""
    pairs = [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ]
    first, second, expected = (np.array(column) for column in zip(*pairs, strict=True))
    assert colour_vision.difference(first, second) == pytest.approx(expected, abs=1e-4)


def test_the_simulation_keeps_greys_and_takes_red_from_green():
    greys = colour_vision.rgb(["#000000", "#808080", "#FFFFFF"])
    red_green = ["#B04000", "#5A6B00"]
    for who in colour_vision.DICHROMACY:
        assert colour_vision.seen(greys, who) == pytest.approx(greys, abs=2e-3)
    assert colour_vision.nearest(red_green)[2] > 30
    assert colour_vision.nearest(red_green, "deuteranopia")[2] < 15


@pytest.mark.parametrize("who", [None, *colour_vision.DICHROMACY])
def test_no_two_colours_look_alike(who):
    study = [style.PALETTE[name] for name in MODELS[:6]]
    everything = [*style.PALETTE.values(), *style._FURTHER_COLOURS]
    for colours, least in ((study, 18), (everything, 10)):
        one, other, apart = colour_vision.nearest(colours, who)
        assert apart > least, (one, other)
