"""What cells print: whole lines, what carriage returns leave, how much a notebook keeps."""

from typing import Any

import nbformat
import pytest

from bnnlib.spmd import text
from bnnlib.spmd.text import CellText, Lines


class Counted(nbformat.NotebookNode):
    """An output that counts the characters that are ever put into it."""

    characters = 0

    def __setattr__(self, key: str, value: Any) -> None:
        type(self).characters += len(value) if key == "text" else 0
        super().__setattr__(key, value)


class CountedOutputs(list[Any]):
    def append(self, output: Any) -> None:
        Counted.characters += len(output.text)
        super().append(Counted(output))


def printed(pieces: list[str], names: tuple[str, ...] = ("stdout",)) -> list[Any]:
    outputs = CountedOutputs()
    cell = CellText(outputs)
    for index, piece in enumerate(pieces):
        cell.add(names[index % len(names)], piece)
    cell.write()
    return outputs


def test_lines_pass_whole_and_as_a_terminal_shows_them() -> None:
    lines: list[str] = []
    writer = Lines(lines.append)
    for piece in ("a", "b\nc", "\r1/2", "\r2/2\n", "crlf\r\n", "re", "st"):
        writer.write(piece)
    assert lines == ["ab", "2/2", "crlf"]
    writer.close()
    assert lines[-1] == "rest"


@pytest.mark.parametrize("number", [1_000, 16_000, 64_000])
def test_each_character_is_copied_a_few_times_however_much_is_printed(number: int) -> None:
    # print() writes a line and its end apart.
    pieces = [piece for line in range(number) for piece in (f"line {line:06}", "\n")]
    Counted.characters = 0
    outputs = printed(pieces)
    assert Counted.characters <= 2 * sum(map(len, pieces))
    assert outputs[0].text.startswith("line 000000\nline 000001\n")
    assert outputs[-1].text.endswith(f"\nline {number - 1:06}\n")


def test_a_cell_keeps_the_beginning_and_the_end_and_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "KEEP_FIRST", 40)
    monkeypatch.setattr(text, "KEEP_LAST", 20)
    first, last = printed([f"line {line:03}\n" for line in range(100)])
    assert first.text == "".join(f"line {line:03}\n" for line in range(5))
    left_out, _, kept = last.text.removeprefix("\n").partition("\n")
    assert kept == "line 098\nline 099\n"
    assert left_out == (
        "[837 characters (93 lines) are left out: of what a cell prints, its notebook keeps the "
        "first 40 characters and the last 20]"
    )
    assert 837 + len(first.text) + len(kept) == 100 * len("line 000\n")


def test_a_bar_that_overwrites_itself_is_not_counted_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "KEEP_FIRST", 40)
    (bar,) = printed(["before\n", *(f"\r{step}/1000" for step in range(1001)), "\n"])
    assert bar.text == "before\n1000/1000\n"


def test_streams_in_turn_make_a_bounded_number_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_OUTPUTS", 10)
    outputs = printed([f"{line}\n" for line in range(100)], ("stdout", "stderr"))
    assert len(outputs) == 12
    assert "".join(o.text for o in outputs if o.name == "stdout").split() == [
        str(line) for line in range(0, 100, 2)
    ]
