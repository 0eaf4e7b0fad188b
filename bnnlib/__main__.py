"""``python -m bnnlib COMMAND``: train runs, read their records, draw their figures.

Each command imports what it needs when it runs, so that ``table``, ``sweep`` and every ``--help``
work without TensorFlow, TensorFlow Probability and Horovod.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bnnlib import launcher
from bnnlib.errors import BnnlibError

Arguments = argparse.Namespace

CODES = """exit codes:
  0   done
  1   an error, which is printed
  2   a word of the command line is wrong"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``python -m bnnlib``; of this process if not given.

    Returns:
        The exit code.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return int(arguments.run(arguments) or 0)
    except BnnlibError as error:
        # Every rank meets what is wrong on the command line; one of them says it.
        if launcher.rank() == 0:
            print(f"python -m bnnlib {arguments.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bnnlib",
        description="Distributed training of Bayesian neural networks. Every command says more "
        "with --help.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, run: Callable[[Arguments], int | None], summary: str, text: str) -> Parser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"{text}\n\n{CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    command = add("ladder", _ladder, "time Horovod's average at growing message sizes", LADDER)
    command.add_argument("--out", required=True, metavar="FILE", help="the json file to write")
    command.add_argument("--repeats", type=int, default=9, help="turns (default: %(default)s)")
    command.add_argument("--sizes", type=int, nargs="+", help="in bytes (default: 4 B to 16 MiB)")
    command.add_argument("--times", type=int, default=0, help="averages a turn (default: by size)")
    return parser


Parser = argparse.ArgumentParser

LADDER = """The cost model of notebooks/03_scaling is fitted to these times. Start it on the ranks
of one launch:

  mpiexec -n 2 python -m bnnlib ladder --out runs/scaling/ladder.json"""


def _ladder(arguments: Arguments) -> None:
    from bnnlib.launch import ladder

    ladder.write(arguments.out, arguments.sizes or ladder.SIZES, arguments.repeats, arguments.times)


if __name__ == "__main__":
    sys.exit(main())
