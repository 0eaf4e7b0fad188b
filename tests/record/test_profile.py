"""The parts of a step from stamps worked by hand, and Horovod's timeline as it really ends."""

import numpy as np
import pandas as pd
import pytest

from bnnlib.record import profile
from bnnlib.record.profile import Stamps

# As Horovod 0.28 writes it: unterminated, here even cut off within the last event.
TIMELINE = """[
{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros":1}},
{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "while/body/gradients"}},
{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 100, "pid": 1},
{"ph": "X", "name": "1", "ts": 110, "pid": 1, "dur": 0},{"ph": "E", "ts": 200, "pid": 1},
{"ph": "B", "name": "ALLREDUCE", "ts": 1000, "pid": 1},
{"ph": "B", "name": "NEGOTIATE_BROADCAST", "ts": 1100, "pid": 2},
{"ph": "B", "name": "MPI_ALLREDUCE", "ts": 1200, "pid": 1},{"ph": "E", "ts": 2200, "pid": 1},
{"ph": "E", "ts": 3000, "pid": 1, "args": {"dtype": "float32", "shape": "[50891]"}},
{"ph": "E", "ts": 3100, "pid": 2},
{"ph": "B", "name": "ALLREDUCE", "ts": 5000, "pid": 1},
{"ph": "E", "ts": 5500, "pid": 1, "args": {"dtype": "float32", "shape": "[50891]"}},
{"ph": "B", "name": "ALLREDUCE", "ts": 9000, "pid": 1},{"ph": "E", "ts": 95"""


def test_the_timeline_gives_each_allreduce_without_its_negotiation(tmp_path):
    path = tmp_path / "timeline.json"
    path.write_text(TIMELINE)
    np.testing.assert_allclose(profile.read_timeline(path), [2.0, 0.5])
    assert len(profile.read_timeline(tmp_path / "missing.json")) == 0


def test_scalars_that_travel_beside_fp16_gradients_are_no_step_of_their_own(tmp_path):
    path = tmp_path / "timeline.json"
    name = '{"name": "process_name", "ph": "M", "pid": 2, "args": {"name": "while/body/scalars"}}'
    path.write_text(f"[\n{name}," + TIMELINE[1:].replace("NEGOTIATE_BROADCAST", "ALLREDUCE"))
    np.testing.assert_allclose(profile.read_timeline(path), [2.0, 0.5])


def stamps(times, host="a", warmup=False, bytes=400):
    times = np.asarray(times, np.float64)
    steps = np.arange(1, len(times) + 1)
    return Stamps(host, steps, np.full(len(times), warmup), times, bytes)


def test_the_parts_of_a_step_by_hand():
    # Milliseconds: data 1, computing 10 and 14, the average 8 after the slower one, update 2.
    fast, slow = [0, 1, 11, 23, 25], [0, 1, 15, 23, 25]
    ranks = [stamps(np.array([one, one]) / 1e3) for one in (fast, slow)]
    table = profile.tabulate(ranks, np.array([99.0, 5.0, 5.0]))
    assert list(table.columns) == list(profile.COLUMNS)
    assert table["rank"].tolist() == [0, 1, 0, 1]
    parts = table[[f"{part}_ms" for part in profile.PARTS]].to_numpy()
    expected = [[1, 10, 4, 3, 5, 2], [1, 14, 0, 3, 5, 2]] * 2
    np.testing.assert_allclose(parts, expected, atol=1e-6)
    np.testing.assert_allclose(parts.sum(axis=1), table.ms, atol=1e-6)
    summary = profile.summary(table).set_index("rank")
    np.testing.assert_allclose(summary.skew_ms, [0, 4], atol=1e-6)
    np.testing.assert_allclose(summary.communication_share, [12 / 25, 8 / 25], atol=1e-6)


def test_another_nodes_clock_is_set_by_the_ends_of_the_averages():
    one = np.cumsum(np.full((4, 5), 0.01)).reshape(4, 5)
    here, there = stamps(one), stamps(one + 3600.0, host="b")
    table = profile.tabulate([here, there], np.full(4, 2.0))
    assert table.wait_ms.max() < 1e-3
    np.testing.assert_allclose(table.allreduce_ms, 2.0)


def test_ranks_of_one_host_share_its_clock():
    # Rank 0 computes to the end and has the average 0.1 ms later; rank 1 hears of it 4 ms later.
    last, late = [0, 1, 11, 11.1, 12], [0, 1, 5, 15.1, 16]
    ranks = [stamps(np.array([one, one]) / 1e3) for one in (last, late)]
    table = profile.tabulate(ranks, np.full(2, 5.0))
    np.testing.assert_allclose(table.wait_ms, [0, 6] * 2, atol=1e-6)
    np.testing.assert_allclose(table.allreduce_ms, [0.1, 4.1] * 2, atol=1e-6)


def test_without_a_timeline_negotiation_holds_both():
    one = np.cumsum(np.full((2, 5), 0.01)).reshape(2, 5)
    table = profile.tabulate([stamps(one), stamps(one)], np.zeros(0))
    assert table.allreduce_ms.isna().all()
    np.testing.assert_allclose(table.negotiation_ms, 10.0, atol=1e-6)


def test_no_steps_give_an_empty_table():
    assert profile.tabulate([stamps(np.zeros((0, 5)))], np.zeros(0)).empty


def test_the_summary_leaves_the_graphs_first_run_out():
    one = np.cumsum(np.full((1, 5), 0.01)).reshape(1, 5)
    first = profile.tabulate([stamps(one * 100, warmup=True)], np.zeros(0))
    later = profile.tabulate([stamps(one)], np.zeros(0))
    found = profile.summary(pd.concat([first, later]))
    assert found.ms.tolist() == pytest.approx([40.0])
