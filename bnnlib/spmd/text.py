"""Text that cells print: gathered in time and memory that do not grow with how it is printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nbformat

# Characters of a cell's text that its notebook keeps: the first so many, and of each stream the
# last so many. A notebook of more opens slowly, and a loop that prints for a night fills the disk.
KEEP_FIRST = 500_000
KEEP_LAST = 250_000
# Outputs of a cell after which text goes on as if KEEP_FIRST were reached: stdout and stderr in
# turn make an output of each line.
MAX_OUTPUTS = 1000

# What a terminal no longer shows of a line after a carriage return (nbclient's rule). Without the
# `^`, a line of n characters without one would be tried from each of them.
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)


# Halves of characters, from file names that are no UTF-8: no notebook can be written with one.
_HALF = re.compile("[\ud800-\udfff]")


def whole_characters(text: str) -> str:
    """`text` with the sign for what is no character, as a kernel's client gets it."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def as_terminals_show(text: str) -> str:
    """`text` without what carriage returns have overwritten."""
    return _OVERWRITTEN.sub("", text) if "\r" in text else text


class Lines:
    """Passes whole lines on, as a terminal would show them, so that ranks' lines never mix.

    Args:
        sink: gets each line, without its end.
    """

    def __init__(self, sink: Callable[[str], Any]) -> None:
        self._sink = sink
        self._pending: list[str] = []

    def write(self, text: str) -> None:
        """Take text in any pieces."""
        self._pending.append(text)
        if "\n" not in text and "\r" not in text:
            return
        *lines, pending = "".join(self._pending).split("\n")
        self._pending = [as_terminals_show(pending)]
        for line in lines:
            self._sink(as_terminals_show(line.rstrip("\r")))

    def close(self) -> None:
        """Pass the last line on, which has no end."""
        pending = "".join(self._pending)
        if pending:
            self._sink(pending)
        self._pending = []


class _LastText:
    """The end of a stream's text in a cell that has printed more than its notebook keeps."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._pieces: list[str] = []
        self._size = 0
        self._left_out = 0
        self._lines_left_out = 0

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)
        # Twice: the text is joined once for each KEEP_LAST characters, not for each print.
        if self._size > 2 * KEEP_LAST:
            self._join()

    def _join(self) -> str:
        text = as_terminals_show("".join(self._pieces))
        if len(text) > KEEP_LAST:
            start = len(text) - KEEP_LAST
            after_line = text.find("\n", start - 1) + 1
            if 0 < after_line < len(text):  # else the last line alone is too long
                start = after_line
            self._left_out += start
            self._lines_left_out += text.count("\n", 0, start)
            text = text[start:]
        self._pieces, self._size = [text], len(text)
        return text

    def write(self) -> None:
        text = self._join()
        if self._left_out:
            text = (
                f"\n[{self._left_out:,} characters ({self._lines_left_out:,} lines) are left out: "
                f"of what a cell prints, its notebook keeps the first {KEEP_FIRST:,} characters "
                f"and the last {KEEP_LAST:,}]\n{text}"
            )
        self._output.text = text


class CellText:
    """What one cell prints, on its way into the cell's outputs.

    :meth:`add` only collects; :meth:`write` joins what it has collected, so it is called when
    another output follows, and from time to time.

    Args:
        outputs: of the cell, where streams are appended.
    """

    def __init__(self, outputs: list[Any]) -> None:
        self._outputs = outputs
        self._name = ""
        self._pieces: list[str] = []
        self._pending = 0  # characters in pieces
        self._kept = 0  # characters in outputs
        self._last: dict[str, _LastText] = {}

    def add(self, name: str, text: str) -> None:
        """Text of the stream `name`."""
        if name in self._last:
            self._last[name].add(text)
            return
        if name != self._name:
            self._write_pieces()
            self._name = name
        if self._kept >= KEEP_FIRST or len(self._outputs) >= MAX_OUTPUTS:
            self._last[name] = _LastText(self._append(name, ""))
            self._last[name].add(text)
            return
        self._pieces.append(text)
        self._pending += len(text)
        if self._kept + self._pending >= KEEP_FIRST:
            self._write_pieces()

    def write(self) -> None:
        """Bring the cell's outputs up to date."""
        self._write_pieces()
        for last in self._last.values():
            last.write()

    def _write_pieces(self) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        self._pieces, self._pending = [], 0
        before = self._outputs[-1] if self._outputs else None
        if before is not None and before.output_type == "stream" and before.name == self._name:
            # Only the last line can still be overwritten.
            head, newline, tail = before.text.rpartition("\n")
            self._kept -= len(before.text)
            before.text = head + newline + as_terminals_show(tail + text)
        else:
            before = self._append(self._name, as_terminals_show(text))
        self._kept += len(before.text)

    def _append(self, name: str, text: str) -> Any:
        self._outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
        return self._outputs[-1]
