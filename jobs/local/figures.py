"""Draws the study's figures from their compact records: `make figures`.

    python -m jobs.local.figures [QUESTION …]           all questions, or these

writes figures/<question>/<name>.csv, .png, .svg and .json. The same records give the same bytes
under the locked matplotlib, so that `git status` stays clean where nothing has changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis import compact, gallery
from bnnlib.errors import BnnlibError
from bnnlib.record.files import write_text
from jobs.local import questions

ROOT = Path(__file__).parents[2]


def draw(name: str, source: Path, target: Path) -> list[Path]:
    """Makes the tables and pictures of one question.

    Args:
        name: of the question.
        source: the folder of its compact records.
        target: where the files go.

    Returns:
        Their paths.

    Raises:
        RecordError: the records cannot be read, or a file not be written.
    """
    records = compact.read(source / compact.FILE)
    origin = compact.origin(f"figures/{name}/{compact.FILE}", records)
    made = []
    question = questions.question(name)
    for other in question.beside:
        records += compact.read(source.parent / other / compact.FILE)
    if question.beside:
        origin["beside"] = [f"figures/{other}/{compact.FILE}" for other in question.beside]
    further = [pd.read_csv(source.parent / path) for path in question.tables]
    if question.tables:
        origin["tables"] = [f"figures/{path}" for path in question.tables]
    for title, (table, drawing) in question.make(records, *further).items():
        path = target / f"{title}.csv"
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
        gallery.save_origin(origin, path.with_suffix(".json"))
        made += [path, path.with_suffix(".json")]
        if drawing is not None and len(table):
            made += _pictures(drawing(table), path)
    return made


def _pictures(figure: Figure, path: Path) -> list[Path]:
    """The picture twice: for a README, and for print at any size."""
    return [
        gallery.save_picture(figure, path.with_suffix(".png")),
        gallery.save_svg(figure, path.with_suffix(".svg")),
    ]


def main() -> int:
    """Draws the figures of the questions that have records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", help="(default: all that have records)")
    names = parser.parse_args().questions
    figures = ROOT / "figures"
    try:
        known = [n for n in questions.QUESTIONS if (figures / n / compact.FILE).exists()]
        for name in names or known:
            made = draw(name, figures / name, figures / name)
            print(f"{name}: {len(made)} files in {figures / name}")
    except BnnlibError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
