"""What a second rank costs: two ranks that average gradients against two processes that do not.

``python -m jobs.bench.ranks`` starts two pairs of processes, each process pinned to a core of its
own with one thread: two ranks of a launcher, and two that know nothing of each other. Both members
of a pair run at once, so that both share memory and caches alike; the difference is communication.
The pairs take turns, model by model and repeat by repeat, and the pair whose turn it is not is
stopped (SIGSTOP), since even an idle Horovod thread polls.

The ratio is images/s of the two ranks over images/s of the two processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bnnlib.errors import DistributedError
from jobs.bench.common import worker_command, worker_environment, write_origin, write_table

# Model, data set of its images' shape, images a virtual rank a step, virtual ranks of each rank.
CASES = (
    ("CNN_FC", "digits", 64, 1),
    ("BNN_FC_flip", "digits", 64, 1),
    ("BNN_FC_nonflip", "digits", 64, 1),
    ("CNN_FC", "digits", 512, 1),
    ("BNN_FC_flip", "digits", 512, 1),
    ("BNN_FC_nonflip", "digits", 512, 1),
    # Many images a step between two averages: what a rank sends stays the same.
    ("CNN_FC", "digits", 64, 8),
    ("BNN_FC_flip", "digits", 64, 8),
    ("BNN_FC_nonflip", "digits", 64, 8),
    ("CNN_conv", "digits", 64, 1),
    ("BNN_conv_flip", "digits", 64, 1),
    ("BNN_conv_nonflip", "digits", 64, 1),
    ("CNN_VGG", "tiny_cifar10", 64, 1),
    ("BNN_VGG_flip", "tiny_cifar10", 64, 1),
)
SECONDS = 0.8  # of each measurement, at least
RANKS = 2
START_SECONDS = 240  # for the imports and the tracing of all cases


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to start the two ranks.

    Attributes:
        name: of the setting, in the table.
        launcher: words that start the ranks, up to the program.
        environment: variables beside those of this process.
    """

    name: str
    launcher: tuple[str, ...] = ("mpiexec", "-n", str(RANKS))
    environment: tuple[tuple[str, str], ...] = ()


AS_IT_IS = Setting("as it is")
# What could bring the negotiation down, one at a time.
SETTINGS = (
    AS_IT_IS,
    Setting("cycle time 0.02 ms", environment=(("HOROVOD_CYCLE_TIME", "0.02"),)),
    Setting("cycle time 1 ms, Horovod's own", environment=(("HOROVOD_CYCLE_TIME", "1"),)),
    Setting("no fusion buffer", environment=(("HOROVOD_FUSION_THRESHOLD", "0"),)),
    Setting("Gloo", ("horovodrun", "--gloo", "-n", str(RANKS), "-H", f"localhost:{RANKS}")),
)


def measure(
    cases: Sequence[tuple[str, str, int, int]],
    repeats: int,
    settings: Sequence[Setting] = (AS_IT_IS,),
) -> pd.DataFrame:
    """Runs the pairs through all cases, `repeats` times in turn.

    Args:
        cases: of the form of :data:`CASES`.
        repeats: at least 2, for a spread.
        settings: a pair of ranks each.

    Returns:
        A row a case and setting: setting, model, dataset, batch, virtual_ranks, repeats, ms_alone
        and ms_ranks (medians over the repeats), ratio (median of the repeats' ratios), ratio_min
        and ratio_max.

    Raises:
        DistributedError: a process ended early, or the machine has fewer cores than ranks.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < RANKS:
        raise DistributedError(
            f"{len(cores)} core(s) for {RANKS} pinned ranks: nothing can be measured here"
        )
    with tempfile.TemporaryDirectory() as place_of_files:
        folder = Path(place_of_files)
        (folder / "cases.json").write_text(json.dumps(list(cases)))
        worker = worker_command("jobs.bench.ranks", place_of_files)
        several = worker_environment()
        single = {k: v for k, v in several.items() if not k.startswith(("HOROVOD_", "PMI_"))}
        # Of each pair, the commands that start it, with their environments.
        commands = {
            "alone": [
                ([*worker, "alone", str(place), str(cores[place])], single)
                for place in range(RANKS)
            ]
        }
        for number, setting in enumerate(settings):
            words = [*setting.launcher, *worker, f"ranks{number}", "-1"]
            words.append(",".join(map(str, cores[:RANKS])))
            commands[f"ranks{number}"] = [(words, several | dict(setting.environment))]
        pairs: dict[str, list[subprocess.Popen[bytes]]] = {}
        rows = []
        try:
            # One pair after another: beside busy processes Horovod's thread, of the lowest
            # priority, hardly runs, and a pair of ranks would trace for minutes.
            for name, starts in commands.items():
                pairs[name] = [_start(words, environment, folder) for words, environment in starts]
                _wait(folder, [f"ready-{name}-{place}" for place in range(RANKS)], 0)
                _signal(folder, name, signal.SIGSTOP)
            for turn in range(repeats * len(cases)):
                times = {}
                for pair in list(pairs)[:: -1 if turn % 2 else 1]:
                    for other in pairs:
                        _signal(folder, other, signal.SIGCONT if other == pair else signal.SIGSTOP)
                    (folder / f"go-{pair}-{turn}").touch()
                    done = [f"done-{pair}-{place}-{turn}" for place in range(RANKS)]
                    times[pair] = statistics.fmean(_wait(folder, done, turn + 1))
                model, dataset, batch, carried = cases[turn % len(cases)]
                shown = ", ".join(f"{pair} {ms:.3f}" for pair, ms in times.items())
                print(
                    f"{model} {carried} x {batch}, ms a step: {shown}", file=sys.stderr, flush=True
                )
                rows += [
                    {
                        "setting": setting.name,
                        "model": model,
                        "dataset": dataset,
                        "batch": batch,
                        "virtual_ranks": carried,
                        "alone": times["alone"],
                        "ranks": times[f"ranks{number}"],
                    }
                    for number, setting in enumerate(settings)
                ]
        finally:
            for pair, processes in pairs.items():
                _signal(folder, pair, signal.SIGCONT)
                _signal(folder, pair, signal.SIGKILL)
                for process in processes:
                    process.kill()
                    process.wait()
    table = pd.DataFrame(rows)
    table["ratio"] = table.alone / table.ranks
    cases_of_settings = table.groupby(
        ["setting", "model", "dataset", "batch", "virtual_ranks"], sort=False
    )
    return cases_of_settings.agg(
        repeats=("ratio", "size"),
        ms_alone=("alone", "median"),
        ms_ranks=("ranks", "median"),
        ratio=("ratio", "median"),
        ratio_min=("ratio", "min"),
        ratio_max=("ratio", "max"),
    ).reset_index()


def _start(words: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / f"log-{len(list(folder.glob('log-*')))}").open("wb")
    return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _signal(folder: Path, pair: str, what: signal.Signals) -> None:
    for path in folder.glob(f"ready-{pair}-*"):
        try:
            os.kill(int(path.read_text()), what)
        except (ProcessLookupError, ValueError):  # it has ended, or is just writing its id
            continue


def _wait(folder: Path, names: list[str], turn: int) -> list[float]:
    """Waits for files; returns the numbers in them."""
    deadline = time.monotonic() + (START_SECONDS if turn < 2 else 60)
    while not all((folder / name).exists() for name in names):
        if time.monotonic() > deadline:
            logs = "".join(
                path.read_text(errors="replace")[-2000:] for path in folder.glob("log-*")
            )
            raise DistributedError(
                f"a process of the benchmark did not come to {', '.join(names)}:\n{logs}"
            )
        time.sleep(0.005)
    time.sleep(0.01)  # a file appears before its content
    return [float((folder / name).read_text()) for name in names]


def work(folder: Path, pair: str, place: int, core: str) -> None:
    """A process of a pair: traces all cases, then measures the one whose turn it is."""
    from bnnlib import launcher

    if pair != "alone":
        place = launcher.rank()
    cores = [int(number) for number in core.split(",")]
    os.sched_setaffinity(0, {cores[place % len(cores)]})
    import numpy as np

    from bnnlib import data, networks
    from bnnlib.experiment import Experiment
    from bnnlib.inference import distributed
    from bnnlib.inference.trainer import Trainer
    from bnnlib.session import Session

    ranks = distributed.init(Session(), threads=1)
    runs = []
    for model, dataset_name, batch, carried in json.loads((folder / "cases.json").read_text()):
        dataset = data.load(dataset_name)
        experiment = Experiment(
            model=model,
            dataset=dataset_name,
            batch_size=batch,
            virtual_ranks=carried,
            threads=1,
        )
        network = networks.build(model, dataset.image_shape, dataset.num_classes)
        trainer = Trainer(experiment, dataset, network, ranks)
        rng = np.random.default_rng(place)

        def run(
            steps: int, trainer: Trainer = trainer, rng: Any = rng, images: int = batch * carried
        ) -> float:
            order = rng.integers(0, trainer.dataset.num_train_examples, (steps, images))
            began = time.perf_counter()
            trainer.train(order.astype(np.int32))
            return 1e3 * (time.perf_counter() - began) / steps

        run(2)
        runs.append(run)
    (folder / f"ready-{pair}-{place}").write_text(str(os.getpid()))
    lengths: dict[int, int] = {}
    for turn in range(1_000_000):
        while not (folder / f"go-{pair}-{turn}").exists():
            time.sleep(0.002)
        case = turn % len(runs)
        run = runs[case]
        run(3)
        if case not in lengths:
            # As many steps on both, or one would wait for an average that never comes.
            lengths[case] = max(distributed.gather(max(3, int(1e3 * SECONDS / run(5)))))
        steps = lengths[case]
        path = folder / f".done-{pair}-{place}-{turn}"
        path.write_text(str(run(steps)))
        path.rename(folder / path.name[1:])


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and writes it with its origin."""
    if "--worker" in (sys.argv if argv is None else argv):
        words = sys.argv[sys.argv.index("--worker") + 1 :]
        work(Path(words[0]), words[1], int(words[2]), words[3])
        return 0
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.ranks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", help="some of the cases' models")
    parser.add_argument("--batches", nargs="+", type=int, help="some of the cases' batches")
    parser.add_argument("--settings", action="store_true", help="Horovod's settings, one at a time")
    parser.add_argument(
        "--out", type=Path, help="csv file; its origin is written beside it as json"
    )
    arguments = parser.parse_args(argv)
    cases = [
        case
        for case in CASES
        if case[0] in (arguments.models or [case[0]])
        and case[2] in (arguments.batches or [case[2]])
    ]
    settings = SETTINGS if arguments.settings else (AS_IT_IS,)
    table = measure(cases, arguments.repeats, settings)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if arguments.out:
        write_table(arguments.out, table.round(4).to_dict("records"))
        write_origin(
            arguments.out.with_suffix(".json"),
            horovod_environment={k: v for k, v in os.environ.items() if k.startswith("HOROVOD")},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
