"""What cells show: into the notebook as a kernel's client would write it, and to the terminal."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

import nbformat

# What a terminal no longer shows of a line after a carriage return (nbclient's rule).
_OVERWRITTEN = re.compile(r".*\r(?=[^\n])")


def prefixed_writer(terminal: TextIO, rank: int) -> Callable[[str], None]:
    """What writes a line to the ranks' common terminal, with the rank before it."""

    def write(line: str) -> None:
        terminal.write(f"[rank {rank}] {line}\n")  # one call a line, so that lines never mix
        terminal.flush()

    return write


class Lines:
    """Passes whole lines on, as a terminal would show them, so that ranks' lines never mix."""

    def __init__(self, sink: Callable[[str], Any]) -> None:
        self._sink = sink
        self._pending = ""

    def write(self, text: str) -> None:
        """Take text in any pieces."""
        *lines, pending = (self._pending + text).split("\n")
        self._pending = _OVERWRITTEN.sub("", pending)
        for line in lines:
            self._sink(_OVERWRITTEN.sub("", line.rstrip("\r")))

    def close(self) -> None:
        """Pass the last line on, which has no end."""
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


class Recorder:
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
        """Record into this cell from now on."""
        with self.lock:
            self.cell, self.cell_index = cell, index
            self._clear_pending = False

    def stop(self) -> None:
        """Record no more."""
        with self.lock:
            self.cell = None

    def stream(self, name: str, text: str) -> None:
        """Text for `stdout` or `stderr`."""
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
        """What `display()` shows, or what it shows in place of an earlier display."""
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
        """The value of the cell's last expression."""
        self._append(
            nbformat.v4.new_output(
                "execute_result",
                execution_count=count,
                data=_as_json(data),
                metadata=_as_json(metadata),
            )
        )

    def error(self, ename: str, evalue: str, frames: list[str]) -> None:
        """An exception with its traceback."""
        self._append(nbformat.v4.new_output("error", ename=ename, evalue=evalue, traceback=frames))

    def clear(self, wait: bool) -> None:
        """Drop the cell's outputs, now or when the next one comes."""
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
        """The terminal's, for faulthandler and child processes."""
        return self._terminal.fileno()


class Terminal:
    """Rank 0's terminal: text as it comes, and papermill's progress bar out of its way."""

    def __init__(self, nb_man: Any) -> None:
        self._nb_man = nb_man
        self._stdout = sys.stdout
        self._bar_shown = True
        self._line_open = False

    def writer(self, terminal: TextIO) -> Callable[[str], None]:
        """What writes a stream's text to `terminal`."""

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
