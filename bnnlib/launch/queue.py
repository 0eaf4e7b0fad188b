"""A group of runs from one file: expanded, submitted to the site at hand, watched.

``python -m bnnlib.launch.queue [jobs/sweep.yaml]`` submits what is not finished and then the
analysis,
``--dry-run`` shows what that would be with its node-hours, ``--status`` how all runs stand. A run's
state is its record's; only what has no record yet is asked of the queue.

Jobs go through the site's own ``qsub`` or ``sbatch`` (one function in its ``site.sh``), not through
PSI/J: psij-python 0.9.11 writes a batch script of its own in place of the site's, and knows no
dependencies between jobs, so the analysis would have to be held back by a process of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bnnlib.errors import BnnlibError, ExperimentError, RecordError, SiteError
from bnnlib.experiment import Experiment, unknown_name
from bnnlib.launch import sites
from bnnlib.record.schema import read_record

KEYS = ("group", "walltime", "ranks", "nodes", "vary", "parameters")
# Varied parameters that stand in a run's name without their own.
_NAMED = ("model", "dataset", "seed")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        directory: the run's folder, ``runs/<group>/<name>``.
        parameters: those that differ from the defaults.
        ranks: ranks in all.
        nodes: nodes that they need at the site.
        ranks_per_node: ranks on each.
        hours: walltime.
    """

    directory: Path
    parameters: dict[str, Any]
    ranks: int
    nodes: int
    ranks_per_node: int
    hours: float

    @property
    def node_hours(self) -> float:
        """What the run costs at most, if it needs one job."""
        return self.nodes * self.hours


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a file like ``jobs/sweep.yaml`` says, for one site.

    Attributes:
        group: the folder below ``runs/``.
        walltime: of each job, HH:MM:SS.
        jobs: every combination, in the file's order.
    """

    group: str
    walltime: str
    jobs: tuple[Job, ...]

    @classmethod
    def read(cls, path: str | Path, site: str) -> Sweep:
        """Expands a file.

        Raises:
            ExperimentError: the file is no sweep, or names a parameter or value that no run has.
            SiteError: no such site.
        """
        try:
            told = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ExperimentError(f"{path}: no sweep can be read ({error})") from error
        if not isinstance(told, dict):
            raise ExperimentError(f"{path}: expected the keys {', '.join(KEYS)}")
        for key in told:
            if key not in KEYS:
                raise ExperimentError(f"{path}: {unknown_name(key, list(KEYS), 'key')}")
        group = str(told.get("group", "sweep"))
        if not re.fullmatch(r"[\w.-]+", group):
            raise ExperimentError(f"{path}: group = {group!r}: expected a folder's name")
        walltime, hours = _walltime(told.get("walltime", "01:00:00"))
        vary = _lists(path, "vary", told.get("vary", {}))
        shared = told.get("parameters", {}) or {}
        if not isinstance(shared, Mapping):
            raise ExperimentError(f"{path}: parameters = {shared!r}: expected name: value")
        twice = sorted(set(vary) & set(shared))
        if twice:
            raise ExperimentError(f"{path}: {', '.join(twice)}: both in vary and in parameters")
        places = _places(path, told, site)
        jobs = []
        for place in places:
            for combination in itertools.product(*vary.values()):
                varied = dict(zip(vary, combination, strict=True))
                experiment = Experiment.from_mapping({**shared, **varied})
                ranks = int(place.launch[2])
                name = _name(experiment, varied, ranks)
                values = _differences(experiment)
                directory = Path("runs") / group / name
                jobs.append(Job(directory, values, ranks, place.nodes, place.ranks_per_node, hours))
        if len({job.directory for job in jobs}) < len(jobs):
            raise ExperimentError(f"{path}: the same run twice: a value stands twice in a list")
        return cls(group, walltime, tuple(jobs))


def state(job: Job, site: str) -> tuple[str, str]:
    """How a run stands, and its job's id (empty without one).

    Returns:
        ``finished``, ``failed``, ``running`` or ``stopped`` as the record says; ``queued`` where
        a job waits or starts; ``lost`` where a record says running and no job does; ``absent``
        where there is neither.

    Raises:
        RecordError: the run's folder holds a run of other parameters or ranks.
    """
    file = job.directory / "job"
    job_id = file.read_text().strip() if file.exists() else ""
    if not (job.directory / "run.json").exists():
        waiting = job_id != "" and sites.is_waiting(site, job_id)
        return ("queued" if waiting else "absent"), job_id
    record = read_record(job.directory)
    _refuse_other(job, record)
    status = str(record["status"])
    if status in ("finished", "failed") or not job_id:
        return status, job_id
    if sites.is_waiting(site, job_id):
        return ("queued" if status == "stopped" else status), job_id
    return ("lost" if status == "running" else status), job_id


def table(sweep: Sweep, site: str) -> pd.DataFrame:
    """A row a run: ``run``, ``ranks``, ``nodes``, ``node_hours``, ``state``, ``job``."""
    rows = []
    for job in sweep.jobs:
        now, job_id = state(job, site)
        rows.append((job.directory.name, job.ranks, job.nodes, job.node_hours, now, job_id))
    return pd.DataFrame(rows, columns=["run", "ranks", "nodes", "node_hours", "state", "job"])


def submit(sweep: Sweep, site: str) -> None:
    """Submits every run that is neither finished nor in the queue, then the analysis after all.

    Raises:
        SiteError: the queue refuses a job, or on ``local`` runs have failed; their number is told
            after the others have run.
    """
    waits_for, failed = [], 0
    for job in sweep.jobs:
        now, job_id = state(job, site)
        if now in ("queued", "running") and job_id:
            waits_for.append(job_id)
        if now in ("queued", "running", "finished"):
            print(f"{job.directory}: {now}")
            continue
        job.directory.mkdir(parents=True, exist_ok=True)
        parameters = job.directory / "parameters.yaml"
        parameters.write_text(yaml.safe_dump(job.parameters, sort_keys=False))
        what = {
            "RUN": job.directory,
            "PARAMS": parameters,
            "RANKS": job.ranks,
            "NODES": job.nodes,
            "PPN": job.ranks_per_node,
            "WALLTIME": sweep.walltime,
        }
        try:
            job_id = sites.submit(site, "train.sh", what)
        except SiteError:
            if site != "local":  # a queue that refuses one job refuses the next
                raise
            failed += 1
            continue
        (job.directory / "job").write_text(f"{job_id}\n")
        waits_for.append(job_id)
        print(f"{job.directory}: submitted as {job_id}")
    if failed:
        raise SiteError(f"{failed} of {len(sweep.jobs)} runs failed, see above; no analysis")
    group = Path("runs") / sweep.group
    what = {"RUNS": group, "NODES": 1, "PPN": 1, "RANKS": 1, "AFTER": ":".join(waits_for)}
    job_id = sites.submit(site, "analysis.sh", what)
    (group / "job").write_text(f"{job_id}\n")
    print(f"{group}: the analysis follows as {job_id}")


def _places(path: str | Path, told: Mapping[str, Any], site: str) -> list[sites.Site]:
    """The site's settings for each number of ranks or nodes."""
    axes = [axis for axis in ("ranks", "nodes") if axis in told]
    if len(axes) != 1:
        raise ExperimentError(f"{path}: expected either ranks or nodes, a list of whole numbers")
    axis = axes[0]
    numbers = _lists(path, axis, {axis: told[axis]})[axis]
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ExperimentError(f"{path}: {axis} = {number!r}: expected 1 or more")
    if axis == "ranks":
        return [sites.load(site, ranks=number) for number in numbers]
    places = [sites.load(site, NODES=number) for number in numbers]
    if [place.nodes for place in places] != numbers:
        raise ExperimentError(f"{path}: nodes = {numbers}: {site} has only this one; give ranks")
    return places


def _lists(path: str | Path, what: str, told: Any) -> dict[str, list[Any]]:
    if not isinstance(told, Mapping):
        raise ExperimentError(f"{path}: {what} = {told!r}: expected name: [first, second]")
    for name, values in told.items():
        if not isinstance(values, list) or not values:
            raise ExperimentError(f"{path}: {name} = {values!r}: expected a list of values")
    return dict(told)


def _walltime(value: Any) -> tuple[str, float]:
    """HH:MM:SS and hours; YAML reads an unquoted 01:00:00 as 3600."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value // 3600:02}:{value // 60 % 60:02}:{value % 60:02}"
    found = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", str(value))
    if found is None or not any(map(int, found.groups())):
        raise ExperimentError(f'walltime = {value!r}: expected "HH:MM:SS", such as "01:00:00"')
    hours, minutes, seconds = map(int, found.groups())
    return str(value), hours + minutes / 60 + seconds / 3600


def _name(experiment: Experiment, varied: Mapping[str, Any], ranks: int) -> str:
    """``<model>-<dataset>-r<ranks>-s<seed>[-<other varied parameter>]``, safe in any queue."""
    dataset = Path(experiment.dataset).stem
    parts = [experiment.model, dataset, f"r{ranks}", f"s{experiment.seed}"]
    parts += [f"{name}_{value}" for name, value in varied.items() if name not in _NAMED]
    return re.sub(r"[^\w.+-]+", "_", "-".join(parts), flags=re.ASCII)


def _differences(experiment: Experiment) -> dict[str, Any]:
    default = Experiment().to_dict()
    return {name: v for name, v in experiment.to_dict().items() if v != default[name]}


def _refuse_other(job: Job, record: Mapping[str, Any]) -> None:
    before = Experiment().to_dict() | record["parameters"] | {"ranks": record["ranks"]}
    wanted = Experiment().to_dict() | job.parameters | {"ranks": job.ranks}
    different = [
        f"{name} ({before.get(name)!r} there, {value!r} in the sweep)"
        for name, value in wanted.items()
        if name != "run_dir" and before.get(name) != value
    ]
    if different:
        raise RecordError(
            f"{job.directory}: holds a run with other parameters: {', '.join(different)}. Give "
            "the sweep another group, or move the old run away"
        )


def main(argv: list[str] | None = None) -> int:
    """Runs every combination of a sweep's lists that is not finished, at the site at hand."""
    parser = argparse.ArgumentParser(prog="python -m bnnlib.launch.queue", description=main.__doc__)
    parser.add_argument("file", nargs="?", default="jobs/sweep.yaml", help="default: %(default)s")
    parser.add_argument("--site", help="a folder of jobs/; default: BNN_SITE, else this machine's")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="show what would be submitted")
    only.add_argument("--status", action="store_true", help="show how all runs stand")
    arguments = parser.parse_args(argv)
    try:
        site = arguments.site or sites.here()
        sweep = Sweep.read(arguments.file, site)
        if not arguments.dry_run and not arguments.status:
            submit(sweep, site)
            return 0
        runs = table(sweep, site)
    except BnnlibError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(runs.to_string(index=False, float_format="{:.2f}".format))
    if arguments.status:
        counts = ", ".join(f"{n} {name}" for name, n in runs["state"].value_counts().items())
        print(f"{len(runs)} runs at {site}: {counts}")
    else:
        to_run = runs[~runs["state"].isin(["finished", "queued", "running"])]
        print(
            f"{len(to_run)} of {len(runs)} runs to submit at {site}, at most "
            f"{to_run['node_hours'].sum():.2f} node-hours in jobs of {sweep.walltime}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
