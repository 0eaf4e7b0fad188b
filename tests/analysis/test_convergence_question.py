"""The three states of a run, their differences, and the sentences, on records made by hand."""

import math

import pytest

from bnnlib.analysis.questions import convergence
from bnnlib.analysis.questions.seeds import interval


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
