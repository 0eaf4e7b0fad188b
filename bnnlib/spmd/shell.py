"""A kernel's shell in this process, without the kernel: its messages go to a recorder.

The shell, its displays and its magics are ipykernel's own, so that a cell does here what it does in
JupyterLab. ipykernel would send what a cell shows over a socket to a client; here the message stays
in the process.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import comm
from comm.base_comm import BaseComm
from ipykernel.compiler import XCachingCompiler
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core import page
from IPython.core.error import UsageError
from jupyter_client.jsonutil import json_clean
from jupyter_client.session import Session
from traitlets import Any as AnyTrait
from traitlets import Type
from traitlets.config import Config

from bnnlib.record import stopping
from bnnlib.spmd.outputs import Recorder, Stream
from bnnlib.spmd.text import whole_characters

# What ipykernel sets for the programs that cells start: colours, and no pager that waits for a key.
_OF_A_KERNEL = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}


class Messages(Session):
    """A kernel's session that hands its messages to a recorder instead of a socket."""

    recorder = AnyTrait()

    def send(  # type: ignore[override]
        self,
        stream: Any,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        ident: Any = None,
        buffers: list[Any] | None = None,
        **keywords: Any,
    ) -> dict[str, Any]:
        """Record a message, with its content as it would have come out of the socket."""
        if isinstance(msg_or_type, str):
            message = self.msg(msg_or_type, content=content, parent=parent)
        else:
            message = msg_or_type
        try:
            message["content"] = self.unpack(self.pack(message["content"]))
        except UnicodeEncodeError:  # the message of an error, say, holds half a character
            text = json.dumps(json_clean(message["content"]), ensure_ascii=False)
            message["content"] = json.loads(whole_characters(text))
        message["buffers"] = buffers or []
        self.recorder.message(message)
        return message


class Shell(ZMQInteractiveShell):
    """A kernel's shell whose displays, results and errors go to a `Recorder`."""

    compiler_class = Type(XCachingCompiler)  # as a kernel names cells in tracebacks
    recorder = AnyTrait()

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.config.pop("IPKernelApp", None)  # older releases of tqdm take it for a front end
        messages = Messages(recorder=self.recorder)
        self.display_pub.session = self.displayhook.session = messages
        self.display_pub.pub_socket = self.displayhook.pub_socket = None

    @property
    def kernel(self) -> Any:
        """Raises: other code asks by `hasattr` whether there is a kernel, and there is none."""
        raise AttributeError("a shell of the engine spmd has no kernel")

    def init_environment(self) -> None:
        """Leave the environment to `interactive`, which also takes the changes back."""

    def init_hooks(self) -> None:
        """Show `name?` in the notebook; a kernel sends it to the front end's pager."""
        super().init_hooks()
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
        super()._showtraceback(etype, evalue, stb)

    async def run_in_loop(self, source: str, cell_id: str | None) -> BaseException | None:
        """Run one cell within the running event loop; return the error that ended it, if any.

        The steps are those of ipykernel's `IPythonKernel.do_execute`: a cell that awaits is awaited
        in the loop, any other runs at once and finds the loop running.
        """
        failed = None
        try:
            transformed = self.transform_cell(source)
        except Exception:  # the cell itself will show it
            transformed, failed = source, sys.exc_info()
        if self.should_run_async(
            source, transformed_cell=transformed, preprocessing_exc_tuple=failed
        ):
            result = None
            try:
                result = await self.run_cell_async(
                    source,
                    store_history=True,
                    transformed_cell=transformed,
                    preprocessing_exc_tuple=failed,
                    cell_id=cell_id,
                )
            finally:
                self.events.trigger("post_execute")
                self.events.trigger("post_run_cell", result)
        else:
            result = self.run_cell(source, store_history=True, cell_id=cell_id)
        assert self.payload_manager is not None  # of a shell that is up
        self.payload_manager.clear_payload()  # it is for a front end
        return result.error_before_exec or result.error_in_exec


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
    with (
        open(os.devnull, encoding="utf-8") as no_input,
        # No profile in the home folder: many ranks would create and lock files there at once.
        tempfile.TemporaryDirectory(prefix="bnnlib-ipython-") as folder,
        environment(**_OF_A_KERNEL),
        _comms(recorder),
    ):
        sys.stdin = no_input
        sys.stdout = Stream("stdout", recorder, kept["stdout"])
        sys.stderr = Stream("stderr", recorder, kept["stderr"])
        # A kernel imports from its working folder, the papermill command from its own.
        sys.path = ["", *kept["path"]]
        shell = Shell.instance(config=config, ipython_dir=folder, recorder=recorder)
        assert shell.extension_manager is not None
        assert shell.history_manager is not None
        shell.extension_manager.load_extension("storemagic")  # as a kernel does
        # IPython keeps these in the class: an earlier notebook of this process would go on in this.
        shell.history_manager.outputs = collections.defaultdict(list)
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
    root, papermills = logging.getLogger(), logging.getLogger("papermill")
    root_before, papermills_before = (
        (root.handlers, root.level),
        (papermills.handlers, papermills.level, papermills.propagate),
    )
    papermills.handlers, papermills.propagate = [*papermills.handlers, *root.handlers], False
    papermills.setLevel(papermills.getEffectiveLevel())
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = root_before[0]
        root.setLevel(root_before[1])
        papermills.handlers, papermills.propagate = papermills_before[0], papermills_before[2]
        papermills.setLevel(papermills_before[1])


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


@contextlib.contextmanager
def _comms(recorder: Recorder) -> Iterator[None]:
    """Widgets send their state to the recorder, which keeps it in the notebook."""
    messages = Messages(recorder=recorder)

    class Comm(BaseComm):
        def publish_msg(
            self,
            msg_type: str,
            data: Any = None,
            metadata: Any = None,
            buffers: Any = None,
            **keys: Any,
        ) -> None:
            content = {"data": data or {}, "comm_id": self.comm_id, **keys}
            messages.send(None, msg_type, content, buffers=buffers)

    before = comm.create_comm
    comm.create_comm = Comm
    try:
        yield
    finally:
        comm.create_comm = before


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop that cells find running; tasks that are left at its end are cancelled."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
