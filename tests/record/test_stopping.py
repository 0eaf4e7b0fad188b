"""A signal or a deadline stops a run in good order: status 75, and then the same bits."""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import nbformat
import pytest

from bnnlib.errors import ExperimentError
from bnnlib.record import stopping
from bnnlib.record.logs import read_posterior, read_steps
from bnnlib.record.schema import read_record
from tests.end_to_end.test_end_to_end import NOTEBOOK, RANKS, TINY, assert_same_state, train

# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, math.inf),
        ({"BNN_DEADLINE": ""}, math.inf),
        ({"BNN_STOP_MARGIN": "5"}, math.inf),
        ({"BNN_DEADLINE": "1000"}, 940),
        ({"BNN_DEADLINE": "1000", "BNN_STOP_MARGIN": "0"}, 1000),
        ({"BNN_DEADLINE": "1000.5", "BNN_STOP_MARGIN": "100"}, 900.5),
    ],
)
def test_a_run_begins_to_stop_a_margin_before_the_deadline(environ, expected):
    assert stopping.stop_time(environ) == expected


@pytest.mark.parametrize("value", ["tomorrow", "nan", "inf", "-1", "12:30"])
def test_a_deadline_that_is_no_time_is_refused(value):
    with pytest.raises(ExperimentError, match=r"BNN_DEADLINE = .*date \+%s"):
        stopping.stop_time({"BNN_DEADLINE": value})
    with pytest.raises(ExperimentError, match="BNN_STOP_MARGIN"):
        stopping.stop_time({"BNN_DEADLINE": "1000", "BNN_STOP_MARGIN": value})


# --- one process ----------------------------------------------------------------------------------


def run(code: str, **environ: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_heard_while_the_main_thread_is_inside_c(number):
    process = run("""
        import contextlib, ctypes, math, os, signal
        from bnnlib.record import stopping

        listener = stopping.Listener(math.inf)
        assert listener.reason == ""
        calls = contextlib.ExitStack()

        def at_once():
            calls.enter_context(listener.calling(lambda: os._exit(7)))

        told = lambda: os.write(1, f"asked by {listener.reason}\\n".encode())
        calls.enter_context(listener.calling(told))
        calls.enter_context(listener.calling(at_once))
        # As inside a graph of many steps: nothing brings this thread back to the interpreter.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        os.write(1, b"listening\\n")
        ctypes.CDLL(None).sleep(60)
    """)
    assert process.stdout.readline() == "listening\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"asked by {signal.Signals(number).name}\n"
    assert process.wait(timeout=20) == 7
    process.stdout.close()


def test_under_nohup_a_closed_terminal_asks_for_nothing():
    process = run("""
        import math, os, signal, time
        from bnnlib.record import stopping

        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does before it starts a command
        listener = stopping.Listener(math.inf)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.5)
        listener.close()
        print(repr(listener.reason), signal.getsignal(signal.SIGHUP).name)
    """)
    assert process.communicate(timeout=20)[0] == "'' SIG_IGN\n"


def test_the_deadline_is_heard():
    code = """
        import os, time
        from bnnlib.record import stopping

        listener = stopping.Listener(stopping.stop_time())
        with listener.calling(lambda: (os.write(1, listener.reason.encode()), os._exit(7))):
            time.sleep(60)
    """
    process = run(code, BNN_DEADLINE=str(time.time() + 1), BNN_STOP_MARGIN="0.5")
    assert process.communicate(timeout=20) == ("the deadline (BNN_DEADLINE)", None)
    assert process.returncode == 7


def test_what_is_called_is_not_held_once_it_need_not_be_called():
    """A plan of many runs would keep every trainer, with its data and its graph."""

    class Trainer:
        asked = 0

        def ask_to_stop(self):
            self.asked += 1

    requests = stopping.Requests()
    first, second = Trainer(), Trainer()
    with requests.calling(first.ask_to_stop):
        pass
    held = weakref.ref(first)
    del first
    assert held() is None
    with requests.calling(second.ask_to_stop):
        requests.ask("SIGTERM")
        assert second.asked == 1
    requests.ask("SIGUSR1")
    assert (second.asked, requests.reason) == (1, "SIGTERM")


def test_a_listener_gives_the_signals_back():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("ours"))
    try:
        with contextlib.closing(stopping.Listener(math.inf)) as listener:
            os.kill(os.getpid(), signal.SIGUSR1)
            end = time.monotonic() + 20
            while not listener.reason and time.monotonic() < end:
                time.sleep(0.01)
        assert listener.reason == "SIGUSR1"
        assert heard == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == ["ours"]
        assert not [thread for thread in threading.enumerate() if thread.name == "bnnlib-stopping"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_importing_the_session_has_no_effect():
    process = run("""
        import signal, threading
        import bnnlib.session

        session = bnnlib.session.Session()
        session.requests.ask("nobody")
        session.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert threading.active_count() == 1
    """)
    assert process.communicate(timeout=60) == ("", None)
    assert process.returncode == 0


# --- whole runs -----------------------------------------------------------------------------------


def assert_stopped(directory: Path, reason: str) -> int:
    """Everything is there for the run to go on; returns the step at which it was stopped."""
    record = read_record(directory)
    assert record["status"] == "stopped"
    assert record["error"] is None
    assert record["ended"] is not None
    *_, last = record["history"]
    assert last["event"] == "stopped"
    found = re.fullmatch(rf"{reason}, after step (\d+) of \d+", last["what"])
    assert found, last["what"]
    assert (directory / "checkpoints" / f"step-{int(found[1]):09d}.npz").exists()
    assert {path.name for path in directory.iterdir()} <= {
        *("run.json", "steps.jsonl", "posterior.jsonl", "checkpoints", "train.ipynb"),
    }
    nb = nbformat.read(directory / "train.ipynb", as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    told = "".join(output.get("text", "") for output in outputs)
    assert f"stopped: {last['what']}; the same command started again goes on\n" in told
    return int(found[1])


@pytest.mark.ranks
def test_a_deadline_stops_a_run_that_goes_on_to_the_same_bits(launch, study, tmp_path):
    deadline = {"BNN_DEADLINE": str(int(time.time()) + 30), "BNN_STOP_MARGIN": "30"}
    for launcher in ("mpiexec", "horovodrun"):
        done = train(launch, launcher, tmp_path, ("model", "BNN_FC_flip"), environment=deadline)
        assert done.returncode == stopping.EXIT_CODE == 75, done.stderr
        step = assert_stopped(tmp_path, r"the deadline \(BNN_DEADLINE\)")
        # After the first step that this start took: in the middle of a line, then at its end.
        assert step == {"mpiexec": 1, "horovodrun": 2}[launcher]
    done = train(launch, "mpiexec", tmp_path, ("model", "BNN_FC_flip"))
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path)
    assert record["status"] == "finished"
    assert [event["event"] for event in record["history"]] == [
        *("stopped", "continued", "stopped", "continued"),
    ]
    assert_same_run(tmp_path, study.runs / "BNN_FC_flip")


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, moments, step log and predictions to the bit; times differ."""
    assert_same_state(one, other)
    assert (one / "predictions.npz").read_bytes() == (other / "predictions.npz").read_bytes()
    lines, others = (
        [
            (line.step, line.epoch, line.loss, line.nll, line.kl, line.learning_rate)
            for line in read_steps(directory)
        ]
        for directory in (one, other)
    )
    assert lines == others
    assert read_posterior(one) == read_posterior(other)


@pytest.mark.ranks
@pytest.mark.parametrize("launcher", RANKS)
def test_a_signal_to_the_launcher_stops_all_ranks(launch, tmp_path, launcher):
    number = {"mpiexec": "TERM", "horovodrun": "USR1"}[launcher]
    words = [*RANKS[launcher], "papermill", NOTEBOOK, f"rank0:{tmp_path / 'train.ipynb'}"]
    words += ["--engine", "spmd", "-f", TINY, "-p", "model", "CNN_FC", "-p", "steps", "1000000"]
    script = f"""
        {" ".join(map(str, words))} &
        for i in $(seq 600); do [ -s {tmp_path}/steps.jsonl ] && break; sleep 0.1; done
        kill -{number} $! && date +%s.%N >{tmp_path.parent}/told && wait $!
    """
    done = launch("bash", "-c", script)
    assert done.returncode == 75, done.stderr
    assert_stopped(tmp_path, "SIGTERM")
    assert done.ended - float((tmp_path.parent / "told").read_text()) < 30
