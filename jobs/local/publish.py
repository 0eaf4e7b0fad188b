"""Takes the figures of `make study` into the repository, with the tables of its runs.

    python -m jobs.local.publish runs/digits runs/tiny figures/digits

copies the pictures that figures/digits holds, with their tables and origins, and writes beside them
`runs.csv` (a row a run: its method, scores, convergence, images, commit), `differences.csv` (each
Bayesian network less its twin on the test set and on every shift) and `numbers.csv` (the same study
on tiny data). Runs of several commits, or of changed files, are refused: a figure has one origin.

tests/end_to_end/test_numbers.py trains on the tiny data again. Where it finds other numbers than
`numbers.csv`, the code has changed what a seed gives, and the figures are of older code.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from bnnlib.analysis import runs as runs_of
from bnnlib.analysis import tables
from bnnlib.errors import BnnlibError, RecordError
from bnnlib.record.files import write_text
from bnnlib.record.schema import read_record

COLUMNS = [
    *("run_id", "model", "inference", "dataset", "seed", "ranks", "virtual_ranks", "epochs"),
    *("num_train", "num_test", "accuracy", "nll", "brier", "ece", "temperature", "converged"),
    *("kl_change", "train_seconds", "evaluation_seconds", "images_per_second", "commit"),
]


# What a run on tiny data is known by: of training, of the posterior, and of prediction.
NUMBERS = ["run_id", "train_nll", "kl", "nll"]


def publish(source: Path, tiny: Path, target: Path) -> None:
    """Copies the figures of `source` and writes the tables.

    Raises:
        RecordError: the runs are of several commits, or of files that no commit holds, or a figure
            is missing.
    """
    group = tables.Group(source)
    runs, small = runs_of.load(source), runs_of.load(tiny)
    both = pd.concat([runs, small])
    commits = sorted(set(map(str, both.commit)))
    changed = sorted(both.path[~both.clean.eq(True)])
    if len(commits) > 1 or changed:
        raise RecordError(
            f"{source}, {tiny}: runs of the commits {', '.join(commits)}, of changed files "
            f"{changed}: expected one commit and a clean checkout; commit, and make both studies "
            "in a fresh clone"
        )
    pictures = sorted(target.glob("*.png"))
    for picture in pictures:
        for suffix in (".png", ".csv", ".json"):
            file = source / "figures" / f"{picture.stem}{suffix}"
            if not file.is_file():
                raise RecordError(f"{file} is missing: make the study's figures first")
            shutil.copy(file, target)
    test, shifted = group.predictions(), group.by_set("shift")
    differences = pd.concat([tables.differences(test), tables.shift_differences(shifted)])
    _write(target / "differences.csv", differences)
    images = pd.DataFrame([_images(path) for path in runs.path])
    _write(target / "numbers.csv", small[NUMBERS])
    _write(target / "runs.csv", runs.join(images)[COLUMNS])


def _images(run: str) -> dict[str, int]:
    """How many images a run trained on and was tested on."""
    arrays = read_record(Path(run))["data"]["arrays"]
    return {f"num_{part}": arrays[f"x_{part}"]["shape"][0] for part in ("train", "test")}


def _write(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False))


def main() -> int:
    """Publishes one group."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="the study's records, such as runs/digits")
    parser.add_argument("tiny", type=Path, help="of the same study on tiny data: runs/tiny")
    parser.add_argument("figures", type=Path, help="where they are kept, such as figures/digits")
    arguments = parser.parse_args()
    try:
        publish(arguments.runs, arguments.tiny, arguments.figures)
    except BnnlibError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
