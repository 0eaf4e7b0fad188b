"""The node sweep as Balsam jobs: ``python jobs/theta/balsam_jobs.py SITE PROJECT QUEUE``.

Balsam packs them into batch jobs and starts again what the walltime stopped. Written against
balsam-flow 0.7 (``balsam.api``, https://balsam.readthedocs.io) and not run: Theta is gone. Named
balsam.py it would import itself in place of the package.

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
    handle_timeout -> RESTART_READY         post_timeout_handler=True and a postprocess script
"""

import sys
from pathlib import Path

from balsam.api import ApplicationDefinition, BatchJob, Job

ROOT = Path(__file__).resolve().parents[2]
MODELS = (
    "CNN_FC",
    "BNN_FC_nonflip",
    "BNN_FC_flip",
    "CNN_conv",
    "BNN_conv_nonflip",
    "BNN_conv_flip",
)
NODES = (1, 2, 4, 8, 16, 32, 64, 128)
STOPPED = 75  # the run was stopped in good order and wants to be started again


class Train(ApplicationDefinition):
    """One run of notebooks/01_train; aprun does not tell its processes how many they are."""

    site = sys.argv[1]
    command_template = (
        f"env BNN_RANKS={{{{ ranks }}}} BNN_RANKS_PER_NODE=1 OMP_NUM_THREADS=128 "
        f"{ROOT}/.venv/bin/papermill {ROOT}/notebooks/01_train.ipynb "
        f"rank0:{ROOT}/runs/theta_sweep/{{{{ name }}}}/train.ipynb --engine spmd "
        f"-f {ROOT}/jobs/params/mnist.yaml -p model {{{{ model }}}}"
    )

    def shell_preamble(self) -> list[str]:
        """The modules of jobs/theta/site.sh."""
        return ["module load cray-mpich-abi"]

    def handle_timeout(self) -> None:
        """The batch job ended first: the next one continues from the checkpoint."""
        self.job.state = "RESTART_READY"

    def handle_error(self) -> None:
        """A stop in good order is no failure."""
        stopped = self.job.return_code == STOPPED
        self.job.state = "RESTART_READY" if stopped else "FAILED"


def main() -> None:
    """Registers the application, creates a job a run, and one batch job for all."""
    site, project, queue = sys.argv[1:]
    Train.sync()
    jobs = [
        Train.submit(
            workdir=Path("theta_sweep") / f"{model}-n{nodes}",
            num_nodes=nodes,
            ranks_per_node=1,
            threads_per_rank=128,
            threads_per_core=2,
            launch_params={"cpu_affinity": "depth"},
            wall_time_min=60,
            tags={"sweep": "theta", "model": model},
            save=False,
            model=model,
            name=f"{model}-n{nodes}",
            ranks=nodes,
        )
        for model in MODELS
        for nodes in NODES
    ]
    created = Job.objects.bulk_create(jobs)
    BatchJob.objects.create(
        site_id=Train.resolve_site_id(),
        num_nodes=128,
        wall_time_min=180,
        job_mode="mpi",
        queue=queue,
        project=project,
    )
    print(f"{len(created)} jobs at {site}; balsam job ls --tag sweep=theta shows their states")


if __name__ == "__main__":
    main()
