"""The runs of a study file as jobs of a site's queue: submitted, and watched.

A run's state is its record's; the queue is asked only about a run whose record does not say that it
has ended. A queue that cannot be asked leaves a run's state unknown, and then nothing is submitted:
a job that nobody can see may still be there.

Jobs go through the site's own ``qsub`` or ``sbatch`` (one function in its ``site.sh``), not through
PSI/J: psij-python 0.9.11 writes a batch script of its own in place of the site's, and knows no
dependencies between jobs, so the analysis would have to be held back by a process of ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bnnlib.errors import ExperimentError, SiteError
from bnnlib.experiment import Experiment
from bnnlib.launch import sites, study_file
from bnnlib.record import files
from bnnlib.record.identity import refuse_other
from bnnlib.record.schema import read_record

# States of runs that are not to be submitted.
UNDER_WAY = ("finished", "queued", "running")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study file at a site.

    Attributes:
        directory: the run's folder, ``runs/<group>/<name>``.
        experiment: its parameters.
        ranks: ranks in all.
        nodes: nodes that they need at the site.
        ranks_per_node: ranks on each.
        script: of the site, that does the run.
        gpus: of a node, each for one rank; empty: what the site says.
        walltime: HH:MM:SS.
    """

    directory: Path
    experiment: Experiment
    ranks: int
    nodes: int
    ranks_per_node: int
    script: str
    gpus: str
    walltime: str

    @property
    def node_hours(self) -> float:
        """What the run costs at most, if it needs one job."""
        return self.nodes * study_file.hours(self.walltime)


def read(path: str | Path, site: str, runs: str | Path = "runs", gpus: str = "") -> list[Job]:
    """The jobs of a study file at a site, in the file's order.

    Args:
        path: of the file.
        site: its name.
        runs: folder of the groups.
        gpus: of a node, each for one rank, as ``4`` or ``a100:4``; empty: what the site says.

    Raises:
        ExperimentError: the file says what no run can do.
        SiteError: no such site, or it has no GPUs to give.
    """
    node = load_nodes(site, 1, gpus)
    given: dict[str, Any] = {"GPUS": gpus} if gpus else {}
    jobs, places = [], {}
    for run in study_file.read(path, runs, ranks_per_node=node.ranks_per_node):
        if (run.ranks, run.nodes) not in places:
            at = {"NODES": run.nodes} if run.nodes else {"ranks": run.ranks}
            places[run.ranks, run.nodes] = sites.load(site, **at, **given)  # type: ignore[arg-type]
        place = places[run.ranks, run.nodes]
        if run.nodes and place.nodes != run.nodes:
            raise ExperimentError(f"{path}: nodes = {run.nodes}: {site} has only one; give ranks")
        jobs.append(
            Job(
                directory=run.directory,
                experiment=run.experiment,
                ranks=run.ranks,
                nodes=place.nodes,
                ranks_per_node=place.ranks_per_node,
                script=sites.train_script(place),
                gpus=gpus,
                walltime=run.walltime,
            )
        )
    return jobs


def load_nodes(site: str, nodes: int, gpus: str = "") -> sites.Site:
    """The launch settings of a site's full nodes.

    Args:
        site: its name.
        nodes: number of nodes; in a job it has its own.
        gpus: as for :func:`read`.

    Raises:
        ExperimentError: `gpus` is no number of GPUs.
        SiteError: no such site, or it has no GPUs to give.
    """
    if gpus and not re.fullmatch(r"(\w+:)?\d+", gpus):
        raise ExperimentError(f"gpus = {gpus!r}: expected the GPUs of a node, as 4 or a100:4")
    given: dict[str, Any] = {"GPUS": gpus} if gpus else {}
    place = sites.load(site, NODES=nodes, **given)
    if gpus.rpartition(":")[2] not in ("", "0") and place.gpus == 0:
        raise SiteError(f"gpus = {gpus}: the ranks of {site} run on CPUs (jobs/{site}/site.sh)")
    return place


def state(job: Job, site: str, asked: dict[str, bool | None] | None = None) -> tuple[str, str]:
    """The state of a run, and its job's id (empty without one).

    Args:
        job: the run.
        site: a folder of ``jobs/``.
        asked: what the queue has said of jobs so far, since a packed job has many runs.

    Returns:
        ``finished``, ``failed``, ``running`` or ``stopped`` as the record says; ``queued`` where
        a job waits or starts; ``lost`` where a record says running and no job does; ``ended``
        where its job has ended and left no record (its start was refused, which its output tells,
        or it was cancelled); ``absent`` where there is neither; ``unknown`` where the queue does
        not say whether there is a job.

    Raises:
        RecordError: the run's folder holds a run of other parameters or ranks.
    """
    asked = {} if asked is None else asked
    now, of = status(job), job_id(job.directory)
    if now in ("finished", "failed") or not of:
        return now, of
    if of not in asked:
        asked[of] = sites.is_waiting(site, of)
    if asked[of] is None:
        return "unknown", of
    if asked[of]:
        return ("running" if now == "running" else "queued"), of
    return {"running": "lost", "absent": "ended"}.get(now, now), of


def states(jobs: Sequence[Job], site: str) -> list[tuple[str, str]]:
    """The :func:`state` of each run."""
    asked: dict[str, bool | None] = {}
    return [state(job, site, asked) for job in jobs]


def status(job: Job) -> str:
    """A run's status by its record; ``absent`` without one.

    Raises:
        RecordError: the run's folder holds a run of other parameters or ranks.
    """
    if not (job.directory / "run.json").exists():
        return "absent"
    record = read_record(job.directory)
    refuse_other(job.directory, record, job.experiment, job.ranks)
    return str(record["status"])


def table(jobs: Sequence[Job], site: str) -> pd.DataFrame:
    """A row a run: ``run``, ``ranks``, ``nodes``, ``node_hours``, ``state``, ``job``."""
    rows = []
    for job, (now, of) in zip(jobs, states(jobs, site), strict=True):
        rows.append((job.directory.name, job.ranks, job.nodes, job.node_hours, now, of))
    return pd.DataFrame(rows, columns=["run", "ranks", "nodes", "node_hours", "state", "job"])


def summary(runs: pd.DataFrame, site: str) -> str:
    """Counts the runs of :func:`table` by state."""
    counts = ", ".join(f"{n} {name}" for name, n in runs["state"].value_counts().items())
    return f"{len(runs)} runs at {site}: {counts}"


def cost(runs: pd.DataFrame, site: str) -> str:
    """What :func:`submit` would submit of :func:`table`, and what that may cost."""
    to_run = runs[~runs["state"].isin(UNDER_WAY)]
    return (
        f"{len(to_run)} of {len(runs)} runs to submit at {site}, at most "
        f"{to_run['node_hours'].sum():.2f} node-hours"
    )


def submit(
    jobs: Sequence[Job], site: str, packed: Callable[[list[int]], str] | None = None
) -> None:
    """Submits every run that is neither finished nor in the queue, then each group's analysis.

    Args:
        jobs: of the study.
        site: a folder of ``jobs/``.
        packed: submits one job for the runs of these numbers and returns its id; None: a job a run.

    Raises:
        SiteError: the queue cannot be asked how a job stands, and nothing has been submitted; or it
            refuses a job; or on ``local`` runs have failed, whose number is told after the others
            have run.
    """
    known = states(jobs, site)
    unknown = dict.fromkeys(job_id for now, job_id in known if now == "unknown")
    if unknown:
        raise SiteError(
            f"{site}: the queue cannot be asked about {', '.join(unknown)}, so nothing was "
            "submitted: these jobs may still be there. Try again when it answers"
        )
    waits_for: dict[Path, list[str]] = {job.directory.parent: [] for job in jobs}
    failed = 0
    to_pack: list[int] = []
    for number, (job, (now, job_id)) in enumerate(zip(jobs, known, strict=True)):
        group = job.directory.parent
        if now in ("queued", "running") and job_id and job_id not in waits_for[group]:
            waits_for[group].append(job_id)
        if now in UNDER_WAY:
            print(f"{job.directory}: {now}")
            continue
        if packed is not None:
            to_pack.append(number)
            continue
        try:
            job_id = _submit_run(job, site)
        except SiteError:
            if site != "local":  # a queue that refuses one job refuses the next
                raise
            failed += 1
            continue
        waits_for[group].append(job_id)
        print(f"{job.directory}: submitted as {job_id}")
    if packed is not None and to_pack:
        job_id = packed(to_pack)
        for group in dict.fromkeys(jobs[number].directory.parent for number in to_pack):
            waits_for[group].append(job_id)
        print(f"{len(to_pack)} runs: submitted as {job_id}")
    if failed:
        raise SiteError(f"{failed} of {len(jobs)} runs failed, see above; no analysis")
    for group, ids in waits_for.items():
        _submit_analysis(group, ids, site)


def write_parameters(job: Job) -> Path:
    """Writes a run's parameter file into its folder."""
    parameters = job.directory / "parameters.yaml"
    parameters.parent.mkdir(parents=True, exist_ok=True)
    values = study_file.differences(job.experiment)
    parameters.write_text(yaml.safe_dump(values, sort_keys=False))
    return parameters


def _submit_run(job: Job, site: str) -> str:
    found = files.Found.of(job.directory / "parameters.yaml")
    parameters = write_parameters(job)
    what: dict[str, object] = {
        "RUN": job.directory,
        "PARAMS": parameters,
        "RANKS": job.ranks,
        "NODES": job.nodes,
        "PPN": job.ranks_per_node,
        "WALLTIME": job.walltime,
    }
    if job.gpus:
        what["GPUS"] = job.gpus
    try:
        job_id = sites.submit(site, job.script, what)
    except SiteError:  # nothing was submitted, or on `local` the run was refused or has failed
        if not (job.directory / "run.json").exists():
            found.put_back()
            found.remove_folders()
        raise
    (job.directory / "job").unlink(missing_ok=True)  # it may be a link to a packed job's
    (job.directory / "job").write_text(f"{job_id}\n")
    return job_id


def _submit_analysis(group: Path, waits_for: Sequence[str], site: str) -> None:
    before = job_id(group)
    # One that waits already finds the new jobs itself, and queues itself again behind them.
    if before and sites.is_waiting(site, before) is not False:
        print(f"{group}: the analysis waits as {before}")
        return
    what = {"RUNS": group, "NODES": 1, "PPN": 1, "RANKS": 1, "GPUS": 0} | {
        "AFTER": ":".join(waits_for)
    }
    submitted = sites.submit(site, "analysis.sh", what)
    (group / "job").write_text(f"{submitted}\n")
    print(f"{group}: the analysis follows as {submitted}")


def job_id(folder: Path) -> str:
    """The id of the job that was submitted for a folder; empty without one."""
    file = folder / "job"
    return file.read_text().strip() if file.exists() else ""
