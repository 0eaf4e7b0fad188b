"""A session holds what a process holds, and ends it in order; none of it needs TensorFlow."""

import gc
import json
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import horovod.tensorflow as hvd

from bnnlib import data, networks
from bnnlib.errors import (
    DataError,
    ExperimentError,
    JoiningError,
    OtherRankError,
    RecordError,
)
from bnnlib.experiment import Experiment
from bnnlib.inference import evaluation
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer
from bnnlib.record import provenance
from bnnlib.record.failure import error_of
from bnnlib.record.lock import LockedError
from bnnlib.record.run import Run
from bnnlib.session import Session

ROOT = Path(__file__).parents[1]
# A rank alone, as the record needs it.
RUN = """
    import sys
    for name in ("tensorflow", "tensorflow_probability", "tf_keras", "horovod"):
        sys.modules[name] = None  # whoever imports it gets an ImportError

    from bnnlib.errors import DistributedError
    from bnnlib.experiment import Experiment
    from bnnlib.record import provenance
    from bnnlib.record.run import Run
    from bnnlib.session import Session

    class Alone:
        rank, size, threads, hosts, cores = 0, 1, 1, ("here",), 1

        def agree(self, action):
            return action()

        def gather(self, value):
            return [value]

        def build_info(self):
            return {}

    session = Session.begin()
    experiment = Experiment(dataset="tiny", run_dir=sys.argv[1])
    run = Run.open(session, experiment, Alone(), provenance.collect())
"""


def start(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", textwrap.dedent(RUN) + textwrap.dedent(code), str(directory)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_process_that_hangs_is_ended_after_its_records_were_closed(tmp_path):
    code = """
        session.endings.insert(0, lambda error: print("first", flush=True))
        with session.watch(0.2 / 60):
            import time
            time.sleep(30)
    """
    done = start(code, tmp_path)
    assert (done.returncode, done.stdout) == (1, "first\n"), done.stderr
    assert "[rank 0] bnnlib.errors.DistributedError: no line of the log for" in done.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"]["message"].startswith("no line of the log for")


def test_an_ending_that_fails_does_not_keep_the_process(tmp_path):
    code = """
        def fail(error):
            raise OSError("a full disk")

        session.endings.insert(0, fail)
        session.end_process(DistributedError("hangs"))
    """
    done = start(code, tmp_path)
    assert done.returncode == 1
    assert "[rank 0] bnnlib.errors.DistributedError: hangs" in done.stderr


def test_runs_left_to_another_start_keep_their_record(tmp_path):
    code = """
        assert session.runs == [run]
        assert session.abandon_runs() == []
        assert session.runs == []
        session.close()
    """
    done = start(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    assert not (tmp_path / "run.lock").exists()


def test_a_session_of_many_runs_holds_none_that_has_ended(tmp_path):
    hvd.init()
    session, held = Session(), []
    ranks = Ranks(hosts=("here",))
    for seed in (0, 1):
        experiment = Experiment(
            model="CNN_FC", dataset="tiny", steps=2, seed=seed, run_dir=str(tmp_path / str(seed))
        )
        run = Run.open(session, experiment, ranks, provenance.collect())
        dataset = data.load("tiny")
        network = networks.build_for(experiment, dataset)
        trainer = Trainer(experiment, dataset, network, ranks, session)
        run.resume(trainer)
        assert [line.step for line in run.follow(trainer)] == [2]
        sets = evaluation.sets(experiment, dataset)
        run.finish(evaluation.evaluate(experiment, network, dataset, sets, ranks, session=session))
        held += [weakref.ref(one) for one in (run, trainer, network, dataset)]
        del run, trainer, network, dataset, sets
    gc.collect()
    assert [one() for one in held] == [None] * 8


def test_a_start_that_was_refused_leaves_no_record(tmp_path):
    session = Session()
    first = (ExperimentError("x"), RecordError("x"), LockedError("x"))
    for refused in (*first, DataError("x"), JoiningError("x"), OtherRankError("x")):
        session.fail(tmp_path / "new", {}, error_of(refused))
    assert not (tmp_path / "new").exists()
    session.fail(tmp_path / "new", {}, error_of(OSError("no memory")))
    assert json.loads((tmp_path / "new" / "run.json").read_text())["status"] == "failed"
