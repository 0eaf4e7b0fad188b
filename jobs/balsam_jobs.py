"""A sweep of node counts as Balsam jobs: ``python jobs/balsam_jobs.py MACHINE SITE PROJECT QUEUE``.

MACHINE is polaris or theta, SITE the name of your Balsam site there; the variable ``PARAMS`` may
name a parameter file. Balsam packs the runs into batch jobs, and starts again those that were
stopped before the walltime. For Balsam 0.7 (``pip install --pre balsam``, https://balsam.readthedocs.io);
not run at a site: tests/jobs/test_balsam.py says what was tried. Named balsam.py it would import
itself in place of the package.

The first Balsam's ``balsam.launcher.dag.add_job`` had the same under these names:

    now                                     then
    ApplicationDefinition.command_template  executable of `balsam app`, args of add_job
    workdir                                 name and workflow
    num_nodes, ranks_per_node               num_nodes, ranks_per_node
    threads_per_rank, threads_per_core      threads_per_rank, threads_per_core
    launch_params {"cpu_affinity": ...}     cpu_affinity="depth"
    wall_time_min                           wall_time_minutes
    parameters                              args, environ_vars
    parent_ids                              dag.add_dependency(parent, child)
    handle_error, handle_timeout            post_error_handler, post_timeout_handler
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from balsam.api import ApplicationDefinition, BatchJob, Job

ROOT = Path(__file__).resolve().parents[1]
PARAMS = Path(os.environ.get("PARAMS", "jobs/params/digits.yaml"))
MODELS = (
    "CNN_FC",
    "BNN_FC_nonflip",
    "BNN_FC_flip",
    "CNN_conv",
    "BNN_conv_nonflip",
    "BNN_conv_flip",
)


class Machine(NamedTuple):
    """How a machine's ranks lie, as in its ``site.sh``, and what its batch job has."""

    nodes: tuple[int, ...]  # of the runs
    ranks_per_node: int
    threads_per_rank: int
    threads_per_core: int
    gpus_per_rank: int
    # Words of the launcher. Balsam's for Polaris takes "cpu_bind" out and appends the values of all
    # others, without their names, before the program; its for Theta takes "cpu_affinity" out.
    launch_params: dict[str, str]
    wrapper: str  # what starts the program
    batch_nodes: int


MACHINES = {
    "polaris": Machine(
        (1, 2, 4, 8), 4, 8, 1, 1, {"cpu_bind": "depth"}, f"{ROOT}/jobs/polaris/pin_gpu.sh ", 10
    ),
    "theta": Machine(
        (1, 2, 4, 8, 16, 32, 64, 128), 1, 128, 2, 0, {"cpu_affinity": "depth"}, "", 128
    ),
}
MACHINE = MACHINES[sys.argv[1]]


class Train(ApplicationDefinition):
    """One run of notebooks/01_train."""

    site = sys.argv[2]
    machine = sys.argv[1]
    root = str(ROOT)
    runs = f"{ROOT}/runs/{machine}_balsam"
    command_template = (
        f"env BNN_RANKS={{{{ ranks }}}} BNN_RANKS_PER_NODE={MACHINE.ranks_per_node} "
        f"BNN_GPUS={MACHINE.gpus_per_rank} {MACHINE.wrapper}"
        f"papermill {ROOT}/notebooks/01_train.ipynb "
        f"rank0:{runs}/{{{{ name }}}}/train.ipynb --engine spmd "
        f"-f {ROOT / PARAMS} -p model {{{{ model }}}}"
    )

    def shell_preamble(self) -> list[str]:
        """The site's environment; its launcher comes first, which Balsam names without a folder."""
        return [
            f"cd {self.root}",
            f"source jobs/{self.machine}/site.sh",
            "site_env",
            "export PATH=${LAUNCH[0]%/*}:$PATH BNN_DEADLINE=${ENDS:-}",
        ]

    def handle_error(self) -> None:
        """A run that stopped in good order (exit code 75) goes on: its record says so.

        Balsam never sets ``return_code``. What is not built in is imported here, since Balsam runs
        this method elsewhere, without the rest of this file.
        """
        import json
        from pathlib import Path

        record = Path(self.runs, self.job.get_parameters()["name"], "run.json")
        stopped = record.exists() and json.loads(record.read_text())["status"] == "stopped"
        self.job.state = "RESTART_READY" if stopped else "FAILED"


def main() -> None:
    """Registers the application, creates a job a run, and one batch job for all."""
    project, queue = sys.argv[3:]
    Train.sync()
    jobs = [
        Train.submit(
            workdir=Path(f"{Train.machine}_balsam", f"{model}-n{nodes}"),
            num_nodes=nodes,
            ranks_per_node=MACHINE.ranks_per_node,
            threads_per_rank=MACHINE.threads_per_rank,
            threads_per_core=MACHINE.threads_per_core,
            gpus_per_rank=MACHINE.gpus_per_rank,
            launch_params=MACHINE.launch_params,
            wall_time_min=60,
            tags={"sweep": Train.machine, "model": model},
            save=False,
            model=model,
            name=f"{model}-n{nodes}",
            ranks=nodes * MACHINE.ranks_per_node,
        )
        for model in MODELS
        for nodes in MACHINE.nodes
    ]
    created = Job.objects.bulk_create(jobs)
    BatchJob.objects.create(
        site_id=Train.resolve_site_id(),
        num_nodes=MACHINE.batch_nodes,
        wall_time_min=180,
        job_mode="mpi",
        queue=queue,
        project=project,
    )
    print(
        f"{len(created)} jobs at {Train.site}; "
        f"balsam job ls --tag sweep={Train.machine} shows their states"
    )


if __name__ == "__main__":
    main()
