"""Each launcher's variables as the launchers set them, and the traps between them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib import launcher
from bnnlib.errors import DistributedError

HYDRA = {
    "HYDI_CONTROL_FD": "7",
    "MPI_LOCALNRANKS": "2",
    "MPI_LOCALRANKID": "1",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
}
SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}
HOROVODRUN = {
    "HOROVOD_RANK": "1",
    "HOROVOD_SIZE": "3",
    "HOROVOD_LOCAL_RANK": "0",
    "HOROVOD_LOCAL_SIZE": "1",
}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
PALS = {
    "PALS_RANKID": "9",
    "PALS_LOCAL_RANKID": "1",
    "PMI_RANK": "9",
    "PMI_SIZE": "16",
    "PMI_LOCAL_SIZE": "8",
}
APRUN = {"ALPS_APP_PE": "5", "BNN_RANKS": "8", "BNN_RANKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("environ", "name", "rank", "size", "local_rank", "local_size"),
    [
        ({}, "alone", 0, 1, 0, 1),
        (HYDRA, "mpich", 3, 4, 1, 2),
        (SLURM, "slurm", 5, 7, 1, 2),
        (SLURM | {"SLURM_PROCID": "6", "SLURM_NODEID": "3"}, "slurm", 6, 7, 1, 1),
        (HOROVODRUN, "horovodrun", 1, 3, 0, 1),
        (OPENMPI, "openmpi", 2, 8, 2, 4),
        (PALS, "pals", 9, 16, 1, 8),
        (APRUN, "aprun", 5, 8, 1, 2),  # rank 5 is the second on the third node of two ranks each
        # One launcher inside another's allocation: the inner one counts.
        (SLURM | HYDRA, "mpich", 3, 4, 1, 2),
        (SLURM | HOROVODRUN, "horovodrun", 1, 3, 0, 1),
        # srun --mpi=pmi2 sets both kinds, and they agree.
        (SLURM | {"PMI_RANK": "5", "PMI_SIZE": "7"}, "slurm", 5, 7, 1, 2),
    ],
)
def test_each_launcher(
    environ: dict[str, str], name: str, rank: int, size: int, local_rank: int, local_size: int
) -> None:
    assert launcher.name(environ) == name
    assert launcher.rank(environ) == rank
    assert launcher.size(environ) == size
    assert launcher.local_rank(environ) == local_rank
    assert launcher.local_size(environ) == local_size


@pytest.mark.parametrize("step", [None, "batch", str(0xFFFFFFFB), str(0xFFFFFFFA)])
def test_a_plain_python_in_a_slurm_batch_script_is_alone(step: str | None) -> None:
    environ = {k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}
    environ["SLURM_PROCID"] = "0"
    if step is not None:
        environ["SLURM_STEP_ID"] = step
    assert launcher.name(environ) == "alone"
    assert launcher.size(environ) == 1


def test_aprun_without_the_number_of_ranks_says_what_to_pass() -> None:
    with pytest.raises(DistributedError, match="BNN_RANKS"):
        launcher.size({"ALPS_APP_PE": "0"})
    with pytest.raises(DistributedError, match="BNN_RANKS_PER_NODE"):
        launcher.local_rank({"ALPS_APP_PE": "0", "BNN_RANKS": "8"})


def test_a_variable_that_is_no_integer_is_named() -> None:
    with pytest.raises(DistributedError, match="PMI_RANK is 'zero'"):
        launcher.rank({"PMI_RANK": "zero", "PMI_SIZE": "2"})


@pytest.mark.parametrize("variable", ["COBALT_JOBID", "PBS_JOBID", "SLURM_JOB_ID"])
def test_job_id(variable: str) -> None:
    assert launcher.job_id({variable: "42.server"}) == "42.server"
    assert launcher.job_id({}) is None


def test_a_real_mpiexec_agrees() -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    code = (
        "from bnnlib import launcher as l; import sys; "
        "assert 'tensorflow' not in sys.modules; "
        "sys.stdout.write(f'{l.name()} {l.rank()} {l.size()} {l.local_rank()} {l.local_size()}\\n')"
    )
    ran = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert sorted(ran.stdout.splitlines()) == ["mpich 0 2 0 2", "mpich 1 2 1 2"]


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, None),
        ({"PMI_RANK": "0"}, None),  # MPICH's mpiexec names no launch
        (
            {
                "HOROVOD_RANK": "1",
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": "4000",
            },
            "horovodrun/10.0.0.1/4000",
        ),
        ({"HOROVOD_RANK": "1", "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1"}, None),
        ({"ALPS_APP_PE": "1", "ALPS_APP_ID": "99"}, "aprun/99"),
        ({"PALS_RANKID": "1", "PALS_APID": "ab-c"}, "pals/ab-c"),
        (
            {"SLURM_PROCID": "1", "SLURM_JOB_ID": "8", "SLURM_STEP_ID": "2"},
            "slurm/8/2/",
        ),
        (
            {
                "SLURM_PROCID": "1",
                "SLURM_JOB_ID": "8",
                "SLURM_STEP_ID": "2",
                "SLURM_RESTART_COUNT": "1",
            },
            "slurm/8/2/1",
        ),
    ],
)
def test_the_launch_is_named_where_the_launcher_does(
    environ: dict[str, str], launch: str | None
) -> None:
    assert launcher.launch_id(environ) == launch
