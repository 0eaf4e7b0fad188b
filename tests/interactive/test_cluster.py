"""Real engines under the laptop's mpiexec: what they do, how they end, and what is said of it."""

import contextlib
import os
import signal
import stat
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from bnnlib.errors import DistributedError, SiteError
from bnnlib.interactive import cluster, preparation, reaper
from bnnlib.launch import sites

pytestmark = pytest.mark.ranks

# Seconds within which a failure must have been told.
PROMISED = 60

TRAINING = """
from bnnlib import data
from bnnlib.inference import distributed
from bnnlib import networks
from bnnlib.inference.trainer import Trainer
from bnnlib.session import Session
from bnnlib.experiment import Experiment

experiment = Experiment(model="CNN_FC", dataset="tiny", batch_size=32, steps=10**9, log_every=10)
ranks = distributed.init(Session(), 1)
dataset = data.load("tiny")
network = networks.build("CNN_FC", dataset.image_shape, dataset.num_classes)
trainer = Trainer(experiment, dataset, network, ranks)
"""


def processes(team) -> list[psutil.Process]:
    """Launcher, controller, engines and guard of a cluster, with all that they have started."""
    top = [psutil.Process(pid) for pid in [*team._launched(), team._guard.pid]]
    return [*top, *(child for one in top for child in one.children(recursive=True))]


def assert_gone(all_of_them: list[psutil.Process], within: float = 0) -> None:
    _, left = psutil.wait_procs(all_of_them, timeout=within)
    assert not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def shared():
    """A cluster for those tests that do not end it."""
    with cluster.start("local", engines=2) as team:
        yield team


def test_the_launch_settings_are_the_job_scripts():
    script = (preparation.ROOT / "jobs" / "local" / "site.sh").read_text()
    settings = preparation.site("local", 3)
    assert settings.launch == ("mpiexec", "-n", "3")
    assert settings.ranks == 3
    assert 'LAUNCH=(mpiexec -n "$RANKS" "${INSIDE[@]}")' in script


@pytest.mark.parametrize(
    "name", [name for name in sites.names(preparation.ROOT) if name != "local"]
)
def test_each_site_has_launch_words_that_a_job_can_use(name, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "1.test")
    monkeypatch.setenv("PPN", "2")
    settings = preparation.site(name, 4)
    assert settings.ranks == 4
    assert Path(settings.launch[0]).name in ("aprun", "mpiexec", "srun")
    assert settings.launch[1:3] == ("-n", "4")


@pytest.mark.parametrize(
    ("own", "given", "site", "seconds"),
    [
        ("", ("", 0), "local", cluster.START_TIMEOUT),
        ("polaris", ("", 0), "polaris", cluster.START_TIMEOUT_IN_JOB),
        ("polaris", ("local", 0), "local", cluster.START_TIMEOUT),
        ("polaris", ("", 1800), "polaris", 1800),
    ],
)
def test_the_site_is_the_jupyterlabs_own_and_a_job_has_time_to_start(
    own, given, site, seconds, monkeypatch
):
    """Of many ranks that import from one file system; a hub's kernel has BNN_SITE."""
    monkeypatch.setenv("BNN_SITE", own)
    monkeypatch.setenv("PBS_JOBID", "1.test")
    monkeypatch.setattr(preparation, "check", lambda settings: None)
    monkeypatch.setattr(cluster, "Cluster", lambda settings, timeout, _: (settings.name, timeout))
    name, timeout = given
    assert cluster.start(name, 1, timeout) == (site, seconds)


def test_ranks_are_mpi_ranks_and_results_are_in_their_order(shared):
    assert len(shared) == len(shared.pids) == 2
    assert len(set(shared.pids)) == 2
    shared.put(number=20)
    shared.run(
        "from bnnlib.inference import distributed\n"
        "from bnnlib.session import Session\n"
        "ranks = distributed.init(Session(), 1)\n"
        "number += ranks.rank"
    )
    assert [shared.get("(ranks.rank, ranks.size, number)", rank) for rank in (0, 1)] == [
        (0, 2, 20),
        (1, 2, 21),
    ]
    assert [shared.get("__import__('os').getpid()", rank) for rank in (0, 1)] == shared.pids


def test_only_rank_0_is_shown(shared, capsys):
    shared.run("from bnnlib import launcher\nprint('I am rank', launcher.rank())")
    assert capsys.readouterr().out == "I am rank 0\n"


def test_engines_are_the_launchers_own_processes(shared):
    """No nanny beside an engine: on a Cray, no process may be started by a rank."""
    launched = psutil.Process(shared._cluster.engine_set.pid)
    assert set(shared.pids) <= {child.pid for child in launched.children(recursive=True)}
    for pid in shared.pids:
        assert psutil.Process(pid).children() == []


def test_nobody_else_can_reach_or_read_it(shared):
    controller = psutil.Process(shared._cluster.controller.pid)
    family = [controller, *controller.children(recursive=True)]
    addresses = {
        one.laddr.ip
        for process in family
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    connections = list(shared._folder.rglob("ipcontroller*.json"))
    assert len(connections) == 2
    for file in connections:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert '"key": ""' not in file.read_text()
    assert stat.S_IMODE(shared._folder.stat().st_mode) == 0o700


def test_a_cluster_that_is_closed_says_so_and_leaves_nothing():
    with cluster.start("local", engines=1) as team:
        everything = processes(team)
        assert len(everything) >= 4
    assert_gone(everything)
    assert not team._folder.exists()
    team.close()  # once more does no harm
    with pytest.raises(DistributedError, match=r"closed: start another one"):
        team.run("pass")


def test_an_error_on_one_rank_is_told_and_ends_all():
    team = cluster.start("local", engines=2)
    everything = processes(team)
    team.run(TRAINING)
    started = time.monotonic()
    with pytest.raises(DistributedError, match=r"rank 1 on .* failed: ValueError: no good"):
        # Rank 0 waits for rank 1's gradients meanwhile.
        team.run(
            "for line in trainer.run():\n"
            "    if ranks.rank == 1 and line.step >= 20:\n"
            "        raise ValueError('no good')"
        )
    assert time.monotonic() - started < PROMISED
    assert_gone(everything)


def test_an_engine_that_dies_in_training_is_told_and_ends_all():
    team = cluster.start("local", engines=2)
    everything = processes(team)
    team.run(TRAINING)
    work = team.submit("for line in trainer.run():\n    print(line.step)")
    started = time.monotonic()
    while "\n20\n" not in work.results[0].stdout:
        assert time.monotonic() - started < PROMISED
        time.sleep(0.1)
    os.kill(team.pids[1], signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(DistributedError, match=rf"died: rank 1 \(process {team.pids[1]} on"):
        team.wait(work)
    assert time.monotonic() - started < PROMISED
    assert_gone(everything)
    with pytest.raises(DistributedError, match=r"rank 1 .* start another one"):
        team.run("pass")


# ------------------------------------------------------------------------------------- notebooks


class Kernel:
    """A notebook's kernel; `team` in it is a cluster."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(startup_timeout=60)

    def run(self, source: str, interrupt_at: str = "") -> tuple[str, str]:
        """Runs a cell; interrupts it when it has printed something; its status and all it shows."""
        shown: list[str] = []

        def hook(message) -> None:
            content = message["content"]
            shown.append(content.get("text") or "\n".join(content.get("traceback", [])))
            if interrupt_at and interrupt_at in shown[-1]:
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(
            textwrap.dedent(source).strip(), allow_stdin=False, timeout=PROMISED, output_hook=hook
        )
        return reply["content"]["status"], "".join(shown)

    def start(self) -> list[psutil.Process]:
        """Starts a cluster; its processes."""
        status, shown = self.run(
            """
            from bnnlib.interactive import cluster
            team = cluster.start("local", engines=2)
            print(*team._launched(), team._guard.pid)
            """
        )
        assert status == "ok", shown
        top = [psutil.Process(int(word)) for word in shown.split()[-3:]]
        found = [*top, *(child for one in top for child in one.children(recursive=True))]
        assert len(found) >= 6
        return found


@pytest.fixture
def kernel():
    one = Kernel()
    try:
        yield one
    finally:
        one.client.stop_channels()
        with contextlib.suppress(RuntimeError):
            one.manager.shutdown_kernel(now=True)


def test_no_engine_outlives_an_exception_an_interrupt_or_the_kernel(kernel, tmp_path):
    everything = kernel.start()
    status, shown = kernel.run("%%ranks\nfrom bnnlib import launcher\nprint(launcher.size())")
    assert (status, shown) == ("ok", "2\n")
    status, shown = kernel.run("1 / 0")
    assert status == "error"
    assert "its cluster is closed" in shown
    assert_gone(everything)

    everything = kernel.start()
    status, shown = kernel.run(
        f"""
        %%ranks
        import pathlib
        import time
        from bnnlib import launcher
        print('asleep', flush=True)
        try:
            time.sleep(1000)
        finally:
            pathlib.Path({str(tmp_path)!r}, str(launcher.rank())).touch()
        """,
        interrupt_at="asleep",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]  # each had its last word
    assert status == "error"
    assert "KeyboardInterrupt" in shown
    assert_gone(everything)

    everything = kernel.start()
    assert kernel.run("%%ranks --no-wait\nimport time\ntime.sleep(1000)")[0] == "ok"
    kernel.manager.signal_kernel(signal.SIGKILL)
    assert_gone(everything, within=20)


# ------------------------------------------------------------------------------- cannot be started


@pytest.fixture
def other_site(tmp_path, monkeypatch):
    """Makes `local` a site with another launcher, a shell script of the given text."""

    def make(text: str | None) -> Path:
        (tmp_path / "jobs" / "local").mkdir(parents=True)
        program = tmp_path / "other_mpiexec"
        if text is not None:
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        (tmp_path / "jobs" / "local" / "site.sh").write_text(
            f'NODES=1 RANKS=${{RANKS:-1}} PPN=$RANKS THREADS=0 LAUNCH=({program} -n "$RANKS")\n'
        )
        monkeypatch.chdir(tmp_path)  # as a notebook of that repository
        return program

    return make


@contextlib.contextmanager
def refused(match: str):
    """A refusal that comes in time and leaves nothing behind."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    started = time.monotonic()
    with pytest.raises(DistributedError, match=match):
        yield
    assert time.monotonic() - started < PROMISED
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p.cmdline() for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_without_mpi(other_site):
    program = other_site(None)
    with refused(rf"{program}: no such program on PATH.*make env"):
        cluster.start("local", engines=1)


def test_a_launcher_that_fails(other_site):
    other_site("echo 'unknown option --ppn' >&2; exit 7")
    with refused(r"(?s)engines could not start: .*other_mpiexec -n 1 .*unknown option --ppn"):
        cluster.start("local", engines=1)


def test_the_launcher_of_another_mpi(other_site):
    other_site('shift 2\n"$@" & "$@" & wait')  # as mpirun looks to programs of another MPI
    with refused(r"started ranks \[0, 0\] of \[1\], expected 0 to 1: it is the launcher of anoth"):
        cluster.start("local", engines=2)


def test_a_launcher_that_starts_nothing_in_time(other_site):
    other_site("exec sleep 1000")
    with refused(r"0 of 1 engines started in 4 s"):
        cluster.start("local", engines=1, timeout=4)


def test_more_ranks_than_cores():
    cores = len(os.sched_getaffinity(0))
    with refused(rf"engines = {cores + 1}: this machine has {cores} core"):
        cluster.start("local", engines=cores + 1)


@pytest.mark.parametrize("engines", [0, -1, True])
def test_no_number_of_ranks(engines):
    with refused(r"expected 1 or more"):
        cluster.start("local", engines=engines)


def test_a_site_that_is_none_or_elsewhere(monkeypatch):
    with pytest.raises(SiteError, match="laptop: no such site; Known: aurora, crux, local"):
        cluster.start("laptop")
    for variable in ("COBALT_JOBID", "PBS_JOBID", "SLURM_JOB_ID"):
        monkeypatch.delenv(variable, raising=False)
    with refused(r"'polaris': this process runs in no job.*submit jobs/polaris/jupyter.sh"):
        cluster.start("polaris")


def test_a_guard_ends_what_does_not_want_to_end(tmp_path):
    one = reaper.Guard(tmp_path / "folder")
    stubborn = psutil.Popen(["bash", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"])
    one.watch(stubborn.pid)
    time.sleep(0.5)
    family = [stubborn, *stubborn.children()]
    one.release()
    assert_gone(family)


def test_the_repository_is_that_of_the_notebook(tmp_path, monkeypatch):
    (notebooks := tmp_path / "mine" / "notebooks").mkdir(parents=True)
    (site := tmp_path / "mine" / "jobs" / "local").mkdir(parents=True)
    (site / "site.sh").touch()
    monkeypatch.chdir(notebooks)  # where JupyterLab starts its kernel
    assert preparation.repository() == tmp_path / "mine"
    (site / "site.sh").unlink()
    assert preparation.repository() == notebooks
