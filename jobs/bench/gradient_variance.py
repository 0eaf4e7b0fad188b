"""The variance of the averaged gradient against the number of ranks: variances.csv.

    python -m bnnlib plan jobs/studies/gradient_variance.yaml --runs runs/gradient_variance
    nice taskset -c 1 python -m jobs.bench.gradient_variance runs/gradient_variance \
        figures/gradient_variance

trains the networks, then measures their gradients (:mod:`bnnlib.inference.gradient_variance`) at
their initial weights, half-way and at the end, most valuable rows first. Each case appends its rows
when it is done, one a part of the gradient; what is there already is passed over, so a measurement
that was stopped goes on. `noise` and `image` are variances summed over the entries, each with its
standard error; `noise_of_batches` is the noise of each batch of images, the same batches in all
cases of one global batch. `cpu_seconds` is what a case took, tracing included: 7 minutes in all.

notebooks/06_gradient_variance.ipynb says what comes of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnnlib import data, networks
from bnnlib.data import Dataset
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, gradient_variance
from bnnlib.record import checkpoint
from bnnlib.record.schema import read_record
from jobs.bench import common

PARTS = {"flipout": "flip", "reparameterization": "nonflip", "local": "local"}
# Batches and draws of a case by its ranks. The more draws of the weights a step averages, the less
# its noise varies, and the longer it takes: few tell as much.
SIZES = {4: (32, 32), 8: (32, 8), 32: (16, 8), 64: (12, 4), 512: (8, 3)}
POWERS = [2**power for power in range(10)]


class Place(NamedTuple):
    """Where weights come from: a run, and the share of its training after which they are."""

    network: str
    bayesian_layers: str
    state: str
    run: str
    share: float


DENSE, ALL = (f"states/BNN_FC_flip-r1-bayesian_layers={which}" for which in ("first", "all"))
CONVOLUTION = "states/BNN_conv_flip-r1-bayesian_layers=first"
LONG = "converged/BNN_FC_flip-r1-bayesian_layers=first"
PLACES = [
    *(Place("BNN_FC", "first", *at) for at in (
        ("initial", DENSE, 0.0), ("half-way", DENSE, 0.5), ("end", DENSE, 1.0),
        ("converged", LONG, 1.0),
    )),
    *(Place("BNN_FC", "all", *at) for at in (
        ("initial", ALL, 0.0), ("half-way", ALL, 0.5), ("end", ALL, 1.0),
    )),
    *(Place("BNN_conv", "first", *at) for at in (
        ("initial", CONVOLUTION, 0.0), ("half-way", CONVOLUTION, 0.5), ("end", CONVOLUTION, 1.0),
    )),
]  # fmt: skip


class Case(NamedTuple):
    """One gradient that is measured: where, of which estimator, on how many ranks."""

    place: Place
    estimator: str
    noise: str  # own: a stream a rank; one: one stream for all
    global_batch: int
    ranks: int
    batches: int
    draws: int

    @property
    def key(self) -> tuple[str, ...]:
        """What its rows are known by."""
        place = self.place
        words = (place.network, place.bayesian_layers, place.state, self.estimator, self.noise)
        return (*words, str(self.global_batch), str(self.ranks))


KEYS = (
    *("network", "bayesian_layers", "state", "estimator", "noise_streams", "global_batch"),
    "ranks",
)
COLUMNS = (
    *KEYS, "step", "batches", "draws", "part", "entries", "noise", "noise_error", "image",
    "image_error", "cpu_seconds", "noise_of_batches",
)  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them, most valuable first: own streams, then one for all, then a batch a rank."""
    dense = [place for place in PLACES if place[:2] == ("BNN_FC", "first")]
    others = [place for place in PLACES if place not in dense]
    for place in dense:
        yield from _at(place, 64, (1, 2, 4, 8, 16, 64))
    for place in dense:
        yield from _at(place, 512, POWERS if place.state in ("initial", "end") else (1, 8, 64))
    for place in others:
        yield from _at(place, 64, (1, 4, 8, 64))
    for place in others:
        if place.state != "half-way":
            yield from _at(place, 512, (1, 8, 64))
    for place in dense:
        if place.state in ("initial", "end"):
            for ranks in (2, 4, 16, 64):  # 64 images each
                for estimator in ("flipout", "reparameterization"):
                    yield Case(place, estimator, "own", 64 * ranks, ranks, *_size(ranks))


def _at(place: Place, global_batch: int, plain: Iterable[int]) -> Iterator[Case]:
    """The cases of one place and global batch: reparameterization at these numbers of ranks."""
    for ranks in plain:
        size = _size(ranks)
        if place.network == "BNN_conv":
            size = (16, 8) if global_batch == 64 else (10, 4)
        elif global_batch > 64:
            size = min(size, (16, 8))
        yield Case(place, "reparameterization", "own", global_batch, ranks, *size)
        if ranks in (1, 8, 64) and not (place.network == "BNN_conv" and ranks == 64):
            yield Case(place, "flipout", "own", global_batch, ranks, *size)
        if ranks == 1 and (place.network == "BNN_FC" or global_batch == 64):
            yield Case(place, "local", "own", global_batch, ranks, *size)
        if ranks == 8 and place[:2] == ("BNN_FC", "first"):
            yield Case(place, "flipout", "one", global_batch, ranks, *size)
            yield Case(place, "reparameterization", "one", global_batch, ranks, *size)


def _size(ranks: int) -> tuple[int, int]:
    return next(size for most, size in SIZES.items() if ranks <= most)


@functools.cache
def weights_at(runs: Path, place: Place) -> tuple[Experiment, dict[str, np.ndarray] | None, int]:
    """The run's parameters, its weights at the place (None: the initial ones), and the step."""
    directory = runs / place.run
    record = read_record(directory)
    experiment = Experiment.from_mapping(record["parameters"])
    if not place.share:
        return experiment, None, 0
    last = int(record["metrics"]["steps_done"])
    step = round(place.share * last)
    path = directory / "checkpoints" / f"step-{step:09d}.npz"
    if not path.is_file():
        raise RecordError(
            f"{path} is missing: expected a checkpoint {place.share:.0%} of the way; train the run "
            "again by jobs/studies/gradient_variance.yaml"
        )
    state = checkpoint.load(path)
    return experiment, {k: v for k, v in state.items() if k.startswith("layer")}, step


@functools.cache
def dataset_of(name: str, subtract_mean: bool, holdout: float) -> Dataset:
    """The data set by name, once for all cases."""
    return data.load(name, subtract_mean, holdout)


def rows_of(case: Case, runs: Path) -> list[dict[str, Any]]:
    """Measures one case: a row a part of the gradient."""
    started = time.process_time()
    experiment, weights, step = weights_at(runs, case.place)
    experiment = dataclasses.replace(
        experiment,
        model=f"{case.place.network}_{PARTS[case.estimator]}",
        batch_size=case.global_batch // case.ranks,
        virtual_ranks=case.ranks,
        noise_streams=0 if case.noise == "own" else 1,
    )
    dataset = dataset_of(experiment.dataset, experiment.subtract_mean, experiment.holdout)
    network = networks.build_for(experiment, dataset)
    if weights is not None:
        network.load_weights(weights)
    found = gradient_variance.measure(experiment, dataset, network, case.batches, case.draws)
    # Batches of several epochs overlap: their variance is not that of independent ones.
    apart = case.batches * case.global_batch <= dataset.num_train_examples
    shared: dict[str, Any] = dict(zip(KEYS, case.key, strict=True))
    shared |= {"step": step, "batches": case.batches, "draws": case.draws}
    seconds = round(time.process_time() - started, 1)
    return [
        shared
        | {"part": part, "entries": one.entries, "cpu_seconds": seconds}
        | {"noise": f"{one.noise:.6g}", "noise_error": f"{one.noise_error:.3g}"}
        | {
            "image": f"{one.images:.6g}" if apart else "",
            "image_error": f"{one.images_error:.3g}" if apart else "",
            "noise_of_batches": " ".join(f"{noise:.4g}" for noise in one.of_batches)
            if part == gradient_variance.ALL
            else "",
        }
        for part, one in found.items()
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, help="of jobs/studies/gradient_variance.yaml")
    parser.add_argument("figures", type=Path, help="folder of variances.csv")
    parser.add_argument("--of", default="", help="such as BNN_FC/first: its cases alone")
    arguments = parser.parse_args()
    distributed.set_threads()
    arguments.figures.mkdir(parents=True, exist_ok=True)
    path = arguments.figures / "variances.csv"
    done = common.rows_there(path, KEYS)
    common.write_origin(path.with_suffix(".json"), runs=str(arguments.runs))
    for case in cases():
        of = "/".join(case.place[:2])
        if case.key in done or arguments.of not in ("", of):
            continue
        rows = rows_of(case, arguments.runs)
        common.append_rows(path, rows, COLUMNS)
        print(*case.key, rows[-1]["noise"], rows[-1]["image"], rows[-1]["cpu_seconds"], flush=True)


if __name__ == "__main__":
    main()
