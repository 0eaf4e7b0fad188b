"""The seed study's command line, with the notebook's record.

``horovodrun -n 2 -H localhost:2 python -m bnnlib.training --flagfile=config.cfg``
"""

from __future__ import annotations

import argparse
import os

from bnnlib import launcher, process
from bnnlib.errors import BnnlibError
from bnnlib.launch import command, seed_study_flags
from bnnlib.record import stopping


def main(argv: list[str] | None = None) -> None:
    """Trains, evaluates and records the run that a flagfile describes; ends all ranks on an error.

    Args:
        argv: the words after the program's name; of this process if not given.
    """
    with process.steady_terminal():
        _run(argv)


def _run(argv: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bnnlib.training", description=main.__doc__)
    parser.add_argument("--flagfile", required=True, help="the seed study's flags, one a line")
    arguments = parser.parse_args(argv)
    try:
        experiment, environment, verbose = seed_study_flags.read(
            arguments.flagfile, launcher.size()
        )
        stopping.stop_time()  # a mistyped deadline is told before MPI starts
    except BnnlibError as error:
        # Before MPI starts, on every rank alike: each can end by itself.
        parser.exit(1, f"{parser.prog}: {error}\n" if launcher.rank() == 0 else None)
    os.environ.update(environment)
    command.run(experiment, verbose)


if __name__ == "__main__":
    main()
