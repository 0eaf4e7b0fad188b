#!/usr/bin/env python3
"""Stand-ins for the commands of machines out of reach: what their documentation does not list ends.

Symbolic links to this file are `cobalt/qsub`, `cobalt/qstat`, `cobalt/aprun`, `pbs/qsub`,
`pbs/qstat`, `pbs/mpiexec` (HPE PALS), `pbs/launch_copper.sh`, `pbs/stop_copper.sh`, `nersc/sbatch`,
`nersc/squeue`, `nersc/scontrol`, `nersc/srun` and `module`. A queue is a folder, `STAND_IN`, with a
file a job; who runs the jobs is the test. The launchers check their words and then start real ranks
with the MPICH of `STAND_IN_MPIEXEC`.

Options, required ones and limits are those of docs.alcf.anl.gov: "Running jobs using PBS", the
pages "Running jobs" of Crux, Polaris and Aurora, and of Theta (until 2023) "Running jobs and
submission scripts", "Affinity on Theta" and "Job and queue scheduling"; Aurora's page "Copper".
NERSC's are those of docs.nersc.gov: "Queues and Charges" and "Running Jobs on Perlmutter".
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

ME = Path(sys.argv[0])
# canonical name, and whether a word follows
Options = dict[str, tuple[str, bool]]

PBS_QSUB: Options = {f"-{c}": (c, True) for c in "AlqNjkvWroeMm"}
COBALT_QSUB: Options = {
    **{f"-{c}": (c, True) for c in "Anqt"},
    "-O": ("O", True),
    "--attrs": ("attrs", True),
    "--env": ("env", True),
    "--mode": ("mode", True),
    "--dependencies": ("dependencies", True),
}
PALS: Options = {
    "-n": ("n", True),
    "-np": ("n", True),
    "--np": ("n", True),
    "-ppn": ("ppn", True),
    "--ppn": ("ppn", True),
    "-d": ("depth", True),
    "--depth": ("depth", True),
    "--cpu-bind": ("cpu-bind", True),
    "-env": ("env", True),
    "--env": ("env", True),
    "--hostfile": ("hostfile", True),
    "--hosts": ("hosts", True),
}
APRUN: Options = {
    **{f"-{c}": (c, True) for c in "nNdj"},
    "-cc": ("cc", True),
    "--cc": ("cc", True),
    "-e": ("env", True),
    "--env": ("env", True),
    "-b": ("b", False),
    "-L": ("L", True),
}
# system: filesystems; and by queue nodes at least and at most and hours at most, and how many jobs
# a user may have there, queued and running. ROUTES take any job, and lose it where none of the
# queues behind them takes it.
Rows = list[tuple[int, int, float]]
PBS_SYSTEMS: dict[str, tuple[set[str], dict[str, tuple[Rows, int]]]] = {
    "crux": (
        {"home", "eagle"},
        {
            "debug": ([(1, 8, 2)], 2),
            "workq-route": ([(1, 184, 24)], 100),
            "preemptable": ([(1, 10, 72)], 20),
        },
    ),
    "polaris": (
        {"home", "eagle"},
        {
            "debug": ([(1, 2, 1)], 1),
            "debug-scaling": ([(1, 10, 1)], 1),
            "prod": ([(10, 24, 3), (25, 99, 6), (100, 496, 24)], 100),
            "preemptable": ([(1, 10, 72)], 20),
            "capacity": ([(1, 4, 168)], 2),
        },
    ),
    "aurora": (
        {"home", "flare"},
        {
            "debug": ([(1, 2, 1)], 1),
            "debug-scaling": ([(2, 256, 1)], 1),
            "prod": ([(256, 512, 6), (513, 1024, 12), (1025, 1919, 18), (1920, 7300, 24)], 100),
            "capacity": ([(1, 16, 168)], 2),
        },
    ),
}
ROUTES = {"prod", "workq-route"}
COBALT_QUEUES: dict[str, Rows] = {
    "debug-cache-quad": [(1, 8, 1)],
    "debug-flat-quad": [(1, 8, 1)],
    "default": [(128, 4100, 24)],
}
# NERSC's QOS: nodes at least and at most, hours at most, and how many jobs a user may have. Of each
# kind of node: CPUs as Slurm counts them, and what squeue calls the partition.
NERSC_QOS: dict[str, tuple[float, int, float, int]] = {
    "regular": (1, 3072, 48, 5000),
    "preempt": (1, 128, 48, 5000),
    "shared": (0.5, 1, 48, 5000),
    "debug": (1, 8, 0.5, 5),
}
NERSC_NODES = {"cpu": (256, "regular_milan_ss11"), "gpu": (128, "gpu_ss11")}
COPPER: Options = {f"-{c}": (c, True) for c in "ltdTMENIsbFanv"} | {
    f"-{c}": (c, False) for c in "PA"
}
MODULES = {"copper", "cray-mpich", "cray-mpich-abi", "PrgEnv-gnu", "PrgEnv-intel"}


WITH_WORD = "account array constraint cpus-per-task dependency export gpus-per-node job-name"
WITH_WORD += " kill-on-invalid-dep nodes ntasks-per-node partition qos time"
SBATCH: Options = {
    **{f"--{name}": (name, True) for name in WITH_WORD.split()},
    **{f"--{name}": (name, False) for name in ("parsable", "requeue", "no-requeue")},
    **{"-A": ("account", True), "-C": ("constraint", True), "-N": ("nodes", True)},
    **{"-q": ("qos", True), "-t": ("time", True)},
}
WITH_WORD = "cpu-bind cpus-per-task export gpu-bind kill-on-bad-exit ntasks-per-node"
SRUN: Options = {"-n": ("n", True)} | {f"--{name}": (name, True) for name in WITH_WORD.split()}


def refuse(why: str) -> NoReturn:
    """Ends as the command would."""
    print(f"{ME.name}: {why}", file=sys.stderr)
    sys.exit(2)


def take(words: list[str], options: Options) -> tuple[list[tuple[str, str]], list[str]]:
    """The options before the first other word, and what follows; an unknown one is refused."""
    found = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word, sep, value = rest.pop(0).partition("=")
        if word not in options:
            refuse(f"{word}: the documentation lists no such option")
        name, takes_word = options[word]
        if takes_word and not sep:
            if not rest:
                refuse(f"{word}: a value is missing")
            value = rest.pop(0)
        found.append((name, value))
    return found, rest


def seconds(walltime: str) -> int:
    """Of HH:MM:SS, as both queues take it."""
    if not re.fullmatch(r"\d{1,3}:\d\d:\d\d", walltime):
        refuse(f"walltime {walltime!r} is no HH:MM:SS")
    hours, minutes, rest = map(int, walltime.split(":"))
    return hours * 3600 + minutes * 60 + rest


def directives(script: Path, prefix: str, options: Options) -> list[tuple[str, str]]:
    """A script's own options; a line with an unknown one is refused, as one after a command is."""
    found: list[tuple[str, str]] = []
    commands = False
    for line in script.read_text().splitlines()[1:]:
        if line.startswith(prefix):
            if commands:
                refuse(f"{line!r} follows a command and would be passed over")
            taken, rest = take(shlex.split(line[len(prefix) :], comments=True), options)
            if rest:
                refuse(f"{line!r}: {rest} is no option")
            found += taken
        elif line.strip() and not line.startswith("#"):
            commands = True
    return found


def fits(rows: Rows, nodes: int, t: str) -> bool:
    """Whether a queue takes so many nodes for so long, five minutes at least."""
    return any(
        least <= nodes <= most and 300 <= seconds(t) <= hours * 3600 for least, most, hours in rows
    )


def check_limits(queue: str, queues: dict[str, Rows], nodes: int, t: str) -> None:
    """Refuses what the queue does not take."""
    if queue not in queues:
        refuse(f"unknown queue {queue!r}, there are {', '.join(queues)}")
    if not fits(queues[queue], nodes, t):
        takes = ", ".join(f"{a} to {b} nodes up to {hours} h" for a, b, hours in queues[queue])
        refuse(f"Job violates queue limits: {queue} takes {takes}; got {nodes}, {t}")


def check_share(queue: str, jobs_a_user: int) -> None:
    """Refuses one job more than a user may have in the queue."""
    jobs = [json.loads(f.read_text()) for f in Path(os.environ["STAND_IN"]).glob("*.json")]
    if sum(job["queue"] == queue and job["state"] != "done" for job in jobs) >= jobs_a_user:
        refuse(f"would exceed queue {queue}'s limit of {jobs_a_user} jobs a user")


def put(job: dict[str, Any], lost: bool = False) -> str:
    """Adds a job to the queue; its id. One that is lost never runs, and qstat does not know it."""
    folder = Path(os.environ["STAND_IN"])
    number = 100 + len(list(folder.glob("*.json")))
    state = "done" if lost else "queued"
    job |= {"state": state, "code": None, "directory": os.getcwd()}
    job["id"] = f"{number}.pbs-01" if ME.parent.name == "pbs" else str(number)
    (folder / f"{number}.json").write_text(json.dumps(job))
    return str(job["id"])


def pairs(text: str, separator: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """name=value with a separator between; for a name alone the value of `environ`, if given."""
    found = {}
    for part in text.split(separator) if text else []:
        name, sep, value = part.partition("=")
        if not sep and environ is not None and name in environ:
            sep, value = "=", environ[name]
        if not re.fullmatch(r"\w+", name) or not sep:
            refuse(f"{part!r} in {text!r} is no name=value")
        found[name] = value
    return found


def known(ids: Iterable[str]) -> list[str]:
    """Ids of jobs that exist."""
    ids = list(ids)
    for one in ids:
        if not (Path(os.environ["STAND_IN"]) / f"{one.split('.')[0]}.json").exists():
            refuse(f"unknown job {one!r}")
    return ids


def pbs_qsub(words: list[str]) -> None:
    """As ALCF's: project, walltime and filesystems are mandatory, output stays `-k doe`."""
    given, rest = take(words, PBS_QSUB)
    if len(rest) != 1 or not Path(rest[0]).is_file():
        refuse(f"expected one script, got {rest}")
    settings: dict[str, str] = {}
    for name, value in directives(Path(rest[0]), "#PBS", PBS_QSUB) + given:  # the latter count
        if name != "l":
            settings[name] = value
            continue
        for part in value.split(","):
            key, _, what = part.partition("=")
            if key not in ("select", "place", "walltime", "filesystems"):
                refuse(f"-l {part}: unknown resource")
            settings[key] = what
    if "A" not in settings:
        refuse("Account_Name is required to be set.")
    for key in ("walltime", "filesystems", "select"):
        if key not in settings:
            refuse(f"Resource: {key} is required to be set.")
    chunk = re.fullmatch(r"(\d+):system=(\w+)", settings["select"])
    if chunk is None or chunk[2] not in PBS_SYSTEMS:
        refuse(f"select={settings['select']}: expected NODES:system=NAME")
    filesystems, queues = PBS_SYSTEMS[chunk[2]]
    wrong = set(settings["filesystems"].split(":")) - filesystems
    if wrong:
        refuse(f"{chunk[2]} has no filesystem {wrong}")
    if settings.get("place", "scatter") != "scatter" or settings.get("k", "doe") != "doe":
        refuse(f"place={settings.get('place')}, -k {settings.get('k')}: use scatter, doe")
    if settings.get("j", "oe") not in ("oe", "eo", "n"):
        refuse(f"-j {settings['j']}")
    queue, nodes, walltime = settings.get("q", "prod"), int(chunk[1]), settings["walltime"]
    limits = {name: rows for name, (rows, _) in queues.items()}
    if queue not in ROUTES:
        check_limits(queue, limits, nodes, walltime)
    elif queue not in queues:
        refuse(f"unknown queue {queue!r}, there are {', '.join(queues)}")
    check_share(queue, queues[queue][1])
    if settings.get("r", "y") not in ("y", "n"):
        refuse(f"-r {settings['r']}: expected y or n")
    depends = settings.get("W", "")
    if depends and not depends.startswith("depend=afterok:"):
        refuse(f"-W {depends}")
    print(
        put(
            {
                "script": rest[0],
                "nodes": nodes,
                "walltime": walltime,
                "project": settings["A"],
                "queue": queue,
                "variables": pairs(settings.get("v", ""), ",", os.environ),
                "after": known(depends.split(":")[1:]),
            },
            lost=not fits(limits[queue], nodes, walltime),
        )
    )


def cobalt_qsub(words: list[str]) -> None:
    """As Theta's: it speaks of routing first, the id is its last line."""
    given, rest = take(words, COBALT_QSUB)
    if len(rest) != 1 or not os.access(rest[0], os.X_OK):
        refuse(f"expected one executable script, got {rest}")
    settings = dict(directives(Path(rest[0]), "#COBALT", COBALT_QSUB) + given)
    for key in ("A", "n", "t"):
        if key not in settings:
            refuse(f"-{key} is missing")
    if settings.get("mode", "script") != "script":
        refuse(f"--mode {settings['mode']}")
    for attribute in settings.get("attrs", "").split(":"):
        key, _, value = attribute.partition("=")
        allowed = {"mcdram": {"cache", "flat"}, "numa": {"quad"}, "filesystems": {"home", "eagle"}}
        if key not in allowed or not set(value.split(",")) <= allowed[key]:
            refuse(f"--attrs {attribute}")
    queue = settings.get("q", "default")
    check_limits(queue, COBALT_QUEUES, int(settings["n"]), settings["t"])
    job = put(
        {
            "script": rest[0],
            "nodes": int(settings["n"]),
            "walltime": settings["t"],
            "project": settings["A"],
            "queue": queue,
            "variables": pairs(settings.get("env", ""), ":"),
            "after": known(filter(None, settings.get("dependencies", "").split(":"))),
        }
    )
    print(f'Job routed to queue "{queue}".\nMemory mode set to cache quad for queue {queue}\n{job}')


def qstat(words: list[str]) -> None:
    """Fails for a job that has ended, as both do; `-f` tells the walltime; without a job, a list.

    The queue does not answer while `STAND_IN` holds a file `down`.
    """
    if (Path(os.environ["STAND_IN"]) / "down").exists():
        print("Connection refused\nqstat: cannot connect to server pbs-01", file=sys.stderr)
        sys.exit(111)
    full, rest = take(words, {"-f": ("f", False)})
    if not rest:
        jobs = [json.loads(f.read_text()) for f in Path(os.environ["STAND_IN"]).glob("*.json")]
        print("JobID   User  State")
        rows = [f"{job['id']}  me    {job['state']}" for job in jobs if job["state"] != "done"]
        print(*rows, sep="\n")
        return
    (job_id,) = rest
    file = Path(os.environ["STAND_IN"]) / f"{job_id.split('.')[0]}.json"
    job = json.loads(file.read_text()) if file.exists() else {"state": "done"}
    if job["state"] == "done":
        print(f"qstat: {job_id} Job has finished", file=sys.stderr)
        sys.exit(35)
    print(f"Job Id: {job_id}\n    job_state = {job['state'][0].upper()}")
    if full:
        print(f"    Resource_List.place = scatter\n    Resource_List.walltime = {job['walltime']}")


def start(ranks: int, env: list[str], local: str, program: list[str]) -> NoReturn:
    """Real ranks, each with the site's variables for it."""
    if not program:
        refuse("no program")
    log = Path(os.environ["STAND_IN"]) / "launched"
    with log.open("a") as file:
        file.write(shlex.join([ME.name, *sys.argv[1:]]) + "\n")
    os.environ.update(pairs_of(env))
    mpiexec = os.environ["STAND_IN_MPIEXEC"]
    # Hydra would read PBS_NODEFILE itself and look for its nodes.
    here = ["-rmk", "user", "-launcher", "fork", "-hosts", "localhost", "-n", str(ranks)]
    os.execv(mpiexec, [mpiexec, *here, "bash", "-c", f'{local}; exec "$@"', "-", *program])


def pairs_of(env: list[str]) -> dict[str, str]:
    """Of several --env NAME=VALUE."""
    return {name: value for one in env for name, value in pairs(one, "\n").items()}


def mpiexec(words: list[str]) -> None:
    """HPE PALS."""
    given, program = take(words, PALS)
    one = dict(given)
    ranks, per_node = int(one["n"]), int(one["ppn"])
    of_job = set(Path(os.environ["PBS_NODEFILE"]).read_text().split())
    hosts = set(Path(one["hostfile"]).read_text().split()) if "hostfile" in one else of_job
    if not hosts <= of_job:
        refuse(f"{', '.join(sorted(hosts - of_job))}: no node of this job")
    nodes = len(hosts)
    if not (nodes - 1) * per_node < ranks <= nodes * per_node:
        refuse(f"{ranks} ranks, {per_node} a node, do not fill {nodes} nodes")
    bind = one.get("cpu-bind", "depth")
    if bind == "depth":
        if int(one.get("depth", "0")) < 1:
            refuse("--cpu-bind depth needs --depth")
    elif not re.fullmatch(r"list(:[\d,-]+)+", bind) or bind.count(":") != per_node:
        refuse(f"--cpu-bind {bind}: expected depth, or a list with an entry a rank of a node")
    else:
        spans = [span.split("-") for span in re.split("[:,]", bind)[1:]]
        used = [core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)]
        if len(set(used)) < len(used):
            refuse(f"--cpu-bind {bind}: ranks share a core")
    local = (
        "export PALS_RANKID=$PMI_RANK PALS_LOCAL_RANKID=$MPI_LOCALRANKID "
        f"PALS_LOCAL_SIZE={per_node} PMI_LOCAL_RANK=$MPI_LOCALRANKID PMI_LOCAL_SIZE={per_node}"
    )
    start(ranks, [value for name, value in given if name == "env"], local, program)


def claim(nodes: int, of_job: int) -> None:
    """Takes nodes that no other aprun of the job has: each has whole ones."""
    folder = Path(os.environ["STAND_IN"]) / "claims"
    folder.mkdir(exist_ok=True)
    taken = [int(one.read_text()) for one in folder.iterdir() if Path("/proc", one.name).exists()]
    if nodes + sum(taken) > of_job:
        refuse(f"claim exceeds reservation's node-count: {nodes} nodes, {sum(taken)} are taken")
    (folder / str(os.getpid())).write_text(str(nodes))  # this process becomes mpiexec


def aprun(words: list[str]) -> None:
    """ALPS on nodes with 64 cores of four hardware threads."""
    given, program = take(words, APRUN)
    one = dict(given)
    ranks, per_node = int(one["n"]), int(one.get("N", one["n"]))
    per_core, depth = int(one.get("j", 1)), int(one.get("d", 1))
    claim(-(-ranks // per_node), int(os.environ["COBALT_JOBSIZE"]))
    if per_core not in (1, 2, 3, 4) or depth * per_node > 64 * per_core:
        refuse(f"-N {per_node} -d {depth} -j {per_core}: more than a node's hardware threads")
    if "d" in one and one.get("cc") != "depth":
        refuse("with -d always use -cc depth")
    local = "export ALPS_APP_PE=$PMI_RANK"
    start(ranks, [value for name, value in given if name == "env"], local, program)


def sbatch(words: list[str]) -> None:
    """As NERSC's: a constraint is mandatory, a partition or an internal QOS is refused."""
    given, rest = take(words, SBATCH)
    if len(rest) != 1 or not Path(rest[0]).is_file():
        refuse(f"expected one script, got {rest}")
    settings = dict(directives(Path(rest[0]), "#SBATCH", SBATCH) + given)  # the latter count
    kind = settings.get("constraint", "").partition("&")[0]
    if kind not in NERSC_NODES:
        refuse("No architecture specified, cannot estimate job costs.")
    if "partition" in settings:
        refuse(
            f"partition {settings['partition']}: Job request does not match any supported policy."
        )
    if "account" not in settings:
        refuse("Invalid account or account/partition combination specified")
    qos = settings.get("qos", "debug")
    if qos not in NERSC_QOS:
        refuse(f"Invalid qos specification {qos!r}, there are {', '.join(NERSC_QOS)}")
    least, most, hours, jobs_a_user = NERSC_QOS[qos]
    nodes, cpus = int(settings.get("nodes", 1)), NERSC_NODES[kind][0]
    ranks = int(settings.get("ntasks-per-node", 1))
    if ranks * int(settings.get("cpus-per-task", 1)) > cpus * min(1, least * most):
        refuse(f"{ranks} ranks of {settings['cpus-per-task']} CPUs: more than a node's {cpus}")
    if (kind == "gpu") != (int(settings.get("gpus-per-node", "0").rpartition(":")[2]) > 0):
        refuse(f"--constraint={kind} with --gpus-per-node={settings.get('gpus-per-node')}")
    days, _, clock = settings["time"].rpartition("-")
    parts = [int(days or 0), *map(int, ["0", "0", *clock.split(":")][-3:])]
    minutes = ((parts[0] * 24 + parts[1]) * 60) + parts[2] + parts[3] / 60
    if nodes > most or minutes > hours * 60:
        refuse(f"{qos} takes up to {most} nodes and {hours} h; got {nodes}, {settings['time']}")
    check_share(qos, jobs_a_user)
    if "requeue" in settings and "no-requeue" in settings:
        del settings["requeue"]
    after = settings.get("dependency", "")
    if after and not after.startswith("afterok:"):
        refuse(f"--dependency={after}")
    what = {"script": rest[0], "nodes": nodes, "walltime": settings["time"], "queue": qos}
    what |= {"project": settings["account"], "constraint": settings["constraint"]}
    what |= {"ranks": ranks, "cpus": int(settings.get("cpus-per-task", 1))}
    what |= {"gpus": settings.get("gpus-per-node"), "array": settings.get("array")}
    what |= {"requeue": int("requeue" in settings), "after": known(after.split(":")[1:])}
    print(put(what | {"variables": dict(os.environ)}))


def slurm_job(job_id: str) -> dict[str, Any]:
    """What the queue knows of a job."""
    file = Path(os.environ["STAND_IN"]) / f"{job_id}.json"
    if not file.exists():
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        sys.exit(1)
    return dict(json.loads(file.read_text()))


def squeue(words: list[str]) -> None:
    """Of one job: QOS and partition by NERSC's internal names, the walltime in its short form."""
    given, _ = take(words, {"-h": ("h", False), "-j": ("j", True), "-o": ("o", True)})
    job = slurm_job(dict(given)["j"])
    if job["state"] == "done":
        return
    kind = job["constraint"].partition("&")[0]
    internal = {("cpu", "regular"): "regular_1"}.get((kind, job["queue"]), job["queue"])
    qos = f"gpu_{job['queue']}" if kind == "gpu" else internal
    told = {"%e": "N/A", "%l": re.sub("^0?0:|^0", "", job["walltime"]), "%a": job["project"]}
    told |= {"%q": qos, "%P": NERSC_NODES[kind][1], "%f": job["constraint"]}
    print(re.sub("%.", lambda found: told[found[0]], dict(given).get("o", "%a")))


def scontrol(words: list[str]) -> None:
    """Shows a job, or puts it back into the queue."""
    job = slurm_job(words[-1])
    if words[:2] == ["show", "job"]:
        print(f"JobId={job['id']} Requeue={job['requeue']} Restarts=0")
    elif words[0] != "requeue" or not job["requeue"]:
        refuse(f"{words}: Requested operation is presently disabled")


def srun(words: list[str]) -> None:
    """On nodes whose CPUs are hardware threads."""
    given, program = take(words, SRUN)
    one = dict(given)
    ranks, per_node = int(one["n"]), int(one["ntasks-per-node"])
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
    if not (nodes - 1) * per_node < ranks <= nodes * per_node:
        refuse(f"{ranks} ranks, {per_node} a node, do not fill {nodes} nodes")
    if per_node * int(one["cpus-per-task"]) > 256:
        refuse(f"{per_node} ranks of {one['cpus-per-task']} CPUs: more than a node's 256")
    if one.get("cpu-bind") != "cores" or one.get("gpu-bind", "none") != "none":
        refuse(f"--cpu-bind={one.get('cpu-bind')} --gpu-bind={one.get('gpu-bind')}")
    local = (
        "unset HYDI_CONTROL_FD; export SLURM_PROCID=$PMI_RANK SLURM_LOCALID=$MPI_LOCALRANKID "
        f"SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS={ranks} SLURM_NODEID=0 "
        f"SLURM_STEP_TASKS_PER_NODE='{per_node}(x{nodes})'"
    )
    start(ranks, [one["export"].removeprefix("ALL,").replace(",", "\n")], local, program)


def module(words: list[str]) -> None:
    """Loads, of modules that exist."""
    verb, *names = words
    if verb not in ("load", "swap", "unload") or not set(names) <= MODULES:
        refuse(f"{' '.join(words)}: no such module")


def launch_copper(words: list[str]) -> None:
    """Aurora's cache: a mount below which the whole file system lies, here a link to it."""
    given, rest = take(words, COPPER)
    if rest:
        refuse(f"{rest}: the documentation lists no such words")
    mount = Path(dict(given)["v"])
    mount.parent.mkdir(parents=True, exist_ok=True)
    mount.symlink_to("/")


def stop_copper(words: list[str]) -> None:
    """Takes the mount away, which must be there."""
    given, rest = take(words, {"-d": ("d", True), "-v": ("v", True)})
    if rest:
        refuse(f"{rest}: the documentation lists no such words")
    Path(dict(given)["v"]).unlink()


COMMANDS = {
    ("pbs", "launch_copper.sh"): launch_copper,
    ("pbs", "stop_copper.sh"): stop_copper,
    ("pbs", "qsub"): pbs_qsub,
    ("pbs", "qstat"): qstat,
    ("pbs", "mpiexec"): mpiexec,
    ("pbs", "module"): module,
    ("cobalt", "qsub"): cobalt_qsub,
    ("cobalt", "qstat"): qstat,
    ("cobalt", "aprun"): aprun,
    ("cobalt", "module"): module,
    ("nersc", "sbatch"): sbatch,
    ("nersc", "squeue"): squeue,
    ("nersc", "scontrol"): scontrol,
    ("nersc", "srun"): srun,
    ("nersc", "module"): module,
}

if __name__ == "__main__":
    COMMANDS[ME.parent.name, ME.name](sys.argv[1:])
