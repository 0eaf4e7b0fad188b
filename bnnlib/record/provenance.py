"""Where a run comes from: commit, versions, command, hosts' clock; collected before MPI starts.

On a Cray no process may be forked once MPI is up, and git is a process: call :func:`collect`
before :func:`bnnlib.inference.distributed.init`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnnlib import launcher
from bnnlib.record.protocols import Ranks
from bnnlib.record.schema import now

PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-probability",
    "horovod",
    "numpy",
    "mpich",
    "papermill",
    "bnnlib",
)
# What changes speed or results, by name: a record holds no dump of the environment.
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "KMP_BLOCKTIME",
    "KMP_AFFINITY",
    "TF_ENABLE_ONEDNN_OPTS",
    "HOROVOD_CYCLE_TIME",
    "HOROVOD_FUSION_THRESHOLD",
    "HOROVOD_THREAD_AFFINITY",
    "HOROVOD_CONTROLLER",
    "HOROVOD_CPU_OPERATIONS",
)

_REPOSITORY = Path(__file__).resolve().parents[2]


def collect() -> dict[str, Any]:
    """The origin of this process, as far as it is known without MPI.

    Returns:
        ``commit`` (None outside a git checkout), ``clean`` (whether the tree was, but for figures;
        None likewise), ``versions`` by package, ``python``, ``platform``, ``command``,
        ``launcher``, ``job_id`` and ``environment`` (only the variables in :data:`ENVIRONMENT`
        that are set).
    """
    commit = status = None
    # Installed into a folder of another repository, the library has no commit of its own there.
    top = _git("rev-parse", "--show-toplevel")
    if top is not None and Path(top).resolve() == _REPOSITORY.resolve():
        commit = _git("rev-parse", "HEAD")
        # What is made, figures and runs, cannot change what is made next.
        status = _git("status", "--porcelain", "--", ".", ":!figures", ":!runs")
    return {
        "commit": commit,
        "clean": None if status is None else status == "",
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command(),
        "launcher": launcher.name(),
        "job_id": launcher.job_id(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def new_attempt(
    ranks: Ranks, virtual_ranks: int, origin: Mapping[str, Any], horovod: Mapping[str, Any]
) -> dict[str, Any]:
    """A start of a run, for its record, before anything is trained.

    Args:
        ranks: that start it.
        virtual_ranks: that each of them carries.
        origin: of :func:`collect`.
        horovod: its build and settings.
    """
    return {
        "ranks": ranks.size,
        "virtual_ranks": virtual_ranks,
        "hosts": list(ranks.hosts),
        "threads": ranks.threads,
        "cores": ranks.cores,
        **origin,
        "horovod": dict(horovod),
        "started": now(),
        "ended": None,
        "startup_seconds": None,
        "first_step": None,
    }


def hardware() -> dict[str, Any]:
    """The processor's name and the number of cores."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {"processor": names[0] if names else None, "cores": os.cpu_count()}


def command() -> str:
    """The command of this process as it can be typed again, programs by their last name.

    A Jupyter kernel's own command says nothing: where papermill or ``python -m bnnlib figures``
    started the kernel it is theirs; JupyterLab's, which may hold a token, is not taken.
    """
    words = list(getattr(sys, "orig_argv", sys.argv))
    if "ipykernel_launcher" in words:
        parent = Path(f"/proc/{os.getppid()}/cmdline")
        text = parent.read_bytes().decode(errors="replace") if parent.exists() else ""
        words = text.rstrip("\0").split("\0")
        by_papermill = any(Path(word).name == "papermill" for word in words[:2])
        if not by_papermill and words[1:3] != ["-m", "bnnlib"]:
            words = ["jupyter", "kernel"]
    if len(words) > 1 and Path(words[1]).parent.name == "bin":  # python .venv/bin/papermill …
        words = words[1:]
    words[0] = Path(words[0]).name
    return shlex.join(words)


def version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed.

    The package index calls the build of TensorFlow without CUDA tensorflow-cpu; it counts as
    TensorFlow.
    """
    for name in (package, f"{package}-cpu") if package == "tensorflow" else (package,):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _git(*words: str) -> str | None:
    """Git's answer of the library's own checkout, None where there is no git or no checkout."""
    # Asked only, never to renew its index: a run killed meanwhile would leave index.lock behind,
    # and git would refuse whatever the user did next.
    command = ["git", "--no-optional-locks", "-C", str(_REPOSITORY), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
