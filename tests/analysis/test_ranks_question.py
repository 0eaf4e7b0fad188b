"""What is compared with one rank, and when it counts as equal, on records made by hand."""

import pytest

from bnnlib.analysis.questions import ranks
from bnnlib.analysis.questions.seeds import interval


def record(group, seed, virtual_ranks, nll, streams=0, rule="none", model="BNN_FC_flip"):
    return {
        "run": f"{group}/{model}-{virtual_ranks}-{streams}-{rule}-{seed}",
        "parameters": {
            "model": model,
            "noise_streams": streams,
            "learning_rate_scaling": rule,
            "seed": seed,
        },
        "ranks": 1,
        "virtual_ranks": virtual_ranks,
        "converged": {"converged": True},
        "metrics": {"nll": nll, "accuracy": 0.9},
        "evaluation": [
            {"set": "a", "ood_group": "near", "auroc_entropy": 0.5},
            {"set": "b", "ood_group": "near", "auroc_entropy": 1.0},
        ],
    }


def row(table, **where):
    for name, one in where.items():
        table = table[table[name] == one]
    assert len(table) == 1
    return table.iloc[0]


def test_ranks_are_compared_with_one_rank_of_the_same_seed():
    runs = []
    for seed, level in ((0, 0.1), (1, 0.2), (2, 0.4)):  # what a seed adds is in both
        runs.append(record("images", seed, 1, level))
        runs.append(record("images", seed, 8, level + 0.001 + 0.0001 * seed))
        runs.append(record("images", seed, 8, level + 0.05 + 0.001 * seed, rule="linear"))
        runs.append(record("images", seed, 64, level + 0.002 * (seed - 1)))
    table = ranks.differences(ranks.scores(runs))
    equal = row(table, virtual_ranks=8, rule="none", score="nll")
    assert (equal["mean"], equal.seeds, equal.margin) == (pytest.approx(0.0011), 3, 0.003)
    assert (equal.equivalent, equal.different) == (True, True)  # small, and not nothing
    other = row(table, virtual_ranks=8, rule="linear", score="nll")
    assert (other.equivalent, other.different) == (False, True)
    unknown = row(table, virtual_ranks=64, score="nll")
    assert (unknown.equivalent, unknown.different) == (False, False)  # too few seeds for either
    assert row(table, virtual_ranks=64, score="accuracy").equivalent is None
    assert row(table, virtual_ranks=64, score="auroc_near")["mean"] == 0
    said = ranks.told(runs)
    assert said.startswith("images: of 3 comparisons of NLL")
    assert "1 are equivalent within the margins and 2 differ from 0" in said


def test_streams_are_compared_with_one_stream_a_virtual_rank():
    runs = []
    for seed in (0, 1):
        runs.append(record("streams", seed, 64, 0.1, streams=64))
        runs.append(record("streams", seed, 64, 0.2, streams=1))
    table = ranks.differences(ranks.scores(runs))
    assert set(table.noise_streams) == {1}
    assert row(table, score="nll")["mean"] == pytest.approx(0.1)


def test_one_seed_is_neither_equal_nor_different():
    runs = [record("images", 0, 1, 0.1), record("images", 0, 8, 0.1)]
    found = row(ranks.differences(ranks.scores(runs)), score="nll")
    assert (found.equivalent, found.different) == (None, False)
    assert ranks.told(runs) == "images: nothing to compare yet."
    assert ranks.told([]) == "images: nothing to compare yet."


def test_the_interval_of_equivalence_is_narrower():
    # t of two degrees of freedom at 95 % is 2.9200; the standard error of 0, 1, 2 is 1 / sqrt(3).
    found = interval([0.0, 1.0, 2.0], 0.9)
    assert found == pytest.approx((1.0, 1 - 1.6859, 1 + 1.6859), abs=1e-4)
