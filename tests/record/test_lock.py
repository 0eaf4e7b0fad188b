"""One run has one writer; the lock of a dead one is no hindrance, and that of a living one is."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from bnnlib.errors import RecordError
from bnnlib.record import lock
from bnnlib.record.lock import LockedError

HOLD = """
    import sys, time
    from pathlib import Path
    from bnnlib.record import lock
    lock.acquire(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)],
        env=os.environ | {"SLURM_JOB_ID": "4711"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "DEAD", 0.6)
    monkeypatch.setattr(lock, "SETTLE", 0.05)


def owner(path):
    return json.loads((path / lock.NAME).read_text())


def write_owner(path, **changes):
    values = {
        "host": "elsewhere",
        "pid": 1,
        "process_started": 5,
        "job_id": "12.pbs",
        "started": "2026-01-01T00:00:00+00:00",
        "token": "theirs",
        "beat": 0,
    }
    (path / lock.NAME).write_text(json.dumps(values | changes))


def test_a_lock_says_whose_it_is_and_goes_when_released(tmp_path, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "77.polaris")
    held = lock.acquire(tmp_path / "runs" / "a")
    found = owner(tmp_path / "runs" / "a")
    assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert found["job_id"] == "77.polaris"
    held.check()
    held.release()
    assert list((tmp_path / "runs" / "a").iterdir()) == []
    held.release()  # and again, when all is closed twice


def test_a_living_writer_is_named_with_host_job_and_start(tmp_path, holder):
    started = owner(tmp_path)["started"]
    with pytest.raises(LockedError) as error:
        lock.acquire(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: is being written by another run (job 4711, process {holder.pid} on "
        f"{socket.gethostname()}, started {started}); wait for it, stop it, or choose another "
        f"run_dir. If it is dead, remove {tmp_path / 'run.lock'}"
    )
    assert owner(tmp_path)["pid"] == holder.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_writer_is_taken_over(tmp_path, holder, reaped):
    holder.send_signal(signal.SIGKILL)
    if reaped:
        holder.wait()
    else:  # a zombie: its parent has not looked yet
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    lock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_given_away_again_is_another_process(tmp_path):
    write_owner(tmp_path, host=socket.gethostname(), pid=os.getppid(), process_started=1)
    lock.acquire(tmp_path).release()


def test_a_process_that_runs_its_notebook_again_takes_its_own_lock(tmp_path):
    first = lock.acquire(tmp_path)
    second = lock.acquire(tmp_path)
    second.check()
    first.release()  # not the second's
    assert owner(tmp_path)["pid"] == os.getpid()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_heart_tells_whether_its_run_lives(tmp_path, hurry):
    write_owner(tmp_path)
    beats = threading.Timer(0.2, write_owner, [tmp_path], {"beat": 1})
    beats.start()
    with pytest.raises(LockedError, match=r"job 12\.pbs, process 1 on elsewhere, started 2026"):
        lock.acquire(tmp_path)
    beats.join()
    assert owner(tmp_path)["token"] == "theirs"

    started = time.monotonic()  # and now it beats no more
    lock.acquire(tmp_path).release()
    assert time.monotonic() - started >= 0.6


def test_another_hosts_run_that_ends_meanwhile_leaves_the_lock(tmp_path, hurry):
    write_owner(tmp_path)
    end = threading.Timer(0.2, (tmp_path / lock.NAME).unlink)
    end.start()
    lock.acquire(tmp_path).release()
    end.join()


def test_a_heart_beats_and_a_lock_that_was_taken_away_is_told(tmp_path, hurry):
    held = lock.acquire(tmp_path)
    deadline = time.monotonic() + 20
    while owner(tmp_path)["beat"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held.check()
    # As after this process was stopped for minutes, and another one was started.
    write_owner(tmp_path, host="elsewhere", beat=0)
    while held.lost_to is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(LockedError, match=r"taken over by job 12\.pbs, process 1 on elsewhere"):
        held.check()
    held.release()
    assert owner(tmp_path)["token"] == "theirs"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}', '{"a": ' * 9999])
def test_a_damaged_lock_is_nobodys(tmp_path, content, hurry):
    (tmp_path / lock.NAME).write_text(content)
    lock.acquire(tmp_path).release()


def test_of_several_at_once_one_wins(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from bnnlib.record import lock
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            lock.acquire(Path(sys.argv[1]))
        except lock.LockedError:
            print("refused", flush=True)
        else:
            print("held", flush=True)
        sys.stdin.readline()  # the winner lives until all have tried
    """
    write_owner(tmp_path, host=socket.gethostname(), pid=2**22 + 1)  # one that is dead
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(words, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("\n", timeout=20)
    assert sorted(answers) == ["held", "refused", "refused", "refused"]


def test_a_directory_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordError, match=r"run\.lock: could not be written"):
        lock.acquire(tmp_path / "file" / "run")


def test_a_look_changes_nothing(tmp_path, holder):
    assert lock.refuse_if_held(tmp_path / "nowhere") is None
    before = owner(tmp_path)
    with pytest.raises(LockedError):
        lock.refuse_if_held(tmp_path)
    assert {**owner(tmp_path), "beat": 0} == {**before, "beat": 0}
    write_owner(tmp_path)
    assert lock.refuse_if_held(tmp_path) == lock.Owner(**owner(tmp_path))  # too short to know
    assert dataclasses.asdict(lock.Owner(**owner(tmp_path)))["job_id"] == "12.pbs"
