"""The simulated step under a real SimGrid: its messages, draws and time, all by closed form."""

import shutil
from collections import Counter

import numpy as np
import pytest

from bnnlib.analysis.scaling import ARIES, recursive_doubling, simulation
from jobs.simulation import run

SIMGRID = shutil.which("smpicc") and shutil.which("smpirun")
needs_simgrid = pytest.mark.skipif(
    not SIMGRID, reason="no SimGrid: apt-get install --no-install-recommends libsimgrid-dev"
)
BYTES = 64_000  # divisible by the ranks, and by the four bytes of a float


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return run.compile_step(tmp_path_factory.mktemp("simulation"))


def simulated(program, times=(0.01,), **changed):
    given = {"ranks": 4, "algorithm": "recursive doubling", "steps": 3, "num_bytes": BYTES}
    return run.simulate(program, times, **(given | changed))


@needs_simgrid
@pytest.mark.parametrize("algorithm", simulation.SMPI_NAMES)
@pytest.mark.parametrize("ranks", [4, 8])
def test_messages_and_bytes_are_those_of_the_algorithm(program, tmp_path, algorithm, ranks):
    words = ["-trace", "-trace-file", str(tmp_path / "trace"), "--cfg=tracing/smpi/internals:yes"]
    words.append("--cfg=tracing/smpi/display-sizes:yes")
    simulated(program, ranks=ranks, algorithm=algorithm, steps=1, more=words)
    # 15 begins a message; its last words are who to whom and which collective, and the size. The
    # barrier before the first step has none.
    lines = [line.split() for line in (tmp_path / "trace").read_text().splitlines()]
    sizes = Counter(float(words[-1]) for words in lines if words[:1] == ["15"] and len(words) == 8)
    sizes.pop(0.0, None)
    number, num_bytes = simulation.messages(algorithm, ranks, BYTES)
    assert sizes.total() == number
    assert sum(size * times for size, times in sizes.items()) == num_bytes


@needs_simgrid
def test_an_average_in_a_chassis_takes_what_the_formula_says(program):
    numbers = simulated(program, steps=50)  # in the first, ranks wait for one another
    assert (numbers["ranks"], numbers["bytes"]) == (4, BYTES)
    average = numbers["average_seconds"] / numbers["steps"]
    # SimGrid takes a twentieth of the way back for the acknowledgements.
    assert average == pytest.approx(recursive_doubling(BYTES, 4, ARIES), rel=0.05)
    assert numbers["seconds"] == pytest.approx(50 * (0.01 + average), rel=1e-5)


def mixed(number: int) -> int:
    """The finalizer of splitmix64, as step.c has it."""
    mask = (1 << 64) - 1
    number = (number + 0x9E3779B97F4A7C15) & mask
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & mask
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & mask
    return number ^ (number >> 31)


@needs_simgrid
def test_a_step_waits_for_the_slowest_of_the_drawn_times(program):
    times = np.linspace(0.05, 0.15, 11)
    numbers = simulated(program, times, steps=20)
    drawn = times[[[mixed((rank << 32) + step) % 11 for rank in range(4)] for step in range(20)]]
    assert len(set(drawn.ravel())) == 11
    slowest = drawn.max(axis=1)
    own = 20 * recursive_doubling(BYTES, 4, ARIES)
    assert numbers["seconds"] == pytest.approx(slowest.sum() + own, abs=0.1 * own)
    assert numbers["step_stddev"] == pytest.approx(slowest.std(ddof=1), rel=0.01)


@needs_simgrid
def test_with_a_cycle_a_step_ends_with_the_next_agreement(program):
    # 12 ms of computing, an agreement every 5: the one at 15 ms finds all gradients there.
    numbers = simulated(program, (0.012,), steps=10, cycle=0.005)
    assert numbers["agreements"] == 1 + 10 * 3
    assert numbers["seconds"] == pytest.approx(10 * 0.015, rel=0.01)
    each = numbers["agreement_seconds"] / numbers["agreements"]
    # The ranks come to it some microseconds apart.
    assert recursive_doubling(8, 4, ARIES) < each < 1.5 * recursive_doubling(8, 4, ARIES)


@needs_simgrid
def test_agreements_that_find_nothing_can_be_left_out(program, monkeypatch):
    given = {"times": (0.012, 0.013), "steps": 10, "cycle": 0.005}
    whole = simulated(program, **given)
    monkeypatch.setattr(run, "MEASURED_RANKS", 0)
    fewer = simulated(program, **given)
    assert fewer["agreements"] == whole["agreements"] - 10
    assert fewer["seconds"] == pytest.approx(whole["seconds"], rel=1e-3)


@needs_simgrid
def test_a_file_without_times_is_told(program):
    with pytest.raises(run.SimulationError, match=r"no times; expected seconds, one a line"):
        simulated(program, ())


def test_what_simgrid_prints_around_the_numbers_is_passed_over():
    text = "[0.1] warning\nranks,steps,seconds\n4,3,0.25\nmore\n"
    assert run.parse(text) == {
        "ranks": 4.0,
        "steps": 3.0,
        "seconds": 0.25,
    }


@pytest.mark.parametrize(
    "text", ["", "Killed\n", "ranks,steps,seconds\n", "ranks,steps,seconds\n4,3\n"]
)
def test_a_simulation_without_numbers_is_told(text):
    with pytest.raises(run.SimulationError, match="no line of numbers"):
        run.parse(text)


def test_without_simgrid_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(run.SimulationError, match=r"libsimgrid-dev.*--draw"):
        run.compile_step(tmp_path)


def test_every_simulation_is_wanted_once_and_the_ring_where_it_is_possible():
    wanted = [
        tuple(one[k] for k in ("algorithm", "spread", "ranks", "cycle")) for one in run.wanted()
    ]
    assert len(set(wanted)) == len(wanted)
    assert {one[2] for one in wanted} == set(run.STEPS)
    assert max(ranks for algorithm, _, ranks, _ in wanted if algorithm == "ring") == run.RING_RANKS
    paused = [one[2] for one in wanted if one[1] == "as measured" and one[3]]
    assert max(paused) == run.PAUSES_RANKS


def test_a_profile_becomes_the_ranks_own_work(tmp_path):
    (tmp_path / "profile.csv").write_text(
        "step,rank,warmup,wait_ms,negotiation_ms,allreduce_ms,ms\n"
        "1,0,True,0,0,0,90\n2,0,False,1,2,3,16\n2,1,False,0,2,3,17\n"
    )
    path = tmp_path / "step_times.csv"
    path.write_text("run,step,ms,pause_ms\nother,1,5.0,0.5\nthis machine,1,1.0,0.0\n")
    run.take_profile(tmp_path / "profile.csv", path)
    table = simulation.read_step_times(path)
    assert list(table.run) == ["other", simulation.HERE, simulation.HERE]
    assert list(table.ms) == [5.0, 10.0, 12.0]
    assert list(table.pause_ms) == [0.5, 0.0, 0.0]
