"""Real ranks under MPICH and Gloo, and what one rank, two and four must agree on.

Each start runs tests/ranks/checks.py, all checks in one; the tests read what the ranks wrote.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnnlib.errors import DistributedError, ExperimentError
from bnnlib.inference import distributed
from bnnlib.inference.distributed import Ranks
from bnnlib.record.run import read_record
from bnnlib.session import Session
from tests.ranks.checks import VIRTUAL

BIN = Path(sys.executable).parent
RUNNER = Path(__file__).parents[1] / "ranks" / "checks.py"
LAUNCHES = {
    "alone": (1, []),
    "mpi2": (2, [str(BIN / "mpiexec"), "-n", "2"]),
    "mpi4": (4, [str(BIN / "mpiexec"), "-n", "4"]),
    "gloo2": (2, [str(BIN / "horovodrun"), "--gloo", "-n", "2", "-H", "localhost:2"]),
}
VIRTUAL_RANKS_ALONE = {"mpi8": (8, [str(BIN / "mpiexec"), "-n", "8"], "virtual")}
MANY = [name for name, (size, _) in LAUNCHES.items() if size > 1]

pytestmark = pytest.mark.ranks


class Started:
    """The ranks of one start: their results in order of rank, and the folder of their files."""

    def __init__(self, folder, size, launch, *only):
        self.folder = folder
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "PMI_"))}
        done = subprocess.run(
            [*launch, sys.executable, str(RUNNER), str(folder), *only],
            env=environ | {"PYTHONPATH": str(RUNNER.parents[2])},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list(folder.glob("rank*.json"))) == size
        self.results = [json.loads((folder / f"rank{r}.json").read_text()) for r in range(size)]

    def of(self, check, name):
        return [result[check][name] for result in self.results]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Starts by name, each made when a test first asks for it."""
    made = {}

    def get(name):
        if name not in made:
            launch = LAUNCHES[name] if name in LAUNCHES else VIRTUAL_RANKS_ALONE[name]
            made[name] = Started(tmp_path_factory.mktemp(name), *launch)
        return made[name]

    return get


# --- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAUNCHES)
def test_ranks_know_their_places(started, name):
    size, _ = LAUNCHES[name]
    places = started(name).of("start", "ranks")
    assert [place["rank"] for place in places] == list(range(size))
    assert [place["local_rank"] for place in places] == list(range(size))
    assert (
        {place["size"] for place in places} == {place["local_size"] for place in places} == {size}
    )
    assert {place["threads"] for place in places} == {1}
    assert {len(place["hosts"]) for place in places} == {1}
    assert started(name).of("start", "intra_threads") == [1] * size
    launchers = {"alone": "alone", "mpi2": "mpich", "mpi4": "mpich", "gloo2": "horovodrun"}
    assert started(name).of("start", "launcher") == [
        [launchers[name], r, size] for r in range(size)
    ]
    controller = "gloo" if name == "gloo2" else "mpi"
    if size > 1:
        assert started(name).of("start", "controller") == [controller] * size


@pytest.mark.parametrize("name", LAUNCHES)
def test_another_number_of_threads_is_refused_once_tensorflow_runs(started, name):
    for result in started(name).results:
        assert result["threads_error"] == (
            "DistributedError: threads, inter_threads = (2, 1): TensorFlow already runs with "
            "(1, 1) in this process; restart the kernel"
        )
        assert result["same_threads_again"] == result["start"]["ranks"]


def test_a_kernel_that_lost_its_launcher_is_told_the_engine(monkeypatch):
    # This process may have started Horovod for other tests, and then has nothing to lose. First,
    # since the import may open a file of the closed one's number.
    monkeypatch.setattr("horovod.tensorflow.is_initialized", lambda: False)
    monkeypatch.setattr("horovod.tensorflow.init", lambda: pytest.fail("joined MPI"))
    closed = os.open(os.devnull, os.O_RDONLY)
    os.close(closed)
    monkeypatch.setenv("PMI_FD", str(closed))
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(DistributedError, match=r"cannot join MPI itself.* --engine spmd$"):
        distributed.init(Session())


def test_another_mpi_than_the_launchers_is_told(monkeypatch):
    # mpiexec says two ranks, and a Horovod of another MPI finds itself alone.
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setattr("horovod.tensorflow.init", lambda: None)
    monkeypatch.setattr("horovod.tensorflow.size", lambda: 1)
    with pytest.raises(DistributedError, match=r"\(mpich\) started 2 ranks and Horovod sees 1: "):
        distributed.init(Session())


def test_ranks_that_are_each_alone_are_told_the_path_of_crays_mpi(monkeypatch):
    """Under PALS the number of ranks is the job script's alone, in BNN_RANKS."""
    monkeypatch.setenv("PALS_RANKID", "3")
    monkeypatch.setenv("BNN_RANKS", "8")
    monkeypatch.setattr("horovod.tensorflow.init", lambda: None)
    monkeypatch.setattr("horovod.tensorflow.size", lambda: 1)
    with pytest.raises(DistributedError, match="started 8 ranks and Horovod sees 1") as told:
        distributed.init(Session())
    assert "LD_LIBRARY_PATH=$CRAY_LD_LIBRARY_PATH:$LD_LIBRARY_PATH" in str(told.value)


@pytest.mark.parametrize("variables", [{}, {"PMI_RANK": "0", "PMI_SIZE": "1"}])
def test_a_launcher_that_says_another_number_than_the_job_script_is_refused(monkeypatch, variables):
    for name, value in (variables | {"BNN_RANKS": "8"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DistributedError, match=r"BNN_RANKS = 8.*says 1"):
        distributed.init(Session())


def test_several_ranks_without_horovod_are_told_the_remedy(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)  # whoever imports it fails
    with pytest.raises(DistributedError, match=r"\(mpich\) started 2 rank.*environment.sh") as told:
        distributed.init(Session())
    assert "virtual_ranks: 2 it trains the same run" in str(told.value)
    with pytest.raises(DistributedError, match="one of 2 and talks with no other"):
        distributed.gather(None)


def test_srun_that_tells_the_ranks_nothing_is_named_with_its_remedy():
    """What `srun --mpi=none` leaves: Slurm's variables, and no PMI for Horovod's MPI."""
    outer = ("PMI_", "HOROVOD_", "SLURM_")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    slurm = {"JOB_ID": 7, "STEP_ID": 0, "PROCID": 1, "NTASKS": 2, "LOCALID": 1}
    code = "from bnnlib.inference import distributed; from bnnlib.session import Session; "
    done = subprocess.run(
        [sys.executable, "-c", code + "distributed.init(Session())"],
        env=environ
        | {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        | {"SLURM_STEP_TASKS_PER_NODE": "2", "PYTHONPATH": str(RUNNER.parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "(slurm) started 2 ranks and Horovod sees 1" in last
    assert "srun --mpi=pmi2" in last


# --- collectives and agreement --------------------------------------------------------------------


@pytest.mark.parametrize("name", MANY)
def test_average_broadcast_and_gather(started, name):
    size, _ = LAUNCHES[name]
    for result in started(name).results:
        check = result["collectives"]
        np.testing.assert_allclose(check["average"], check["numpy_mean"], atol=1e-6)
        np.testing.assert_allclose(check["average_in_graph"], check["numpy_mean"], atol=1e-6)
        # Eleven significant bits of each rank's number, and of their sum.
        assert check["average_fp16"] != check["average"]
        np.testing.assert_allclose(check["average_fp16"], check["numpy_mean"], atol=5e-3)
        assert check["scalar"] == pytest.approx((size - 1) / 2)
        assert check["gathered"] == [{"rank": r, "text": "ä" * r} for r in range(size)]
        assert check["broadcast_is_rank_0s"]
    # Bitwise the same on all ranks, or their weights would drift apart.
    assert len({str(average) for average in started(name).of("collectives", "average")}) == 1


@pytest.mark.parametrize("name", MANY)
def test_an_error_on_one_rank_raises_on_all(started, name):
    size, _ = LAUNCHES[name]
    last = size - 1
    own = f"ExperimentError: no cake on {last}"
    others = f"OtherRankError: rank {last} failed: {own}"
    found = started(name)
    assert found.of("agreement", "fine") == [10 * rank for rank in range(size)]
    assert found.of("agreement", "one") == [others] * last + [own]
    everyone = [f"ExperimentError: no cake on {rank}" for rank in range(size)]
    assert found.of("agreement", "all") == everyone
    # Nothing is left over from the failures.
    assert found.of("agreement", "again") == [10 * rank for rank in range(size)]
    assert found.of("agreement", "other_local_fails") == [others] * last + [own]
    first = "ExperimentError: no cake on 0"
    told = f"OtherRankError: rank 0 failed: {first}"
    assert found.of("agreement", "first_local_fails") == [first] + [told] * last


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_first_local_rank_acts_before_the_others(started, name):
    size, _ = LAUNCHES[name]
    found = started(name)
    calls = (found.folder / "calls.txt").read_text().splitlines()
    assert calls[:2] == ["start 0", "end 0"]
    assert sorted(calls) == sorted(f"{w} {r}" for w in ("start", "end") for r in range(size))
    assert found.of("agreement", "first_local") == [f"value {rank}" for rank in range(size)]


def test_a_rank_alone_needs_no_horovod(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)  # whoever imports it fails
    assert distributed.init(Session()).size == 1
    assert distributed.gather("value") == ["value"]
    assert np.array_equal(distributed.average(np.arange(3.0), "alone"), np.arange(3.0))
    assert distributed.build_info() == {}
    assert distributed.on_first_local_rank(lambda: "value", Ranks()) == "value"
    with pytest.raises(ExperimentError, match="own"):
        distributed.on_first_local_rank(fail, Ranks())


def fail():
    raise ExperimentError("own")


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["independent", "shared"])
@pytest.mark.parametrize("name", MANY)
def test_all_ranks_start_and_stay_at_bitwise_the_same_weights(started, name, noise):
    size, _ = LAUNCHES[name]
    found = started(name)
    assert len(set(found.of(noise, "built"))) == size  # each rank had built another network
    assert len(set(found.of(noise, "initial"))) == 1
    assert all(found.of(noise, "is_rank_0s"))
    assert len(set(found.of(noise, "trained"))) == 1
    assert found.of(noise, "trained") != found.of(noise, "initial")
    lines = found.of(noise, "lines")
    assert [line["step"] for line in lines[0]] == [2, 4, 6]
    assert all(rank_lines == lines[0] for rank_lines in lines)


@pytest.mark.parametrize("name", MANY)
def test_noise_differs_between_ranks_unless_it_is_shared(started, name):
    size, _ = LAUNCHES[name]
    found = started(name)
    assert len(set(found.of("independent", "noise"))) == size
    assert len(set(found.of("shared", "noise"))) == 1
    assert found.of("independent", "noise")[0] == found.of("shared", "noise")[0]
    assert found.of("independent", "trained") != found.of("shared", "trained")


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_checkpoint_of_rank_0_resumes_all_ranks(started, name):
    found = started(name)
    assert found.of("resume", "restored") == found.of("independent", "trained")
    assert len(set(found.of("resume", "resumed"))) == 1
    assert found.of("resume", "resumed") == found.of("independent", "uninterrupted")
    assert found.of("resume", "resumed") != found.of("resume", "restored")


def test_mpi_and_gloo_give_bitwise_the_same_weights(started):
    for noise in ("independent", "shared"):
        assert started("mpi2").of(noise, "trained") == started("gloo2").of(noise, "trained")
        assert started("mpi2").of(noise, "lines") == started("gloo2").of(noise, "lines")


@pytest.mark.parametrize("name", MANY)
def test_without_noise_any_number_of_ranks_trains_the_same(started, name):
    one, many = (np.load(started(w).folder / "without_noise0.npz") for w in ("alone", name))
    assert set(one.files) == set(many.files)
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=1e-4)
    for key in set(one.files) - {"losses"}:
        # Eight steps of 1e-3; Adam divides by the root of small squares, which magnifies rounding.
        np.testing.assert_allclose(many[key], one[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("method", VIRTUAL)
@pytest.mark.parametrize("name", [*MANY, pytest.param("mpi8", marks=pytest.mark.long)])
def test_eight_virtual_ranks_are_one_run_on_1_2_4_and_8_processes(started, name, method):
    one, many = (np.load(started(w).folder / f"{method}.npz") for w in ("alone", name))
    assert set(one.files) == set(many.files)
    assert one["lines"].shape[0] >= 10
    np.testing.assert_allclose(many["lines"], one["lines"], rtol=1e-5, atol=1e-6)
    assert relative_difference(many, one) < 1e-5


def relative_difference(some, others):
    """Of all weights as one vector: Adam magnifies the rounding of a bias that is nearly 0."""
    assert set(some) == set(others)
    names = sorted(set(some) - {"lines"})
    one, other = (np.concatenate([w[name].ravel() for name in names]) for w in (some, others))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.long
def test_a_run_stopped_on_4_processes_and_continued_on_2_is_the_run_never_stopped(tmp_path):
    carry = [sys.executable, str(RUNNER.with_name("carry.py"))]
    starts = (("moved", 4, 2, 25), ("moved", 2, 2, 50), ("whole", 2, 4, 50))
    for directory, size, carried, last in starts:
        done = subprocess.run(
            [
                BIN / "mpiexec",
                "-n",
                str(size),
                *carry,
                tmp_path / directory,
                str(carried),
                str(last),
            ],
            env=os.environ | {"PYTHONPATH": str(RUNNER.parents[2])},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    moved, whole = (np.load(tmp_path / name / "weights.npz") for name in ("moved", "whole"))
    assert relative_difference(moved, whole) < 1e-5
    record = read_record(tmp_path / "moved")
    assert (record["ranks"], record["virtual_ranks"]) == (2, 4)
    told = [event["what"] for event in record["history"] if event["event"] == "ranks changed"]
    assert told == [
        "2 rank(s) x 4 virtual instead of 4 x 2: still 8 virtual ranks, so that data order, weight "
        "noise, learning rate and global batch stay; the average's rounding changes"
    ]


@pytest.mark.parametrize("name", LAUNCHES)
def test_weights_that_differ_in_one_bit_are_named_on_all_ranks(started, name):
    size, _ = LAUNCHES[name]
    assert started(name).of("equality", "same") == [None] * size
    told = started(name).of("equality", "other")
    if size == 1:
        assert told == [None]
        return
    assert len(set(told)) == 1
    assert told[0].startswith(
        "DistributedError: weights or optimizer state differ from rank 0's: layer0/mean (on rank "
        f"{size - 1}). Memory"
    )


@pytest.mark.parametrize("name", MANY)
def test_divergence_on_one_rank_is_told_on_all_at_one_step(started, name):
    size, _ = LAUNCHES[name]
    errors = started(name).of("divergence", "error")
    assert re.match(r"(nll|layer0/kernel) = nan within steps 1 to 2: ", errors[0])
    assert f"{size} rank(s)" in errors[0]
    assert errors == [errors[0]] * size


@pytest.mark.parametrize("name", MANY)
def test_an_nll_beyond_float16_is_no_divergence_under_fp16(started, name):
    size, _ = LAUNCHES[name]
    (nll, bytes_of_float32), (nll_fp16, bytes_of_fp16) = (
        started(name).of("large_nll", compression)[0] for compression in ("none", "fp16")
    )
    assert nll > 2 * float(np.finfo(np.float16).max)
    assert nll_fp16 == nll
    # Nll and the wish to stop are 4 bytes each under both, gradients 4 and 2 an entry.
    assert bytes_of_float32 - 8 == 2 * (bytes_of_fp16 - 8)
    assert started(name).of("large_nll", "fp16") == [[nll_fp16, bytes_of_fp16]] * size


# --- prediction -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANY)
def test_prediction_is_bitwise_the_same_at_any_number_of_ranks(started, name):
    size, _ = LAUNCHES[name]
    for what in ("probs", "entropy", "few"):
        (alone,) = started("alone").of("prediction", what)
        assert started(name).of("prediction", what) == [alone] * size
    for lowest, total in started(name).of("prediction", "sums"):
        assert lowest == pytest.approx(1, abs=1e-5)
        assert total == pytest.approx(64, abs=1e-3)


# --- after training -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["full", "kronecker", "gram"])
@pytest.mark.parametrize("name", MANY)
def test_laplace_is_the_same_on_all_ranks_and_at_any_number_of_them(started, name, form):
    size, _ = LAUNCHES[name]
    (alone,) = started("alone").of("laplace", form)
    many = started(name).of("laplace", form)
    assert many == [many[0]] * size  # bitwise
    for key in ("prior_precision", "log_marginal_likelihood"):
        assert many[0][key] == pytest.approx(alone[key], rel=1e-6)
    one, other = (np.load(started(w).folder / f"laplace_{form}.npz") for w in ("alone", name))
    for key in one.files:
        np.testing.assert_allclose(other[key], one[key], rtol=1e-6, atol=1e-6 * one[key].max())
