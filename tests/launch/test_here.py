"""Many runs in one launch, at two ranks: all of them, those left, and what follows a failure."""

import re
import subprocess
import sys
import textwrap

import pytest

from bnnlib.analysis import runs as run_tables
from bnnlib.errors import ExperimentError
from bnnlib.launch import here
from bnnlib.record import profile
from bnnlib.record.logs import read_accuracy
from bnnlib.record.profile import read_profile
from bnnlib.record.schema import read_record
from bnnlib.record.summary import closing_line

TWO_PARTS = """
parts:
- group: weak
  ranks: [1, 2]
  common: {dataset: tiny}
  grid: {model: [CNN_FC, BNN_FC_flip]}
  repeats: 2
- group: strong
  ranks: 2
  grid: {model: CNN_FC, global_batch: 32}
"""


@pytest.fixture
def write(tmp_path):
    def run(text):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return run


def test_a_launch_takes_the_runs_of_its_number_of_ranks(write, monkeypatch):
    study = write(TWO_PARTS)
    alone = here.read(study, "runs")
    assert [one.run_dir for one in alone] == [
        *("runs/weak/CNN_FC-r1", "runs/weak/BNN_FC_flip-r1"),
        *("runs/weak/CNN_FC-r1-repeat1", "runs/weak/BNN_FC_flip-r1-repeat1"),
    ]
    assert [one.run_dir for one in here.read(study, "runs", repeat=1)] == [
        one.run_dir for one in alone[2:]
    ]
    monkeypatch.setenv("BNN_RANKS", "2")
    monkeypatch.setenv("BNN_RANKS_PER_NODE", "2")
    monkeypatch.setenv("ALPS_APP_PE", "0")
    two = here.read(study, "runs")
    assert len(two) == 5
    assert (two[2].run_dir, two[2].batch_size) == ("runs/strong/CNN_FC-r2-global_batch=32", 16)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("ranks: [2, 4]", {}, "no run is for 1 rank(s), only for 2, 4; start it as mpiexec"),
        ("ranks: 1", {"repeat": 1}, "--repeat 1: the file has no such repeat"),
        ("{ranks: 1, grid: {threads: [1, 2]}}", {}, "(1, 1), (2, 1): TensorFlow keeps the first"),
        # Of a part for other ranks, too.
        (TWO_PARTS.replace("32", "33"), {}, "part 2 (strong): global_batch = 33: expected a mult"),
    ],
)
def test_a_file_that_this_launch_cannot_do_is_refused(write, text, options, why):
    with pytest.raises(ExperimentError) as error:
        here.read(write(text), "runs", **options)
    assert why in str(error.value)


@pytest.mark.ranks
def test_two_ranks_run_a_plan_with_its_profiles_and_pass_over_what_is_finished(launch, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "group: g\n"
        "common: {dataset: tiny, batch_size: 16, epochs: 2, log_every: 2, test_draws: 2,\n"
        "         profile: true, evaluate_every: 1, threads: 1}\n"
        "grid: {model: [CNN_FC, BNN_FC_flip], compression: [none, fp16]}\n"
    )
    command = (*("mpiexec", "-n", "2", sys.executable, "-m", "bnnlib", "plan", study),)
    command += ("--runs", tmp_path / "runs")
    done = launch(*command, timeout=180)
    assert done.returncode == 0, done.stderr
    table = run_tables.load(tmp_path / "runs" / "g").set_index(["model", "compression"])
    assert set(table.status) == {"finished"}
    assert set(table.ranks) == {2}
    assert (table.cores >= 1).all()
    assert (table.step_ms_p10 <= table.step_ms_p50).all()
    assert (table.step_ms_p50 <= table.step_ms_p90).all()
    for (model, compression), run in table.iterrows():
        found = read_profile(run.path)
        # 256 images, 32 a step, twice; each step on both ranks, its parts filling it.
        assert found.step.tolist() == [step for step in range(1, 17) for _ in range(2)]
        parts = found[[f"{part}_ms" for part in profile.PARTS]]
        assert (parts >= 0).all(axis=None)
        assert parts.sum(axis=1).to_numpy() == pytest.approx(found.ms.to_numpy(), rel=1e-3)
        assert (found.allreduce_ms > 0).all()
        assert set(found.bytes) == {found.bytes[0]}
        lines = read_accuracy(run.path)
        assert [(line.step, line.epoch) for line in lines] == [(8, 1.0), (16, 2.0)]
        assert all(0 <= line.accuracy <= 1 for line in lines)
        if compression == "fp16":
            whole = read_profile(table.loc[(model, "none")].path)
            scalars = 2 * 4  # the nll and the stop, float32 in both
            assert 2 * (found.bytes[0] - scalars) == whole.bytes[0] - scalars
    # Sixteen steps with gradients of 11 bits: another network, but not by much.
    nlls = table.train_nll.unstack()
    assert (nlls.none != nlls.fp16).all()
    assert nlls.fp16.to_numpy() == pytest.approx(nlls.none.to_numpy(), rel=0.05)

    told = done.stdout.splitlines()
    assert told[0] == f"1 of 4: {tmp_path}/runs/g/CNN_FC-r2-compression=none"
    for number, line in enumerate(told[2::2], start=2):
        assert re.match(rf"{number} of 4, (about \d+ minutes?|less than a minute) left: ", line)
    assert len(told) == 8
    assert told[1::2] == [f"  {closing_line(line.split(': ')[1])}" for line in told[0::2]]
    assert done.stderr == ""

    again = launch(*command, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 4
    assert len(again.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("spent", "left", "told"),
    [
        ([], 8, ""),
        ([20.0, 40.0], 8, ", about 4 minutes left"),
        ([60.0], 1, ", about 1 minute left"),
        ([5.0], 2, ", less than a minute left"),
    ],
)
def test_what_is_left_by_hand(spent, left, told):
    assert here.told_left(spent, left) == told


FAILING = """
group: g
ranks: [1, 2]
common: {epochs: 1, test_draws: 1, threads: 1, batch_size: 16}
parts:
- grid: {model: CNN_FC, dataset: missing.npz}  # fails before it trains
- grid: {model: CNN_FC, dataset: tiny, learning_rate: 1.0e+30}  # fails while it trains
- grid: {model: CNN_FC, dataset: tiny, seed: 7}
"""


@pytest.mark.ranks
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_failed_run_is_recorded_and_the_others_run(launch, tmp_path, ranks):
    study = tmp_path / "study.yaml"
    study.write_text(FAILING)
    words = ("mpiexec", "-n", ranks, sys.executable, "-m", "bnnlib", "plan", study)
    done = launch(*words, "--runs", tmp_path / "runs", timeout=180)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    diverged, good = (
        read_record(tmp_path / "runs" / "g" / f"CNN_FC-r{ranks}-{name}")
        for name in ("dataset=tiny-learning_rate=1e+30", "dataset=tiny-seed=7")
    )
    # A start that is refused leaves no folder.
    assert len(list((tmp_path / "runs" / "g").iterdir())) == 2
    assert (diverged["status"], diverged["error"]["rank"]) == ("failed", 0)
    assert (good["status"], good["ranks"]) == ("finished", ranks)
    assert "2 of 3 runs failed:" in done.stdout
    assert "dataset=missing.npz: DataError on rank 0: " in done.stdout


@pytest.mark.ranks
def test_a_failure_on_one_rank_ends_the_launch(launch, tmp_path):
    """The other rank trains, and waits in an average for the one that has failed."""
    code = """
        import sys
        from bnnlib import launcher
        from bnnlib.experiment import Experiment
        from bnnlib.launch import command, here

        here.AGREE_SECONDS = 3.0
        train_one = command.train_one
        def fail_on_rank_1(*words, **options):
            if launcher.rank() == 1:
                raise RuntimeError("only here")
            return train_one(*words, **options)
        command.train_one = fail_on_rank_1
        here.train_all([
            Experiment(model="CNN_FC", dataset="tiny", epochs=1, run_dir=f"{sys.argv[1]}/{name}")
            for name in ("first", "second")
        ])
    """
    words = ("mpiexec", "-n", "2", sys.executable, "-c", textwrap.dedent(code), tmp_path)
    done = launch(*words, timeout=120)
    assert done.returncode != 0
    assert "[rank 1] RuntimeError: only here" in done.stderr
    assert not (tmp_path / "second").exists()


def test_a_plan_holds_the_graphs_of_one_run(tmp_path):
    """What is left after three runs is what is left after one: no graph of a run that is over."""
    code = """
        import gc, sys
        from bnnlib.experiment import Experiment
        from bnnlib.launch import here

        def train(first, last):
            here.train_all([
                Experiment(model="BNN_FC_flip", dataset="tiny", steps=2, test_draws=1, threads=1,
                           seed=seed, run_dir=f"{sys.argv[1]}/{seed}")
                for seed in range(first, last)
            ])
            return sum(type(one).__name__ == "FuncGraph" for one in gc.get_objects())

        print("graphs", train(0, 1), train(1, 3))
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split("graphs ")[1].split())
    assert after == before
