"""The law of the averaged gradient's noise, and what the tables say of numbers made by it."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis.questions import gradient_variance as question
from bnnlib.analysis.questions import gradient_variance_law as law
from tests.analysis.test_sentences import faults

V, C = 20.0, 0.4  # an image's variance, and the covariance of two that share a draw
# How noisy each batch of images is: much more different than estimators are.
BATCHES = np.array([0.2, 0.5, 0.8, 1.0, 1.5, 2.0])


def noise(estimator, streams, batch, ranks):
    """The law, written out for each case by itself."""
    if estimator == "reparameterization":
        return V / batch + C * ((1.0 if streams == "one" else 1 / ranks) - 1 / batch)
    if streams == "one":  # a place of a batch has the same signs on every rank
        return V / batch + C * (ranks - 1) / batch
    return (0.6 if estimator == "local" else 1.0) * V / batch


def row(estimator, streams, batch, ranks, **more):
    value = noise(estimator, streams, batch, ranks)
    shared = {"network": "BNN_FC", "bayesian_layers": "first", "state": "initial", "part": "all"}
    shared |= {"estimator": estimator, "noise_streams": streams, "global_batch": batch}
    value = more.pop("times", 1.0) * value
    each = value * BATCHES * (1 + 0.02 * np.cos(np.arange(6) * ranks + len(estimator)))
    each = (each * value / each.mean())[: more.pop("batches", 6)]
    shared |= {"ranks": ranks, "entries": 10, "noise": value, "noise_error": 0.3 * value}
    shared["noise_of_batches"] = " ".join(map(str, each))
    return shared | {"image": 40 / batch, "image_error": 1 / batch} | more


def table(*more):
    rows = [
        row(estimator, "own", batch, ranks)
        for batch in (64, 512)
        for ranks in (1, 2, 8, 64)
        for estimator in law.ESTIMATORS
    ]
    rows += [
        row(name, "one", 64, ranks)
        for name in ("reparameterization", "flipout")
        for ranks in (2, 8)
    ]
    rows += [row(name, "own", 128, 2) for name in ("reparameterization", "flipout")]
    return pd.DataFrame([*rows, *more])


def test_the_law_predicts_every_row_from_one_rank():
    found = law.against_law(table())
    assert len(found) == len(table()) - 2  # at 128 images nothing was measured on one rank
    assert found.given.sum() == 6
    np.testing.assert_allclose(found.predicted, found.noise)
    np.testing.assert_allclose(found.ratio, 1)
    # The batches differ tenfold, and the ratio is known to some per cent all the same.
    assert (found.high - found.low).max() < 0.1
    assert law.agreement(found)["inside"] == law.agreement(found)["rows"] == len(found) - 6


def test_a_noise_that_the_law_does_not_know_lies_outside_its_interval():
    found = law.against_law(table(row("flipout", "own", 512, 512, times=1.5))).iloc[-1]
    assert found.ratio == pytest.approx(1.5)
    assert found.low > 1


def test_a_case_of_fewer_batches_is_compared_on_these():
    # Its three batches are the least noisy ones: their own mean says nothing of the ratio.
    found = law.against_law(table(row("flipout", "own", 512, 512, batches=3))).iloc[-1]
    assert found.ratio == pytest.approx(1, abs=0.02)
    assert found.noise == pytest.approx(V / 512, rel=0.02)


def test_a_batch_without_the_rows_that_the_law_starts_from_has_none():
    others = table()[lambda rows: rows.ranks > 1]
    assert law.against_law(others).empty


def test_a_ratio_on_the_same_batches_is_worked_by_hand():
    over, under = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 2.0])
    found = law.ratio_on_the_same_batches(over, under)
    # 12/5; what is left is -0.4, -0.8, 1.2, whose squares are 2.24 in sum; t of 2 is 4.303
    error = (2.24 / 2 / 3) ** 0.5 / (5 / 3)
    assert found == pytest.approx((2.4, 2.4 - 4.3027 * error, 2.4 + 4.3027 * error), rel=1e-4)
    assert law.ratio_on_the_same_batches(np.append(over, 9e9), under) == found


def test_flipout_is_needless_where_the_excess_is_a_twentieth():
    found = law.needless(table()).set_index("global_batch").loc[64]
    # C (1/R - 1/64) = V/64/20
    assert found.ranks == pytest.approx(1 / (V / 64 / 20 / C + 1 / 64))
    assert found.ranks_low < found.ranks < found.ranks_high
    assert found.ranks_in_all == pytest.approx(1 / ((V + 40) / 64 / 20 / C + 1 / 64))
    assert found.excess == pytest.approx(1 + C * (1 - 1 / 64) / (V / 64))


def test_one_rank_is_enough_where_there_is_no_excess():
    rows = table()
    found = law.needless(rows.assign(noise_of_batches=rows.noise_of_batches.iloc[0]))
    assert (found[["ranks", "ranks_low", "ranks_high"]] == 1).all(axis=None)


def test_the_laws_numbers_are_the_same_at_both_batches():
    found = law.across_batches(table()).iloc[0]
    assert (found.v, found.c) == (pytest.approx(1), pytest.approx(1))
    assert found.v_low < 1 < found.v_high


def test_one_stream_is_compared_with_a_stream_a_rank():
    found = law.one_stream(table()).set_index(["estimator", "ranks"])
    assert len(found) == 4
    for (estimator, ranks), one in found.iterrows():
        expected = noise(estimator, "one", 64, ranks) / noise(estimator, "own", 64, ranks)
        assert one.ratio == pytest.approx(expected)


def test_at_a_fixed_batch_of_a_rank_the_ratio_is_that_of_one_rank():
    found = law.per_rank(table()).set_index("ranks")
    one = noise("reparameterization", "own", 64, 1) / noise("flipout", "own", 64, 1)
    assert found.predicted.tolist() == pytest.approx([one] * 3)
    assert found.ratio.tolist() == pytest.approx([one] * 3)
    assert sorted(found.index) == [1, 2, 8]


def test_step_times_compare_with_the_reparameterized_step_where_there_is_one():
    rows = [("BNN_FC_flip", "bnnlib", 1, 2.0), ("BNN_FC_nonflip", "bnnlib", 1, 1.0)]
    rows += [("BNN_VGG_flip", "bnnlib", 1, 3.0), ("BNN_VGG_flip", "twin", 1, 1.0)]
    bench = pd.DataFrame(rows, columns=["model", "baseline", "threads", "ms_per_step"])
    bench["ms_min"], bench["ms_max"] = 0.9 * bench.ms_per_step, 1.1 * bench.ms_per_step
    found = law.step_times(bench).set_index("model")
    assert found.ratio.to_dict() == {"BNN_FC_flip": 2.0, "BNN_VGG_flip": 3.0}
    assert found.against.tolist() == ["reparameterization", "the deterministic twin"]


def records(gain):
    return [
        {
            "run": f"equal_time/{model}-{ranks}-{seed}",
            "virtual_ranks": ranks,
            "parameters": {"model": model, "seed": seed, "steps": 10},
            "evaluation": [
                {"set": "test", "accuracy": 0.9 + seed / 100, "nll": 0.3 + seed / 10 + more}
                | {"ece": 0.01},
                {"set": "noise", "accuracy": 0.1, "nll": 9.0, "ece": 0.5},
            ],
        }
        for ranks in (1, 8)
        for seed in range(3)
        for model, more in (("BNN_FC_flip", 0.0), ("BNN_FC_nonflip", gain + seed / 1000))
    ]


def test_equal_time_is_paired_by_seed():
    found = question.equal_time_table(records(0.05)).set_index(["virtual_ranks", "score"])
    nll = found.loc[1, "nll"]
    assert (nll["mean"], nll.seeds) == (pytest.approx(0.051), 3)
    assert nll.high - nll["mean"] == pytest.approx(4.303 * 0.001 / 3**0.5, rel=1e-3)
    assert nll.flipout == pytest.approx(0.4)
    assert question.equal_time_table([]).empty


def test_every_picture_and_sentence_is_made_of_the_tables():
    plt.switch_backend("agg")
    bench = pd.DataFrame(
        [("BNN_FC_flip", "bnnlib", 1, 2.0, 1.9, 2.1), ("BNN_FC_nonflip", "bnnlib", 1, 1, 1, 1)],
        columns=["model", "baseline", "threads", "ms_per_step", "ms_min", "ms_max"],
    )
    made = question.make(records(0.05), table(), bench)
    for drawn, draw in made.values():
        if draw is not None:
            draw(drawn).savefig(io.BytesIO(), format="png", dpi=40)
    assert plt.get_fignums() == []
    text = {name: drawn for name, (drawn, _) in made.items()}
    said = [
        question.of_law(text["noise_against_ranks"]),
        question.of_needless(text["needless"]),
        question.of_images(text["needless"]),
        question.of_batches(text["across_batches"]),
        question.of_one_stream(text["one_stream"]),
        question.of_per_rank(text["per_rank"]),
        question.of_step_times(text["step_times"]),
        question.of_equal_time(text["equal_time"]),
    ]
    assert [faults(one) for one in said] == [[]] * len(said)
    assert "of 18 predictions, 18 lie" in said[0]
    assert "of 4 predictions, 4 lie" in said[0]
    assert "above 0" in said[-1]
