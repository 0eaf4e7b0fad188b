"""``python -m bnnlib COMMAND``: train runs, read their records, draw their figures.

Each command imports what it needs when it runs, so that ``table``, ``sweep``, ``figures`` and every
``--help`` work without TensorFlow, TensorFlow Probability and Horovod.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from bnnlib import launcher, process
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment, unknown_name

Arguments = argparse.Namespace

CODES = """exit codes:
  0   done
  1   an error, which is printed, such as a parameter or a column that does not exist
  2   the command line is none: an unknown command or option, or a word that is missing"""
STOPPED = """
  75  stopped in good order, by a signal or a deadline: the same command goes on"""

TRAIN = """Parameters are those of notebooks/01_train; a list with their defaults ends this page.
-p wins over -f, and the defaults hold for the rest:

  python -m bnnlib train -p model=CNN_FC -p dataset=tiny -p epochs=2
  mpiexec -n 2 python -m bnnlib train -f jobs/params/digits.yaml -p seed=1

The record goes to runs/, or to the parameter run_dir. The same command started again goes on from
the last checkpoint. Under `horovodrun --min-np` the run outlives lost workers (jobs/README.md)."""

PLAN = """A study file describes many runs in a few lines: jobs/studies/ has examples, and
`python -m pydoc bnnlib.launch.study_file` the language. This command checks the whole file, and
then does the runs that are for this launch's number of ranks, one after another. It passes over
those that have finished:

  mpiexec -n 2 python -m bnnlib plan jobs/studies/scaling_tiny.yaml --runs runs/try

A run that fails is recorded, the others go on, and the exit code is 1 at the end."""

LAPLACE = """The posterior is of the last layer's weights, and the finished run must be of a network
without one: a CNN_…, trained by Adam, without dropout. The run stays as it is. A new record beside
it, RUN-laplace, has the same training and other predictions, and every table and figure shows both.
The training set is divided among the ranks, which may be other than those that trained:

  python -m bnnlib laplace runs/digits/CNN_FC-r2-s0
  mpiexec -n 2 python -m bnnlib laplace runs/digits/CNN_FC-r2-s0 --predict-with probit

The parameter `laplace: true` does the same at the end of a training."""

EVALUATE = """Nothing is trained, and the run stays as it is. A new record beside it, such as
RUN-predict_with=mean, has the same training and other predictions, and every table and figure shows
both. Test draws, what predicts, and the sets may be others; the ranks may be, too:

  python -m bnnlib evaluate runs/digits/BNN_FC_flip -p predict_with=mean
  mpiexec -n 2 python -m bnnlib evaluate runs/digits/CNN_FC -p 'eval_sets=[test, shifts]'"""

SWEEP = """The study files are those of plan. Each run becomes a job of the site's queue, and each
group's analysis waits for its runs. Called again, the command submits what has neither finished nor
is queued:

  python -m bnnlib sweep jobs/studies/sweep.yaml --dry-run    the runs, with nodes and node-hours
  python -m bnnlib sweep jobs/studies/sweep.yaml              submit them
  python -m bnnlib sweep jobs/studies/sweep.yaml --status     how all of them stand
  python -m bnnlib sweep jobs/studies/sweep.yaml --gpus 4     one rank a GPU, four a node

With --packed the runs share one job, side by side on parts of its nodes, as many at once as have
room. What is unfinished at the walltime goes on in its successor:

  python -m bnnlib sweep jobs/studies/sweep.yaml --packed --nodes 10 --dry-run
  python -m bnnlib sweep jobs/studies/sweep.yaml --packed --nodes 10 --walltime 03:00:00

Nothing is submitted while the queue cannot be asked whether a job is still there."""

PACK = """This is for jobs/SITE/pack.sh, in a job that `sweep --packed` submits. Each run has ranks
and cores of its own, on a part of the job's nodes, and what its ranks print is in its folder, in
output.txt. On this machine, with 8 ranks in all:

  RANKS=8 python -m bnnlib pack jobs/studies/scaling_tiny.yaml --site local

Finished runs are passed over. A run that fails leaves the others alone; the exit code is 1 at the
end."""

TABLE = """A row a run, from the records alone, also of runs that still train: its id, the
parameters that differ between the runs, and what came of each.

  python -m bnnlib table runs/digits --sort nll
  python -m bnnlib table runs/digits --by seed --format markdown
  python -m bnnlib table runs/digits --csv digits.csv

With --by seed a row is the mean over the finished runs that differ in nothing but the seed, with
their standard deviation (n - 1). csv and json hold all digits; json is strict, what is unknown is
null. --sort takes any parameter or metric of a record, --csv writes all of them."""

PREDICT = """Nothing is trained: the run is a folder with a record and a checkpoint. The images are
a .npy, or of a .npz its array x, images or x_test, or its only one. They are of the shape, type and
range that the network was trained on:

  python -m bnnlib predict runs/digits/BNN_FC_flip images.npz --out predictions.npz
  python -m bnnlib predict runs/digits/BNN_FC_flip images.npz --out mean.csv --with mean

A .npz is given mean_probs (images, classes) and expected_entropy (images, nats), a .csv a row an
image, with its class. Draws and seed not given are those of the run's own evaluation: its test
images are predicted as in its record."""

FIGURES = """Executes notebooks/02_calibration on the records, and notebooks/03_scaling where the
group has a ladder.json (see `python -m bnnlib ladder`). The executed notebooks go to RUNS, the
figures with their tables and origins to RUNS/figures:

  python -m bnnlib figures runs/digits"""

LADDER = """The cost model of notebooks/03_scaling is fitted to these times. Start it on the ranks
of one launch:

  mpiexec -n 2 python -m bnnlib ladder --out runs/scaling/ladder.json"""


class Parser(argparse.ArgumentParser):
    """Offers the nearest word for a command or an option that it does not know; rank 0 tells it.

    Attributes:
        commands: the parsers of the commands by name; none of a command's own parser.
    """

    commands: Mapping[str, Parser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its base does, once all commands and options are known ones."""
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            name = word.partition("=")[0]
            if word == "--" or (self.commands and word in self.commands):
                break
            if self.commands and not word.startswith("-"):
                self.error(unknown_name(word, list(self.commands), "command"))
            options = [one for one in self._option_string_actions if one != "-h"]  # as --help
            if name.startswith("--") and not any(one.startswith(name) for one in options):
                self.error(unknown_name(name, options, "option"))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with 2; rank 0 prints the message."""
        if launcher.rank() == 0:
            super().error(message)
        process.let_rank_0_say_it()
        sys.exit(2)


class Parameters(argparse.Action):
    """Reads `-p NAME=VALUE`, one or several, and `-p NAME VALUE`, papermill's form, as pairs."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Arguments, words: Any, option: Any = None
    ) -> None:
        """Appends the pairs; a lone NAME is refused."""
        if len(words) == 2 and "=" not in words[0]:
            pairs = [words]
        elif all("=" in word for word in words):
            pairs = [word.split("=", 1) for word in words]
        else:
            raise argparse.ArgumentError(
                self,
                f"{' '.join(words)}: expected NAME=VALUE or NAME VALUE, such as model=CNN_FC or "
                "model CNN_FC",
            )
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *pairs])


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number that is `least` or more."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, {least} or more")
        return int(text)

    return read


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``python -m bnnlib``; of this process if not given.

    Returns:
        The exit code.
    """
    with process.steady_terminal():
        return _run(_parser(), argv)


def _run(parser: Parser, argv: list[str] | None) -> int:
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return arguments.run(arguments) or 0
    except BnnlibError as error:
        # Every rank meets what is wrong on the command line; one of them says it.
        if launcher.rank() == 0:
            print(f"{parser.prog} {arguments.command}: {error}", file=sys.stderr, flush=True)
        process.let_rank_0_say_it()
        return 1


def _parser() -> Parser:
    parser = Parser(
        prog="python -m bnnlib",
        description="Distributed training of Bayesian neural networks.",
        epilog="`python -m bnnlib COMMAND --help` says what a command does, with an example:\n\n"
        "  python -m bnnlib train -p model=CNN_FC -p dataset=tiny",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser.commands = commands.choices

    def add(
        name: str,
        run: Callable[[Arguments], int | None],
        summary: str,
        text: str,
        codes: str = CODES,
    ) -> Parser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"{text}\n\n{codes}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    more = f"{TRAIN}\n\n{Experiment.manual()}"
    what = "train, evaluate and record one run on this launch"
    command = add("train", _train, what, more, CODES + STOPPED)
    command.add_argument("-f", metavar="FILE", help="parameters, a YAML file of `name: value`")
    _add_parameters(command)
    command.add_argument("--verbose", action="store_true", help="print the network's layers")

    command = add(
        "plan", _plan, "train all runs of a study file on this launch", PLAN, CODES + STOPPED
    )
    command.add_argument("file", metavar="FILE", help="a study file")
    _add_runs(command)
    command.add_argument(
        "--repeat", type=int, metavar="N", help="only the Nth of equal runs, from 0 (default: all)"
    )

    command = add(
        "laplace",
        _laplace,
        "fit a last-layer Laplace posterior to a finished run",
        LAPLACE,
        CODES + STOPPED,
    )
    command.add_argument("run_dir", metavar="RUN", help="a finished run's folder")
    command.add_argument(
        "--predict-with",
        choices=("draws", "probit"),
        default="draws",
        help="of the posterior, or the probit approximation (default: %(default)s)",
    )

    command = add(
        "evaluate",
        _evaluate,
        "evaluate a finished run again, by other draws or on other sets",
        EVALUATE,
        CODES + STOPPED,
    )
    command.add_argument("run_dir", metavar="RUN", help="a finished run's folder")
    _add_parameters(command)

    what = "train all runs of a study file side by side in this job"
    command = add("pack", _pack, what, PACK, CODES + STOPPED)
    command.add_argument("file", metavar="FILE", help="a study file")
    _add_runs(command)
    _add_site(command)

    command = add("sweep", _sweep, "submit all runs of a study file to a site's queue", SWEEP)
    command.add_argument("file", metavar="FILE", help="a study file")
    _add_runs(command)
    _add_site(command)
    text = "GPUs of a node, one a rank, as 4 or a100:4 (default: what jobs/SITE/site.sh says)"
    command.add_argument("--gpus", metavar="N", default="", help=text)
    command.add_argument("--packed", action="store_true", help="all runs in one job, side by side")
    text = "of the packed job (default: what its largest run needs)"
    command.add_argument("--nodes", type=whole(1), default=0, metavar="N", help=text)
    text = "of the packed job (default: what all runs need)"
    command.add_argument("--walltime", metavar="HH:MM:SS", default="", help=text)
    only = command.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="show what would be submitted")
    only.add_argument("--status", action="store_true", help="show how all runs stand")

    command = add("table", _table, "print the table of a group of runs", TABLE)
    command.add_argument("runs", metavar="RUNS", help="a group of runs, such as runs/digits")
    command.add_argument(
        "--by", choices=("seed",), help="a row of mean ± standard deviation over seeds"
    )
    command.add_argument("--sort", metavar="COLUMN", help="a column of the records to sort by")
    command.add_argument("--descending", action="store_true", help="the largest value first")
    command.add_argument(
        "--format",
        choices=("text", "csv", "markdown", "json"),
        default="text",
        help="(default: %(default)s)",
    )
    command.add_argument("--csv", metavar="FILE", help="also write all columns of every run there")

    command = add(
        "predict", _predict, "predict the classes of your own images by a trained run", PREDICT
    )
    command.add_argument("run_dir", metavar="RUN", help="a run's folder")
    command.add_argument("images", metavar="IMAGES", help="a .npz or .npy file")
    command.add_argument("--out", required=True, metavar="FILE", help="a .npz or .csv to write")
    command.add_argument(
        "--draws", type=whole(1), metavar="N", help="of the weights (default: the run's test_draws)"
    )
    command.add_argument(
        "--seed", type=whole(0), metavar="N", help="of the draws (default: the run's)"
    )
    command.add_argument(
        "--with",
        dest="predict_with",
        choices=("draws", "mean", "probit"),
        help="draws, the posterior's mean, or probit of a laplace run (default: the run's own)",
    )
    command.add_argument(
        "--any-range", action="store_true", help="take pixels outside of the training images' range"
    )

    command = add("figures", _figures, "draw the figures of a group of runs", FIGURES)
    command.add_argument("runs", metavar="RUNS", help="a group of runs, such as runs/digits")

    command = add("ladder", _ladder, "time Horovod's average at growing message sizes", LADDER)
    command.add_argument("--out", required=True, metavar="FILE", help="the json file to write")
    command.add_argument(
        "--repeats", type=int, default=9, metavar="N", help="turns (default: %(default)s)"
    )
    command.add_argument(
        "--sizes", type=int, nargs="+", metavar="BYTES", help="(default: 4 B to 16 MiB)"
    )
    command.add_argument(
        "--times", type=int, default=0, metavar="N", help="averages a turn (default: by size)"
    )
    return parser


def _add_parameters(command: Parser) -> None:
    command.add_argument(
        "-p",
        nargs="+",
        action=Parameters,
        default=[],
        metavar="NAME=VALUE",
        help="parameters; -p NAME VALUE, papermill's form, is the same",
    )


def _add_runs(command: Parser) -> None:
    command.add_argument(
        "--runs", default="runs", metavar="FOLDER", help="of the groups (default: %(default)s)"
    )


def _add_site(command: Parser) -> None:
    command.add_argument(
        "--site", help="a folder of jobs/ (default: BNN_SITE, else what this machine is)"
    )


def _train(arguments: Arguments) -> None:
    from bnnlib.launch import command, elastic
    from bnnlib.record import stopping

    experiment = command.read(arguments.f, arguments.p)
    stopping.stop_time()  # a mistyped deadline is told before MPI starts
    train = elastic.train if elastic.is_elastic() else command.train_one
    command.run(experiment, arguments.verbose, train)


def _plan(arguments: Arguments) -> int:
    from bnnlib.launch import here
    from bnnlib.record import stopping

    experiments = here.read(arguments.file, arguments.runs, arguments.repeat)
    stopping.stop_time()
    return here.train_all(experiments)


def _laplace(arguments: Arguments) -> None:
    from bnnlib.launch import command
    from bnnlib.record import stopping

    stopping.stop_time()
    command.laplace(arguments.run_dir, arguments.predict_with)


def _evaluate(arguments: Arguments) -> None:
    from bnnlib.launch import evaluating
    from bnnlib.record import stopping

    stopping.stop_time()
    evaluating.evaluate(arguments.run_dir, arguments.p)


def _pack(arguments: Arguments) -> int:
    from bnnlib.launch import pack, sites

    pack.end_with_parent()
    return pack.run(arguments.file, arguments.site or sites.here(), arguments.runs)


def _sweep(arguments: Arguments) -> None:
    from bnnlib.launch import pack, queue, sites

    site = arguments.site or sites.here()
    if arguments.packed and not arguments.status:
        asked = ("file", "runs", "nodes", "walltime", "gpus", "dry_run")
        pack.sweep(site, **{name: getattr(arguments, name) for name in asked})
        return
    if arguments.nodes or arguments.walltime:
        raise ExperimentError("--nodes and --walltime are of one job for all runs: add --packed")
    jobs = queue.read(arguments.file, site, arguments.runs, arguments.gpus)
    if arguments.dry_run or arguments.status:
        runs = queue.table(jobs, site)
        print(runs.to_string(index=False, float_format="{:.2f}".format))
        print(queue.summary(runs, site) if arguments.status else queue.cost(runs, site))
    else:
        queue.submit(jobs, site)


def _table(arguments: Arguments) -> None:
    from bnnlib.analysis.listing import print_table

    print_table(
        arguments.runs,
        arguments.csv,
        arguments.format,
        arguments.by,
        arguments.sort,
        arguments.descending,
    )


def _predict(arguments: Arguments) -> None:
    from bnnlib.launch import asking

    print(
        asking.predict(
            arguments.run_dir,
            arguments.images,
            arguments.out,
            arguments.draws,
            arguments.seed,
            arguments.predict_with,
            arguments.any_range,
        )
    )


def _figures(arguments: Arguments) -> None:
    from bnnlib.launch import notebooks

    for notebook in notebooks.draw(arguments.runs):
        print(f"executed: {notebook}")


def _ladder(arguments: Arguments) -> None:
    from bnnlib.launch import ladder

    sizes = arguments.sizes or ladder.SIZES
    ladder.write(arguments.out, sizes, arguments.repeats, arguments.times)


if __name__ == "__main__":
    sys.exit(main())
