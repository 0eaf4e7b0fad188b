"""One run, one writer: a lock file in the run's directory with its owner's host, job and heartbeat.

``run.lock`` names the process that writes there. A second one is refused while the first lives.
A process that was killed cannot remove its lock: on the same host it is known to be dead by its
process id; on another host by its heart, which no longer beats. File locks of the system (`flock`)
are not used: parallel file systems often have them switched off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from bnnlib import launcher
from bnnlib.errors import RecordError

NAME = "run.lock"
BEAT = 10.0  # seconds from one heartbeat to the next
DEAD = 60.0  # seconds without one after which the owner is taken for dead
SETTLE = 0.5  # seconds in which two that take over one lock see each other


class LockedError(RecordError):
    """Another process writes to the run's directory."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who holds a lock, as it stands in the file.

    Attributes:
        host: its node.
        pid: of rank 0.
        process_started: of that process, in clock ticks since the node's start: a process id may
            be given away again.
        job_id: the scheduler's, None outside a job.
        started: when the lock was taken, ISO 8601, UTC.
        token: of this lock alone.
        beat: counts heartbeats.
    """

    host: str
    pid: int
    process_started: int | None
    job_id: str | None
    started: str
    token: str
    beat: int = 0

    def __str__(self) -> str:
        job = f"job {self.job_id}, " if self.job_id else ""
        return f"{job}process {self.pid} on {self.host}, started {self.started}"


class Lock:
    """A lock that this process holds, until :meth:`release` or its end.

    Attributes:
        path: of the lock file.
        lost_to: who has taken it away, while this process was not running, say; else None.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.lost_to: Owner | None = None
        self._owner = owner
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="bnnlib-lock", daemon=True)
        self._beats.start()

    def check(self) -> None:
        """Raises a LockedError if another process has taken the lock."""
        if self.lost_to is not None:
            raise LockedError(
                f"{self.path.parent}: was taken over by {self.lost_to}, as this process gave no "
                f"sign of life for {DEAD:.0f} s; what it has trained since its last checkpoint is "
                "not kept"
            )

    def release(self) -> None:
        """Removes the lock, if it is still this process' own."""
        self._end.set()
        self._beats.join()
        with contextlib.suppress(OSError):  # its folder may be gone or read-only
            found = _read(self.path)
            if found is not None and found.token == self._owner.token:
                self.path.unlink()

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk is told by what has more to write
                found = _read(self.path)
                if found is not None and found.token != self._owner.token:
                    self.lost_to = found
                    return
                owner = dataclasses.replace(self._owner, beat=self._owner.beat + 1)
                _write(self.path, owner)
                self._owner = owner


def acquire(directory: Path) -> Lock:
    """Takes the lock of a run's directory, for rank 0; makes the directory if it is missing.

    Waits up to :data:`DEAD` seconds where only the heart of the owner, on another host, can tell
    whether it lives.

    Raises:
        LockedError: another process holds it.
        RecordError: the lock cannot be written.
    """
    path = directory / NAME
    owner = Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=_process_started(os.getpid()),
        job_id=launcher.job_id(),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if _create(path, owner):
            return Lock(path, owner)
        found = refuse_if_held(directory, wait=DEAD)
        # It is nobody's, or of someone who is dead.
        now = _read(path)
        if now is not None and (found is None or now.token != found.token):
            raise LockedError(_refusal(directory, now))
        _write(path, owner)
        time.sleep(SETTLE)  # whoever took it over at the same moment wrote before or after
        now = _read(path)
        if now is not None and now.token != owner.token:
            raise LockedError(_refusal(directory, now))
    except OSError as error:
        raise RecordError(
            f"{path}: could not be written ({error.strerror or error}); nothing in the directory "
            "was changed. Make room or choose another run_dir, and start the same command again"
        ) from error
    return Lock(path, owner)


def refuse_if_held(directory: Path, wait: float = 0.0) -> Owner | None:
    """Raises where another living process holds the lock; returns a dead owner, None without one.

    Args:
        directory: the run's.
        wait: seconds to watch the heart of an owner on another host; if that is too short to know,
            the owner is returned.

    Raises:
        LockedError: the owner's host, job and start.
    """
    path = directory / NAME
    first = _read(path)
    if first is None:
        return None
    if first.host == socket.gethostname():
        # This very process' is no other's: a notebook is run again from its top.
        if first.pid != os.getpid() and _lives(first):
            raise LockedError(_refusal(directory, first))
        return first
    # Clocks of hosts differ, hence the heart is watched and its age is not computed.
    end = time.monotonic() + min(wait, DEAD)
    while time.monotonic() < end:
        time.sleep(min(1.0, DEAD / 10))
        now = _read(path)
        if now is None:
            return None
        if now != first:
            raise LockedError(_refusal(directory, now))
    return first


def _refusal(directory: Path, owner: Owner) -> str:
    return (
        f"{directory}: is being written by another run ({owner}); wait for it, stop it, or choose "
        f"another run_dir. If it is dead, remove {directory / NAME}"
    )


def _create(path: Path, owner: Owner) -> bool:
    """Writes a lock where there is none; False if there is one."""
    temporary = path.with_name(f".{path.name}.{owner.token}.tmp")
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(owner)), encoding="utf-8")
        os.link(temporary, path)  # whole or not at all, and never over another's
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():  # a file system without links: less strict, and seen after SETTLE
            return False
        os.replace(temporary, path)
        time.sleep(SETTLE)
        found = _read(path)
        return found is not None and found.token == owner.token
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _write(path: Path, owner: Owner) -> None:
    temporary = path.with_name(f".{path.name}.{owner.token}.tmp")
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(owner)), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Owner | None:
    """The owner in a lock file; None if there is none. What is no lock belongs to nobody."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        owner = Owner(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        return None
    return owner if isinstance(owner.pid, int) and isinstance(owner.host, str) else None


def _lives(owner: Owner) -> bool:
    """Whether a process of this host that once took a lock is still there."""
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    started = _process_started(owner.pid)
    return started is None or owner.process_started in (None, started)


def _process_started(pid: int) -> int | None:
    """Clock ticks from the node's start to the process's; None where that cannot be told.

    -1 for a process that has ended and only waits for its parent to notice.
    """
    try:
        # The 3rd and 22nd fields; the 2nd, the command in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if fields[3 - 3] in "ZX" else int(fields[22 - 3])
    except (OSError, ValueError, IndexError):
        return None
