"""Launch settings of jobs/<site>/site.sh: the documented flags, ranks spread over nodes."""

import os
import sys
from pathlib import Path

import pytest

from bnnlib.errors import SiteError
from bnnlib.launch import sites

ROOT = Path(__file__).parents[2]
SEVEN = ["aurora", "crux", "local", "perlmutter", "polaris", "slurm", "theta"]


@pytest.fixture(autouse=True)
def outside_a_job(monkeypatch):
    variables = ("NODES", "PPN", "THREADS", "RANKS", "GPUS", "SLURM_JOB_ID", "SLURM_GPUS_PER_NODE")
    for name in (*variables, "PBS_NODEFILE", "BNN_SITE"):
        monkeypatch.delenv(name, raising=False)


def test_all_seven_sites_are_found():
    assert sites.names(ROOT) == SEVEN


def test_thetas_line_is_the_original_studys():
    site = sites.load("theta", ROOT, ranks=8, PPN=2)
    line = (
        "-n 8 -N 2 -cc depth -d 64 -j 2 -e OMP_NUM_THREADS=64 -e BNN_RANKS=8 "
        "-e BNN_RANKS_PER_NODE=2 -b"
    )
    assert Path(site.launch[0]).name == "aprun"
    assert " ".join(site.launch[1:]) == line
    assert (site.nodes, site.ranks_per_node, site.threads) == (4, 2, 64)


def test_polaris_gives_each_gpu_one_rank():
    site = sites.load("polaris", ROOT, ranks=8)
    line = "-n 8 --ppn 4 --depth 8 --cpu-bind depth --env OMP_NUM_THREADS=8 "
    line += "--env BNN_RANKS=8 --env BNN_GPUS=1 jobs/polaris/pin_gpu.sh"
    assert Path(site.launch[0]).name == "mpiexec"
    assert " ".join(site.launch[1:]) == line
    assert (site.nodes, site.gpus) == (2, 4)


def test_no_gpus_means_ranks_on_cpus_that_are_promised_none():
    site = sites.load("polaris", ROOT, GPUS=0)
    assert site.gpus == 0
    assert site.launch[-1] == "BNN_GPUS=0"  # and no pin_gpu.sh


@pytest.mark.parametrize("gpus", ["4", "a100:4"])
def test_slurm_gives_each_gpu_one_rank_which_sees_all_of_them(gpus, monkeypatch):
    by_hand = sites.load("slurm", ROOT, ranks=8, GPUS=gpus)
    assert (by_hand.nodes, by_hand.ranks_per_node, by_hand.gpus) == (2, 4, 4)
    assert by_hand.launch[-2:] == ("--export=ALL,BNN_RANKS=8,BNN_GPUS=1", "--gpu-bind=none")
    monkeypatch.setenv("SLURM_GPUS_PER_NODE", gpus)  # in a job, as its directives asked
    assert sites.load("slurm", ROOT, ranks=8).launch == by_hand.launch
    assert sites.train_script(by_hand, ROOT) == "train_gpu.sh"


def test_without_gpus_slurm_is_asked_for_none():
    site = sites.load("slurm", ROOT)
    assert site.launch[-1] == "--export=ALL,BNN_RANKS=2,BNN_GPUS=0"
    assert sites.train_script(site, ROOT) == "train.sh"


def cores(launch: tuple[str, ...]) -> list[list[int]]:
    """Each rank's cores, of `--cpu-bind list:1-7:8-14`."""
    spans = launch[launch.index("--cpu-bind") + 1].removeprefix("list:").split(":")
    ends = [list(map(int, span.split("-"))) for span in spans]
    return [list(range(end[0], end[-1] + 1)) for end in ends]


@pytest.mark.parametrize("per_node", [1, 2, 3, 12, 94])
def test_aurora_leaves_the_systems_cores_and_coppers_free(per_node):
    site = sites.load("aurora", ROOT, PPN=per_node)
    of_ranks = cores(site.launch)
    assert [len(of_rank) for of_rank in of_ranks] == [site.threads] * per_node
    used = [core for of_rank in of_ranks for core in of_rank]
    assert len(set(used)) == len(used)
    assert not set(used) & {0, 48, 49, 50, 51, 52}
    assert 0 < min(used) <= max(used) < 104
    for of_rank in of_ranks:  # none lies on both sockets
        assert of_rank[0] // 52 == of_rank[-1] // 52


def test_auroras_default_of_twelve_ranks_is_six_a_socket():
    twelve = "list:1-7:8-14:15-21:22-28:29-35:36-42:53-59:60-66:67-73:74-80:81-87:88-94"
    site = sites.load("aurora", ROOT)
    assert (site.ranks_per_node, site.threads, site.gpus) == (12, 7, 0)
    assert twelve in site.launch


def test_more_threads_than_a_socket_has_cores_are_refused():
    with pytest.raises(SiteError, match="THREADS=8: 6 ranks a socket share its 47 cores"):
        sites.load("aurora", ROOT, THREADS=8)


def test_the_launcher_is_the_sites_own_and_not_the_environments(monkeypatch, tmp_path):
    own = tmp_path / "mpiexec"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert sites.load("crux", ROOT).launch[0] == str(own)
    assert sites.load("local", ROOT).launch[0] == "mpiexec"


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("ranks", [1, 5])
def test_a_launch_line_begins_with_launcher_and_ranks(name, ranks):
    site = sites.load(name, ROOT, ranks=ranks)
    assert site.launch[1:3] == ("-n", str(ranks))
    assert site.nodes * site.ranks_per_node >= ranks
    assert (site.nodes - 1) * site.ranks_per_node < ranks


def test_in_a_job_the_nodes_are_the_allocations(monkeypatch):
    monkeypatch.setenv("COBALT_PARTSIZE", "128")
    assert sites.load("theta", ROOT).nodes == 128
    monkeypatch.setenv("COBALT_JOBSIZE", "16")
    assert sites.load("theta", ROOT).nodes == 16


def test_an_unknown_site_is_told_with_the_nearest():
    with pytest.raises(SiteError, match="did you mean crux"):
        sites.load("crus", ROOT)


def test_a_queue_that_refuses_is_told_with_its_reason(monkeypatch, tmp_path):
    qsub = tmp_path / "qsub"
    qsub.write_text('#!/bin/sh\necho "qsub: Account_Name is required to be set." >&2\nexit 1\n')
    qsub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PROJECT", "no_such_project")
    with pytest.raises(SiteError, match="Account_Name is required"):
        sites.submit("crux", "train.sh", {"RUN": "runs/x"}, ROOT)


def test_this_machine_is_named_by_a_variable_first(monkeypatch):
    monkeypatch.setenv("BNN_SITE", "crux")
    assert sites.here() == "crux"


def test_nerscs_machine_is_known_by_its_variable(monkeypatch):
    monkeypatch.setenv("NERSC_HOST", "perlmutter")
    assert sites.here() == "perlmutter"
