"""Knobs, their differences from the defaults, and the verdict, on records made by hand."""

import pytest

from bnnlib.analysis.questions import prior_temperature as question
from bnnlib.analysis.questions import prior_temperature_expected as expected
from bnnlib.analysis.questions import prior_temperature_told as told
from bnnlib.analysis.questions.seeds import comparisons, interval
from bnnlib.errors import RecordError
from tests.analysis.test_convergence_question import record, value

DEFAULTS = {"kl_weight": 1.0, "prior_stddev": 1.0, "posterior_stddev": 0.0, "train_draws": 1}


def made(group, seed, nll, accuracy, looks=(), model="BNN_FC_flip", **turned):
    """A compact record whose last look has these scores; `looks` are those before."""
    way = [*looks, (100 if group == "converged" else 10, nll, nll, 0.8)]
    one = record(group, model, seed, way)
    one["parameters"] |= DEFAULTS | turned
    one["run"] += "".join(f"-{name}={value}" for name, value in turned.items())
    one["evaluation"][0]["accuracy"] = accuracy
    return one


@pytest.fixture
def records():
    """Three seeds: defaults, two KL weights, a cold posterior, another start, and the twin."""
    all_ = []
    for seed, shift in ((0, 0.0), (1, 0.002), (2, 0.001)):
        # At 0.1 the NLL is lower and the accuracy higher, at 0.01 both are higher.
        early = [(30, 0.05, 0.04, 0.9)]
        all_ += [
            made("converged", seed, 0.09 + shift, 0.97 + shift / 2),
            made("converged", seed, 0.07, 0.98, kl_weight=0.1),
            made("converged", seed, 0.12 - shift, 0.99, early, kl_weight=0.01),
            made("converged", seed, 0.08, 0.98, kl_weight=0.1, prior_stddev=0.3162278),
            made("ten_epochs", seed, 0.08 + shift, 0.97),
            made("ten_epochs", seed, 0.08 + 2 * shift, 0.97, posterior_stddev=1.0),
            made("ten_epochs", seed, 0.1, 0.96, model="CNN_FC"),
        ]
    return all_


def test_a_run_turns_one_knob_or_cools_likelihood_and_prior_alike():
    assert question.setting_of(DEFAULTS) == ("", 1.0)
    assert question.setting_of(DEFAULTS | {"train_draws": 4}) == ("train_draws", 4.0)
    assert question.setting_of(DEFAULTS | {"prior_stddev": 0.1}) == ("prior_stddev", 0.1)
    cold = DEFAULTS | {"kl_weight": 0.01, "prior_stddev": 0.1}
    assert question.setting_of(cold) == ("cold", 0.01)
    for other in ({"prior_stddev": 0.2}, {"posterior_stddev": 1.0}):
        with pytest.raises(
            RecordError, match=r"kl_weight = 0\.01, .*a prior_stddev of the root of"
        ):
            question.setting_of(cold | other)


def test_the_defaults_stand_under_the_knobs_that_were_turned(records):
    found = question.scores(records)
    settings = found.groupby("knob").setting.unique().map(sorted).to_dict()
    assert settings == {
        "kl_weight": [0.01, 0.1, 1],
        "cold": [0.1, 1],
        "posterior_stddev": [0.05, 1],
        "twin": [1],
    }
    assert set(found[found.knob == "twin"].model) == {"CNN_FC"}
    # The log holds the weighted term: a loss of 0.5 and an NLL of 0.25 at every weight.
    kl = found[(found.score == "kl_per_image") & (found.knob == "kl_weight")]
    assert set(zip(kl.setting, kl.value, strict=True)) >= {(1, 0.25), (0.1, 2.5), (0.01, 25)}


def test_runs_of_other_networks_and_lengths_are_left_out(records):
    others = [made("converged", 0, 0.5, 0.5, model="BNN_conv_flip"), made("longer", 0, 0.5, 0.5)]
    before, after = question.make(records), question.make([*records, *others])
    for name, (table, _) in before.items():
        assert table.equals(after[name][0])
        assert len(table)


def test_differences_are_paired_by_seed_with_the_defaults_of_the_same_state(records):
    table = question.differences(question.scores(records))
    of = {"what": "less defaults", "score": "nll"}
    weak = value(table, **of, knob="kl_weight", setting=0.01)
    assert weak["mean"] == pytest.approx(0.028)  # 0.030, 0.026 and 0.028
    assert (weak.low, weak.high) == pytest.approx(interval([0.030, 0.026, 0.028])[1:])
    start = value(table, **of, knob="posterior_stddev", setting=1.0)
    assert (start["mean"], start.state) == (pytest.approx(0.001), "ten epochs")
    beside = value(table, what="less KL weight alone", score="nll")
    assert (beside["mean"], beside.knob, beside.setting) == (pytest.approx(0.01), "cold", 0.1)
    early = value(table, what="stopped less converged", score="nll")
    assert (early["mean"], early.setting) == (pytest.approx(0.05 - 0.119), 0.01)
    # A seed without its run of the defaults is in no pair.
    fewer = [one for one in records if one is not records[0]]
    table = question.differences(question.scores(fewer))
    assert value(table, **of, knob="kl_weight", setting=0.01).seeds == 2


def test_an_effect_is_a_lower_nll_and_a_higher_accuracy(records):
    compared = question.differences(question.scores(records))
    text = told.effect(compared)
    assert "BNN_FC_flip, KL weight: shown at 0.1 (NLL −0.0210 [−0.0235, −0.0185], accuracy" in text
    assert "BNN_FC_flip, KL weight: not shown at 0.01 (NLL +0.0280" in text
    assert "temperature of the posterior: shown at 0.1" in text
    two = [one for one in records if one["parameters"]["seed"] < 2]
    told_of_two = told.effect(question.differences(question.scores(two)))
    assert "not shown at 0.01 (NLL +0.0280, accuracy" in told_of_two  # no interval of two
    assert ": shown" not in told_of_two
    assert "no run is cooled" in told.effect(compared, "ten epochs")


def test_sentences_say_what_the_tables_say(records):
    found = question.scores(records)
    table, compared = question.settings(found), question.differences(found)
    said = told.least(table)
    assert said.startswith("NLL, converged, by KL weight: BNN_FC_flip at 0.01 0.1190 [")
    assert ", 0.1 0.0700 [0.0700, 0.0700], 1 (default) 0.0910 [" in said
    assert said.endswith("(3 seeds). Which of them is least is not compared.")
    alone = table[table.setting == 1]
    assert told.least(alone) == "NLL, converged: no run has another KL weight than 1."
    assert told.stopped(found) == "Stopped after epochs: BNN_FC_flip at 0.01 30 (3 seeds)."
    said = told.difference(compared, "kl_weight", "nll")
    assert "NLL, KL weight, less defaults, converged (3 seeds): higher for BNN_FC_flip at" in said
    assert "lower for BNN_FC_flip at 0.1 −0.0210" in said
    said = told.difference(compared, "posterior_stddev", "nll", "ten epochs")
    assert "no difference shown for BNN_FC_flip at 1 +0.0010" in said
    said = told.difference(compared, "kl_weight", "nll", "stopped", "stopped less converged")
    assert "NLL, KL weight, stopped less converged (3 seeds): lower for BNN_FC_flip at 0.01" in said
    both = told.differences(compared, "kl_weight", ["nll", "auroc_near"])
    assert both.count("\n\n") == 1
    assert told.difference(compared, "kl_weight", "nll") in both
    assert "less sure than right at 1 (default) (T 0.80 [" in told.sure(table)
    assert "12 of 12 long trainings stand still" in told.trained(records)
    text = told.seeds(records)
    assert "KL weight, BNN_FC_flip, converged: 0.01 (3 seeds), 0.1 (3 seeds)" in text
    known = compared.dropna(subset="low")
    assert f"These are {len(known)} comparisons" in comparisons(compared)


def test_expectations_are_held_against_the_tables(records):
    found = question.scores(records)
    table = expected.expectations(question.settings(found), question.differences(found))
    held = {(row.number, row.expected): (row.held, row.measured) for row in table.itertuples()}
    assert held[1, "the NLL is least at a KL weight between .03 and .3"][0] == "yes"
    there = held[1, "the NLL is lower there than at 1 by .01 or more"]
    assert there == ("yes", "−0.0210 [−0.0235, −0.0185]")
    assert held[1, "accuracy is higher there by .002 or more"][0] == "yes"
    assert held[2, "it is below 1 at .1 and above 1 at .01"][0] == "no"  # 0.8 at each
    assert held[3, "AUROC of near sets is higher at .1 than at 1, by .02 or more"][0] == "no"
    assert held[4, "early stopping lowers the NLL at .01"][0] == "yes"
    words = "at T = .1 the NLL differs by less than .005 from that of the KL weight alone"
    assert held[6, words] == ("no", "+0.0100 [+0.0100, +0.0100]")
    assert held[8, "four draws a step change the NLL by less than .003 (converged)"] == (
        "not measured",
        "nothing",
    )
    text = expected.told(table)
    measured = (table.held != "not measured").sum()
    left = len(table) - measured
    assert f"{(table.held == 'yes').sum()} of {measured} measured held; {left} cannot be" in text
    assert text.count("\n| ") == len(table)


def test_what_is_expected_is_of_the_flipout_network_and_of_three_seeds(records):
    for one in records:
        one["parameters"]["model"] = "BNN_FC_nonflip"
    found = question.scores(records)
    table = expected.expectations(question.settings(found), question.differences(found))
    assert set(table.held) == {"not measured"}
    said = f"None of the {len(table)} expectations can be judged yet."
    assert expected.told(table).endswith(said)


def test_a_change_after_ten_epochs_is_judged_before_the_end_is_known(records):
    ten = [made("ten_epochs", seed, 0.079, 0.97, kl_weight=0.1) for seed in range(3)]
    first = "after ten epochs a weight of .1 changes the NLL by less than .005"
    then = "that change is in the end's direction"
    for some, end in (
        ([one for one in records if "ten" in one["run"]], "not measured"),
        (records, "yes"),
    ):
        found = question.scores([*some, *ten])
        table = expected.expectations(question.settings(found), question.differences(found))
        held = dict(zip(table.expected, table.held, strict=True))
        assert (held[first], held[then]) == ("yes", end)


def test_what_did_not_stop_early_is_compared_once(records):
    late = [
        made("converged", seed, 0.09 + seed / 100, 0.97, [(30, 0.2, 0.2, 0.9)], kl_weight=weight)
        for seed in range(3)
        for weight in (1.0, 0.1)
    ]
    found = question.scores(late)
    compared = question.differences(found)
    assert set(compared[~compared.repeats].state) == {"converged"}
    assert set(compared[compared.repeats].what) == {"less defaults", "stopped less converged"}
    assert len(compared) == 3 * (~compared.repeats).sum()
    kept = question.make(late)["differences"][0]
    assert len(kept) == len(compared) / 3
    assert "repeats" not in kept
    more = f" {2 * len(kept)} more compare a network with itself or repeat another"
    assert more in comparisons(compared)
    said = told.differences(compared, "kl_weight", ["nll"], what="stopped less converged")
    assert (
        said
        == "KL weight, stopped less converged: no network stopped early, so that the two are one."
    )
    assert told.same(found).startswith("BNN_FC_flip, KL weight 0.1, 1 (default): the look with")
    # Where the defaults did stop early, the comparison of the stopped is its own.
    for one in late:
        if one["parameters"]["kl_weight"] == 1:
            one["looks"][0]["rows"][1]["nll"] = 0.01
    compared = question.differences(question.scores(late))
    stopped = compared[(compared.state == "stopped") & (compared.what == "less defaults")]
    assert len(stopped)
    assert not stopped.repeats.any()


def test_without_records_the_sentences_say_so():
    found = question.scores([])
    table, compared = question.settings(found), question.differences(found)
    assert told.seeds([]) == "No run has finished yet."
    assert told.trained([]) == "No long training has finished."
    assert told.stopped(found) == "No run was looked at yet."
    assert "no run has another" in told.least(table)
    assert "nothing is known" in told.sure(table)
    assert "no run is cooled" in told.effect(compared)
    assert "nothing to compare" in told.difference(compared, "cold", "nll")
    assert "nothing to compare" in told.differences(compared, "cold", ["nll"])
    assert set(expected.expectations(table, compared).held) == {"not measured"}
    assert "These are 0 comparisons" in comparisons(compared)
    assert "No setting's" in told.same(found)


def test_pictures_are_drawn_of_one_seed_too(records):
    for some in (records, records[:7]):
        for table, draw in question.make(some).values():
            assert draw is None or draw(table).axes
