"""Interactive clusters: MPI ranks that a notebook sends its cells to, on a laptop or in a job.

    ranks = cluster.start("local", engines=2)

starts IPython engines by the site's launcher, with the words that the job scripts launch
with (``LAUNCH`` in ``jobs/<site>/site.sh``). In a notebook the cell magic ``%%ranks`` then runs a
cell on all of them, each in its own process, as papermill's engine ``spmd`` does in a batch job.

Nothing is left behind: the engines end with :meth:`Cluster.close`, with a cell that fails or is
interrupted, and with the kernel, even if it is killed. An engine that dies takes the others with
it, as an MPI rank does, and code that waits for them gets an error at once.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import ipyparallel
import psutil

from bnnlib import process
from bnnlib.errors import DistributedError
from bnnlib.interactive import engine, preparation
from bnnlib.interactive.cells import OnError, RanksMagic, Work, shell
from bnnlib.interactive.reaper import Guard, end
from bnnlib.launch.sites import Site

# Seconds to start in: on this machine, and in a job, where all ranks import from one file system.
START_TIMEOUT = 55.0
START_TIMEOUT_IN_JOB = 600.0
# Seconds that interrupted engines have to end their cell, and to write their records.
WAIT_FOR_CELL = 8.0
# Seconds between looks at the engines while a cell runs on them.
LOOK_EVERY = 0.1
# Lines of the launcher's output in an error.
MAX_LINES = 15


class Cluster:
    """IPython engines that run as MPI ranks, their controller, and what ends both.

    Attributes:
        site: how they were launched.
        client: ipyparallel's, for whatever this class does not do.
        hosts: each rank's host.
        pids: each rank's process id, on its host.
        closed: whether the engines are gone.
    """

    def __init__(self, settings: Site, timeout: float, on_error: OnError) -> None:
        """Starts the engines; :func:`start` has the arguments."""
        self.site, self.on_error = settings, on_error
        self.client: Any = None
        self.hosts: list[str] = []
        self.pids: list[int] = []
        self._local_pids: list[int] = []
        self.closed = False
        self._work = Work([])
        self._death = ""
        self._magic: RanksMagic | None = None
        # On a cluster the folder must be seen from all nodes; where runs are recorded is.
        shared = None if settings.name == preparation.LOCAL else Path("runs")
        if shared is not None:
            shared.mkdir(exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".cluster-", dir=shared)).absolute()
        self._guard = Guard(self._folder)
        atexit.register(self.close)
        self._cluster = ipyparallel.Cluster(
            engines=preparation.Engines,
            profile_dir=str(self._folder),
            config=preparation.engine_config(settings),
            load_profile=False,  # the user's own settings are for their own clusters
            controller_ip="127.0.0.1" if settings.name == preparation.LOCAL else "*",
            delay=0,
            log=preparation.quiet_log(),
        )
        try:
            self._start(time.monotonic() + timeout, timeout)
        except BaseException:
            self.close()
            raise
        if (ipython := shell()) is not None:
            self._magic = RanksMagic.of(ipython)
            self._magic.clusters.append(self)

    def __len__(self) -> int:
        return self.site.ranks

    def __repr__(self) -> str:
        state = "closed" if self.closed else ", ".join(dict.fromkeys(self.hosts))
        return f"<Cluster: {len(self)} engine(s), site {self.site.name}, {state}>"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, source: str) -> Work:
        """Sends a cell to all ranks and returns at once.

        Raises:
            DistributedError: the cluster is closed, or an engine has died.
        """
        self.check()
        self._work = Work(
            [self.client[r].execute(source, silent=False, block=False) for r in self._ids]
        )
        return self._work

    def wait(
        self, work: Work | None = None, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """Waits until all ranks have ended a cell; shows what rank 0 shows.

        Args:
            work: of :meth:`submit`; None for the last.
            meanwhile: called again and again, for a live figure.

        Raises:
            DistributedError: a rank failed, with its traceback, or an engine died. The cluster is
                closed then, as it is on an interrupt (unless ``on_error`` is ``keep``).
        """
        with contextlib.closing(self.looks(work)) as looks:
            for _ in looks:
                meanwhile()
                time.sleep(LOOK_EVERY)

    def looks(self, work: Work | None = None) -> Generator[None, None, None]:
        """Waits as :meth:`wait` does, in steps, for a caller that does something else in between.

        Yields:
            After each look at the engines; at the end all ranks are through the cell. Closed
            before that (``contextlib.closing``), it closes the cluster, as an interrupt does.
        """
        work = work or self._work
        try:
            while not work.done():
                if self.on_error == "close" and work.errors():
                    break
                self._look()
                work.show()
                yield
            work.results[0].wait_for_output(1)
            work.show()
            self._raise(work)
        except BaseException:
            if self.on_error == "close":
                self.close()
            raise

    def run(self, source: str) -> None:
        """Sends a cell to all ranks and waits: :meth:`submit`, then :meth:`wait`."""
        self.wait(self.submit(source))

    def get(self, expression: str, rank: int = 0) -> Any:
        """The value of an expression on one rank, after the cell that runs there.

        Raises:
            DistributedError: the cluster is closed, or an engine has died.
        """
        self.check()
        return self.client[self._ids[rank]].apply_sync(engine.value, expression)

    def put(self, **values: Any) -> None:
        """Sets variables on all ranks, after the cell that runs there.

        Raises:
            DistributedError: the cluster is closed, or an engine has died.
        """
        self.check()
        self.client[self._ids].push(values, block=True)

    def check(self) -> None:
        """Raises an error if no cell can run here any more.

        Raises:
            DistributedError: the cluster is closed, or an engine has died.
        """
        if self.closed:
            raise DistributedError(
                f"{self._death or 'the cluster is closed'}: start another one, and a run goes on "
                "from its last checkpoint"
            )
        self._look()

    def close(self) -> None:
        """Ends engines and controller; does nothing if they have ended. No process stays."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        processes = _alive([*self._local_pids, *self._launched()])
        try:
            if self.client is not None:
                self._interrupt()
                self.client.close()
        finally:
            # SIGTERM lets the launcher end its ranks, here and on other nodes; whatever of them
            # is still here after that is killed.
            end(_alive(self._launched()))
            end(processes)
            self._guard.release()
            with contextlib.suppress(Exception):  # its processes are gone: it only tidies up
                self._cluster.stop_cluster_sync()
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._magic is not None and self in self._magic.clusters:
                self._magic.clusters.remove(self)

    # ------------------------------------------------------------------------------------ start

    def _start(self, deadline: float, timeout: float) -> None:
        self._cluster.start_controller_sync()
        self._guard.watch(self._cluster.controller.process.pid)
        self._cluster.start_engines_sync(n=len(self))
        self._guard.watch(self._cluster.engine_set.process.pid)
        self.client = self._cluster.connect_client_sync(timeout=timeout)
        while len(self.client.ids) < len(self):
            self._look("could not start: ")
            if time.monotonic() > deadline:
                raise DistributedError(
                    f"{len(self.client.ids)} of {len(self)} engines started in {timeout:.0f} s by "
                    f"`{self._line}`. {self._said()}"
                )
            time.sleep(LOOK_EVERY)
        prepare = self.client[:].apply_async(engine.prepare, self.on_error == "close")
        while not prepare.ready():
            self._look("could not start: ")
            if time.monotonic() > deadline:
                raise DistributedError(f"the engines started and do not answer. {self._said()}")
            time.sleep(LOOK_EVERY)
        facts = dict(zip(self.client.ids, prepare.get(), strict=True))
        ranks = sorted(fact["rank"] for fact in facts.values())
        sizes = sorted({fact["size"] for fact in facts.values()})
        if ranks != list(range(len(self))) or sizes != [len(self)]:
            raise DistributedError(
                f"`{self._line}` started ranks {ranks} of {sizes}, expected 0 to {len(self) - 1}: "
                "it is the launcher of another MPI; use the one of jobs/<site>/site.sh"
            )
        # Engines are numbered by rank unless one came late; results are in order of rank anyway.
        self._ids = sorted(facts, key=lambda number: facts[number]["rank"])
        self.hosts = [facts[number]["host"] for number in self._ids]
        self.pids = [facts[number]["pid"] for number in self._ids]
        # Of a rank in a container, even on this host, the id may be another process' here.
        here = process.namespace()
        local = [fact for fact in facts.values() if tuple(fact["namespace"]) == here]
        self._local_pids = [fact["pid"] for fact in local]

    @property
    def _line(self) -> str:
        return " ".join([*self.site.launch, "python -m bnnlib.interactive.engine"])

    def _launched(self) -> list[int]:
        """The launcher's and the controller's process ids."""
        parts = [self._cluster.engine_set, self._cluster.controller]
        return [part.pid for part in parts if part is not None and part.pid > 0]

    # ----------------------------------------------------------------------------------- failing

    def _look(self, what: str = "") -> None:
        """Raises if the launcher or the controller has ended."""
        for part, name in (
            (self._cluster.engine_set, "engines"),
            (self._cluster.controller, "controller"),
        ):
            if not _alive([part.pid]):
                time.sleep(LOOK_EVERY)  # for the last words
                self._death = f"the {name} {what or 'died: '}{self._said(part)}"
                raise DistributedError(
                    f"{self._death}"
                    + ("" if what else ". Start another cluster; a run goes on from its checkpoint")
                )

    def _said(self, part: Any = None) -> str:
        """The last lines of a process's output, in one sentence."""
        part = part or self._cluster.engine_set
        path = Path(part.output_file)
        text = path.read_text(errors="replace") if path.exists() else ""
        lines = [line.rstrip() for line in text.splitlines() if line.strip(" =\r\n")]
        killed = re.search(r"PID (\d+) RUNNING AT (\S+)[\s\S]*?EXIT CODE: (\d+)", text)
        named = [(pid, _short(host)) for pid, host in zip(self.pids, self.hosts, strict=True)]
        if killed and (int(killed[1]), _short(killed[2])) in named:
            rank = named.index((int(killed[1]), _short(killed[2])))
            return f"rank {rank} (process {killed[1]} on {killed[2]}) ended with code {killed[3]}"
        shown = "\n".join(lines[-MAX_LINES:])
        return f"`{self._line}` said:\n{shown}\n" if shown else f"`{self._line}` said nothing"

    def _raise(self, work: Work) -> None:
        errors = work.errors()
        if not errors:
            return
        rank, error = errors[0]
        frames = getattr(error, "traceback", None)
        if frames:
            print(frames, file=sys.stderr)
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        raise DistributedError(f"rank {rank} on {self.hosts[rank]} failed: {name}: {text}")

    def _interrupt(self) -> None:
        """Ends running cells as an interrupt does, so that they close their records."""
        if not self.client.outstanding or not _alive([self._cluster.engine_set.pid]):
            return
        with contextlib.suppress(Exception):  # the engines are ended anyway, with or without words
            # Jupyter's own message, which the engine's control thread hears while a cell runs;
            # ipyparallel's `send_signal` would need a nanny beside each engine.
            self.client._send_control_request(self._ids, "interrupt_request", {}, block=False)
        with contextlib.suppress(Exception):
            self.client.wait(timeout=WAIT_FOR_CELL)


def start(
    site_name: str = "",
    engines: int | None = 2,
    timeout: float = 0,
    on_error: OnError = "close",
) -> Cluster:
    """Starts a cluster of ranks; the cluster is a context manager, too.

    Args:
        site_name: one of :func:`bnnlib.launch.sites.names`; any but ``local`` inside a job. None
            given: ``BNN_SITE``, which a site's JupyterLab and its kernel have, else ``local``.
        engines: how many ranks; None for all that the job's nodes hold.
        timeout: seconds until a start that does not come about is given up; 0: ``START_TIMEOUT``
            on this machine, ``START_TIMEOUT_IN_JOB`` at another site.
        on_error: ``close`` ends the ranks when a cell of the notebook fails or is interrupted;
            ``keep`` leaves them, also where other ranks may wait for the one that failed.

    Raises:
        SiteError: there is no such site.
        DistributedError: it cannot start: no launcher, too many ranks, no usable Horovod, another
            MPI's launcher. Nothing is left running.
    """
    if engines is not None and (isinstance(engines, bool) or engines < 1):
        raise DistributedError(f"engines = {engines}: expected 1 or more, one is one MPI rank")
    settings = preparation.site(site_name or preparation.own_site(), engines)
    preparation.check(settings)
    if timeout <= 0:
        local = settings.name == preparation.LOCAL
        timeout = START_TIMEOUT if local else START_TIMEOUT_IN_JOB
    return Cluster(settings, timeout, on_error)


def _alive(pids: list[int]) -> list[psutil.Process]:
    """The processes with these ids that run; a zombie does not."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running


def _short(host: str) -> str:
    """A host's name without its domain."""
    return host.partition(".")[0]
