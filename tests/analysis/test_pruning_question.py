"""What pruned networks are compared with, on rows made by hand; pictures and sentences of them."""

import io

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from bnnlib.analysis.questions import pruning as question
from bnnlib.analysis.questions import pruning_findings as findings
from tests.analysis.test_sentences import faults

SEEDS, SHARES = (0, 1, 2), (0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
RUNS = {
    f"{group}/{model}-{layers}-{seed}": {"model": model, "bayesian_layers": layers, "seed": seed}
    for group in question.STATES
    for model, layers in (("BNN_FC_flip", "auto"), ("BNN_FC_flip", "all"), ("CNN_FC", "auto"))
    for seed in SEEDS
}
# Points of accuracy that go at a share of 1 by each score, after a seed's own level.
LOSS = {"none": 0.0, "signal_to_noise": 1.0, "kl": 2.0, "magnitude": 3.0, "random": 40.0}


def row(run, scope="global", by="none", removed="zero", share=0.0):
    loss = LOSS[by] * share + (10 * share if removed == "trap" else 0)
    loss += 2 * share if scope == "layer" else 0
    accuracy = 0.97 + 0.001 * RUNS[run]["seed"] - loss / 100
    left = 1 - share
    return {
        **{"run": run, "scope": scope, "by": by, "removed": removed, "share": share},
        **{"weights": round(50_000 * left), "units": 64, "inputs": round(784 * left)},
        **{
            "bytes": round(340_000 * left),
            "accuracy": accuracy,
            "of_a_draw": accuracy - loss / 100,
        },
        **{"nll": 3 * (1 - accuracy), "ece_debiased": 0.02 * left, "epistemic": 0.04 * left},
        **{"auroc_near": 0.95 - 0.1 * share, "cpu_seconds": 1.5},
    }


def ways(run):
    if "CNN" in run:
        return [("global", by, "zero") for by in ("magnitude", "random")]
    made = [("global", by, "zero") for by in list(LOSS)[1:]]
    made.append(("global", "signal_to_noise", "trap"))
    return [*made, ("layer", "signal_to_noise", "zero")] if "all" in run else made


@pytest.fixture(scope="module")
def pruned():
    rows = [row(run) for run in RUNS]
    rows += [row(run, *way, share) for run in RUNS for way in ways(run) for share in SHARES]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def records():
    return [{"run": run, "parameters": parameters} for run, parameters in RUNS.items()]


@pytest.fixture(scope="module")
def speed():
    rows = []
    for group in question.STATES:
        run = f"{group}/BNN_FC_flip-auto-0"
        rows.append({"run": run, "share": 0.0, "way": "whole", "median": 2.0})
        rows.append({"run": run, "share": 0.95, "way": "whole", "median": 2.2})
        rows.append({"run": run, "share": 0.95, "way": "shrunk", "median": 0.5})
    rows.append({"run": f"{group}/BNN_FC_flip-all-0", "share": 0.0, "way": "whole", "median": 9.0})
    table = pd.DataFrame(rows)
    return table.assign(quarter=0.9 * table["median"], three_quarters=1.1 * table["median"])


@pytest.fixture(scope="module")
def made(pruned, records, speed):
    return question.make(records, pruned, speed)


def one(table, **where):
    found = table[question.matching(table, **where)]
    assert len(found) == 1
    return found.iloc[0]


def test_what_was_not_pruned_is_share_0_of_each_way(pruned, records):
    found = question.cases(records, pruned)
    whole = found[(found.share == 0) & (found.score == "accuracy")]
    assert len(whole) == len(RUNS) / 3 * (5 + 6 + 2)
    for _, of_seed in whole[whole.network == question.FLIP].groupby(["state", "seed"]):
        assert set(zip(of_seed.by, of_seed.removed, strict=True)) == {
            *((by, "zero") for by in question.BY),
            ("signal_to_noise", "trap"),
        }
        assert (of_seed.value == of_seed.value.iloc[0]).all()
    assert set(found[found.score == "error"].value.round(6)) >= {3.0, 2.9, 2.8}
    with pytest.raises(KeyError):
        question.cases(records[1:], pruned)


def test_differences_are_paired_by_seed(made):
    table = made["differences"][0]
    where = {"network": question.FLIP, "state": "converged", "score": "accuracy", "share": 0.8}
    snr = {"by": "signal_to_noise"}
    plain = one(table, what="pruned less whole", **where, **snr)
    # The seeds' levels differ by a point in all, and the difference by nothing.
    assert plain["mean"] == pytest.approx(-0.008)
    assert plain.high - plain.low == pytest.approx(0, abs=1e-9)
    assert plain.seeds == 3
    assert one(table, what="trap less whole", **where, **snr)["mean"] == pytest.approx(-0.088)
    assert one(table, what="trap less zero", **where, **snr)["mean"] == pytest.approx(-0.08)
    kl = one(table, what="kl less signal_to_noise", **where)
    assert kl["mean"] == pytest.approx(-0.008)
    assert kl.by == "kl"
    layer = one(table, what="by layer less globally", **(where | {"network": question.BOTH}), **snr)
    assert layer["mean"] == pytest.approx(-0.016)
    assert (table.share > 0).all()


def test_the_published_shares_stand_beside_the_same_here(made):
    table = made["published"][0].set_index("share")
    assert table.loc[0.99, "error_published"] == 2.75
    assert table.loc[0.99, "error_converged"] == pytest.approx(2.9 + 0.99)
    assert table.loc[0.0, "nll_ten_epochs"] == pytest.approx(3 * 0.029)
    assert len(table) == 6


def test_times_are_over_the_unpruned_networks(made):
    found = made["gains"][0]
    shrunk = one(found, score="time_shrunk", state="converged")
    assert (shrunk["mean"], shrunk.low) == (0.25, 0.225)
    assert found[found.score == "time_whole"]["mean"].max() == pytest.approx(1.1)
    assert one(found, score="bytes", state="converged", share=0.8)["mean"] == 68_000


def test_the_sentences_say_what_the_tables_say(pruned, records, made):
    tables = {name: table for name, (table, _) in made.items()}
    differences = tables["differences"]
    explained = findings.told_explained(differences)
    assert "the claim is a loss of 7 points" in explained
    assert (
        "converged, accuracy**: exactly 0 −0.80 [−0.80, −0.80], the trap −8.80 [−8.80, −8.80] "
        "points against the whole network; the trap less exactly 0: −8.00 [−8.00, −8.00]"
    ) in explained
    shares = findings.told_shares(differences)
    # A loss of 1 point at all: half a point is reached at 50 %, before the first share measured.
    assert "- **BNN_FC_flip, converged**: signal to noise 0 %, KL 0 %" in shares
    at = findings.told_at(differences, "trap less zero", "accuracy", (0.8, 0.995))
    assert "- **converged** (3 seeds): 80 % −0.0800 [−0.0800, −0.0800]; 99.5 % −0.0995" in at
    other = findings.told_at(
        differences, "magnitude less signal_to_noise", "accuracy", (0.8,), by="magnitude"
    )
    assert other.startswith("accuracy, |mean| less signal to noise (BNN_FC_flip)")
    gained = findings.told_gains(tables["gains"])
    assert "95 % removed: 17.0 [17.0, 17.0] kB instead of 340.0; 64.0 [64.0, 64.0] of" in gained
    assert "With the unneeded units and pixels taken out, prediction takes 0.25" in gained
    assert " 0.25 (quartiles 0.22 to 0.28, one seed) of the unpruned CPU time" in gained
    assert "with zeros left in place 1.10 (0.99 to 1.21)." in gained
    said = [shares, at, other, gained, findings.told_runs(records, pruned)]
    said += [findings.told_comparisons(differences), findings.told_twin(tables["against_share"])]
    assert [faults(text) for text in said] == [[]] * len(said)
    assert "3 seeds" in said[4]


def test_what_was_expected_stands_beside_whether_it_held(made):
    tables = {name: table for name, (table, _) in made.items()}
    found = findings.told_predictions(tables["differences"], tables["against_share"])
    verdicts = found.set_index("expected").converged
    # One point at all: half a point is passed at 60 %.
    assert verdicts.iloc[0] == "did not hold"
    assert verdicts["2. and so is the size of the mean"] == "did not hold"  # 1.8 points at 90 %
    assert verdicts["2. at random, 60 % cost ten points or more"] == "held"  # 24
    assert verdicts["3. and the calibration error half"] == "held"  # nine tenths
    assert verdicts["3. with 90 % gone the NLL is a tenth lower"] == "did not hold"
    assert verdicts["6. by layer is worse than globally from 95 % on"] == "held"
    assert verdicts["5. the trap costs two points or more at 80 %"] == ""  # not expected there
    unsure = tables["differences"].assign(low=-1.0, high=1.0)
    found = findings.told_predictions(unsure, tables["against_share"])
    assert set(found.converged) == {"not told", ""}
    found = findings.told_predictions(unsure[:0], tables["against_share"])
    assert set(found.converged) == {"not measured", ""}


def test_a_gain_by_the_trap_explains_nothing(pruned, records):
    better = pruned.assign(
        accuracy=pruned.accuracy.where(pruned.removed != "trap", 0.98),
        of_a_draw=pruned.of_a_draw.where(pruned.removed != "trap", 0.98),
    )
    said = findings.told_explained(question.differences(question.cases(records, better)))
    assert said.count("; no loss that the trap adds is shown") == 4
    assert "the trap +0.90 [" in said  # of the whole network's 97.1 %: a gain has its sign


def test_without_rows_the_sentences_say_so(pruned, records, speed):
    tables = {n: t for n, (t, _) in question.make(records, pruned[:0], speed[:0]).items()}
    for told in (findings.told_shares, findings.told_explained):
        assert told(tables["differences"]) == findings.NOTHING
    assert findings.told_runs(records, pruned[:0]) == findings.NOTHING
    said = findings.told_at(tables["differences"], "trap less zero", "nll", (0.8,))
    assert said.endswith(f"trap less zero (BNN_FC_flip): {findings.NOTHING}")
    assert findings.told_gains(tables["gains"]) == findings.NOTHING
    assert "twin has not been pruned yet" in findings.told_twin(tables["against_share"])


def test_the_units_that_go_are_told_beside_those_that_stay(records):
    """Of four units two go in seeds 0 and 1, and three in seed 2; after ten epochs none does."""
    rows = [
        {
            **{"run": f"{group}/BNN_FC_flip-auto-{seed}", "unit": unit},
            **{"goes_at": 0.7 if gone else 0.95, "greatest": 0.2 if gone else 5.0},
            **{"stddev": 1.0 if gone else 0.9, "bias": -9.0 if gone else 0.5},
            "outgoing": 0.1 if gone else 0.3,
        }
        for group in question.STATES
        for seed in SEEDS
        for unit in range(4)
        for gone in [group == "converged" and unit < (3 if seed == 2 else 2)]
    ]
    said = findings.told_units(pd.DataFrame(rows), records)
    assert "- **ten epochs**: 0.0 [0.0, 0.0] units of 4 (0 a seed)" in said.splitlines()
    assert "- **converged**: 2.3 [0.9, 3.8] units of 4 (2 to 3 a seed)\n    - the share" in said
    assert "its bias: −9.0 [−9.0, −9.0] where the unit goes, 0.5 [0.5, 0.5] where it" in said
    assert faults(said) == []
    assert findings.told_units(pd.DataFrame(rows[:0], columns=list(rows[0])), []) == (
        findings.NOTHING
    )


def test_the_calibration_axis_reaches_0_and_every_share_has_a_tick(made):
    figure = made["against_share"][1](made["against_share"][0])
    axis = figure.axes[2 * list(question.SCORES).index("ece_debiased")]
    assert (axis.get_yscale(), axis.get_ylim()[0]) == ("symlog", 0)
    ticks = {float(tick.get_text()) for tick in figure.axes[-1].get_xticklabels()}
    assert ticks >= {100 * share for share in (0.3, *SHARES)}
    plt.close(figure)


def test_every_picture_is_drawn_of_the_tables(made):
    plt.switch_backend("agg")
    for drawn, draw in made.values():
        if draw is not None:
            draw(drawn).savefig(io.BytesIO(), format="png", dpi=40)
    assert plt.get_fignums() == []
