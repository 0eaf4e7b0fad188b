"""One run has one writer; the lock of a dead one is no hindrance, and that of a living one is."""

import contextlib
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
    lock.BEAT, lock.DEAD = float(sys.argv[2]), float(sys.argv[3])
    held = lock.acquire(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(60)
"""
# Ways to start a process: as it is, and in a container of its own process ids.
HERE: list[str] = []
ELSEWHERE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@contextlib.contextmanager
def holding(path, beat=10.0, dead=60.0, way=HERE):
    """Another process that holds the lock of `path`."""
    process = subprocess.Popen(
        [*way, sys.executable, "-c", textwrap.dedent(HOLD), str(path), str(beat), str(dead)],
        env=os.environ | {"SLURM_JOB_ID": "4711"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def holder(tmp_path):
    with holding(tmp_path) as process:
        yield process


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "DEAD", 1.2)


def owner(path):
    lines = (path / lock.NAME).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines[1:])


def write_owner(path, **changes):
    """A lock as of another host, whose heart does not beat."""
    values = {"pid": 1, "host": "elsewhere", "mode": "lease", "token": "theirs"}
    values |= {"duration": lock.DEAD, "start": 5} | changes
    lines = ["filelock/2", *(f"{key}={value}" for key, value in values.items())]
    (path / lock.NAME).write_text("".join(f"{line}\n" for line in lines))
    job = {"token": values["token"], "job_id": "12.pbs", "started": "2026-01-01T00:00:00+00:00"}
    (path / lock.JOB).write_text(json.dumps(job))


def host(path):
    """How a lease names this host and its container."""
    held = lock.acquire(path)
    name = owner(path)["host"]
    held.release()
    return name


def test_a_lock_says_whose_it_is_and_goes_when_released(tmp_path, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "77.polaris")
    held = lock.acquire(tmp_path / "runs" / "a")
    found = owner(tmp_path / "runs" / "a")
    assert found["host"].startswith(socket.gethostname())
    assert found["pid"] == str(os.getpid())
    assert json.loads((tmp_path / "runs" / "a" / lock.JOB).read_text())["job_id"] == "77.polaris"
    held.check()
    held.release()
    assert list((tmp_path / "runs" / "a").iterdir()) == []
    held.release()  # and again, when all is closed twice


def test_a_living_writer_is_named_with_host_job_and_start(tmp_path, holder):
    started = json.loads((tmp_path / lock.JOB).read_text())["started"]
    with pytest.raises(LockedError) as error:
        lock.acquire(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: is being written by another run (job 4711, process {holder.pid} on "
        f"{socket.gethostname()}, started {started}); wait for it, stop it, or choose another "
        f"run_dir. If it is dead, remove {tmp_path / 'run.lock'}"
    )
    assert owner(tmp_path)["pid"] == str(holder.pid)


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_writer_is_taken_over(tmp_path, hurry, reaped):
    with holding(tmp_path, lock.BEAT, lock.DEAD) as holder:
        holder.send_signal(signal.SIGKILL)
        if reaped:
            holder.wait()
        else:  # a zombie: its parent has not looked yet
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        lock.refuse_if_held(tmp_path)
        lock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_writer_of_this_host_is_taken_over_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    lock.acquire(tmp_path).release()
    assert time.monotonic() - started < lock.DEAD / 4


@pytest.mark.parametrize("ways", [(ELSEWHERE, HERE), (HERE, ELSEWHERE)])
def test_a_living_owner_in_another_namespace_of_process_ids_keeps_its_lock(tmp_path, ways):
    """Containers of one host: the owner's process id is nobody's there, or another process'."""
    if subprocess.run([*ELSEWHERE, "true"], capture_output=True).returncode:
        pytest.skip("this system allows no new namespace of process ids")
    code = """
        import sys
        from pathlib import Path
        from bnnlib.record import lock
        lock.BEAT, lock.DEAD = 0.1, 3.0
        try:
            lock.refuse_if_held(Path(sys.argv[1]), wait=1.0)
        except lock.LockedError as error:
            print("refused", flush=True)
        try:
            lock.acquire(Path(sys.argv[1]))
        except lock.LockedError as error:
            print("refused", flush=True)
    """
    with holding(tmp_path, 0.1, 3.0, ways[0]):
        before = owner(tmp_path)
        words = [*ways[1], sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.stdout == "refused\nrefused\n", done.stderr
        assert owner(tmp_path) == before


def test_an_equal_process_id_is_not_ones_own(tmp_path, hurry):
    write_owner(tmp_path, host=host(tmp_path), pid=os.getpid(), start=5)  # of an earlier process
    lock.acquire(tmp_path).release()
    write_owner(tmp_path, pid=os.getpid())  # of a process of another host
    touch = threading.Timer(0.3, os.utime, [tmp_path / lock.NAME])
    touch.start()
    with pytest.raises(LockedError):
        lock.acquire(tmp_path)
    touch.join()


def test_a_process_id_given_away_again_is_another_process(tmp_path):
    write_owner(tmp_path, host=host(tmp_path), pid=os.getppid(), start=1)
    started = time.monotonic()
    lock.refuse_if_held(tmp_path)
    lock.acquire(tmp_path).release()
    assert time.monotonic() - started < lock.DEAD / 4


def test_a_process_that_runs_its_notebook_again_takes_its_own_lock(tmp_path):
    first = lock.acquire(tmp_path)
    second = lock.acquire(tmp_path)
    second.check()
    first.release()  # not the second's
    assert owner(tmp_path)["pid"] == str(os.getpid())
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_heart_tells_whether_its_run_lives(tmp_path, hurry):
    write_owner(tmp_path)
    beats = threading.Timer(0.3, os.utime, [tmp_path / lock.NAME])
    beats.start()
    with pytest.raises(LockedError, match=r"job 12\.pbs, process 1 on elsewhere, started 2026"):
        lock.acquire(tmp_path)
    beats.join()
    assert owner(tmp_path)["token"] == "theirs"

    started = time.monotonic()  # and now it beats no more
    lock.acquire(tmp_path).release()
    assert time.monotonic() - started >= lock.DEAD


def test_another_hosts_run_that_ends_meanwhile_leaves_the_lock(tmp_path, hurry):
    write_owner(tmp_path)
    end = threading.Timer(0.2, (tmp_path / lock.NAME).unlink)
    end.start()
    lock.acquire(tmp_path).release()
    end.join()


def test_a_heart_beats_and_a_lock_that_was_taken_away_is_told(tmp_path, hurry):
    held = lock.acquire(tmp_path)
    deadline = time.monotonic() + 20
    beats = set()
    while len(beats) < 4:
        assert time.monotonic() < deadline
        beats.add((tmp_path / lock.NAME).stat().st_mtime_ns)
        time.sleep(0.01)
    held.check()
    # As after this process was stopped for minutes, and another one was started.
    (tmp_path / lock.NAME).unlink()
    write_owner(tmp_path)
    with pytest.raises(LockedError, match=r"taken over by job 12\.pbs, process 1 on elsewhere"):
        held.check()
    held.release()
    assert owner(tmp_path)["token"] == "theirs"
    assert (tmp_path / lock.JOB).exists()


def test_a_lock_that_was_removed_is_told(tmp_path, hurry):
    held = lock.acquire(tmp_path)
    (tmp_path / lock.NAME).unlink()
    time.sleep(5 * lock.BEAT)
    with pytest.raises(LockedError, match="its lock was removed"):
        held.check()


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
            held = lock.acquire(Path(sys.argv[1]))
        except lock.LockedError:
            print("refused", flush=True)
        else:
            print("held", flush=True)
        sys.stdin.readline()  # the winner lives until all have tried
    """
    write_owner(tmp_path, host=host(tmp_path), pid=2**22 + 1)  # one that is dead
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


def test_what_a_dead_writer_left_is_tidied_and_a_living_ones_lock_stays(tmp_path, hurry):
    lock.tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with holding(tmp_path, lock.BEAT, lock.DEAD) as process:
        before = owner(tmp_path)
        lock.tidy(tmp_path)
        assert owner(tmp_path) == before
        assert (tmp_path / lock.JOB).exists()
        process.kill()
        process.wait()
        lock.tidy(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_look_changes_nothing(tmp_path, holder):
    lock.refuse_if_held(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    before = owner(tmp_path)
    with pytest.raises(LockedError):
        lock.refuse_if_held(tmp_path)
    assert owner(tmp_path) == before
    holder.kill()
    holder.wait()
    write_owner(tmp_path)
    before = owner(tmp_path)
    lock.refuse_if_held(tmp_path)  # too short to know
    assert owner(tmp_path) == before
