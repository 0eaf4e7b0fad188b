"""Keeps figures so that they can be traced: picture, table, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from bnnlib.analysis.words import with_labels
from bnnlib.errors import RecordError
from bnnlib.record.files import write_atomically, write_text
from bnnlib.record.schema import to_json


@dataclasses.dataclass(frozen=True)
class Gallery:
    """A folder for a notebook's figures, with their origin.

    Attributes:
        directory: of pictures, tables and origins.
        origin: of :func:`origin`.
        models: the names of all that is compared, whose colours and labels are those of every
            figure and finding; where there are none, each figure's are its own.
    """

    directory: Path
    origin: Mapping[str, Any]
    models: Sequence[str] = ()

    def show(
        self, name: str, table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure], finding: str
    ) -> None:
        """Draws, keeps and explains a figure; without rows only says what is missing.

        Args:
            name: of the files.
            table: what the figure is drawn from.
            draw: a function of this module.
            finding: of :mod:`bnnlib.analysis.findings`, Markdown.
        """
        if len(table):
            table.attrs["models"] = list(self.models)
            figure = draw(table)
            save(figure, table, self.directory, name, self.origin)
            display(figure)
        self.say(finding)

    def say(self, finding: str) -> None:
        """Shows a finding, with the models' labels in place of their names."""
        display(Markdown(with_labels(finding, self.models)))


def save(
    figure: Figure, data: pd.DataFrame, directory: str | Path, name: str, origin: Mapping[str, Any]
) -> Path:
    """Keeps a figure so that it can be traced: picture, the table behind it, where it comes from.

    Args:
        figure: written as ``<name>.png``.
        data: written as ``<name>.csv``.
        directory: made if missing.
        name: of the three files.
        origin: of :func:`origin`, written as ``<name>.json``.

    Returns:
        The picture's path.

    Raises:
        RecordError: a file could not be written.
    """
    path = save_picture(figure, Path(directory) / f"{name}.png")
    write_text(path.with_suffix(".csv"), data.to_csv(index=False))
    save_origin(origin, path.with_suffix(".json"))
    return path


def save_picture(figure: Figure, path: Path) -> Path:
    """Writes the picture alone, for :func:`save`; returns its path."""
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
    return path


def save_svg(figure: Figure, path: Path) -> Path:
    """Writes the picture for print, at any size; the same figure gives the same bytes."""
    # Neither the date nor random names of its parts.
    with mpl.rc_context({"svg.hashsalt": path.stem}):
        write_atomically(
            path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
    return path


def save_origin(origin: Mapping[str, Any], path: Path) -> None:
    """Writes the origin alone, for :func:`save`."""
    write_atomically(path, lambda file: file.write(to_json(origin)))


def origin(table: pd.DataFrame, notebook: str, command: str) -> dict[str, Any]:
    """Where a figure comes from: notebook, its command, and of each run its id, commit, command.

    Args:
        table: of :func:`bnnlib.analysis.runs.load`, the runs that the figure shows.
        notebook: that made the figure.
        command: that ran the notebook.
    """
    columns = ["group", "run_id", "path", "model", "dataset", "seed", "ranks", "commit", "clean"]
    columns += ["command", "started", "ended"]
    runs = table.astype(object).where(table.notna(), None)
    return {"notebook": notebook, "command": command, "runs": runs[columns].to_dict("records")}


def further(more: str, names: Sequence[str]) -> set[str]:
    """Which of a notebook's further figures are wanted.

    Args:
        more: their names with commas between them; ``all``: all; empty: none.
        names: that there are.

    Raises:
        RecordError: one of them is none of these; it says which there are.
    """
    wanted = {name.strip() for name in more.split(",") if name.strip()}
    if unknown := wanted - {*names, "all"}:
        raise RecordError(
            f"more = {more!r}: no further figure {', '.join(sorted(unknown))}; expected all, or of "
            + ", ".join(names)
        )
    return set(names) if "all" in wanted else wanted
