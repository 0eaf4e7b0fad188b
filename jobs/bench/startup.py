"""Where the seconds from a launch of two ranks to their first step go; `make bench` runs it.

Each way is launched several times in turn, with the files in the page cache as on a second launch:

    program     mpiexec -n 2 python tests/faults/train.py …, bnnlib.launch.command without notebook
    notebook    mpiexec -n 2 papermill notebooks/01_train.ipynb … --engine spmd

The stages are those of the run's record (`bnnlib.record.startup`); `total` is from the launch to
the line of the first step, so it also holds the launcher's own time and that step.

    python -m jobs.bench.startup [--repeats 3] [--model BNN_conv_flip] [--out figures/bench]

writes startup.csv and startup.json, its origin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.bench.common import ROOT, spread, worker_environment, write_origin, write_table

BIN = Path(sys.executable).parent
RANKS = "2"
TIMEOUT = 300.0


def launch(way: str, model: str, dataset: str, folder: Path) -> dict[str, float]:
    """One launch; seconds by stage."""
    run = folder / "run"
    values = {"model": model, "dataset": dataset, "steps": 1, "test_draws": 1, "run_dir": str(run)}
    parameters = folder / "parameters.yaml"
    parameters.write_text(json.dumps(values))  # YAML holds JSON
    words = {
        "program": [sys.executable, str(ROOT / "tests/faults/train.py"), json.dumps(values)],
        "notebook": [
            *(str(BIN / "papermill"), str(ROOT / "notebooks/01_train.ipynb")),
            *(f"rank0:{run}/train.ipynb", "--engine", "spmd", "-f", str(parameters)),
        ],
    }[way]
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / "mpiexec"), "-n", RANKS, *words],
            env=worker_environment(),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        lines = run / "steps.jsonl"
        while not (lines.exists() and lines.stat().st_size):
            if process.poll() is not None or time.monotonic() - started > TIMEOUT:
                process.kill()
                raise SystemExit(f"{way}: no step was taken:\n{(folder / 'log').read_text()}")
            time.sleep(0.005)
        total = time.monotonic() - started
        process.wait()
    from bnnlib.record.schema import read_record

    stages = read_record(run)["startup_seconds"]
    return {**stages, "total": total}


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="BNN_conv_flip")
    parser.add_argument("--dataset", default="mnist" if os.environ.get("BNN_DATA") else "digits")
    parser.add_argument("--out", type=Path, help="folder of startup.csv and startup.json")
    arguments = parser.parse_args()
    seconds_by_stage: dict[tuple[str, str], list[float]] = {}
    for repeat in range(arguments.repeats + 1):  # the first fills the page cache
        for way in ("program", "notebook"):
            with tempfile.TemporaryDirectory() as folder:
                stages = launch(way, arguments.model, arguments.dataset, Path(folder))
            print(way, {k: round(v, 2) for k, v in stages.items()}, file=sys.stderr, flush=True)
            for stage, seconds in stages.items() if repeat else ():
                seconds_by_stage.setdefault((way, stage), []).append(seconds)
    rows = []
    for (way, stage), times in seconds_by_stage.items():
        median, least, most = (round(value, 3) for value in spread(times))
        row = {"way": way, "stage": stage, "seconds": median}
        rows.append(row | {"seconds_min": least, "seconds_max": most})
        print(f"{way:10}{stage:20}{median:7.2f} s ({least:.2f} to {most:.2f})")
    if arguments.out:
        write_table(arguments.out / "startup.csv", rows)
        write_origin(
            arguments.out / "startup.json",
            model=arguments.model,
            dataset=arguments.dataset,
            ranks=int(RANKS),
        )


if __name__ == "__main__":
    main()
