"""The three states of a run, their differences, and the sentences, on records made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis.questions import convergence
from bnnlib.analysis.questions import convergence_expected as expected
from bnnlib.analysis.questions.seeds import by_side, interval


def record(group, model, seed, looks, prior=1.0):
    """A compact record; `looks` has epoch, NLL on test and held out, temperature."""
    bayesian = model.startswith("BNN")
    rows = [
        {
            "epoch": epoch,
            "step": epoch,
            "temperature": temperature,
            "rows": [
                {"set": "test", "kind": "test", "accuracy": 0.9, "nll": nll, "ece_debiased": 0.01},
                {"set": "holdout", "kind": "holdout", "nll": held_out},
                *(
                    {"set": name, "kind": "ood", "ood_group": "near", "auroc_entropy": auroc}
                    for name, auroc in (("a", 0.75), ("b", 0.25))
                ),
            ],
        }
        for epoch, nll, held_out, temperature in looks
    ]
    epochs = [look[0] for look in looks]
    kl = [10.0 if bayesian else 0.0] * len(looks)
    return {
        "run": f"{group}/{model}-prior={prior}-seed={seed}",
        "parameters": {"model": model, "prior_stddev": prior, "seed": seed, "epochs": epochs[-1]},
        "converged": {"converged": True, "change": 0.01} if bayesian else None,
        "steps": {
            "epoch": epochs,
            "loss": [0.5] * len(epochs),
            "nll": [0.25] * len(epochs),
            "kl": kl,
        },
        "metrics": {"kl": kl[-1], "temperature": rows[-1]["temperature"]},
        "evaluation": rows[-1]["rows"],
        "origin": {"seconds": {"train": 1.0, "evaluation": None}, "commit": "c"},
        "looks": rows[:-1],
    }


@pytest.fixture
def records():
    made = []
    for seed, shift in ((0, 0.0), (1, 0.02), (2, 0.01)):
        # The NLL on the images held out is least at epoch 10, that on the test images at 1.
        way = [(1, 0.1, 0.3, 1.0), (10, 0.2 + shift, 0.1, 0.9), (100, 0.3 + 2 * shift, 0.2, 0.7)]
        made.append(record("converged", "BNN_FC_flip", seed, way))
        made.append(record("ten_epochs", "BNN_FC_flip", seed, [(10, 0.15, 0.2, 1.1)]))
        made.append(record("converged", "CNN_FC", seed, [(1, 0.5, 0.1, 2.0), (100, 0.9, 0.4, 3.0)]))
    return made


def value(table, **where):
    for name, one in where.items():
        table = table[table[name] == one]
    assert len(table) == 1
    return table.iloc[0]


def test_a_run_is_stopped_by_the_images_held_out_and_judged_on_the_test_images(records):
    table = convergence.side_by_side(convergence.looks(records))
    stopped = value(table, model="BNN_FC_flip", state="stopped", score="nll")
    assert (stopped["mean"], stopped.seeds, stopped.prior) == (pytest.approx(0.21), 3, "1")
    assert value(table, model="BNN_FC_flip", state="stopped", score="epoch")["mean"] == 10
    assert value(table, model="BNN_FC_flip", state="converged", score="epoch")["mean"] == 100
    assert value(table, model="BNN_FC_flip", state="ten epochs", score="nll")["mean"] == 0.15
    twin = value(table, model="CNN_FC", state="stopped", score="nll")
    assert (twin["mean"], twin.prior) == (0.5, "")
    assert value(table, model="CNN_FC", state="stopped", score="auroc_near")["mean"] == 0.5


def test_differences_are_paired_by_seed(records):
    table = convergence.differences(convergence.looks(records))
    end = value(table, what="converged less stopped", model="BNN_FC_flip", score="nll")
    assert end["mean"] == pytest.approx(0.11)  # 0.10, 0.12 and 0.11
    assert (end.low, end.high) == pytest.approx(interval([0.10, 0.12, 0.11])[1:])
    twin = value(table, what="stopped less stopped twin", model="BNN_FC_flip", score="nll")
    assert twin["mean"] == pytest.approx(0.21 - 0.5)
    end = value(table, what="converged less stopped twin", model="BNN_FC_flip", score="nll")
    assert end["mean"] == pytest.approx(0.32 - 0.5)
    # The twin has no run of ten epochs.
    assert not len(table[table.what == "ten epochs less ten epochs twin"])
    # A seed that one of the two lacks is left out.
    fewer = [one for one in records if one["run"] != "ten_epochs/BNN_FC_flip-prior=1.0-seed=1"]
    table = convergence.differences(convergence.looks(fewer))
    alone = value(table, what="converged less ten epochs", model="BNN_FC_flip", score="nll")
    assert (alone["mean"], alone.seeds) == (pytest.approx(0.16), 2)
    assert alone.low != alone.low  # two seeds have no interval


def test_a_run_without_looks_has_its_end_and_was_not_stopped(records):
    table = convergence.side_by_side(convergence.looks([one | {"looks": []} for one in records]))
    assert set(table.state) == {"ten epochs", "converged"}
    assert value(table, model="CNN_FC", state="converged", score="nll")["mean"] == 0.9


def test_an_interval_over_seeds_is_students():
    # t of two degrees of freedom at 97.5 % is 4.3027; the standard error of 0, 1, 2 is 1 / sqrt(3).
    assert interval([0.0, 1.0, 2.0]) == pytest.approx((1.0, 1 - 2.4841, 1 + 2.4841), abs=1e-4)
    two = interval([0.0, 2.0])
    assert two.estimate == 1
    assert math.isnan(two.low)
    assert math.isnan(two.high)


def test_the_way_has_a_mean_an_epoch_and_kl_by_image(records):
    table = convergence.path(convergence.looks(records))
    kl = value(table, group="converged", model="BNN_FC_flip", score="kl_per_image", epoch=10)
    assert kl["mean"] == 0.25
    assert not len(table[(table.model == "CNN_FC") & (table.score == "kl_per_image")])


def test_sentences_say_what_the_tables_say(records):
    said = convergence.told_calibrated(records)
    assert said.startswith("*converged* — underconfident: BNN_FC_flip under prior 1 (T 0.70 [0.70,")
    assert "overconfident: BNN_FC_flip" in convergence.told_calibrated(records, "ten epochs")
    assert "after the long training 3 of 3 posteriors stand still" in convergence.told_trained(
        records
    )
    said = convergence.told_stopped(records)
    assert said.endswith("BNN_FC_flip under prior 1 10 (3 seeds); CNN_FC 1 (3 seeds).")
    assert "BNN_FC_flip under prior 1 3 seeds; CNN_FC 3 seeds" in convergence.seeds(records)
    said = convergence.told_differences(records, "converged less stopped", "nll")
    assert "(3 seeds): " in said
    assert "higher for BNN_FC_flip under prior 1 +0.1100 [+0.0852, +0.1348], CNN_FC +0.4000" in said
    said = convergence.told_differences(records, "converged less stopped", "auroc_near")
    assert "no difference shown for BNN_FC_flip under prior 1" in said
    assert "comparisons, of which" in convergence.told_comparisons(records)


def test_one_seed_claims_nothing_and_a_longer_run_is_no_seed_of_the_long_one(records):
    said = convergence.told_calibrated(records[:1])
    assert said.startswith("*converged* — of one seed, so that nothing is claimed: BNN_FC_flip")
    assert "is not shown" in convergence.told_longer(records)
    way = [(100, 0.1, 0.1, 1.0), (200, 0.1, 0.1, 1.0)]
    longer = record("longer", "BNN_FC_flip", 0, way)
    longer["steps"]["loss"] = [0.5, 0.45]
    both = [*records, longer]
    assert "lower the loss by 10.0 % to 10.0 % (1 pair of" in convergence.told_longer(both)
    for make in (convergence.side_by_side, convergence.differences):
        before, after = make(convergence.looks(records)), make(convergence.looks(both))
        after = after[after.state != "longer"] if "state" in after else after
        assert before.equals(after.reset_index(drop=True))


def test_pictures_are_drawn_of_one_seed_too(records):
    records[0]["evaluation"][0]["nll"] = float("inf")  # as of a twin that is sure and wrong
    for some in (records, records[:3], records[:1]):
        found = convergence.looks(some)
        assert convergence.draw_path(convergence.path(found)).axes
        assert convergence.draw_side_by_side(convergence.side_by_side(found)).axes


def ended_late(prior, temperature=0.7, shift=0.0):
    """Three seeds of a network whose least NLL held out is at the end of the long training."""
    made = []
    for seed in range(3):
        tenth = shift * seed
        way = [(10, 0.2, 0.2, 0.9), (100, 0.1 + tenth, 0.1, temperature + seed / 1000)]
        made.append(record("converged", "BNN_FC_flip", seed, way, prior))
        made.append(record("ten_epochs", "BNN_FC_flip", seed, [(10, 0.15, 0.2, 0.8)], prior))
    return made


def test_what_did_not_stop_early_is_compared_once(records):
    twins = [one for one in records if one["parameters"]["model"] == "CNN_FC"]
    late = ended_late(1.0, shift=0.01)
    table = convergence.differences(convergence.looks([*late, *twins]))
    repeated = table[table.repeats & (table.score == "nll")]
    whats = {"converged less stopped", "stopped less ten epochs", "stopped less stopped twin"}
    assert set(repeated.what) == whats
    assert set(repeated.model) == {"BNN_FC_flip"}  # the twin stopped early
    kept = convergence.make([*late, *twins])["differences"][0]
    assert len(kept) == (~table.repeats).sum()
    assert "repeats" not in kept
    said = convergence.told_comparisons([*late, *twins])
    # Four scores each: the twin's end and stop, the end and ten epochs, the end and both twins.
    assert said.startswith("These are 16 comparisons, of which ")
    assert " 12 more compare a network with itself or repeat another" in said
    # One seed that stops early makes another network of it.
    early = record("converged", "BNN_FC_flip", 0, [(10, 0.2, 0.05, 0.9), (100, 0.1, 0.1, 0.7)])
    some = convergence.differences(convergence.looks([early, *late[1:], *twins]))
    assert not some.repeats.any()
    # Where the twin is at its end too, its two states are one.
    way = [(1, 0.5, 0.4, 2.0), (100, 0.9, 0.1, 3.0)]
    ended = [record("converged", "CNN_FC", seed, way) for seed in range(3)]
    table = convergence.differences(convergence.looks([*late, *ended]))
    own = table[~table.repeats]
    assert set(own.what) == {"converged less ten epochs", "converged less converged twin"}


def test_a_network_beside_itself_is_no_measured_zero(records):
    twins = [one for one in records if one["parameters"]["model"] == "CNN_FC"]
    late = ended_late(1.0) + ended_late(0.1)
    said = convergence.told_compared([*late, *twins], "converged less stopped")
    assert "BNN_FC_flip" not in said
    assert said.count("\n\n") == 3
    said = convergence.told_same([*late, *twins])
    assert said.startswith("BNN_FC_flip, all priors: the look with the least NLL")
    assert convergence.told_compared(late, "converged less stopped") == (
        "converged less stopped: stopped and converged are one here, so that this repeats another."
    )
    both = [*ended_late(0.1), *(one for one in records if one["run"].startswith("converged/B"))]
    assert convergence.told_same(both).startswith("BNN_FC_flip under prior 0.1: the look")
    assert "No network's" in convergence.told_same(records)


def test_an_infinite_nll_gives_no_difference(records):
    for one in records:
        if one["parameters"]["model"] == "CNN_FC":
            one["evaluation"][0]["nll"] = math.inf
    said = convergence.told_differences(records, "converged less converged twin", "nll")
    infinite = "is infinite (a label has probability 0 in 32 bits)"
    assert said.endswith(
        "no difference is given for BNN_FC_flip under prior 1, because the NLL of *converged twin* "
        f"{infinite}."
    )
    said = convergence.told_differences(records, "converged less stopped", "nll")
    assert "higher for BNN_FC_flip under prior 1 +0.1100" in said
    assert said.endswith(f"given for CNN_FC, because the NLL of *converged* {infinite}.")


def test_expectations_are_judged_by_whole_intervals(records):
    late = ended_late(1.0, 0.8) + ended_late(0.1, 0.7)
    for one in late:
        if one["run"].startswith("ten"):
            one["steps"]["nll"] = [0.1]
    table = expected.expectations(convergence.looks(late))
    held = {(row.expected.partition(":")[0], row.prior): row for row in table.itertuples()}
    kl = held["KL/N is not at its end after ten epochs", "1"]
    assert (kl.held, kl.measured) == ("held", "BNN_FC_flip −0.1500 [−0.1500, −0.1500]")
    assert held["accuracy has settled by then", "1"].held == "not refuted"
    sure = "trained, the network is less sure than right"
    assert [held[sure, prior].held for prior in ("1", "0.1")] == ["held", "held"]
    wide = held["more so under a wide prior", "1 less 0.1"]
    assert (wide.held, wide.measured) == ("did not hold", "BNN_FC_flip +0.1000 [+0.1000, +0.1000]")
    said = expected.told(table)
    assert said.endswith("Of 5 rows: 3 held, 1 not refuted, 1 did not hold.")
    # 1 lies within the interval; and two seeds have none.
    table = expected.expectations(convergence.looks(ended_late(1.0, 0.999)))
    assert list(table.held)[-1] == "not decided"
    table = expected.expectations(convergence.looks(late[:4]))
    assert set(table.held) == {"not measured"}
    assert "No expectation" in expected.told(expected.expectations(convergence.looks([])))
    within = expected.told_within(convergence.looks(late))
    assert within.endswith("0.0100 [0.0100, 0.0100] at epoch 100.")
    assert " at epoch 10," in within
    assert "is not known" in expected.told_within(convergence.looks([]))


def test_a_difference_of_two_seeds_is_no_absence_of_one():
    rows = pd.DataFrame(
        {"mean": [0.5, 0.25, 0.0], "low": [0.25, np.nan, -1.0], "high": [0.75, np.nan, 1.0]}
    )
    assert by_side(rows, ["a", "b", "c"]) == (
        "higher for a +0.5000 [+0.2500, +0.7500]; no difference shown for c +0.0000 "
        "[−1.0000, +1.0000]; too few seeds for b +0.2500"
    )
