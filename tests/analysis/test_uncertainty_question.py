"""The two parts of uncertainty: tables and sentences of numbers that were chosen by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis.questions import uncertainty_decomposition as question
from bnnlib.analysis.questions import uncertainty_said as said
from tests.analysis.test_sentences import faults

SIZES = (540, 5400, 54_000)
SETS = [
    ("clean", "test"),
    *(("rotated", str(degrees)) for degrees in (0, 90, 180)),
    *(("mixed", str(share)) for share in (0.0, 0.5, 1.0)),
    *(("near", name) for name in ("fashion_mnist", "kmnist")),
    ("far", "uniform_noise"),
]


def parts(method, size, kind, value):
    """Epistemic and aleatoric: which falls with data, and where, depends on the method."""
    fewer = {540: 0.3, 5400: 0.1, 54_000: 0.0}[size]
    middle = {"90": 0.2, "0.5": 0.2, "kmnist": 0.6, "uniform_noise": 0.3}.get(value, 0.1)
    if method == "ensemble":  # as theory says
        return middle + fewer, (0.6 if kind == "mixed" and value == "0.5" else 0.1)
    return middle + (fewer if kind == "clean" else -0.1 * fewer), 0.1 + 2 * fewer


def table(methods=question.METHODS, seeds=(0, 1, 2), sizes=SIZES) -> pd.DataFrame:
    rows = []
    for method in methods:
        for size in sizes:
            for seed in seeds:
                for kind, value in SETS:
                    wobble = 0.001 * seed * (1 + len(method) % 3 + size % 7)
                    epistemic, aleatoric = parts(method, size, kind, value)
                    row = {"method": method, "steps": 8430 if method == "ensemble" else 10_500}
                    row |= {"train_images": size, "seed": seed, "kind": kind, "value": value}
                    row |= {
                        "accuracy": 0.9 + wobble,
                        "epistemic": epistemic + wobble,
                        "aleatoric": aleatoric + wobble,
                    }
                    known = kind != "clean"
                    row |= {f"auroc_{part}": 0.9 if known else np.nan for part in question.PARTS}
                    rows.append(row)
    return pd.DataFrame(rows)


def test_a_kind_is_one_set_or_the_mean_of_a_group():
    found = question.by_kind(table(seeds=(0,), sizes=(54_000,)))
    found = found[found.method == "ensemble"].set_index(["part", "kind"]).value
    assert found["epistemic", "near"] == pytest.approx((0.1 + 0.6) / 2)
    assert found["epistemic", "turned"] == pytest.approx(0.2)
    assert found["aleatoric", "ambiguous"] == pytest.approx(0.6)
    assert found["share", "ambiguous"] == pytest.approx(0.2 / 0.8)
    assert [*dict.fromkeys(found.index.get_level_values("kind"))] == [*question.KINDS]


def test_a_mixture_that_is_not_even_and_a_turn_that_is_no_quarter_are_no_kind_of_their_own():
    rows = table(seeds=(0,)).replace({"value": {"0.5": "0.4", "90": "75"}})
    assert set(question.by_kind(rows).kind) == {"clean", "near", "far"}


def test_the_differences_are_the_ones_that_were_named():
    found = question.differences(table())
    assert len(found) == 12 * len(question.METHODS)
    found = found.set_index(["method", "part", "kind"])["mean"]
    # Seeds 0, 1, 2 add 0.001 (1 + the size's rest by 7), the same to both parts.
    apart = 0.001 * (540 % 7 - 54_000 % 7)
    assert found["BNN_FC_flip", "epistemic", "clean"] == pytest.approx(0.3 + apart)
    assert found["BNN_FC_flip", "epistemic", "far"] == pytest.approx(-0.03 + apart)
    assert found["ensemble", "aleatoric", "near"] == pytest.approx(apart)
    assert found["ensemble", "share", "near"] > found["BNN_FC_nonflip", "share", "near"]


def test_the_longest_training_of_a_size_stands_for_it_and_a_shorter_one_beside_it():
    rows = table()
    all_images = (rows.train_images == 54_000) & (rows.method == "BNN_FC_nonflip")
    rows = rows.assign(steps=rows.steps.where(~all_images, 42_100))
    fewer = rows[all_images].assign(steps=10_500)
    both = pd.concat([rows, fewer.assign(epistemic=fewer.epistemic + 0.05)])
    for made in (question.against_size, question.differences, question.detection):
        pd.testing.assert_frame_equal(made(both), made(rows))
    pd.testing.assert_frame_equal(question.along(both, "mixed"), question.along(rows, "mixed"))
    found = question.longer(both)
    assert set(found.steps) == {42_100}
    np.testing.assert_allclose(found[found.part == "epistemic"]["mean"], -0.05)
    np.testing.assert_allclose(found[found.part == "aleatoric"]["mean"], 0, atol=1e-12)
    assert "42,100 steps less 10,500: epistemic on clean images −0.0500 [" in (
        said.told_longer(both)
    )
    assert question.longer(rows).empty


def test_the_sentences_say_what_the_numbers_do():
    rows = table()
    size = said.told_size(rows, "epistemic")
    assert size.count("(falls with data)") == 1 + 1 + 5
    assert size.count("(rises with data)") == 4 + 4
    theory = said.told_theory(rows)
    assert "the epistemic part falls with data on 5 of 5 kinds of image" in theory
    assert "the epistemic part falls with data on 1 of 5 kinds of image, rises on 4" in theory
    assert "far 74.4 % [72.9 %, 75.9 %], a difference of +0.4909" in said.told_share(rows)
    assert "clean 50.0 % [50.0 %, 50.0 %], a difference of +0.2469" in said.told_share(rows)
    assert "(greater, as theory says)" in said.told_share(rows)
    peaks = said.told_peaks(rows, "mixed")
    assert "- **ensemble, 54,000 images**: epistemic 0.105 [0.093, 0.117] at 0" in peaks
    assert "aleatoric 0.105 [0.093, 0.117] at 0, greatest at λ = 0.5: 0.605 [0.593, 0.617]" in peaks
    assert " at 90°" in said.told_peaks(rows, "rotated")
    assert "no difference shown" in said.told_beside(rows)
    assert "46 comparisons" not in said.told_comparisons(rows)
    assert "56 comparisons" in said.told_comparisons(rows)  # 3 x 12 and 2 x 10
    # A share a method, one fall, a turn and two mixtures of each part: 3 + 1 + 2 + 4.
    assert "10 more to judge" in said.told_comparisons(rows)
    assert "ensemble 3 on 540 images" in said.seeds([], rows)


def test_every_sentence_is_written_as_the_house_writes():
    rows = table()
    more = rows[rows.train_images == 54_000].assign(steps=42_100)
    rows = pd.concat([rows, more[more.method != "ensemble"]])
    told = [
        said.seeds([], rows),
        said.told_longer(rows),
        *(said.told_size(rows, part) for part in question.PARTS),
        *(said.told_peaks(rows, kind) for kind in ("mixed", "rotated")),
        *(
            say(rows)
            for say in (
                said.told_theory, said.told_share, said.told_beside,
                said.told_detection, said.told_comparisons, said.told_expected,
            )
        ),
    ]  # fmt: skip
    assert [fault for text in told for fault in faults(text)] == []


def test_what_was_expected_is_held_against_what_was_found():
    told = said.told_expected(table()).splitlines()
    assert [line[:2] for line in told] == ["1.", "2.", "3.", "4."]
    assert [("did **not** hold" in line, "decided" in line) for line in told] == [
        (False, False), (False, False), (True, True), (True, False)
    ]  # fmt: skip
    assert "up to 90°: not decided (0 lies within 1 of 2 intervals: aleatoric, 90° " in told[2]
    assert "at the even mixture than at any other: not decided (0 lies within 2 of 4" in told[2]
    assert "unknown images: did **not** hold (0 lies outside 2 of 2 intervals: share" in told[2]
    few = said.told_expected(table(seeds=(0,))).splitlines()
    assert all("not decided" in line for line in few)
    assert "not decided" in said.told_expected(table()[:0])
    alone = said.told_expected(table(methods=("BNN_FC_nonflip",))).splitlines()
    assert ["decided" in line for line in alone] == [False, False, True, True]


def test_an_interval_that_holds_0_refutes_nothing_and_proves_nothing():
    def judged(*intervals, wanted=1):
        rows = [
            {"part": "epistemic", "kind": f"kind {place}", "mean": (low + high) / 2}
            | {"low": low, "high": high}
            for place, (low, high) in enumerate(intervals)
        ]
        columns = ["part", "kind", "mean", "low", "high"]
        return said._judged(pd.DataFrame(rows, columns=columns), wanted)

    above, below, open_one, unknown = (0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3), (np.nan, np.nan)
    assert judged(above, above) == "held"
    assert judged(above, open_one) == (
        "not decided (0 lies within 1 of 2 intervals: epistemic, kind 1 +0.1000 [−0.1000, +0.3000])"
    )
    assert judged(above, open_one, below).startswith("did **not** hold (on the other side of 0:")
    assert judged(above, unknown) == judged() == "not decided (too few seeds)"
    assert judged(unknown, below).startswith("did **not** hold")
    assert judged(below, wanted=-1) == "held"
    assert judged(open_one, open_one, wanted=0) == "not refuted (no difference shown)"
    assert judged(open_one, above, wanted=0).startswith("did **not** hold (0 lies outside 1 of 2")


def test_a_part_that_is_greatest_before_the_quarter_turn_does_not_rise_up_to_it():
    rows = table()
    early = rows[rows.value == "90"].assign(value="60")
    both = pd.concat([rows, early.assign(aleatoric=early.aleatoric + 0.5)])
    third = said.told_expected(both).splitlines()[2]
    assert (
        "did **not** hold (on the other side of 0: 1 of 4 intervals: aleatoric, 90° −0.5" in third
    )
    found = question.further(both)
    turns = found[found.what == "step of rotation"].set_index(["part", "kind"])["mean"]
    assert turns["aleatoric", "60°"] == pytest.approx(0.5)
    assert turns["aleatoric", "90°"] == pytest.approx(-0.5)
    assert turns["epistemic", "60°"] == pytest.approx(0.1)
    assert set(found.method[found.what != "less ambiguous"]) == {"BNN_FC_nonflip"}
    mixed = found[found.what.str.startswith("λ")].set_index(["part", "kind"])["mean"]
    assert mixed["epistemic", "λ = 1"] == pytest.approx(0.1)
    more = found[found.part == "aleatoric less epistemic"]["mean"]
    assert more.item() == pytest.approx(2 * 0.3 - 0.3)


def test_data_and_steps_that_change_together_are_said_to():
    rows = table()
    is_long = (rows.train_images == 54_000) & (rows.method != "ensemble")
    rows = rows.assign(steps=rows.steps.where(~is_long, 42_100))
    told = said.told_longer(rows)
    assert "54,000 images has 42,100 steps, 4.0 times those of the training on 540." in told
    assert "of data and steps together" in told
    assert "together" not in said.told_longer(table())


def test_twins_that_have_memorised_their_images_are_said_to():
    def run(size, nll):
        parameters = {"model": "CNN_FC", "train_images": size, "seed": 0, "batch_size": 64}
        last = {"steps_done": 8430, "train_nll": nll}
        origin = {"seconds": {}, "commit": ""}
        return {"run": "", "parameters": parameters, "metrics": last} | {
            "converged": None, "origin": origin
        }  # fmt: skip

    told = said.told_training([run(540, 1e-5), run(540, 2e-5), run(54_000, 0.04)])
    few, whole = told.splitlines()[2:]
    assert few == (
        "- **ensemble, 540 images** (2 runs): 8,430 steps, about 999 epochs; training NLL "
        "0.000010 to 0.000020, so that it knows its images by heart"
    )
    assert whole == (
        "- **ensemble, 54,000 images** (1 run): 8,430 steps, about 10 epochs; training NLL 0.040"
    )
    assert "yet" in said.told_training([])
    assert [fault for fault in faults(told)] == []


def test_an_accuracy_is_given_with_its_interval():
    found = question.accuracies(table(seeds=(0, 1, 2), sizes=(540, 54_000)))
    assert [*found.index] == ["mean-field", "mean-field, Flipout", "ensemble"]
    assert found.loc["mean-field", 540] == "0.904 [0.894, 0.914]"
    alone = pd.concat([table(("BNN_FC_flip",)), table(("ensemble",), sizes=(540,))])
    assert question.accuracies(alone).loc["ensemble", 5400] == "not measured"


def test_of_few_seeds_nothing_is_claimed():
    rows = table(seeds=(0, 1))
    assert question.differences(rows).low.isna().all()
    assert "falls" not in said.told_size(rows, "epistemic")
    assert "(too few seeds for an interval)" in said.told_size(rows, "epistemic")
    assert "no difference" not in said.told_share(rows)
    assert "56" not in said.told_comparisons(rows)


def test_without_measurements_the_sentences_say_so():
    none = table()[:0]
    assert said.seeds([], none) == "Nothing has been measured yet."
    assert "nothing to compare" in said.told_size(none, "epistemic").lower()
    assert "No shorter training" in said.told_longer(none)
    assert "No mean-field network" in said.told_converged([])
    for say in (said.told_theory, said.told_share, said.told_beside):
        assert "yet" in say(none)
    assert len(question.make([], none)) == 9


def test_the_pictures_show_what_is_there():
    rows = table(methods=("BNN_FC_nonflip", "ensemble"))
    figure = question.draw_size(question.against_size(rows))
    assert figure.axes[0].get_title() == "clean"
    assert len(figure.axes) == 10
    assert all(axis.get_ylim()[0] == 0 for axis in figure.axes)
    assert all(axis.get_ylim()[1] > 0.7 for axis in figure.axes)  # the greatest mean
    for kind, draw in (("rotated", question.draw_rotation), ("mixed", question.draw_mixture)):
        figure = draw(question.along(rows, kind))
        assert len(figure.axes) == 4
        assert [axis.get_title() for axis in figure.axes[:2]] == ["mean-field", "ensemble"]
        lines = figure.axes[0].lines
        assert [line.get_label() for line in lines] == [*question.PARTS]
        assert len(lines[0].get_xdata()) == 3
    plt.close("all")
