"""What a plan of many runs keeps in memory: each run's resident size after it, and their growth.

    python jobs/local/plan_memory.py [--runs 50] [--model BNN_FC_flip]

trains short runs one after another in this process, as ``python -m bnnlib plan`` does, and prints
the resident size (MB) after each. A plan holds one run at a time: the size after the last run is
that after the second, to 2 %.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import psutil

from bnnlib.experiment import Experiment
from bnnlib.launch import command, here
from bnnlib.record import provenance
from bnnlib.session import Session


def main() -> None:
    """Prints the sizes and the growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--model", default="BNN_FC_flip")
    arguments = parser.parse_args()
    process, sizes = psutil.Process(), []
    with tempfile.TemporaryDirectory() as folder, Session.begin() as session:
        origin = provenance.collect()
        for number in range(arguments.runs):
            experiment = Experiment(
                model=arguments.model,
                dataset="tiny",
                steps=4,
                test_draws=2,
                seed=number,
                run_dir=str(Path(folder) / str(number)),
            )
            command.train_one(session, experiment, origin, quiet=True)
            here.forget_graphs()
            sizes.append(process.memory_info().rss / 1e6)
            print(f"run {number + 1}: {sizes[-1]:.0f} MB", flush=True)
    print(f"growth from run 2 to run {len(sizes)}: {100 * (sizes[-1] / sizes[1] - 1):.1f} %")


if __name__ == "__main__":
    main()
