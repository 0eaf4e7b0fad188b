"""What a record says of a failure, where the way to say it could fail itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnnlib.errors import DataError, DistributedError, RecordError, message_of
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.record import failure, provenance
from bnnlib.record.run import Run
from bnnlib.record.schema import read_file
from bnnlib.session import Session

# As in a container whose user has no entry: `id` says 54321, and there is no home.
NOBODY = ["unshare", "--user", "--map-user=54321", "env", "--unset=HOME", "--unset=BNN_DATA"]
FAILS = """
import os, sys
from pathlib import Path
from bnnlib.launch import command
from bnnlib.experiment import Experiment
from bnnlib.session import Session
try:
    Path.home()
    sys.exit("there is a home")
except RuntimeError:
    pass
with Session.begin() as session:
    command.fail(Experiment(run_dir="run"), session, ValueError("the run's own error"))
"""


@pytest.fixture
def nobody(tmp_path: Path) -> Callable[..., Any]:
    """Runs a Python program in an empty folder as a user without a home."""
    probe = shutil.which("unshare") and subprocess.run([*NOBODY, "true"], capture_output=True)
    if not probe or probe.returncode != 0:
        pytest.skip("no user namespaces here")

    def run(*words: str) -> Any:
        return subprocess.run(
            [*NOBODY, sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


def test_a_user_without_a_home_finds_the_error_in_the_record(
    nobody: Callable[..., Any], tmp_path: Path
) -> None:
    done = nobody("-c", FAILS)
    assert done.returncode == 1
    assert "the run's own error" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["error"]["message"]) == ("failed", "the run's own error")


@pytest.mark.parametrize("dataset", ["mnist", "tiny"])
def test_a_user_without_a_home_gets_no_folder_of_that_name(
    nobody: Callable[..., Any], tmp_path: Path, dataset: str
) -> None:
    """Keras makes one when it is imported, and a download made another."""
    words = ("-p", "dataset", dataset, "-p", "model", "BNN_FC_flip", "-p", "dropout", "0.5")
    done = nobody("-m", "bnnlib", "train", *words, "-p", "run_dir", "run")
    assert done.returncode == 1
    assert "refused: " in done.stderr
    assert not list(tmp_path.iterdir())  # nor a record of a start that was refused


class Mute(Exception):
    """An error of a program that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_without_a_message_is_told_by_its_class(tmp_path: Path) -> None:
    told = failure.error_of(Mute())
    assert told["type"] == "Mute"
    assert told["message"] == message_of(Mute()) == "(no message: its __str__ raised RuntimeError)"
    failure.record_failure(tmp_path, {}, told)
    assert json.loads((tmp_path / "run.json").read_text())["error"]["type"] == "Mute"


@pytest.mark.parametrize("home", ["", "/", "relative"])
def test_a_home_that_is_no_folder_hides_nothing(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    told = failure.without_home({"traceback": ["/a/relative/b.py"], "message": "/"})
    assert told == {"traceback": ["/a/relative/b.py"], "message": "/"}


def test_the_home_folder_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada/")
    assert failure.without_home(["/home/ada/a.py"]) == ["~/a.py"]


def test_of_what_a_hanging_process_does_at_its_end_one_failing_part_keeps_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def fail(error: BaseException) -> None:
        raise RecordError("a full disk")

    session = Session()
    session.endings = [fail, lambda error: done.append("the record")]
    monkeypatch.setattr("bnnlib.process.fail", lambda error: done.append("the end"))
    end: Callable[..., Any] = session.end_process
    end(DistributedError("hangs"))
    assert done == ["the record", "the end"]
    assert "a full disk" in capsys.readouterr().err


def test_a_record_that_cannot_be_written_is_reported_and_the_process_still_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnnlib.launch import command

    (tmp_path / "run").write_text("a file where the folder should be")
    with Session() as session:
        experiment = Experiment(run_dir=str(tmp_path / "run"))
        command.record_failure(experiment, session, failure.error_of(Mute()))
    assert "the run's record could not be written" in capsys.readouterr().err


def test_a_refused_start_leaves_no_record_but_never_takes_one_that_was_there(
    tmp_path: Path,
) -> None:
    parameters = Experiment(run_dir=str(tmp_path / "new" / "run")).to_dict()
    error = failure.error_of(DataError("no such file"))
    for before in (False, True):
        session = Session()
        experiment = Experiment(**parameters)
        record = tmp_path / "new" / "run" / "run.json"
        if before:
            failure.record_failure(experiment.run_dir, parameters, error)
            as_it_was = record.read_bytes()
        run = Run.open(session, experiment, Ranks(), provenance.collect())
        assert read_file(run.directory)["status"] == "running"
        assert session.is_starting
        session.fail_runs(error)
        assert session.runs == []
        assert (tmp_path / "new").exists() == before
    assert record.read_bytes() == as_it_was
    assert [path.name for path in record.parent.iterdir()] == ["run.json"]
    # A folder that holds something else stays, and so does what was in it.
    experiment = Experiment(run_dir=str(tmp_path / "notes"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    Run.open(session, experiment, Ranks(), provenance.collect())
    session.fail_runs(error)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]
    # An error that refuses nothing, or one after the first step, is recorded.
    for place, begun, told in (
        ("crashed", False, failure.error_of(OSError("a full disk"))),
        ("trained", True, error),
    ):
        run = Run.open(
            session, Experiment(run_dir=str(tmp_path / place)), Ranks(), provenance.collect()
        )
        run.has_begun = begun
        session.fail_runs(told)
        assert read_file(tmp_path / place)["status"] == "failed"
