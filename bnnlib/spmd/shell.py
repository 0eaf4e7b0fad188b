"""IPython's shell without terminal and kernel, whose cells see the `sys` of a kernel."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any as AnyTrait
from traitlets import Type
from traitlets.config import Config

from bnnlib.record import stopping
from bnnlib.spmd.outputs import Recorder, Stream


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

    shell: Any  # a Shell
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


class Shell(InteractiveShell):
    """IPython without a terminal, whose displays and errors go to a `Recorder`."""

    compiler_class = Type(_Compiler)
    displayhook_class = Type(_DisplayHook)
    display_pub_class = Type(_DisplayPublisher)
    recorder = AnyTrait()

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Have no profile."""
        # Many ranks would create, and lock files in, one home folder at the same moment.
        self.profile_dir = None

    def init_hooks(self) -> None:
        """Show help in the notebook."""
        super().init_hooks()
        # `name?` shows its help in the notebook; the default starts a pager program.
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 99)

    def enable_gui(self, gui: str | None = None) -> None:
        """Refuse windows."""
        if gui not in (None, "inline"):
            raise UsageError(f"no window can be opened for {gui!r} here: use %matplotlib inline")

    def ask_exit(self) -> None:
        """Stop the notebook, for `exit()` in a cell."""
        raise SystemExit(0)

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        if issubclass(etype, stopping.Stopped):  # no failure, so no red text in the notebook
            self.recorder.stream("stdout", f"stopped: {evalue}\n")
            return
        self.recorder.error(etype.__name__, str(evalue), list(stb))


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
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
def interactive(recorder: Recorder) -> Iterator[Shell]:
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
        sys.stdout = Stream("stdout", recorder, kept["stdout"])
        sys.stderr = Stream("stderr", recorder, kept["stderr"])
        # A kernel imports from its working folder, the papermill command from its own.
        sys.path = ["", *kept["path"]]
        shell = Shell.instance(config=config)
        shell.recorder = recorder
        try:
            with _inline_figures(shell), _fresh_logging():
                yield shell
        finally:
            Shell.clear_instance()
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
def _inline_figures(shell: Shell) -> Iterator[None]:
    """Figures land in the notebook, as under a kernel."""
    if "matplotlib" not in sys.modules:
        # matplotlib reads this when a cell imports it, and finds the shell by itself.
        backend = os.environ.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        with environment(MPLBACKEND=backend):
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
