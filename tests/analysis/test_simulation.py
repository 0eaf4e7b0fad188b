"""The simulation's tables: counts and costs by hand, fitted laws, and what is committed."""

import re
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnnlib.analysis import gallery
from bnnlib.analysis.redraw import DRAWN
from bnnlib.analysis.scaling import Interconnect, simulated, simulation
from bnnlib.errors import RecordError

COMMITTED = Path(__file__).parents[2] / "figures" / "simulation"
SLOW = Interconnect("slow", 1.0, 0.5, "")


@pytest.fixture(autouse=True)
def no_display():
    plt.switch_backend("agg")


def times_of(**runs):
    """Step times as the table has them, milliseconds by run, without pauses."""
    return pd.DataFrame(
        [
            {"run": run, "step": step, "ms": ms, "pause_ms": 0.0}
            for run, values in runs.items()
            for step, ms in enumerate(values)
        ]
    )


def theta_times(alone=(70.0, 80.0), two=(90.0, 92.0), here=(10.0, 12.0)):
    return times_of(**{simulation.ALONE: alone, simulation.TWO_NODES: two, simulation.HERE: here})


def simulations(*rows):
    """(spread, ranks, cycle, seconds of four steps) of recursive doubling."""
    given = {"algorithm": "recursive doubling", "steps": 4, "bytes": 514_864, "step_stddev": 0.001}
    given |= {"agreements": 64, "agreement_seconds": 0.0064, "average_seconds": 0.0004}
    names = ("spread", "ranks", "cycle", "seconds")
    return pd.DataFrame([given | dict(zip(names, row, strict=True)) for row in rows])


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "seconds"),
    # 2 log2(R) α + 2 (R-1)/R n β, of 8 bytes; of 3 ranks one gives its bytes away and gets them.
    [(2, 2 + 4), (4, 4 + 6), (8, 6 + 7), (3, 2 + 4 + 2 * 5)],
)
def test_rabenseifner_by_hand(ranks, seconds):
    assert simulation.rabenseifner(8, ranks, SLOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("algorithm", "ranks", "number", "num_bytes"),
    [
        ("recursive doubling", 2, 2, 200),
        ("recursive doubling", 4, 8, 800),
        ("recursive doubling", 6, 4 * 2 + 4, 1200),
        ("ring", 2, 4, 200),
        ("ring", 4, 24, 600),
        ("Rabenseifner", 2, 4, 200),
        ("Rabenseifner", 4, 16, 600),
        ("Rabenseifner", 6, 16 + 4, 600 + 400),
    ],
)
def test_messages_by_hand(algorithm, ranks, number, num_bytes):
    assert simulation.messages(algorithm, ranks, 100) == (number, num_bytes)


# --- step times -----------------------------------------------------------------------------------


def test_a_step_has_the_pause_before_it_and_the_ends_of_epochs_are_left_out():
    table = times_of(a=[10.0, 20.0, 30.0])
    table.loc[1, "pause_ms"], table.loc[2, "pause_ms"] = 5.0, 900.0
    assert simulation.intervals(table, "a") == pytest.approx([0.010, 0.025])


def test_the_fitting_law_is_found():
    levels = (np.arange(500) + 0.5) / 500
    table = times_of(
        calm=stats.norm.ppf(levels, 50, 2), wild=stats.t.ppf(levels, 2, loc=50, scale=0.5)
    )
    fitted = simulation.spreads(table).set_index("run")
    assert list(fitted.law) == ["normal", "heavy-tailed"]
    assert fitted.freedom["wild"] == pytest.approx(2, abs=0.5)
    # The criterion does not depend on how the times are scaled before the fit.
    calm = table[table.run == "calm"].ms
    by_hand = 2 * 2 + len(calm) * (np.log(2 * np.pi * calm.var(ddof=0)) + 1)
    assert fitted.normal_aic["calm"] == pytest.approx(by_hand)
    # Of nearly normal times a t with many degrees is as likely, and costs a parameter.
    assert 0 < fitted.heavy_tailed_aic["calm"] - fitted.normal_aic["calm"] < 3


def test_simulated_computing_has_one_mean_whatever_its_spread():
    table = theta_times()
    drawn = {spread: simulation.quantiles(table, spread) for spread in simulation.SPREADS}
    assert [times.mean() for times in drawn.values()] == pytest.approx([0.075] * 4)
    assert list(drawn["as measured"]) == pytest.approx([0.070, 0.080])
    assert list(drawn["as on this machine"]) == pytest.approx([0.075 / 1.1, 0.075 * 1.2 / 1.1])
    assert drawn["normal"].std() == pytest.approx(np.std([70, 80], ddof=1) / 1e3, rel=0.01)


def test_the_curves_end_where_the_steps_do():
    table = theta_times(alone=np.random.default_rng(1).normal(75, 1, 40))
    curves = simulation.exceedance(table, simulation.spreads(table))
    own = curves[(curves.run == simulation.ALONE) & (curves.law == "measured")]
    assert len(own) == 40
    assert own.share.iloc[[0, -1]].to_list() == pytest.approx([1 - 0.5 / 40, 0.5 / 40])
    assert set(curves.law) == {"measured", "normal", "heavy-tailed"}
    assert curves.share.between(0, 1).all()


# --- a whole step ---------------------------------------------------------------------------------


def test_steps_and_errors_by_hand():
    table = simulation.step_table(
        simulations(("none", 2, 0.0, 0.304), ("as measured", 2, 0.005, 0.364)), theta_times()
    )
    rows = table.set_index(["source", "nodes"])
    assert rows.ms["recursive doubling", 2] == pytest.approx(76)
    assert rows.efficiency["recursive doubling", 2] == pytest.approx(75 / 76)
    spread = "recursive doubling, computing varies as measured, a cycle of 5 ms"
    assert rows.ms[spread, 2] == pytest.approx(91)
    # Student's t of four steps, 3.18, on 1 ms / sqrt(4).
    assert rows.high[spread, 2] - rows.ms[spread, 2] == pytest.approx(3.182 / 2, abs=1e-3)
    assert rows.low["recursive doubling", 2] == rows.high["recursive doubling", 2]
    # 6.74 µs and 514,864 bytes at 9.8 GB/s.
    assert rows.ms["α-β", 2] == pytest.approx(75 + 0.0593, abs=1e-3)
    assert rows.ms["step log of 2 nodes", 2] == pytest.approx(91)
    assert rows.ms["published, by eye", 8] == pytest.approx(8 * 75 / 6.1)

    errors = simulation.errors(table).set_index("source")
    assert errors["step log, 2 nodes"][spread] == pytest.approx(0)
    assert errors["step log, 2 nodes"]["recursive doubling"] == pytest.approx(76 / 91 - 1)
    assert errors["published, 2 nodes"]["recursive doubling"] == pytest.approx(76 / (150 / 1.8) - 1)
    assert np.isnan(errors["published, 8 nodes"]["recursive doubling"])
    assert set(errors.kind) == {"simulated", "model"}


def test_the_profiles_small_messages_are_a_cycle_apart():
    table = simulation.agreements(simulations(("none", 2, 0.005, 0.32), ("none", 4, 0.005, 0.32)))
    assert list(table.ms_between) == pytest.approx([5.168, 5.221, 5.0], abs=1e-3)
    assert table.ms_each.iloc[0] == pytest.approx(34315 / 58324)
    assert table.ms_average.iloc[0] == pytest.approx(2082 / 4687)
    text = simulated.agreements(table)
    assert "every 5.17 ms, 5.22 ms" in text
    assert "one every 5.00 ms" in text
    assert "There are 12.4 and 33.9 of them a step" in text


def test_steps_that_wait_for_the_cycle_last_whole_numbers_of_it():
    beat = 44_219 / 8_469
    table = theta_times(two=[15 * beat, 16.1 * beat, 15.9 * beat, 15.5 * beat])
    table = pd.concat([table, times_of(**{simulation.HALF_BATCH: [50.0]})])
    rows = simulation.rhythm(table).set_index("run")
    assert rows.on_time[simulation.TWO_NODES] == pytest.approx(3 / 4)
    assert rows.cycles[simulation.TWO_NODES] == pytest.approx(15.7)
    assert "**Theta, 2 nodes** 75 % of 4 steps" in simulated.rhythm(rows.reset_index())


def test_the_average_is_held_against_its_own_formula():
    rows = simulations(("none", 2, 0.0, 0.3), ("none", 2, 0.005, 0.3), ("normal", 2, 0.0, 0.3))
    table = simulation.averages(pd.concat([rows, rows.assign(algorithm="ring")]))
    assert list(table.algorithm) == ["recursive doubling", "ring"]
    assert list(table.simulated_ms) == pytest.approx([0.1, 0.1])
    assert list(table.model_ms) == pytest.approx([0.05928, 0.06602], abs=1e-4)


def test_the_sentences_name_what_is_nearest():
    rows = [("none", nodes, cycle, 4 * ms / 1e3) for cycle, times in
            ((0.0, (76, 77, 78, 79)), (0.005, (84, 91, 96, 98)))
            for nodes, ms in zip((2, 4, 6, 8), times, strict=True)]  # fmt: skip
    table = simulation.step_table(simulations(*rows), theta_times(two=(84.0, 86.0)))
    text = simulated.step_findings(table, simulation.errors(table))
    # 79 ms against 75.2 on 8 nodes; the log's 85 ms are nearest to α-β, 8 nodes' 98.4 furthest.
    assert "differ by at most 5.1 % of a step on the nodes that were measured" in text
    assert "Measured steps are 11 % to 31 % longer than α-β says: they favour neither" in text
    assert "has 85.00 [72.29, 97.71] ms a step" in text
    assert re.search(r"Off it are .*?recursive doubling, a cycle of 5 ms by −1\.2 %", text)
    assert "(2, 4, 6 and 8 nodes) are met best by recursive doubling, a cycle of 5 ms" in text
    assert (
        "the best model is α-β and a wait a doubling" in text
    )  # not the best of all: no word of a fit
    assert "fitted" not in text
    predicted = "0.75 (α-β and a wait a doubling), 0.77 (recursive doubling, a cycle of 5 ms)"
    assert f"**At 8 nodes** the predicted efficiencies are {predicted}, 0.95" in text


@pytest.mark.parametrize("read", [simulation.read_table, simulation.read_step_times])
def test_a_table_that_is_none_is_told(read, tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(RecordError, match=r"no readable table .* jobs\.simulation\.run"):
        read(path)
    path.write_text("ranks,run\n2,a\n")
    with pytest.raises(RecordError, match=r"no column .*(seconds|pause_ms)"):
        read(path)


# --- what is committed ----------------------------------------------------------------------------


def test_the_committed_tables_follow_from_the_simulations_and_the_logs(tmp_path):
    step_times = simulation.read_step_times(COMMITTED / "step_times.csv")
    simulations_of = simulation.read_table(COMMITTED / "table.csv")
    tables = {
        "simulated": simulation.step_table(simulations_of, step_times),
        "spread": simulation.exceedance(step_times, simulation.spreads(step_times)),
    }
    for name, table in tables.items():
        committed = pd.read_csv(COMMITTED / f"{name}.csv")
        pd.testing.assert_frame_equal(table, committed, rtol=1e-5, check_dtype=False)


@pytest.mark.parametrize("name", ["simulated", "spread"])
def test_the_committed_pictures_are_drawn_equal_from_their_tables(name, tmp_path):
    figure = DRAWN[name](pd.read_csv(COMMITTED / f"{name}.csv"))
    drawn = matplotlib.image.imread(gallery.save_picture(figure, tmp_path / "a.png"))
    committed = matplotlib.image.imread(COMMITTED / f"{name}.png")
    assert drawn.shape == committed.shape
    assert np.array_equal(drawn, committed)
