"""The runs of a study file side by side in one job: submitted as one, and run inside it.

``python -m bnnlib sweep FILE --packed`` submits ``jobs/<site>/pack.sh``, which calls :func:`run` in
the job: each run is started by the site's launcher on a slice of the job's nodes
(:mod:`bnnlib.launch.slices`), as a process of its own with a record of its own. The job's folder is
``<runs>/packed/<file>``: a copy of the file, the job's id in ``job``, and in ``failed`` the runs
that failed in it or in a job that it goes on from. ``job`` in a run's folder is a link to that
``job``, so that a successor, which writes its id there, is every run's.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bnnlib import launcher
from bnnlib.errors import BnnlibError, ExperimentError, SiteError, message_of
from bnnlib.launch import queue, sites, slices, study_file
from bnnlib.record import stopping

OUTPUT = "output.txt"  # of a run's folder: what its ranks print
# Seconds from one start to the next: ALPS and PALS ask for a pause.
PAUSE = 1.0
# Seconds from one look at the runs to the next.
LOOK = 0.5
# Seconds before the deadline by which the last process has ended, so that the job's script can
# still queue its successor.
RESERVE = 15.0
# Asks a run to stop: every launcher passes it on to the ranks, while srun kills them on SIGTERM.
ASK = signal.SIGUSR1
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Packing:
    """The runs of a study file and the allocation that they share.

    Attributes:
        site: a folder of ``jobs/``.
        jobs: the runs, in the file's order.
        needs: of each run.
        room: the allocation.
        threads: cores of a slot.
        gpus: of a node, each for one rank; empty: what the site says.
    """

    site: str
    jobs: list[queue.Job]
    needs: list[slices.Need]
    room: slices.Room
    threads: int
    gpus: str

    def refuse_unfit(self, numbers: Sequence[int]) -> None:
        """Refuses runs that the allocation could not hold, before any is started."""
        for number in numbers:
            self.room.refuse(self.jobs[number].directory, self.needs[number])

    def forecast(self, numbers: Sequence[int]) -> slices.Forecast:
        """How these runs would lie in the allocation."""
        return slices.forecast(
            [self.needs[number] for number in numbers],
            [round(3600 * study_file.hours(self.jobs[number].walltime)) for number in numbers],
            self.room,
        )


def read(path: str | Path, site: str, runs: str | Path, nodes: int = 0, gpus: str = "") -> Packing:
    """The runs of a study file, and the allocation for them.

    Args:
        path: of the study file.
        site: a folder of ``jobs/``.
        runs: folder of the groups.
        nodes: of the allocation; 0: in a job its own, else as many as the largest run needs.
        gpus: of a node, each for one rank, as ``4`` or ``a100:4``; empty: what the site says.

    Raises:
        ExperimentError: the file says what no run can do.
        SiteError: no such site, or it has no GPUs to give.
    """
    place = queue.load_nodes(site, nodes or 1, gpus)
    shared = sites.shares_nodes(site)
    study = study_file.read(path, runs, ranks_per_node=place.ranks_per_node)
    needs = [slices.need_of(one.ranks, one.nodes, place.ranks_per_node, shared) for one in study]
    jobs = [
        queue.Job(
            directory=one.directory,
            experiment=one.experiment,
            ranks=one.ranks,
            nodes=need.nodes,
            ranks_per_node=need.ranks_per_node,
            script="pack.sh",
            gpus=gpus,
            walltime=one.walltime,
        )
        for one, need in zip(study, needs, strict=True)
    ]
    if nodes not in (0, place.nodes):
        raise ExperimentError(f"--nodes {nodes}: {site} has {place.nodes} here")
    if nodes == 0:
        in_job = site == "local" or launcher.job_id() is not None
        nodes = place.nodes if in_job else max(need.nodes for need in needs)
    room = slices.Room(nodes, place.ranks_per_node)
    return Packing(site, jobs, needs, room, place.threads, gpus)


def folder_of(path: str | Path, runs: str | Path) -> Path:
    """The folder of the job that packs a study file's runs."""
    return Path(runs, "packed", Path(path).stem)


def told(packing: Packing, numbers: Sequence[int], walltime: str = "") -> str:
    """Says how runs would lie in the allocation, and what they cost at most.

    Args:
        packing: of :func:`read`.
        numbers: of the runs.
        walltime: of the job, HH:MM:SS; empty: as long as all runs take.

    Raises:
        ExperimentError: the job would have no room for a run.
    """
    packing.refuse_unfit(numbers)
    nodes, slots = packing.room.nodes, packing.room.slots
    text = f"{len(numbers)} of {len(packing.jobs)} runs to submit at {packing.site} in one job of "
    text += f"{nodes} node(s) with {slots} ranks each"
    if not numbers:
        return text
    made = packing.forecast(numbers)
    hours = made.seconds / 3600
    text += f": up to {made.at_once} at once, in {made.waves} wave(s), within {hours:.2f} hours, "
    text += f"at most {nodes * hours:.2f} node-hours"
    jobs = -(-made.seconds // round(3600 * study_file.hours(walltime))) if walltime else 1
    return text + (f", in {jobs} jobs of {walltime}, one after another" if jobs > 1 else "")


def sweep(
    site: str,
    file: str | Path,
    runs: str | Path,
    nodes: int = 0,
    walltime: str = "",
    gpus: str = "",
    dry_run: bool = False,
) -> None:
    """Submits one job for what is neither finished nor queued, then each group's analysis.

    Args:
        site: a folder of ``jobs/``.
        file: the study file.
        runs: folder of the groups.
        nodes: of the job; 0: as many as the largest run needs.
        walltime: of the job; empty: as long as all runs take.
        gpus: of a node, each for one rank; empty: what the site says.
        dry_run: only say what would be submitted.

    Raises:
        BnnlibError: as :func:`read` and :func:`submit`.
    """
    walltime = study_file.read_walltime(walltime) if walltime else ""
    packing = read(file, site, runs, nodes, gpus)
    if dry_run:
        table = queue.table(packing.jobs, site)
        print(table.drop(columns="node_hours").to_string(index=False))
        chosen = table.index[~table["state"].isin(queue.UNDER_WAY)]
        print(told(packing, [int(number) for number in chosen], walltime))
        return
    queue.submit(packing.jobs, site, lambda chosen: submit(packing, file, runs, chosen, walltime))


def submit(
    packing: Packing,
    path: str | Path,
    runs: str | Path,
    numbers: Sequence[int],
    walltime: str = "",
) -> str:
    """Submits one job for runs of these numbers, and returns its id; says how they lie in it.

    Args:
        packing: of :func:`read`.
        path: of the study file.
        runs: folder of the groups.
        numbers: of the runs.
        walltime: of the job, HH:MM:SS; empty: as long as all runs take.

    Raises:
        ExperimentError: the job would have no room for a run.
        SiteError: an earlier job of this study file is still there, the queue refuses the job, or
            on ``local`` runs have failed.
    """
    print(told(packing, numbers, walltime), flush=True)
    folder = folder_of(path, runs)
    before = queue.job_id(folder)
    if before and sites.is_waiting(packing.site, before) is not False:
        raise SiteError(
            f"{folder}: its job {before} still waits or runs, and goes without "
            f"{packing.jobs[numbers[0]].directory}; submit this when it has ended, or give the "
            "study file another name"
        )
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / f"{Path(path).stem}.yaml"
    if study.resolve() != Path(path).resolve():  # what is edited later is no part of this job
        shutil.copyfile(path, study)
    (folder / "failed").unlink(missing_ok=True)
    for number in numbers:
        _link(packing.jobs[number], folder)
    nodes, slots = packing.room.nodes, packing.room.slots
    what = {
        **{"RUN": folder, "STUDY": study, "RUNS": runs},
        **{"NODES": nodes, "PPN": slots, "RANKS": nodes * slots},
        **({"GPUS": packing.gpus} if packing.gpus else {}),
        "WALLTIME": walltime or study_file.read_walltime(packing.forecast(numbers).seconds),
    }
    job_id = sites.submit(packing.site, "pack.sh", what)
    (folder / "job").write_text(f"{job_id}\n")
    return job_id


def run(path: str | Path, site: str, runs: str | Path) -> int:
    """Trains the study's runs that are not finished, side by side in this job.

    Returns:
        0; 75 where runs were stopped or not started, for a successor to go on with; else 1 where
        runs have failed, now or in a job that this one goes on from.

    Raises:
        BnnlibError: a run does not fit into this job, or its folder holds another run; nothing was
            started.
    """
    stop_at = stopping.stop_time()
    packing = read(path, site, runs)
    folder = folder_of(path, runs)
    failed = _begin(folder, launcher.job_id())
    waiting = _to_run(packing, folder, failed)
    packing.refuse_unfit(waiting)
    with contextlib.closing(stopping.Listener(stop_at)) as requests:
        side = _SideBySide(packing, folder, waiting, requests)
        try:
            side.run_all()
        finally:
            side.kill()
    left = len(side.waiting) + side.stopped
    failed = _lines(folder / "failed")
    print(f"{side.finished} finished, {left} to go on with, {len(failed)} failed", flush=True)
    for name in failed:
        print(f"  failed: {name}: see {name}/{OUTPUT}", flush=True)
    return stopping.EXIT_CODE if left else 1 if failed else 0


class _SideBySide:
    """Runs in their slices.

    Attributes:
        waiting: numbers of the runs that have not been started.
        finished, stopped: how many have ended so.
    """

    def __init__(
        self, packing: Packing, folder: Path, waiting: list[int], requests: stopping.Requests
    ) -> None:
        self.packing, self.folder, self.requests = packing, folder, requests
        order = slices.in_order([packing.needs[number] for number in waiting])
        self.waiting = [waiting[number] for number in order]
        self.finished = self.stopped = 0
        self._running: dict[subprocess.Popen[bytes], tuple[int, slices.Slice]] = {}
        self._kill_at = float("inf")

    def run_all(self) -> None:
        """Starts each run when there is room for it, until all have ended or a stop is asked."""
        asked = False
        while self._running or (self.waiting and not asked):
            for process in [one for one in self._running if one.poll() is not None]:
                self._end(process, asked)
            if self.requests.reason and not asked:
                asked = True
                self._ask()
            if time.time() > self._kill_at:
                self.kill()
            placed = None
            if not asked:
                placed = slices.place_next(self.waiting, self.packing.needs, self.packing.room)
            if placed is not None:
                self._start(*placed)
            time.sleep(PAUSE if placed is not None else LOOK)

    def kill(self) -> None:
        """Ends what still runs, and all that it has started."""
        for process in self._running:
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
                for one in [psutil.Process(process.pid), *family]:
                    with contextlib.suppress(psutil.Error):
                        one.kill()
            process.wait()

    def _ask(self) -> None:
        """Has the runs stop in good order; those that do not are killed later."""
        _say(f"{self.requests.reason}: {len(self._running)} runs are asked to stop")
        margin = stopping.margin()
        self._kill_at = time.time() + margin - min(RESERVE, margin / 4)
        # Of the deadline, a run knows itself.
        if stopping.DEADLINE in self.requests.reason:
            return
        for process in self._running:
            process.send_signal(ASK)

    def _start(self, number: int, place: slices.Slice) -> None:
        job, need = self.packing.jobs[number], self.packing.needs[number]
        where = f"node(s) {', '.join(map(str, place.nodes))}"
        if place.slots:
            where += f", place(s) {', '.join(map(str, place.slots))}"
        try:
            parameters = queue.write_parameters(job)
            _link(job, self.folder)
            words = sites.words_on_slice(
                self.packing.site,
                place.nodes,
                place.slots,
                self.packing.room.slots,
                _variables(job, need, parameters, self.packing.threads),
            )
            with (job.directory / OUTPUT).open("ab") as output:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"BNN_SLOTS": ",".join(map(str, place.slots))},
                    process_group=0,  # a terminal's Ctrl-C reaches this process alone
                    preexec_fn=end_with_parent,
                )
        except (BnnlibError, OSError) as error:
            self.packing.room.give(place)
            self._fail(job, message_of(error))
            return
        self._running[process] = (number, place)
        _say(f"{job.directory}: starts on {where}")

    def _end(self, process: subprocess.Popen[bytes], asked: bool) -> None:
        number, place = self._running.pop(process)
        self.packing.room.give(place)
        job = self.packing.jobs[number]
        if process.returncode == 0:
            self.finished += 1
            _say(f"{job.directory}: finished")
        elif asked or process.returncode == stopping.EXIT_CODE:
            self.stopped += 1
            _say(f"{job.directory}: stopped")
        else:
            self._fail(job, f"exit code {process.returncode}, see {job.directory / OUTPUT}")

    def _fail(self, job: queue.Job, why: str) -> None:
        _say(f"{job.directory}: failed, {why}")
        with (self.folder / "failed").open("a") as file:
            file.write(f"{job.directory}\n")


def _variables(
    job: queue.Job, need: slices.Need, parameters: Path, threads: int
) -> dict[str, object]:
    """What ``site.sh`` is told of a run in its slice."""
    what: dict[str, object] = {
        **{"RUN": job.directory, "PARAMS": parameters, "MODEL": ""},
        **{"RANKS": need.ranks, "NODES": need.nodes, "PPN": need.ranks_per_node},
        "ENDS": os.environ.get(stopping.DEADLINE) or "none",
    }
    return what | ({"THREADS": threads} if need.shares else {})


def _begin(folder: Path, own: str | None) -> list[str]:
    """Makes this job the folder's; returns the runs that failed in the jobs it goes on from."""
    folder.mkdir(parents=True, exist_ok=True)
    if own is None or queue.job_id(folder) != own:  # started by hand, so it goes on from none
        (folder / "failed").unlink(missing_ok=True)
        (folder / "job").write_text(f"{own or 'local'}\n")
    return _lines(folder / "failed")


def _to_run(packing: Packing, folder: Path, failed: Sequence[str]) -> list[int]:
    """The numbers of the runs that this job trains."""
    own, numbers = queue.job_id(folder), []
    for number, job in enumerate(packing.jobs):
        before = queue.job_id(job.directory)
        if str(job.directory) in failed:
            _say(f"{job.directory}: failed before")
        elif queue.status(job) == "finished":
            _say(f"{job.directory}: finished before")
        elif before not in ("", own) and sites.is_waiting(packing.site, before) is not False:
            _say(f"{job.directory}: left to its own job {before}")
        else:
            numbers.append(number)
    return numbers


def _link(job: queue.Job, folder: Path) -> None:
    """Makes the job of a run that of the folder."""
    job.directory.mkdir(parents=True, exist_ok=True)
    (job.directory / "job").unlink(missing_ok=True)
    (job.directory / "job").symlink_to(os.path.relpath(folder / "job", job.directory))


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def end_with_parent() -> None:
    """Has the system ask this process to stop when the one that started it has ended."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, ASK)


# Loaded here: a process that has forked must not.
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
