"""Draws the README's figure from the tables of the questions that it answers: `make figures`.

    python -m jobs.local.answers        after the questions' own figures

writes figures/answers/answers.csv, .png, .svg and .json.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bnnlib.analysis import gallery
from bnnlib.analysis.questions import answers
from bnnlib.record.files import write_text

ROOT = Path(__file__).parents[2]


def draw(figures: Path, target: Path) -> list[Path]:
    """Makes the figure of the tables below `figures`.

    Returns:
        The paths of its files in `target`.
    """
    tables = [pd.read_csv(figures / name, dtype={"prior": str}) for name in answers.TABLES]
    table = answers.table(*tables)
    path = target / "answers.csv"
    write_text(path, table.to_csv(index=False, float_format="%.6g"))
    origin = {
        "command": "python -m jobs.local.answers",
        "tables": [f"figures/{name}" for name in answers.TABLES],
    }
    gallery.save_origin(origin, path.with_suffix(".json"))
    figure = answers.draw(table)
    pictures = [gallery.save_picture(figure, path.with_suffix(".png"))]
    pictures.append(gallery.save_svg(figure, path.with_suffix(".svg")))
    return [path, path.with_suffix(".json"), *pictures]


def main() -> None:
    """Draws the figure into figures/answers."""
    made = draw(ROOT / "figures", ROOT / "figures" / "answers")
    print(f"answers: {len(made)} files in {made[0].parent}")


if __name__ == "__main__":
    main()
