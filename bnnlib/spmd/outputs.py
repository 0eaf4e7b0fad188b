"""What cells show: into the notebook as a kernel's client would write it, and to the terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from nbclient import NotebookClient

from bnnlib.spmd.text import CellText, whole_characters

# Seconds between what a cell has printed and its outputs, where no other output follows.
WRITE_EVERY = 1.0
# The messages of Jupyter's protocol that append an output to the cell.
_ADD_OUTPUTS = {"display_data", "execute_result", "error"}


def prefixed_writer(terminal: TextIO, rank: int) -> Callable[[str], None]:
    """A function that writes a line to the ranks' common terminal, with the rank before it."""

    def write(line: str) -> None:
        terminal.write(f"[rank {rank}] {line}\n")  # one call a line, so that lines never mix
        terminal.flush()

    return write


class Recorder:
    """Puts what the current cell shows into the notebook, and its text to the terminal.

    nbclient writes a kernel's messages down here as it does under papermill's own engine: results,
    displays and their updates by id, errors, `clear_output`, the state of widgets. Text is gathered
    here instead: a kernel does so before it sends a message, as nbclient makes (and validates) one
    output of each. Text that a carriage return has overwritten is dropped, so that a progress bar
    leaves its last state; nbclient's own option for that, `coalesce_streams`, moves outputs without
    their display ids.

    Args:
        nb_man: papermill's manager of the notebook.
        echo: where text goes besides the notebook, for `stdout` and `stderr`.
    """

    def __init__(self, nb_man: Any, echo: dict[str, Callable[[str], Any]]) -> None:
        self.nb_man = nb_man
        self.cell: Any = None
        self.cell_index = 0
        self.lock = threading.RLock()  # cells may print from threads
        self._echo = echo
        self._client = NotebookClient(nb_man.nb)
        self._text = CellText([])
        self._written = 0.0

    def start(self, cell: Any, index: int) -> None:
        """Record into this cell from now on."""
        with self.lock:
            self.cell, self.cell_index = cell, index
            self._client.clear_before_next_output = False
            self._text = CellText(cell.get("outputs", []))

    def stop(self) -> None:
        """Record no more."""
        with self.lock:
            self._text.write()
            self.cell, self._text = None, CellText([])

    def stream(self, name: str, text: str) -> None:
        """Text for `stdout` or `stderr`."""
        with self.lock:
            self._echo[name](text)
            if self.cell is None or not text:
                return
            if self._client.clear_before_next_output:
                now = {"parent_header": {}, "content": {"wait": False}}
                self._client.clear_output(self.cell.outputs, now, self.cell_index)
                self._client.clear_before_next_output = False
                self._text = CellText(self.cell.outputs)
            self._text.add(name, whole_characters(text))
            self._save()

    def message(self, message: dict[str, Any]) -> None:
        """A kernel's message to its client about what the cell shows, of Jupyter's protocol."""
        with self.lock:
            if self.cell is None:
                return
            kind, content = message["msg_type"], message["content"]
            if kind in _ADD_OUTPUTS:
                if self._client.clear_before_next_output:
                    self._text = CellText(self.cell.outputs)
                else:
                    self._text.write()
            self._client.process_message(message, self.cell, self.cell_index)
            if kind == "clear_output" and not content["wait"]:
                self._text = CellText(self.cell.outputs)
            self._save()

    def error(self, ename: str, evalue: str, frames: list[str]) -> None:
        """An exception with its traceback."""
        content = {"ename": ename, "evalue": evalue, "traceback": frames}
        header = {"msg_type": "error"}
        self.message(
            {"msg_type": "error", "header": header, "parent_header": {}, "content": content}
        )

    def finish(self) -> None:
        """Put the state of the notebook's widgets into its metadata."""
        with self.lock:
            self._client.set_widgets_metadata()

    def _save(self) -> None:
        """Save the notebook, if papermill finds it is time."""
        if time.monotonic() > self._written + WRITE_EVERY:
            self._text.write()
            self._written = time.monotonic()
            self.nb_man.autosave_cell()


@contextlib.contextmanager
def standard_output(kept_for_notebook: bool) -> Iterator[Callable[[], None]]:
    """Keeps standard output for the notebook; what cells and their children print goes to stderr.

    Args:
        kept_for_notebook: whether papermill writes the notebook there (`-`); if not, nothing is
            changed.

    Yields:
        What gives standard output back, before the notebook is written.
    """
    if not kept_for_notebook:
        yield lambda: None
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def give_back() -> None:
        sys.stdout.flush()
        os.dup2(kept, 1)

    try:
        yield give_back
    finally:
        give_back()
        os.close(kept)


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of the cells."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, name: str, recorder: Recorder, terminal: TextIO) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._channel, self._recorder, self._terminal = name, recorder, terminal

    def write(self, text: str) -> int:
        """Record `text` and pass it on to the terminal."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._recorder.stream(self._channel, text)
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def flush(self) -> None:
        """Flush the terminal."""
        self._terminal.flush()

    def fileno(self) -> int:
        """The terminal's file number, for faulthandler and child processes."""
        return self._terminal.fileno()


class Terminal:
    """Rank 0's terminal: text as it comes, and papermill's progress bar out of its way."""

    def __init__(self, nb_man: Any) -> None:
        self._nb_man = nb_man
        self._stdout = sys.stdout
        self._bar_shown = True
        self._line_open = False

    def writer(self, terminal: TextIO) -> Callable[[str], None]:
        """A function that writes a stream's text to `terminal`."""

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
