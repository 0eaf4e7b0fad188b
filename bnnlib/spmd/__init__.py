"""Runs one notebook on many ranks: papermill's engine `spmd` and its output handler `rank0:`.

    mpiexec -n 2 papermill train.ipynb rank0:runs/demo/train.ipynb --engine spmd -p model CNN_FC

Every rank runs the same cells ("single program, multiple data"), each in its own process:
papermill's own engine starts a kernel process for a notebook, and a kernel that MPICH did not start
cannot join MPI. Rank 0 shows the output as it comes and writes the notebook, with the outputs that
a kernel would have left there. An error on any rank ends all of them: the rank that fails leaves a
small file beside the notebook, rank 0 puts its traceback into the notebook, and the launcher sees
an exit status that is not zero.

What differs from a kernel: widgets have no front end, so `tqdm.auto` shows its text bar; text that
a carriage return has overwritten is dropped; what C++ code or a child process writes to the
process's own stdout and stderr goes to the terminal, not into the notebook; `input()` finds an
empty stdin.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import dataclasses
import difflib
import io
import json
import logging
import os
import re
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

import nbformat
from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any as AnyTrait
from traitlets import Type
from traitlets.config import Config

from bnnlib import launcher
from bnnlib.errors import BnnlibError, DistributedError, ExperimentError
from bnnlib.record import lock, startup, stopping
from bnnlib.record import watchdog as stall

RANK0_PREFIX = "rank0:"
RUN_DIR_VARIABLE = "BNN_RUN_DIR"

# Seconds that a failed rank other than 0 waits for the launcher to end it. Rank 0 saves the
# notebook meanwhile: a launcher ends all ranks as soon as the first one leaves.
WAIT_FOR_END = 20.0
# Seconds that rank 0 waits for the failure file of the rank whose error stopped Horovod.
WAIT_FOR_CAUSE = 5.0
# Seconds that rank 0's own cell has to fail too, once another rank has failed. Horovod's pending
# operations fail at once; a rank that waits in `hvd.init()` or computes alone never would.
WAIT_FOR_OWN_FAILURE = 3.0
# Seconds between looks at the failure files: one rank looks for all, all others for rank 0's.
RANK0_LOOKS_EVERY = 1.0
OTHERS_LOOK_EVERY = 5.0
# Seconds for Horovod to shut down, which waits for ever for a rank that is gone.
WAIT_FOR_SHUTDOWN = 5.0
# Tracebacks of other ranks in the notebook; a thousand ranks may each have their own.
MAX_TRACEBACKS = 8

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What a terminal no longer shows of a line after a carriage return (nbclient's rule).
_OVERWRITTEN = re.compile(r".*\r(?=[^\n])")
# The errors that a rank gets because another one failed.
_CONSEQUENCE = re.compile(r"Horovod has been shut down|Connection (closed|reset) by peer")
_ERROR_STATUS = 1


# ---------------------------------------------------------------------------------- output files


def _write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a crash, finds the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _local_path(path: Any) -> Path | None:
    """The absolute local path that papermill writes `path` to; None for a remote one or none."""
    from papermill.iorw import LocalHandler, papermill_io

    if not isinstance(path, str):
        return None
    path = path.removeprefix(RANK0_PREFIX)
    handler = papermill_io.get_handler(path)
    if not isinstance(handler, LocalHandler):
        return None
    # papermill resolves paths against the folder it was started in, also under --cwd. The handler
    # gives that folder away only in exchange for another one.
    folder = handler.cwd(None)
    handler.cwd(folder)
    return Path(folder or os.getcwd(), path).absolute()


class Rank0Handler:
    """papermill's handler for `rank0:PATH`: only rank 0 writes, to whatever PATH papermill knows.

    Rank 0 creates missing parent folders of a local path and replaces the file as a whole.
    papermill registers what the entry point names as it is, so the class itself is the handler.
    """

    @staticmethod
    def _rest(path: str) -> tuple[Any, str]:
        from papermill.iorw import papermill_io

        rest = path.removeprefix(RANK0_PREFIX)
        return papermill_io.get_handler(rest), rest

    @classmethod
    def read(cls, path: str) -> Any:
        """The content of the notebook at `path`, on every rank."""
        handler, rest = cls._rest(path)
        return handler.read(rest)

    @classmethod
    def listdir(cls, path: str) -> Any:
        """The names in the folder `path`, on every rank."""
        handler, rest = cls._rest(path)
        return handler.listdir(rest)

    @classmethod
    def write(cls, buf: str, path: str) -> Any:
        """Write `buf` to `path` on rank 0; do nothing on the others."""
        if launcher.rank() != 0:
            return None
        local = _local_path(path)
        if local is not None:
            return _write_atomically(local, buf)
        handler, rest = cls._rest(path)
        return handler.write(buf, rest)

    @classmethod
    def pretty_path(cls, path: str) -> str:
        """The path as papermill logs it."""
        handler, rest = cls._rest(path)
        return f"{RANK0_PREFIX}{handler.pretty_path(rest)}"


# ------------------------------------------------------------------------------ failure and ending


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error of a cell on one rank, as it stands in `<run dir>/failures/rank<r>.json`."""

    rank: int
    host: str
    pid: int
    time: str  # ISO 8601, UTC
    ename: str
    evalue: str
    traceback: list[str]  # lines, without colours
    cell_index: int

    @classmethod
    def here(cls, rank: int, ename: str, evalue: str, frames: list[str], cell: int) -> Failure:
        """The failure of this process, now.

        Args:
            rank: This rank.
            ename: The exception's class name.
            evalue: Its message.
            frames: IPython's traceback, blocks of coloured lines.
            cell: The cell's index in the notebook.
        """
        return cls(
            rank=rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=datetime.now(UTC).isoformat(),
            ename=ename,
            evalue=evalue,
            traceback=_ANSI.sub("", "\n".join(frames)).splitlines(),
            cell_index=cell,
        )

    @property
    def is_consequence(self) -> bool:
        """Whether this rank only lost its connection to another one that failed."""
        return _CONSEQUENCE.search(self.evalue) is not None

    @property
    def headline(self) -> str:
        """The exception in one line."""
        return f"{self.ename}: {self.evalue.strip().splitlines()[0] if self.evalue.strip() else ''}"

    def write(self, run_dir: Path) -> None:
        """Leave this failure in `run_dir` for the other ranks and the reader."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        _write_atomically(_failure_file(run_dir, self.rank), text + "\n")


def _failure_file(run_dir: Path, rank: int) -> Path:
    return run_dir / "failures" / f"rank{rank}.json"


def _process_start() -> float:
    """When this process started, in seconds since the epoch."""
    try:
        # The 22nd field of the line; the second one, the command in parentheses, may hold spaces.
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(stat[22 - 3])
    except OSError:  # no Linux: this module is imported within the process's first seconds
        return _IMPORTED
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


_IMPORTED = time.time()
_TOLD: set[Path] = set()  # files that were reported as unreadable


def _read_failures(files: list[Path]) -> list[Failure]:
    """The failures of this launch among `files`, oldest first.

    An earlier attempt's files may lie in the same folder. They are older than this process, while
    a rank of this launch needs its first second to start Python: the time tells them apart, and
    nothing has to be deleted while another rank may be writing.
    """
    failures = []
    for file in files:
        try:
            failure = Failure(**json.loads(file.read_text(encoding="utf-8")))
            if datetime.fromisoformat(failure.time).timestamp() > _process_start():
                failures.append(failure)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            if file not in _TOLD:  # this is called every second
                _TOLD.add(file)
                print(f"{file} is no failure file: {error!r}", file=sys.__stderr__)
    return sorted(failures, key=lambda failure: failure.time)


def _horovod() -> Any:
    """`horovod.tensorflow` if this process has it up, else None."""
    hvd = sys.modules.get("horovod.tensorflow")
    return hvd if hvd is not None and hvd.is_initialized() else None


def _world_size() -> int:
    hvd = _horovod()
    return max(launcher.size(), hvd.size() if hvd is not None else 1)


def _shut_horovod_down() -> None:
    """Make every operation that waits on any rank fail now, instead of waiting for ever."""
    hvd = _horovod()
    if hvd is not None:
        # A thread, because this call itself waits for ever for a rank that is gone.
        shutdown = threading.Thread(target=hvd.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(WAIT_FOR_SHUTDOWN)


def _leave(exit_code: int) -> NoReturn:
    """End this process at once: Python's own exit would wait for MPI, Horovod and threads."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or a pipe without a reader
                stream.flush()
    os._exit(exit_code)


def abort(exit_code: int = _ERROR_STATUS) -> NoReturn:
    """End all ranks because of an error on this one; for code outside notebooks.

    Horovod's pending operations fail on all ranks, so that each gets to its own error handling.
    Ranks other than 0 then wait up to `WAIT_FOR_END` seconds for rank 0 to save what it has to and
    for the launcher to end them; rank 0 leaves at once. Print the error before calling this.

    Args:
        exit_code: This process's exit status, 1 to 255.

    Raises:
        ValueError: `exit_code` would look like success to the launcher.
    """
    if not 1 <= exit_code <= 255:
        raise ValueError(f"exit_code is {exit_code}, expected 1 to 255: 0 would tell of success")
    _shut_horovod_down()
    if launcher.size() > 1 and launcher.rank() != 0:
        time.sleep(WAIT_FOR_END)
    _leave(exit_code)


class _Watcher(threading.Thread):
    """Looks for other ranks' failures while this rank's main thread may wait for ever."""

    def __init__(
        self,
        look: Callable[[], list[Failure]],
        act: Callable[[list[Failure]], None],
        every: float,
        grace: float,
    ) -> None:
        super().__init__(name="bnnlib-spmd-watcher", daemon=True)
        self._look, self._act, self._every, self._grace = look, act, every, grace
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(self._every):
            if self._look():
                if not self._stopped.wait(self._grace):
                    try:
                        self._act(self._look())
                    except Exception:
                        traceback.print_exc(file=sys.__stderr__)
                        _leave(_ERROR_STATUS)
                return


# ------------------------------------------------------------------------------- a cell's outputs


class _Lines:
    """Passes whole lines on, as a terminal would show them, so that ranks' lines never mix."""

    def __init__(self, sink: Callable[[str], Any]) -> None:
        self._sink = sink
        self._pending = ""

    def write(self, text: str) -> None:
        *lines, pending = (self._pending + text).split("\n")
        self._pending = _OVERWRITTEN.sub("", pending)
        for line in lines:
            self._sink(_OVERWRITTEN.sub("", line.rstrip("\r")))

    def close(self) -> None:
        if self._pending:
            self._sink(self._pending)
            self._pending = ""


def _as_json(value: Any) -> Any:
    """`value` as it would have come out of a kernel's message: bytes as base64, tuples as lists."""

    def default(item: Any) -> Any:
        if isinstance(item, bytes):
            return base64.b64encode(item).decode("ascii")
        raise TypeError(f"{item!r} of type {type(item).__name__} cannot be shown: it is not JSON")

    return nbformat.from_dict(json.loads(json.dumps(value, default=default)))


class _Recorder:
    """Puts what the current cell shows into the notebook, and its text to the terminal.

    The rules of nbclient, which writes down a kernel's messages: consecutive text of one stream is
    one output, `clear_output(wait=True)` waits for the next output, and an update of a display
    changes every output with its id, in any cell.
    """

    def __init__(self, nb_man: Any, echo: dict[str, Callable[[str], Any]]) -> None:
        self.nb_man = nb_man
        self.cell: Any = None
        self.cell_index = 0
        self.lock = threading.RLock()  # cells may print from threads
        self._echo = echo
        self._clear_pending = False
        self._displays: dict[str, list[Any]] = {}

    def start(self, cell: Any, index: int) -> None:
        with self.lock:
            self.cell, self.cell_index = cell, index
            self._clear_pending = False

    def stop(self) -> None:
        with self.lock:
            self.cell = None

    def stream(self, name: str, text: str) -> None:
        with self.lock:
            self._echo[name](text)
            if self.cell is None or not text:
                return
            self._clear_if_pending()
            last = self.cell.outputs[-1] if self.cell.outputs else None
            if last is None or last.output_type != "stream" or last.name != name:
                last = nbformat.v4.new_output("stream", name=name, text="")
                self.cell.outputs.append(last)
            # Only the last line can still be overwritten.
            head, newline, tail = last.text.rpartition("\n")
            last.text = head + newline + _OVERWRITTEN.sub("", tail + text)
            self.nb_man.autosave_cell()

    def display(
        self, data: dict[str, Any], metadata: dict[str, Any], display_id: str | None, update: bool
    ) -> None:
        with self.lock:
            data, metadata = _as_json(data), _as_json(metadata)
            if display_id is not None:
                for shown in self._displays.get(display_id, []):
                    shown.data, shown.metadata = data, metadata
            if not update:
                output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
                self._append(output)
                if display_id is not None:
                    self._displays.setdefault(display_id, []).append(output)

    def result(self, count: int, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._append(
            nbformat.v4.new_output(
                "execute_result",
                execution_count=count,
                data=_as_json(data),
                metadata=_as_json(metadata),
            )
        )

    def error(self, ename: str, evalue: str, frames: list[str]) -> None:
        self._append(nbformat.v4.new_output("error", ename=ename, evalue=evalue, traceback=frames))

    def clear(self, wait: bool) -> None:
        with self.lock:
            self._clear_pending = True
            if not wait:
                self._clear_if_pending()

    def _append(self, output: Any) -> None:
        with self.lock:
            if self.cell is None:
                return
            self._clear_if_pending()
            self.cell.outputs.append(output)
            self.nb_man.autosave_cell()

    def _clear_if_pending(self) -> None:
        if self._clear_pending and self.cell is not None:
            self._clear_pending = False
            gone = {id(output) for output in self.cell.outputs}
            for name, shown in self._displays.items():
                self._displays[name] = [output for output in shown if id(output) not in gone]
            self.cell.outputs.clear()


class _Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of the cells."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, name: str, recorder: _Recorder, terminal: TextIO) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._channel, self._recorder, self._terminal = name, recorder, terminal

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._recorder.stream(self._channel, text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._terminal.flush()

    def fileno(self) -> int:  # for faulthandler and child processes
        return self._terminal.fileno()


class _Terminal:
    """Rank 0's terminal: text as it comes, and papermill's progress bar out of its way."""

    def __init__(self, nb_man: Any) -> None:
        self._nb_man = nb_man
        self._stdout = sys.stdout
        self._bar_shown = True
        self._line_open = False

    def writer(self, terminal: TextIO) -> Callable[[str], None]:
        def write(text: str) -> None:
            if self._bar_shown and self._nb_man.pbar is not None:
                self._nb_man.pbar.clear()
            self._bar_shown = False
            terminal.write(text)
            if "\n" in text or "\r" in text:  # print() writes a line in pieces
                terminal.flush()
            if text:
                self._line_open = not text.endswith("\n")

        return write

    def end_cell(self) -> None:
        """Leave the bar a line of its own."""
        if self._line_open:
            self._stdout.write("\n")
            self._stdout.flush()
        self._bar_shown, self._line_open = True, False


# ------------------------------------------------------------------------------------- the shell


class _DisplayPublisher(DisplayPublisher):
    """What `display()` calls."""

    # `source` stands in the parent's signature, deprecated; it is taken by **kwargs here.
    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        self._validate_data(data, metadata)
        display_id = (transient or {}).get("display_id")
        self.shell.recorder.display(data, metadata or {}, display_id, update)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.recorder.clear(wait)


class _DisplayHook(DisplayHook):
    """What shows the value of a cell's last expression."""

    shell: Any  # a _Shell
    _shown: tuple[dict[str, Any], dict[str, Any]] | None = None

    def write_output_prompt(self) -> None:
        self._shown = None

    def write_format_data(
        self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None
    ) -> None:
        self._shown = (format_dict, md_dict or {})

    def finish_displayhook(self) -> None:
        if self._shown is not None and self._shown[0]:
            self.shell.recorder.result(self.prompt_count, *self._shown)
        self._shown = None
        self._is_active = False


class _Compiler(CachingCompiler):
    """Names the cells' code as a kernel does, which decides how IPython prints a traceback."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return os.path.join(tempfile.gettempdir(), f"spmd_{os.getpid()}", f"{number}.py")


class _Shell(InteractiveShell):
    """IPython without a terminal, whose displays and errors go to a `_Recorder`."""

    compiler_class = Type(_Compiler)
    displayhook_class = Type(_DisplayHook)
    display_pub_class = Type(_DisplayPublisher)
    recorder = AnyTrait()

    def init_profile_dir(self, profile_dir: Any) -> None:
        # Many ranks would create, and lock files in, one home folder at the same moment.
        self.profile_dir = None

    def init_hooks(self) -> None:
        super().init_hooks()
        # `name?` shows its help in the notebook; the default starts a pager program.
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 99)

    def enable_gui(self, gui: str | None = None) -> None:
        if gui not in (None, "inline"):
            raise UsageError(f"no window can be opened for {gui!r} here: use %matplotlib inline")

    def ask_exit(self) -> None:
        raise SystemExit(0)

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        if issubclass(etype, stopping.Stopped):  # no failure, so no red text in the notebook
            self.recorder.stream("stdout", f"stopped: {evalue}\n")
            return
        self.recorder.error(etype.__name__, str(evalue), list(stb))


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """`os.environ` with `variables`, and as it was afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interactive(recorder: _Recorder) -> Iterator[_Shell]:
    """A shell whose cells see the `sys` of a kernel; the process's own `sys` comes back after."""
    kept = {
        name: getattr(sys, name)
        for name in ("stdin", "stdout", "stderr", "excepthook", "displayhook", "path")
    }
    main = sys.modules["__main__"]
    config = Config()
    config.HistoryManager.enabled = False  # a database file that all ranks would lock
    config.HistoryManager.hist_file = ":memory:"
    with open(os.devnull, encoding="utf-8") as no_input:
        sys.stdin = no_input
        sys.stdout = _Stream("stdout", recorder, kept["stdout"])
        sys.stderr = _Stream("stderr", recorder, kept["stderr"])
        # A kernel imports from its working folder, the papermill command from its own.
        sys.path = ["", *kept["path"]]
        shell = _Shell.instance(config=config)
        shell.recorder = recorder
        try:
            with _inline_figures(shell), _fresh_logging():
                yield shell
        finally:
            _Shell.clear_instance()
            sys.modules["__main__"] = main
            for name, value in kept.items():
                setattr(sys, name, value)


@contextlib.contextmanager
def _fresh_logging() -> Iterator[None]:
    """The root logger as a kernel has it: what cells log goes to their stderr.

    The papermill command has sent all logging to the terminal; its own messages still go there.
    """
    root, own = logging.getLogger(), logging.getLogger("papermill")
    root_before, own_before = (root.handlers, root.level), (own.handlers, own.level, own.propagate)
    own.handlers, own.propagate = [*own.handlers, *root.handlers], False
    own.setLevel(own.getEffectiveLevel())
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = root_before[0]
        root.setLevel(root_before[1])
        own.handlers, own.propagate = own_before[0], own_before[2]
        own.setLevel(own_before[1])


@contextlib.contextmanager
def _inline_figures(shell: _Shell) -> Iterator[None]:
    """Figures land in the notebook, as under a kernel."""
    if "matplotlib" not in sys.modules:
        # matplotlib reads this when a cell imports it, and finds the shell by itself.
        backend = os.environ.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        with _environment(MPLBACKEND=backend):
            yield
        return
    # matplotlib is bound to another backend, or to the shell of an earlier notebook.
    import matplotlib as mpl
    from matplotlib_inline import backend_inline
    from matplotlib_inline.config import InlineBackend

    before = mpl.get_backend()
    InlineBackend.clear_instance()
    backend_inline.configure_inline_support.current_backend = "unset"  # type: ignore[attr-defined]
    shell.enable_matplotlib("inline")
    try:
        yield
    finally:
        mpl.use(before)


# ------------------------------------------------------------------------------------ the engine


def unknown_parameters(nb: Any, kernel_name: str, input_path: str) -> str | None:
    """What is wrong with the parameters' names; papermill itself only warns of unknown ones.

    Args:
        nb: The notebook that papermill has put the parameters into.
        kernel_name: Its kernel's name.
        input_path: Where papermill read it from.

    Returns:
        A message that names each unknown parameter, the nearest known one, and the way to see all;
        None if all are known.
    """
    from papermill.translators import papermill_translators
    from papermill.utils import find_first_tagged_cell_index

    given = set(nb.metadata.papermill.get("parameters") or {})
    given -= {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}  # papermill's --inject-paths
    if not given:
        return None
    index = find_first_tagged_cell_index(nb, "parameters")
    if index < 0:
        return (
            f"Parameters {sorted(given)} were given, but {input_path} has no cell tagged "
            f"`parameters` that says which it has: tag one"
        )
    cell = nb.cells[index]
    translator = papermill_translators.find_translator(kernel_name, "python")
    known = {parameter.name for parameter in translator.inspect(cell)}
    # papermill gives up on a line with a second "=", for example in its comment.
    with contextlib.suppress(SyntaxError):  # magics: then only what papermill has found
        for statement in ast.parse(cell.source).body:
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            known |= {target.id for target in targets if isinstance(target, ast.Name)}
    sentences = []
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        sentences.append(
            f"Parameter {name!r} is unknown" + (f": did you mean {near[0]!r}?" if near else ".")
        )
    if not sentences:
        return None
    return " ".join([*sentences, f"All parameters: papermill --help-notebook {input_path}"])


class SpmdEngine:
    """papermill's engine `spmd`: the cells run in this very process, on every rank.

    It has the methods of `papermill.engines.Engine`, but cannot inherit from it: papermill looks
    this class up while that module is still being imported.
    """

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel's name in the notebook, else Python's: the cells run in this Python."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The notebook's language.

        Raises:
            DistributedError: It is not Python.
        """
        metadata = nb.metadata
        language = (
            language
            or metadata.get("language_info", {}).get("name")
            or metadata.get("kernelspec", {}).get("language")
            or "python"
        )
        if language.lower() not in ("python", "ipython"):
            raise DistributedError(
                f"the notebook's language is {language!r}, expected Python: the engine spmd runs "
                f"cells in its own Python process; use papermill's own engine"
            )
        return language

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        input_path: str = "",
        stdout_file: TextIO | None = None,
        stderr_file: TextIO | None = None,
        start_timeout: int | None = None,
        execution_timeout: int | None = None,
    ) -> Any:
        """Run the notebook; what papermill calls on every rank.

        Args:
            nb: The notebook, with its parameters injected.
            kernel_name: The kernel's name, for the parameters' language.
            output_path: Where papermill saves while cells run; None for only at the end.
            progress_bar: papermill's bar, shown by rank 0 only.
            log_output: Send output to papermill's log instead of the terminal, on rank 0 only.
            autosave_cell_every: Seconds between saves while a cell shows output; 0 for none.
            input_path: Where the notebook came from.
            stdout_file: An open file that gets rank 0's stdout too.
            stderr_file: An open file that gets rank 0's stderr too.
            start_timeout: Accepted and without effect: there is no kernel to start.
            execution_timeout: Not supported.

        Returns:
            The executed notebook. With several ranks, a failure ends the process instead.

        Raises:
            DistributedError: The run cannot start as it was asked for.
        """
        from papermill.engines import NotebookExecutionManager

        startup.begin()
        rank, size = launcher.rank(), launcher.size()
        target = nb.metadata.papermill.get("output_path")
        cls.nb_language(nb)
        if execution_timeout:
            raise DistributedError(
                f"--execution-timeout {execution_timeout} is not supported by the engine spmd, "
                f"which cannot interrupt one rank's cell: use the scheduler's time limit"
            )
        if InteractiveShell.initialized():
            raise DistributedError(
                "the engine spmd needs a process without IPython: use the papermill command in a "
                "terminal, or papermill's own engine here"
            )
        if size > 1 and target is not None and not str(target).startswith(RANK0_PREFIX):
            raise DistributedError(
                f"{size} ranks would all write {target}: give the output path as "
                f"{RANK0_PREFIX}{target}"
            )
        cls._refuse_locked(nb, target, rank, size)
        stopping.listen()
        log_output = log_output and rank == 0
        nb_man = NotebookExecutionManager(
            nb,
            output_path=output_path,
            progress_bar=progress_bar if rank == 0 else False,
            log_output=log_output,
            autosave_cell_every=autosave_cell_every,
        )
        if nb_man.pbar is not None:
            # Else tqdm would count it, and draw the cells' own bars one line below it.
            type(nb_man.pbar)._instances.discard(nb_man.pbar)
        files = {"stdout": stdout_file, "stderr": stderr_file} if rank == 0 else {}
        run = _Run(nb_man, kernel_name, input_path, target, rank, size, log_output, files)
        try:
            run.run()
        except Exception:
            if size == 1:
                raise
            # Not a cell's error: this rank cannot go on, and the others would wait for it.
            traceback.print_exc()
            abort()
        return nb_man.nb

    @staticmethod
    def _refuse_locked(nb: Any, target: str | None, rank: int, size: int) -> None:
        """On rank 0, end all before anything is written where another run is writing."""
        local = _local_path(target)
        given = (nb.metadata.papermill.get("parameters") or {}).get("run_dir")
        for directory in (local.parent if local is not None else None, given):
            if rank != 0 or not directory or not isinstance(directory, str | Path):
                continue
            try:
                lock.refuse_if_held(Path(directory), wait=2 * lock.BEAT)
            except lock.LockedError as error:
                if size == 1:
                    raise
                print(f"[rank 0] {type(error).__name__}: {error}", file=sys.stderr)
                _leave(_ERROR_STATUS)  # the others wait for this rank: the launcher ends them
            except OSError:  # not readable: the run itself says so
                continue


class _Run:
    """One run of a notebook on this rank."""

    def __init__(
        self,
        nb_man: Any,
        kernel_name: str,
        input_path: str,
        target: str | None,
        rank: int,
        size: int,
        log_output: bool,
        files: dict[str, TextIO | None],
    ) -> None:
        self.nb_man, self.kernel_name, self.input_path = nb_man, kernel_name, input_path
        self.target, self.rank, self.size = target, rank, size
        local = _local_path(target)
        self.run_dir = local.parent if local is not None else None
        self.terminal = _Terminal(nb_man)
        self.stderr = sys.stderr
        self._lines: list[_Lines] = []
        self.recorder = _Recorder(nb_man, self._echoes(log_output, files))
        self._ending = threading.Lock()
        self._stopped = ""  # why, once the run was stopped
        self._watcher = self._start_watcher()
        stall.ENDINGS.insert(0, self._stalled)

    def _echoes(
        self, log_output: bool, files: dict[str, TextIO | None]
    ) -> dict[str, Callable[[str], Any]]:
        """Where text goes besides the notebook, by stream."""
        from papermill.log import logger

        if self.rank != 0:
            prefixed = _Lines(self._prefixed)
            self._lines.append(prefixed)
            return {"stdout": lambda text: None, "stderr": prefixed.write}
        echoes: dict[str, Callable[[str], Any]] = {}
        for name, terminal, log in (
            ("stdout", sys.stdout, logger.info),
            ("stderr", sys.stderr, logger.warning),
        ):
            if log_output:
                lines = _Lines(log)
                self._lines.append(lines)
                echo: Callable[[str], Any] = lines.write
            else:
                echo = self.terminal.writer(terminal)
            file = files.get(name)
            echoes[name] = echo if file is None else _both(echo, file)
        return echoes

    def _prefixed(self, line: str) -> None:
        # One call a line: the ranks share one terminal.
        self.stderr.write(f"[rank {self.rank}] {line}\n")
        self.stderr.flush()

    def _start_watcher(self) -> _Watcher | None:
        if self.size == 1 or self.run_dir is None:
            return None
        if self.rank == 0:
            watcher = _Watcher(
                self._others, self._take_over, RANK0_LOOKS_EVERY, WAIT_FOR_OWN_FAILURE
            )
        else:
            rank0 = [_failure_file(self.run_dir, 0)]
            watcher = _Watcher(lambda: _read_failures(rank0), self._give_up, OTHERS_LOOK_EVERY, 0.0)
        watcher.start()
        return watcher

    def run(self) -> None:
        """Run the cells; return after the last one, or after a failure when alone."""
        self.nb_man.notebook_start()
        failure = None
        variables = {"PAGER": "cat", "GIT_PAGER": "cat"}  # no program that waits for a key
        if self.run_dir is not None:
            variables[RUN_DIR_VARIABLE] = str(self.run_dir)
        problem = unknown_parameters(self.nb_man.nb, self.kernel_name, self.input_path)
        try:
            if problem is not None:
                failure = self._refuse(problem)
            else:
                with _environment(**variables), _interactive(self.recorder) as shell:
                    failure = self._run_cells(shell)
        finally:
            self._stop_watcher()
            for lines in self._lines:
                lines.close()
            self.nb_man.cleanup_pbar()
            self.nb_man.notebook_complete()
        if failure is not None:
            self._end(failure, everywhere=problem is not None)
        elif self._stopped:
            self._leave_stopped()
        elif self.rank == 0 and self.size > 1:
            others = self._others()
            if others:
                self._conclude(None, others)

    def _stop_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            # The watcher may be ending the process at this moment; then this waits for that.
            self._ending.acquire()

    def _refuse(self, problem: str) -> Failure:
        """Fail before any cell has run, in the cell that holds the given parameters."""
        from papermill.utils import find_first_tagged_cell_index

        nb_man = self.nb_man
        index = max(find_first_tagged_cell_index(nb_man.nb, "injected-parameters"), 0)
        cell = nb_man.nb.cells[index]
        ename = ExperimentError.__name__
        frames = [f"\x1b[31m{ename}\x1b[39m: {problem}"]
        nb_man.cell_start(cell, index)
        self.recorder.start(cell, index)
        self.recorder.error(ename, problem, frames)
        self.recorder.stop()
        nb_man.cell_exception(cell, cell_index=index)
        nb_man.cell_complete(cell, cell_index=index)
        return Failure.here(self.rank, ename, problem, frames, index)

    def _run_cells(self, shell: _Shell) -> Failure | None:
        nb_man, recorder = self.nb_man, self.recorder
        nb_man.nb.metadata["language_info"] = {
            "name": "python",
            "version": sys.version.split()[0],
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        }
        for index, cell in enumerate(nb_man.nb.cells):
            with recorder.lock:
                nb_man.cell_start(cell, index)
                recorder.start(cell, index)
            error = self._run_cell(shell, cell)
            with recorder.lock:
                recorder.stop()
                if self.rank == 0:
                    self.terminal.end_cell()
                if error is not None:
                    nb_man.cell_exception(cell, cell_index=index, exception=error)
                nb_man.cell_complete(cell, cell_index=index)
            if error is None:
                continue
            if isinstance(error, SystemExit) and error.code in (None, 0, ""):
                return None  # sys.exit() in a cell stops the notebook; papermill calls it success
            if isinstance(error, stopping.Stopped):
                self._stopped = str(error)
                return None
            shown = [output for output in cell.outputs if output.output_type == "error"]
            frames = list(shown[-1].traceback) if shown else []
            return Failure.here(self.rank, type(error).__name__, str(error), frames, index)
        return None

    def _run_cell(self, shell: _Shell, cell: Any) -> BaseException | None:
        """Run one cell as nbclient does; the error that stops the notebook, if any."""
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not cell.source.strip() or "skip-execution" in tags:
            return None
        cell.execution_count = shell.execution_count
        result = shell.run_cell(cell.source, store_history=True, cell_id=cell.get("id"))
        if "raises-exception" in tags:
            return None
        return result.error_before_exec or result.error_in_exec

    # -------------------------------------------------------------------------- after a failure

    def _others(self) -> list[Failure]:
        """Other ranks' failures in this launch."""
        if self.run_dir is None:
            return []
        own = _failure_file(self.run_dir, self.rank)
        files = (self.run_dir / "failures").glob("rank*.json")
        return _read_failures([file for file in files if file != own])

    def _end(self, failure: Failure, everywhere: bool) -> None:
        """End all ranks; when alone, return for papermill to raise its own error.

        Args:
            failure: This rank's failure.
            everywhere: Whether all ranks have the same one by construction, so that rank 0's is
                enough.
        """
        if max(self.size, _world_size()) == 1:
            self._record(failure)
            return
        if self.rank == 0:
            others = self._others()
            deadline = time.monotonic() + WAIT_FOR_CAUSE
            while failure.is_consequence and time.monotonic() < deadline:
                if any(not other.is_consequence for other in others):
                    break
                time.sleep(0.1)
                others = self._others()
            self._conclude(failure, others)
        if not everywhere:
            if self.run_dir is not None:
                failure.write(self.run_dir)
            # Rank 0 shows the traceback, if the failure file can bring it there.
            told = self.run_dir is not None or failure.is_consequence
            for line in [failure.headline] if told else failure.traceback or [failure.headline]:
                self._prefixed(line)
        _shut_horovod_down()
        # Until rank 0 has saved the notebook, after which the launcher ends this process; or, with
        # a launcher that does not, until the watcher would have seen rank 0's failure.
        deadline = time.monotonic() + WAIT_FOR_END
        while time.monotonic() < deadline:
            time.sleep(0.5)
            if self.run_dir is not None and _read_failures([_failure_file(self.run_dir, 0)]):
                break
        else:
            if not everywhere and self.run_dir is not None:
                # Rank 0 had run its last cell before this rank failed.
                for line in ["rank 0 did not take this failure up:", *failure.traceback]:
                    self._prefixed(line)
        _leave(_ERROR_STATUS)

    def _leave_stopped(self) -> NoReturn:
        """Save the notebook and leave with the status that tells a job script to resubmit."""
        from papermill.iorw import write_ipynb

        if self.rank == 0:
            try:
                results = sys.modules.get("bnnlib.record.run")
                if results is not None:
                    results.record_stop(self._stopped)
                if self.target is not None:
                    write_ipynb(self.nb_man.nb, self.target)
            except (OSError, BnnlibError) as problem:
                print(f"stopped, but not all was written: {problem}", file=self.stderr)
        distributed = sys.modules.get("bnnlib.inference.distributed")
        if distributed is not None:
            distributed.leave_together(stopping.EXIT_CODE)
        _leave(stopping.EXIT_CODE)

    def _take_over(self, others: list[Failure]) -> None:
        """On rank 0, end the run from the watcher's thread: the main thread hangs in a cell."""
        if not self._ending.acquire(blocking=False):
            return
        nb_man, recorder = self.nb_man, self.recorder
        with recorder.lock:
            recorder.stop()
            cell = nb_man.nb.cells[recorder.cell_index]
            nb_man.cell_exception(cell, cell_index=recorder.cell_index)
            nb_man.cell_complete(cell, cell_index=recorder.cell_index)
            nb_man.notebook_complete()
            self._conclude(None, others)

    def _stalled(self, error: DistributedError) -> None:
        """End this rank from another thread: its main thread hangs, or waits for one that does."""
        frames = "".join(traceback.format_exception(error)).splitlines()
        index = self.recorder.cell_index
        own = Failure.here(self.rank, type(error).__name__, str(error), frames, index)
        if self.rank != 0:
            if self.run_dir is not None:
                own.write(self.run_dir)
            self._prefixed(own.headline)
            time.sleep(WAIT_FOR_END)
            _leave(_ERROR_STATUS)
        if not self._ending.acquire(blocking=False):
            return
        time.sleep(WAIT_FOR_OWN_FAILURE)
        others = self._others()
        silent = sorted({*range(1, self.size)} - {other.rank for other in others})
        if silent and self.run_dir is not None:
            ranks = ", ".join(map(str, silent))
            own = dataclasses.replace(own, evalue=f"{own.evalue}; no sign of life of rank {ranks}")
        with self.recorder.lock:
            self.recorder.error(own.ename, own.evalue, own.traceback)
            self.recorder.stop()
            self.nb_man.notebook_complete()
            if self.size == 1:
                self._record(own)
                self.nb_man.save()
                print(*own.traceback, sep="\n", file=self.stderr)
                _leave(_ERROR_STATUS)
            self._conclude(own, others)

    def _give_up(self, failures: list[Failure]) -> None:
        """On another rank, follow rank 0, which has saved everything by now."""
        self._prefixed(f"ends because of the failure on rank 0: {failures[0].headline}")
        _leave(_ERROR_STATUS)

    def _conclude(self, own: Failure | None, others: list[Failure]) -> NoReturn:
        """On rank 0 of several: put the cause into the notebook, save all, and end the process."""
        from papermill.exceptions import PapermillExecutionError
        from papermill.execute import raise_for_execution_errors

        failures = [failure for failure in (own, *others) if failure is not None]
        causes = [failure for failure in failures if not failure.is_consequence]
        cause = (causes or failures)[0]
        nb, index = self.nb_man.nb, self.recorder.cell_index
        cell = nb.cells[index]
        self.nb_man.cell_exception(cell, cell_index=index)
        self._show_others(cell, own, cause, causes)
        try:
            raise_for_execution_errors(nb, self.target)
        except PapermillExecutionError:
            pass  # it has marked and saved the notebook; the summary below says the same shorter
        except Exception:
            traceback.print_exc()
        self._record(cause)
        self._summarize(cell, cause, causes)
        if self.run_dir is not None:
            # Last: the other ranks leave when they see it.
            with contextlib.suppress(OSError):  # a full disk must not keep this process here
                dataclasses.replace(own or cause, rank=0).write(self.run_dir)
        _shut_horovod_down()
        _leave(_ERROR_STATUS)

    def _show_others(
        self, cell: Any, own: Failure | None, cause: Failure, causes: list[Failure]
    ) -> None:
        """Add other ranks' errors to the cell, the cause before the cell's own error."""
        told = {(own.ename, own.evalue)} if own is not None and own is cause else set()
        outputs: list[Any] = []
        for failure in causes or [cause]:
            if failure is own or (failure.ename, failure.evalue) in told:
                continue
            if len(outputs) == MAX_TRACEBACKS:
                break
            told.add((failure.ename, failure.evalue))
            lines = failure.traceback or [failure.headline]
            outputs.append(
                nbformat.v4.new_output(
                    "error",
                    ename=failure.ename,
                    evalue=failure.evalue,
                    traceback=[f"rank {failure.rank}: {line}" for line in lines],
                )
            )
        errors = [i for i, output in enumerate(cell.outputs) if output.output_type == "error"]
        at = errors[0] if errors and own is not cause else len(cell.outputs)
        cell.outputs[at:at] = outputs

    def _record(self, cause: Failure) -> None:
        """Mark the run's record as failed; what prevents that is told, and changes nothing else."""
        parameters = dict(self.nb_man.nb.metadata.papermill.get("parameters") or {})
        directory = parameters.get("run_dir") or self.run_dir
        if self.rank != 0 or directory is None:
            return
        error = {
            "rank": cause.rank,
            "type": cause.ename,
            "message": cause.evalue,
            "traceback": cause.traceback,
            "ranks": max(self.size, _world_size()),
        }
        try:
            from bnnlib.record.run import record_failure

            record_failure(Path(directory), parameters=parameters, error=error)
        except (ImportError, OSError, BnnlibError, ValueError, TypeError) as problem:
            print(f"the run's record could not be written: {problem!r}", file=self.stderr)

    def _summarize(self, cell: Any, cause: Failure, causes: list[Failure]) -> None:
        same = [f.rank for f in causes if (f.ename, f.evalue) == (cause.ename, cause.evalue)]
        ranks = f"rank {cause.rank}" if len(same) < 2 else f"ranks {', '.join(map(str, same))}"
        where = f"In [{cell.execution_count}]" if cell.execution_count else "its parameters"
        lines = [
            "",
            f"{ranks} of {max(self.size, _world_size())} failed; rank 0 stopped in {where}:",
            *(cause.traceback or [cause.headline]),
            "",
        ]
        if self.target is not None:
            lines.append(f"The notebook up to here: {str(self.target).removeprefix(RANK0_PREFIX)}")
        print("\n".join(lines), file=self.stderr, flush=True)


def _both(echo: Callable[[str], Any], file: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        echo(text)
        file.write(text)
        file.flush()

    return write
