"""One run has one writer: the writer's heartbeat keeps a lease in the run's directory.

``run.lock`` is a lease of the package filelock: it names the process that writes there. A second
one is refused while the first lives. A process that was killed cannot remove its lock: on the same
host, and in the same container, its process id and the time of its start show that it is dead;
elsewhere its missing heartbeat does. File locks of the system (`flock`) are not used:
parallel file systems often have them switched off.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import filelock

from bnnlib import launcher
from bnnlib.errors import RecordError
from bnnlib.record.files import write_text
from bnnlib.record.schema import now

NAME = "run.lock"
JOB = "run.lock.json"  # of the holder: what a lease does not say, by the lease's token
BEAT = 10.0  # seconds from one heartbeat to the next
DEAD = 60.0  # seconds without one after which the owner is taken for dead
UNREADABLE = 3.0  # seconds after which filelock removes what is no lease, and a bit
# The kernel's number of a host's own namespace of process ids; a container has another.
_HOST_NAMESPACE = 0xEFFFFFFC


class LockedError(RecordError):
    """Another process writes to the run's directory."""


class Lock:
    """A lock that this process holds, until :meth:`release` or its end.

    Args:
        directory: the run's.
        lease: held.
    """

    def __init__(self, directory: Path, lease: filelock.SoftFileLease) -> None:
        self.directory = directory
        self._lease, self._token = lease, lease.token

    def check(self) -> None:
        """Raises a LockedError if another process has taken the lock, or it was removed."""
        owner = self._lease.owner
        taken = owner is not None and owner.token != self._token
        if taken or self._lease.compromise is not None:
            by = f"taken over by {_name(self.directory, owner)}" if taken else "removed"
            raise LockedError(
                f"{self.directory}: its lock was {by}, as if this process had given no sign of "
                f"life for {DEAD:.0f} s; what it has trained since its last checkpoint is not kept"
            )

    def release(self) -> None:
        """Removes the lock, if it is still this process' own."""
        with contextlib.suppress(OSError):  # its folder may be gone or read-only
            if _read_job(self.directory).get("token") == self._token:
                (self.directory / JOB).unlink()
        with contextlib.suppress(OSError):
            self._lease.release(force=True)


def acquire(directory: Path) -> Lock:
    """Takes the lock of a run's directory, for rank 0; makes the directory if it is missing.

    Waits up to :data:`DEAD` seconds where only the owner's heartbeat can tell whether it lives.

    Raises:
        LockedError: another process holds it.
        RecordError: the lock cannot be written.
    """
    lease = _lease(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if lease.is_lock_held_by_us:  # this very process': a notebook is run again from its top
            lease.force_break()
        _take(lease)
        job = {"token": lease.token, "job_id": launcher.job_id(), "started": now()}
        try:
            write_text(directory / JOB, json.dumps(job))
        except BaseException:
            Lock(directory, lease).release()
            raise
    except (filelock.Timeout, filelock.LeaseSettingsMismatch) as error:
        raise LockedError(_refusal(directory, lease)) from error
    except OSError as error:
        raise RecordError(
            f"{directory / NAME}: could not be written ({error.strerror or error}); nothing in the "
            "directory was changed. Make room or choose another run_dir, and start the same "
            "command again"
        ) from error
    return Lock(directory, lease)


def _take(lease: filelock.SoftFileLease) -> None:
    """Acquires a lease, or raises filelock's Timeout once its owner is known to live."""
    wait, heart = DEAD + BEAT + UNREADABLE, _Heart(lease)
    try:
        lease.acquire(timeout=wait, poll_interval=DEAD / 60, cancel_check=heart.beats)
    except filelock.Timeout:
        # filelock takes an empty file for one that is being written, for ever. After a power cut it
        # is one that was.
        if heart.beats() or Path(lease.lock_file).stat().st_size:
            raise
        lease.force_break()
        lease.acquire(timeout=0)


def refuse_if_held(directory: Path, wait: float = 0.0) -> None:
    """Raises where another living process holds the lock; changes nothing.

    Args:
        directory: the run's.
        wait: seconds to watch the heart of an owner elsewhere; if that is too short to know, the
            lock counts as nobody's.

    Raises:
        LockedError: the owner's host, job and start.
    """
    lease = _lease(directory)
    heart = _Heart(lease)
    end = time.monotonic() + min(wait, DEAD)
    while lease.owner is not None and not lease.is_lock_held_by_us:
        if heart.beats():
            raise LockedError(_refusal(directory, lease))
        if heart.has_stopped() or time.monotonic() >= end:
            return
        time.sleep(DEAD / 60)


def tidy(directory: Path) -> None:
    """Removes the lock and the job's file that a killed writer left, if that is possible."""
    if (directory / NAME).exists() or (directory / JOB).exists():
        lease = _lease(directory)
        with contextlib.suppress(OSError, filelock.Timeout, filelock.LeaseSettingsMismatch):
            lease.acquire(timeout=0)
            (directory / JOB).unlink(missing_ok=True)
            lease.release()


class _Heart:
    """Whether the owner of a lock lives, as far as this process can tell."""

    def __init__(self, lease: filelock.SoftFileLease) -> None:
        self._lease = lease
        self._first = self._beat()

    def beats(self) -> bool:
        """Whether the owner is known to live."""
        if self._is_here():
            return not self.has_stopped()
        # Clocks of hosts differ, hence the heart is watched and its age is not computed.
        beat = self._beat()
        return None not in (beat, self._first) and beat != self._first

    def has_stopped(self) -> bool:
        """Whether the owner is known to have ended."""
        owner = self._lease.owner
        if owner is None or not self._is_here():
            return False
        started = _process_started(owner.pid)
        # The lower half of the lease's number; the upper half is of the host's own start.
        return started is None or (owner.start is not None and owner.start % 2**64 != started)

    def _beat(self) -> int | None:
        with contextlib.suppress(OSError):
            return Path(self._lease.lock_file).stat().st_mtime_ns
        return None

    def _is_here(self) -> bool:
        """Whether the owner's process id is one of this host's and container's."""
        owner = self._lease.owner
        try:
            namespace = os.stat("/proc/self/ns/pid").st_ino
        except OSError:  # no Linux: the heart alone tells
            return False
        mark = "" if namespace == _HOST_NAMESPACE else f"?pidns-{namespace:x}"
        return owner is not None and owner.hostname == socket.gethostname() + mark


def _lease(directory: Path) -> filelock.SoftFileLease:
    # Not of one thread: a checkpoint's thread checks it, and a watch's thread may release it.
    return filelock.SoftFileLease(
        directory / NAME, lease_duration=DEAD, heartbeat_interval=BEAT, thread_local=False
    )


def _refusal(directory: Path, lease: filelock.SoftFileLease) -> str:
    return (
        f"{directory}: is being written by another run ({_name(directory, lease.owner)}); wait for "
        f"it, stop it, or choose another run_dir. If it is dead, remove {directory / NAME}"
    )


def _name(directory: Path, owner: Any) -> str:
    """The owner of a lock, in words."""
    if owner is None:
        return "one that has just ended, or of another version"
    job, text = _read_job(directory), f"process {owner.pid} on {owner.hostname.split('?')[0]}"
    if job.get("token") != owner.token:  # it was taken a moment ago
        return text
    return (
        f"job {job['job_id']}, {text}, started {job['started']}"
        if job.get("job_id")
        else (f"{text}, started {job['started']}")
    )


def _read_job(directory: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        job = json.loads((directory / JOB).read_text(encoding="utf-8"))
        if isinstance(job, dict) and {"token", "job_id", "started"} <= set(job):
            return job
    return {}


def _process_started(pid: int) -> int | None:
    """Clock ticks from the host's start to the process's; None for one that has ended.

    A zombie, whose parent has not yet noticed its end, counts as ended.
    """
    try:
        # The 3rd and 22nd fields; the 2nd, the command in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[3 - 3] in "ZX" else int(fields[22 - 3])
    except (OSError, ValueError, IndexError):
        return None
