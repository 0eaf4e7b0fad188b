"""Launch settings of jobs/<site>/site.sh: the documented flags, ranks spread over nodes."""

import os
import sys
from pathlib import Path

import pytest

from bnnlib.errors import SiteError
from bnnlib.launch import sites

ROOT = Path(__file__).parents[2]
SIX = ["aurora", "crux", "local", "polaris", "slurm", "theta"]


@pytest.fixture(autouse=True)
def outside_a_job(monkeypatch):
    for name in ("NODES", "PPN", "THREADS", "RANKS", "SLURM_JOB_ID", "PBS_NODEFILE", "BNN_SITE"):
        monkeypatch.delenv(name, raising=False)


def test_all_six_sites_are_found():
    assert sites.names(ROOT) == SIX


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
    line += "--env BNN_RANKS=8 jobs/polaris/pin_gpu.sh"
    assert Path(site.launch[0]).name == "mpiexec"
    assert " ".join(site.launch[1:]) == line
    assert site.nodes == 2


def test_the_launcher_is_the_sites_own_and_not_the_environments(monkeypatch, tmp_path):
    own = tmp_path / "mpiexec"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert sites.load("crux", ROOT).launch[0] == str(own)
    assert sites.load("local", ROOT).launch[0] == "mpiexec"


@pytest.mark.parametrize("name", SIX)
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
