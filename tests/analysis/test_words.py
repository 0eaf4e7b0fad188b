"""Numbers and names as sentences write them."""

import math

import pytest

from bnnlib.analysis import words
from bnnlib.metrics import Interval


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        # One network: what differs, without its name.
        (
            ["BNN_FC_flip prior_stddev(0.1)", "BNN_FC_flip prior_stddev(1.0)"],
            ["prior 0.1", "prior 1"],
        ),
        (
            [f"BNN_FC_flip prior_stddev({p}){e}" for p in (0.1, 1.0) for e in ("", " ensemble(3)")],
            ["prior 0.1", "prior 0.1 ensemble of 3", "prior 1", "prior 1 ensemble of 3"],
        ),
        # The model only where models differ.
        (
            ["BNN_FC_flip prior_stddev(0.1)", "BNN_FC_flip prior_stddev(1.0)", "CNN_FC"],
            ["BNN_FC_flip prior 0.1", "BNN_FC_flip prior 1", "CNN_FC"],
        ),
        # A setting that all have is not said.
        (
            [f"CNN_FC inference(ivon) kl_weight({value})" for value in (0.5, 1.0)],
            ["KL weight 0.5", "KL weight 1"],
        ),
        # But where one would look as if it had none, all are said.
        (
            ["CNN_FC inference(ivon)", "CNN_FC inference(ivon) dropout(0.1)"],
            ["IVON", "IVON dropout 0.1"],
        ),
        (["CNN_FC", "CNN_FC dropout(0.1)"], ["CNN_FC", "dropout 0.1"]),
        (["CNN_FC", "CNN_FC ensemble(5)"], ["CNN_FC", "CNN_FC ensemble of 5"]),
        (["CNN_FC inference(swag)"], ["CNN_FC SWAG"]),
        (["BNN_FC_flip converged(no)"], ["BNN_FC_flip (not converged)"]),
        (
            ["BNN_FC_flip converged(no)", "BNN_FC_flip converged(no) ensemble(2)", "CNN_FC"],
            ["BNN_FC_flip (not converged)", "BNN_FC_flip (not converged), ensemble of 2", "CNN_FC"],
        ),
        (
            ["CNN_FC dropout(0.1) converged(no)", "CNN_FC converged(no)", "CNN_FC ensemble(2)"],
            ["dropout 0.1 (not converged)", "CNN_FC (not converged)", "ensemble of 2"],
        ),
        (
            ["mine laplace(True)", "mine laplace(False)", "mine ranks(1)"],
            ["laplace", "no laplace", "ranks 1"],
        ),
        (["a/b/mine.py:net", "CNN_FC"], ["mine.py:net", "CNN_FC"]),
        # Labels that would be alike stay names.
        (["a/mine.py:net", "b/mine.py:net"], ["a/mine.py:net", "b/mine.py:net"]),
        ([], []),
    ],
)
def test_labels_say_what_differs(names, labels):
    assert words.labels(names) == dict(zip(names, labels, strict=True))


def test_a_text_says_labels_and_touches_no_other_word():
    names = ["CNN_FC", "CNN_FC dropout(0.1)", "CNN_FC dropout(0.1) ensemble(2)"]
    text = "**CNN_FC dropout(0.1) ensemble(2)** less CNN_FC dropout(0.1), MY_CNN_FC and CNN_FCs"
    assert words.with_labels(text, names) == (
        "**dropout 0.1 ensemble of 2** less dropout 0.1, MY_CNN_FC and CNN_FCs"
    )
    assert words.with_labels(text, []) == text


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (0.1, 0.2, 1),
        (-0.2, -0.1, -1),
        (-0.1, 0.1, 0),
        (0.0, 0.1, 0),
        (0.00004, 0.1, 0),  # it is written 0.0000
        (-0.1, -0.00004, 0),
        (0.00006, 0.1, 1),
        (math.nan, math.nan, 0),
        (-math.inf, -math.inf, -1),
    ],
)
def test_an_interval_is_on_a_side_of_zero_as_it_is_written(low, high, side):
    assert words.side(low, high) == side


def test_counts_spans_and_lists():
    assert [words.counted(n, "draw") for n in (0, 1, 2)] == ["0 draws", "1 draw", "2 draws"]
    assert words.span("0.1", "0.2") == "0.1 to 0.2"
    assert words.span("0.1", "0.1") == "0.1"
    assert words.listed(["CNN_FC", "BNN_FC_flip", "CNN_conv"]) == "BNN_FC_flip, CNN_conv and CNN_FC"
    assert words.listed([]) == "no model"
    assert words.percent_between(Interval(0.5, 0.25, 0.75)) == "50 % [25 %, 75 %]"
    assert words.percent_between(Interval(0.5, math.nan, math.nan), 1) == "50.0 %"
    # Student's t of two runs reaches beyond what a share can be.
    assert words.percent_between(Interval(0.5, -0.3, 1.1)) == "50 % [0 %, 100 %]"
    assert words.between(-0.01, -0.02, 0.01) == "−0.0100 [−0.0200, 0.0100]"
