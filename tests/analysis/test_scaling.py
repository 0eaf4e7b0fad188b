"""Efficiencies, the cost model and its fits, against numbers worked by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import scaling
from bnnlib.analysis.scaling import Interconnect
from bnnlib.errors import RecordError

# A message takes 1 s, a byte 0.5 s.
SLOW = Interconnect("slow", 1.0, 0.5, "")


def runs(*rows, **same):
    """Runs as scaling.timings gives them: (ranks, batch a rank, images/s)."""
    base = {
        "model": "CNN_FC",
        "dataset": "digits",
        "threads_used": 1,
        "virtual_ranks": 1,
        "compression": "none",
        "num_hosts": 1,
    } | same
    return pd.DataFrame(
        [
            base
            | {
                "ranks": ranks,
                "batch_size": batch,
                "global_batch": ranks * batch,
                "images_per_second": speed,
                "step_ms_p50": 1e3 * ranks * batch / speed,
            }
            for ranks, batch, speed in rows
        ]
    )


# --- cost model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "ring", "doubling"),
    [
        # 2 α + 2 (R-1)/R n β, and ceil(log2 R) (α + n β), of 8 bytes.
        (2, 2 + 4, 1 + 4),
        (3, 4 + 16 / 3, 2 * 5),
        (4, 6 + 6, 2 * 5),
        (5, 8 + 6.4, 3 * 5),
    ],
)
def test_the_algorithms_by_hand(ranks, ring, doubling):
    assert scaling.ring(8, ranks, SLOW) == pytest.approx(ring)
    assert scaling.recursive_doubling(8, ranks, SLOW) == pytest.approx(doubling)
    assert scaling.allreduce(8, ranks, SLOW) == pytest.approx(min(ring, doubling))


def test_the_ring_is_for_large_messages_and_many_ranks():
    for ranks in (4, 64, 1024):
        assert scaling.recursive_doubling(8, ranks, scaling.ARIES) < scaling.ring(
            8, ranks, scaling.ARIES
        )
    # 100 MB, as VGG-16's gradients: the ring moves each byte twice, doubling log2 R times.
    assert scaling.ring(1e8, 64, scaling.ARIES) < scaling.recursive_doubling(1e8, 64, scaling.ARIES)


@pytest.mark.parametrize("algorithm", scaling.ALGORITHMS)
def test_a_fit_finds_the_network_that_made_a_ladder(algorithm):
    true = Interconnect("true", 3e-6, 2e-10, "")
    cost = scaling.ALGORITHMS[algorithm]
    rows = [
        {"bytes": size, "ranks": ranks, "ms": 1e3 * cost(size, ranks, true)}
        for size in (4, 4096, 2**22)
        for ranks in (2, 5)
    ]
    found = scaling.fit(pd.DataFrame(rows), algorithm)
    assert found.interconnect.alpha == pytest.approx(true.alpha, rel=1e-6)
    assert found.interconnect.beta == pytest.approx(true.beta, rel=1e-6)
    assert found.largest_error == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("algorithm", scaling.ALGORITHMS)
def test_a_fit_predicts_under_the_algorithm_that_it_was_made_under(algorithm):
    """The ring's α under doubling would say half of the four bytes' measured 0.3 ms."""
    rows = pd.DataFrame({"bytes": [4, 2**20], "ranks": 2, "ms": [0.3, 0.8]})
    fitted = scaling.fit(rows, algorithm).interconnect
    for row in rows.itertuples():
        predicted = 1e3 * scaling.allreduce(row.bytes, row.ranks, fitted)
        assert predicted == pytest.approx(row.ms, rel=1e-6)
    # What the steps are held against is the same average.
    table = scaling.efficiencies(runs((1, 64, 640.0), (2, 64, 1000.0)))
    steps = scaling.against_measured(table, {"CNN_FC": (0.0, 0.1 / 64)}, {"CNN_FC": 4}, fitted)
    assert steps.allreduce_ms.tolist() == pytest.approx([0.3])


def test_a_fit_says_how_far_it_is_off_and_refuses_one_size():
    # Twice as long as α-β at one size: no two numbers fit three points.
    ladder = pd.DataFrame({"bytes": [4, 4096, 2**20], "ranks": 2, "ms": [0.01, 0.5, 0.6]})
    assert scaling.fit(ladder, "ring").largest_error > 1.2
    with pytest.raises(RecordError, match="at least two"):
        scaling.fit(ladder[:1], "ring")


def test_the_slowest_of_many_by_simulation():
    rng = np.random.default_rng(0)
    for ranks in (2, 8, 100):
        simulated = rng.normal(size=(20000, ranks)).max(axis=1).mean()
        assert scaling.straggler(1.0, ranks) == pytest.approx(simulated, rel=0.05)
    assert scaling.straggler(1.0, 1) == pytest.approx(0)


def test_a_prediction_by_hand():
    free = Interconnect("free", 0.0, 0.0, "")
    table = scaling.predict("m", (0.01, 0.001), 8, 10, [1, 2, 20], free).set_index(
        ["kind", "ranks"]
    )
    assert table.loc[("weak", 20), "efficiency"] == pytest.approx(1)
    # Strong: 5 images take 0.015 s where 10 take 0.02.
    assert table.loc[("strong", 2), "speedup"] == pytest.approx(0.02 / 0.015)
    assert not table.loc[("strong", 20), "possible"]
    costly = scaling.predict("m", (0.0, 0.001), 8, 10, [4], free, 0.002, 0.1)
    # Weak: 10 images; strong: 2.5. Each waits a tenth of that for each of two doublings.
    assert costly.seconds[0] == pytest.approx(0.01 + 0.002 + 2 * 0.001)
    assert costly.seconds[1] == pytest.approx(0.0025 + 0.002 + 2 * 0.00025)


def test_scenarios_are_predictions_and_the_measured_points():
    points = pd.DataFrame(
        {
            "model": "m", "kind": "weak", "batch": [64, 64, 32], "ranks": [1, 2, 2],
            "images_per_second": 1.0, "speedup": 1.8, "efficiency": 0.9,
        }
    )  # fmt: skip
    table = scaling.scenarios(points, {"m": (0.0, 0.001)}, {"m": 8}, 64, 0.0, 0.1, [1, 2, 64, 128])
    assert set(table[~table.measured].scenario) == {
        "Aries", "Aries + waiting", "Slingshot 11", "Slingshot 11 + waiting",
    }  # fmt: skip
    assert table[table.measured].ranks.tolist() == [2]  # the point of 64 images, not that of 32
    waiting = table[(table.scenario == "Aries + waiting") & (table.kind == "weak")]
    assert waiting.set_index("ranks").efficiency[64] == pytest.approx(1 / (1 + 6 * 0.1), rel=1e-2)
    # No rank of 128 has an image of 64.
    assert not table[(table.kind == "strong") & (table.ranks == 128)].possible.any()


def test_theta_is_the_published_points_and_the_refinement_is_fitted_to_two_nodes_alone():
    table = scaling.theta()
    two = table[table.nodes == 2]
    np.testing.assert_allclose(two.refined, two.speedup, rtol=1e-9)
    assert (table.model <= table.nodes).all()
    bnn = table[table.network == "BNN"].set_index("nodes")
    # 128 images at 1690 a second, at 6.1 times the speed on 8 nodes.
    extra = 1e3 * 128 / 1690 * (8 / 6.1 - 1)
    assert bnn.extra_ms[8] == pytest.approx(extra, abs=0.2)


def test_the_bytes_of_thetas_networks_by_hand():
    # A convolution of 64 filters of 5 x 5 with its biases, pooled to 14 x 14, ten outputs with
    # their biases, and two numbers that ride along. A posterior has its kernel's entries twice.
    entries = 5 * 5 * 64 + 64 + 14 * 14 * 64 * 10 + 10
    assert {"CNN": 4 * (entries + 2), "BNN": 4 * (entries + 5 * 5 * 64 + 2)} == scaling.THETA_BYTES


# --- measured -------------------------------------------------------------------------------------


def test_efficiencies_by_hand():
    table = scaling.efficiencies(
        runs((1, 64, 100.0), (1, 64, 100.0), (2, 64, 180.0), (2, 64, 180.0), (2, 32, 150.0))
    ).set_index(["kind", "ranks"])
    weak = table.loc[("weak", 2)]
    assert (weak.speedup, weak.efficiency) == (pytest.approx(1.8), pytest.approx(0.9))
    assert weak.repeats == 2
    # Repeats without spread: an interval without width.
    assert weak.efficiency_low == pytest.approx(0.9)
    strong = table.loc[("strong", 2)]
    assert strong.efficiency == pytest.approx(0.75)
    assert math.isnan(strong.efficiency_low)  # one run
    assert table.loc[("weak", 1), "efficiency"] == 1


def test_an_interval_holds_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        alone = [(1, 64, speed) for speed in 100 * np.exp(0.05 * rng.normal(size=3))]
        both = [(2, 64, speed) for speed in 160 * np.exp(0.1 * rng.normal(size=4))]
        row = scaling.efficiencies(runs(*alone, *both)).set_index("ranks").loc[2]
        held += row.efficiency_low <= 0.8 <= row.efficiency_high
    assert 0.90 * 300 < held < 0.99 * 300


def test_runs_of_other_parameters_are_not_compared():
    table = pd.concat([runs((1, 64, 100.0)), runs((2, 64, 180.0), compression="fp16")])
    assert scaling.efficiencies(table).empty


def test_the_compute_term_is_linear_in_the_images():
    table = runs((1, 32, 32 / 0.42), (1, 64, 64 / 0.74), (2, 64, 1.0))
    constant, image = scaling.compute_term(table)["CNN_FC"]
    assert (constant, image) == (pytest.approx(0.1), pytest.approx(0.01))
    assert scaling.compute_term(runs((1, 50, 100.0)))["CNN_FC"] == (0.0, pytest.approx(0.01))


def test_bytes_a_step_come_from_the_records_or_the_profiles():
    table = pd.concat([runs((1, 64, 1.0)), runs((1, 64, 1.0), model="BNN_FC_flip")])
    profiled = pd.DataFrame({"model": ["CNN_FC", "CNN_FC"], "bytes": [203568.0, 203568.0]})
    with pytest.raises(RecordError, match="how many bytes BNN_FC_flip gives"):
        scaling.bytes_a_step(table, profiled)
    table["bytes_a_step"] = [math.nan, 404272.0]
    assert scaling.bytes_a_step(table, profiled) == {"CNN_FC": 203568, "BNN_FC_flip": 404272}
    with pytest.raises(RecordError, match="CNN_FC"):
        scaling.bytes_a_step(table, pd.DataFrame())


def test_the_model_is_held_against_measured_points():
    table = scaling.efficiencies(runs((1, 64, 640.0), (2, 64, 1000.0)))
    network = Interconnect("", 0.005, 0.0, "")
    steps = scaling.against_measured(table, {"CNN_FC": (0.0, 0.1 / 64)}, {"CNN_FC": 8}, network)
    (row,) = steps.itertuples()
    # Computing 100 ms, one message 5 ms; measured 2 * 64 images at 1000 a second.
    assert row.predicted_ms == pytest.approx(105)
    assert row.measured_ms == pytest.approx(128)
    assert row.difference_ms == pytest.approx(23)


# --- records --------------------------------------------------------------------------------------


def test_a_ladder_that_is_none_is_told(tmp_path):
    path = tmp_path / "ladder.json"
    for text in (None, "{", "{}", '{"rows": 3}'):
        if text is not None:
            path.write_text(text)
        with pytest.raises(RecordError, match="no readable ladder"):
            scaling.read_ladder(path)
    path.write_text(
        json.dumps({"rows": [{"bytes": 4, "ranks": 2, "ms": 1, "ms_min": 1, "ms_max": 1}]})
    )
    assert scaling.read_ladder(path).bytes.tolist() == [4]
