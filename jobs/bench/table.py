"""How long the table of many runs takes to appear, the start of Python included; `make bench`.

The runs are copies of one record with another seed each, judged on as many sets as a run of the
study: the test set, images held out, 75 shifted sets and 3 sets out of distribution.

    python -m jobs.bench.table [--runs 200] [--repeats 5] [--out figures/bench]

writes table.csv and table.json, its origin.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jobs.bench.common import ROOT, spread, worker_environment, write_origin, write_table
from tests.analysis.records import random_probs, write_run

GOAL = 2.0  # seconds


def write_group(folder: Path, runs: int) -> None:
    """Writes records without predictions, which the table does not read."""
    labels = np.random.default_rng(0).integers(0, 3, 40)
    names = ["test", "holdout", *(f"shift{i // 5}-{i % 5 + 1}" for i in range(75))]
    sets: dict[str, tuple[np.ndarray, np.ndarray | None]]
    sets = {name: (random_probs([0, i]), labels) for i, name in enumerate(names)}
    sets |= {f"ood{i}": (random_probs([1, i]), None) for i in range(3)}
    write_run(folder / "run0", "CNN_FC", 0, sets)
    (folder / "run0" / "predictions.npz").unlink()
    record = json.loads((folder / "run0" / "run.json").read_text())
    for seed in range(1, runs):
        (folder / f"run{seed}").mkdir()
        record["parameters"]["seed"] = record["seed"] = seed
        (folder / f"run{seed}" / "run.json").write_text(json.dumps(record, indent=2))


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of table.csv and table.json")
    arguments = parser.parse_args()
    times = []
    with tempfile.TemporaryDirectory() as folder:
        write_group(Path(folder) / "group", arguments.runs)
        command = [sys.executable, "-m", "bnnlib", "table", str(Path(folder) / "group")]
        for repeat in range(arguments.repeats + 1):  # the first fills the page cache
            started = time.monotonic()
            done = subprocess.run(
                command, cwd=ROOT, env=worker_environment(), capture_output=True, text=True
            )
            seconds = time.monotonic() - started
            lines = done.stdout.count("finished")
            if done.returncode or lines != arguments.runs:
                raise SystemExit(f"the table has {lines} of {arguments.runs} runs: {done.stderr}")
            times += [seconds] if repeat else []
    median, least, most = (round(value, 3) for value in spread(times))
    verdict = "within" if median < GOAL else "beyond"
    print(f"{arguments.runs} runs: {median:.2f} s ({least:.2f} to {most:.2f}), {verdict} {GOAL} s")
    if arguments.out:
        row = {"runs": arguments.runs, "seconds": median}
        write_table(
            arguments.out / "table.csv", [row | {"seconds_min": least, "seconds_max": most}]
        )
        write_origin(arguments.out / "table.json", runs=arguments.runs)


if __name__ == "__main__":
    main()
