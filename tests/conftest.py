"""Fixtures that several test modules need."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

import bnnlib  # noqa: F401  chooses Keras 2, before a test module imports TensorFlow

ROOT = pathlib.Path(__file__).parents[1]
BIN = pathlib.Path(sys.executable).parent
BESIDE_THE_REPOSITORY = ROOT.parent / "shared" / "data"
# Every process of one launch inherits this variable, whatever started it and whoever adopted it.
LAUNCH = "BNN_TEST_LAUNCH"


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by these markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need the study: the first of them waits for its eight trainings."""
    for item in items:
        if "study" in getattr(item, "fixturenames", ()):
            for mark in (pytest.mark.ranks, pytest.mark.long, pytest.mark.timeout(960)):
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Takes back what a test, or the library within it, has set in os.environ."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def bnn_data(monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder with the real data sets, in BNN_DATA; a test that needs it is skipped without."""
    folder = pathlib.Path(os.environ.get("BNN_DATA") or BESIDE_THE_REPOSITORY)
    if not folder.is_dir():
        pytest.skip(f"no real data: BNN_DATA is not set to a folder and {folder} is none")
    monkeypatch.setenv("BNN_DATA", str(folder))
    return folder


@dataclasses.dataclass(frozen=True)
class Launched:
    """A command that has ended, with all its processes."""

    command: list[str]
    returncode: int
    stdout: str
    stderr: str
    ended: float  # seconds since the epoch


def _processes(marker: str) -> list[int]:
    """The ids of all processes of one launch; zombies, which have no environment, are none."""
    process_ids = []
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if f"{LAUNCH}={marker}".encode() in environ.read_bytes().split(b"\0"):
                process_ids.append(int(environ.parent.name))
    return process_ids


@pytest.fixture(scope="session")
def launch() -> Callable[..., Launched]:
    """Runs a command as a terminal would, and fails if it hangs or leaves processes behind."""

    def run(
        *command: object,
        cwd: pathlib.Path = ROOT,
        timeout: float = 120,
        environment: dict[str, str] | None = None,
    ) -> Launched:
        marker = uuid.uuid4().hex
        outer = (
            "HOROVOD_",
            "PMI_",
            "BNN_RUN_DIR",
            "BNN_START_DIR",
        )  # the tests may themselves run under a launcher
        variables = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        variables |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", LAUNCH: marker}
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=variables | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
            ended = time.time()
            deadline = time.monotonic() + 10
            while (left := _processes(marker)) and time.monotonic() < deadline:
                time.sleep(0.1)
        except subprocess.TimeoutExpired as error:
            stderr_so_far = (error.stderr or b"").decode(errors="replace")
            pytest.fail(f"not ended after {timeout} s: {words}\n{stderr_so_far}")
        finally:
            for process_id in _processes(marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
        assert not left, f"{words} has ended and left processes behind"
        return Launched(words, process.returncode, stdout, stderr, ended)

    return run


@dataclasses.dataclass(frozen=True)
class Study:
    """`jobs/local/study.sh tiny`, run to its end in a copy of the repository."""

    root: pathlib.Path
    launched: Launched

    @property
    def runs(self) -> pathlib.Path:
        return self.root / "runs" / "tiny"


@pytest.fixture(scope="session")
def study(launch, tmp_path_factory) -> Study:
    """The eight runs trained at 2 ranks on tiny data and compared: the dear run, shared by all."""
    root = tmp_path_factory.mktemp("study")
    for folder in ("jobs", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder)
    (root / ".venv").symlink_to(sys.prefix)
    launched = launch("jobs/local/study.sh", "tiny", cwd=root, timeout=900)
    assert launched.returncode == 0, launched.stderr
    return Study(root, launched)
