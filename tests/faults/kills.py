"""Kills runs of two ranks at random moments until enough have been killed, and resumes each.

    python tests/faults/kills.py --kills 100 --seed 1

Every run is killed several times in its life, by SIGKILL of one rank, of all ranks, or of the
launcher, at a step drawn from the seed or while it starts, evaluates or writes; after every kill
the same command is started again. A run that has ended is compared bit by bit with one that nobody
killed: weights, Adam's moments, step log, posterior's log and predictions. One run of five goes
through the notebook. The last line counts; `main` returns 1 if it tells of a fault.

A kill is repeated by its seed to the step of the log, not to the instruction.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

from bnnlib.errors import RecordError
from bnnlib.record import checkpoint

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MARK = "BNN_FAULTS_LAUNCH"  # every process of one launch inherits it, whoever adopts it
LAUNCHERS = {
    "mpich": [BIN / "mpiexec", "-n", "2"],
    "gloo": [BIN / "horovodrun", "--gloo", "-n", "2", "-H", "localhost:2"],
}
# 8 steps an epoch; lines, checkpoints and epochs' ends fall at different steps. Small, since a
# start takes as long as thousands of its steps.
PARAMETERS = {
    "model": "BNN_FC_flip",
    "dataset": "tiny",
    "batch_size": 16,
    "epochs": 50,
    "log_every": 3,
    "checkpoint_steps": 7,
    "test_draws": 3,
    "threads": 1,
}
STEPS = 400
KILLS_A_RUN = 10
WITHIN = 60.0  # seconds from a kill to the end of all processes
LIFE = 300.0  # seconds after which a run that was not killed has hung


@dataclasses.dataclass
class Counts:
    """What the last line says."""

    kills: int = 0
    resumes: int = 0
    bitwise_equal: int = 0
    lost_beyond_checkpoint: int = 0
    orphans: int = 0

    def __str__(self) -> str:
        return (
            f"kills={self.kills} resumes={self.resumes} bitwise_equal={self.bitwise_equal} "
            f"lost_beyond_checkpoint={self.lost_beyond_checkpoint} orphans={self.orphans}"
        )


class Launch:
    """A started run: the launcher's process and whatever belongs to it."""

    def __init__(self, launcher: str, directory: Path, notebook: bool) -> None:
        self.marker = uuid.uuid4().hex
        parameters = {**PARAMETERS, "run_dir": str(directory)}
        words = [*LAUNCHERS[launcher]]
        if notebook:
            words += [BIN / "papermill", ROOT / "notebooks" / "01_train.ipynb"]
            words += [f"rank0:{directory / 'train.ipynb'}", "--engine", "spmd"]
            words += [word for item in parameters.items() for word in ("-p", *map(str, item))]
        else:
            words += [sys.executable, ROOT / "tests" / "faults" / "train.py"]
            words += [json.dumps(parameters)]
        outer = ("HOROVOD_", "PMI_", "BNN_RUN_DIR", "BNN_DEADLINE")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        environ |= {MARK: self.marker, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environ["PATH"] = f"{BIN}{os.pathsep}{environ['PATH']}"
        self.log = directory.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in words],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def processes(self) -> list[int]:
        """All living processes of this launch."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                if f"{MARK}={self.marker}".encode() in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return found

    def ranks(self) -> dict[int, int]:
        """Process ids by rank, of those ranks that have started."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError, ValueError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if not words[0].rpartition(b"/")[2].startswith(b"python") or len(words) < 2:
                    continue
                if words[1].rpartition(b"/")[2] not in (b"papermill", b"train.py"):
                    continue
                lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                values = dict(line.partition("=")[::2] for line in lines if "=" in line)
                rank = values.get("HOROVOD_RANK", values.get("PMI_RANK"))
                if rank is not None:
                    found[int(rank)] = pid
        return found

    def kill(self, victim: str) -> None:
        """SIGKILL to ``rank 0``, ``rank 1``, ``all ranks`` or the ``launcher``."""
        ranks = self.ranks()
        if victim == "all ranks":
            chosen = list(ranks.values())
        else:
            chosen = [pid for rank, pid in ranks.items() if victim == f"rank {rank}"]
        # Before there are ranks, or where it is the victim, the launcher.
        for pid in chosen or [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> int:
        """Waits for all processes to end; how many had to be killed after :data:`WITHIN`."""
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            self.process.poll()
            if not (left := self.processes()):
                break
            time.sleep(0.05)
        for pid in left:
            print(f"  orphan {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()[:200]!r}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return len(left)


def last_step(directory: Path) -> int:
    """The step of the last whole line of the log."""
    try:
        text = (directory / "steps.jsonl").read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except OSError:
        return 0


def newest_checkpoint(directory: Path) -> int:
    """The step of the newest readable checkpoint, found as a reader would who mistrusts names."""
    for path in sorted((directory / "checkpoints").glob("step-*.npz"), reverse=True):
        with contextlib.suppress(RecordError):
            return int(checkpoint.load(path)["step"])
    return 0


def checkpoints_due(step: int) -> list[int]:
    """The steps at which checkpoints are made, up to a step of the log, by hand."""
    per_epoch, every = 8, int(str(PARAMETERS["checkpoint_steps"]))
    ends = [s for s in range(1, step + 1) if s % per_epoch in (0, 3, 6)]
    due, saved = [], 0
    for end in ends:
        if end // every > saved // every or end == STEPS:
            due.append(end)
            saved = end
    return due


def what_is_left(directory: Path) -> dict[str, bytes]:
    """All of a finished run that does not depend on the time, to the bit."""
    state = checkpoint.load(directory / "checkpoints" / f"step-{STEPS:09d}.npz")
    del state["line/seconds"]
    found = {f"state {name}": np.asarray(value).tobytes() for name, value in state.items()}
    times = ("images_per_second", "seconds", "warmup")
    lines = [json.loads(line) for line in (directory / "steps.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in times} for line in lines]
    found["steps.jsonl"] = json.dumps(kept).encode()
    for name in ("posterior.jsonl", "predictions.npz"):
        found[name] = (directory / name).read_bytes()
    return found


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill as it is drawn: whom, and when."""

    victim: str
    starting: bool  # while the ranks start, else at a step of the log
    share: float  # of the time, or of the steps, that it may come in
    delay: float  # seconds from there: anywhere in a step or in a write

    @classmethod
    def drawn(cls, rng: random.Random) -> Kill:
        """The next kill of a seed; as many numbers are drawn for each."""
        victim = rng.choice(["rank 0", "rank 1", "all ranks", "launcher"])
        return cls(victim, rng.random() < 0.1, rng.random(), rng.uniform(0, 0.03))

    def wait(self, run: Launch, directory: Path, kills_left: int) -> bool:
        """Waits for the moment; False if the run has ended before it."""
        done = newest_checkpoint(directory)
        # Spread over what is left, so that all kills find a place before the end.
        step = done + 1 + int(self.share * min(STEPS - done, 2 * (STEPS - done) / kills_left))
        started = time.monotonic()
        while run.process.poll() is None:
            age = time.monotonic() - started
            if age > LIFE:
                raise TimeoutError(f"{directory}: hangs; see {run.log}")
            if (self.starting and age >= 8 * self.share) or (
                not self.starting and last_step(directory) >= min(step, STEPS)
            ):
                time.sleep(self.delay)
                return run.process.poll() is None
            time.sleep(0.002)
        return False


def one_run(
    launcher: str,
    directory: Path,
    notebook: bool,
    kills: int,
    rng: random.Random,
    counts: Counts,
    reference: dict[str, bytes],
) -> dict[str, bytes]:
    """A run that is killed `kills` times and then let go to its end; what is left of it."""
    killed, ended = 0, False
    while not ended:
        run = Launch(launcher, directory, notebook)
        if killed == kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(timeout=LIFE)
            ended = True
        else:
            kill = Kill.drawn(rng)
            ended = not kill.wait(run, directory, kills - killed)
        if not ended:
            run.kill(kill.victim)
            killed += 1
            counts.kills += 1
            counts.orphans += run.end()
            step, kept = last_step(directory), newest_checkpoint(directory)
            due = checkpoints_due(step)
            # The last may have been on its way to the disk, the one before was there.
            lost = kept < (due[-2] if len(due) > 1 else 0)
            counts.lost_beyond_checkpoint += lost
            where = "starting" if kill.starting else "training"
            print(
                f"{directory.name}: {kill.victim} killed when {where}; log at {step}, checkpoint "
                f"{kept}{' LOST' if lost else ''}",
                flush=True,
            )
    counts.orphans += run.end()
    if run.process.returncode != 0:
        print(f"{directory}: ended with {run.process.returncode}; see {run.log}")
        print(*run.log.read_text(errors="replace").splitlines()[-30:], sep="\n", flush=True)
        counts.resumes += max(0, killed - 1)
        return {}
    counts.resumes += killed
    left = what_is_left(directory)
    different = [name for name in reference if left.get(name) != reference[name]]
    verdict = f"differs in {', '.join(different)}" if different else "bitwise equal"
    print(f"{directory.name}: finished after {killed} kills, {verdict}", flush=True)
    counts.bitwise_equal += 0 if different else killed
    return left


def main(argv: list[str] | None = None) -> int:
    """Runs the program; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the runs; else a temporary one")
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.seed)
    counts = Counts()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="bnn-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    reference: dict[str, bytes] = {}
    started = time.monotonic()
    number = 0
    while counts.kills < arguments.kills:
        launcher = list(LAUNCHERS)[number % 2]
        if not reference:  # both launchers' runs must come to the same bits
            place = folder / "reference"
            if (place / "predictions.npz").exists():  # of an earlier part, in the folder kept
                reference = what_is_left(place)
            else:
                reference = one_run(launcher, place, False, 0, rng, Counts(), {})
            if not reference:
                return 1
        left = arguments.kills - counts.kills
        a_run = min(KILLS_A_RUN, -(-left // 2) if number % 2 == 0 and left <= KILLS_A_RUN else left)
        place = folder / f"seed{arguments.seed}-{number:02d}-{launcher}"
        found = one_run(launcher, place, number % 5 == 4, a_run, rng, counts, reference)
        number += 1
        if found and arguments.keep is None:
            shutil.rmtree(place)
        print(f"after {time.monotonic() - started:.0f} s: {counts}", flush=True)
    if arguments.keep is None and counts.bitwise_equal == counts.kills:
        shutil.rmtree(folder)
    print(counts)
    good = counts.kills == counts.resumes == counts.bitwise_equal
    return 0 if good and counts.lost_beyond_checkpoint == counts.orphans == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
