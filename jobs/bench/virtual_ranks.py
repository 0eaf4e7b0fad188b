"""What virtual ranks save: one step of 64 of them on one process against 64 steps of one.

``python -m jobs.bench.virtual_ranks`` trains both in one process of one pinned core and one thread,
in turns, on synthetic images of MNIST's shape. A step of 64 has one average and one change of the
weights, and dense networks compute several virtual ranks at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib import networks
from bnnlib.data import Dataset
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed
from bnnlib.inference.trainer import Trainer
from bnnlib.session import Session
from jobs.bench.common import write_origin, write_table

MODELS = (
    *("CNN_FC", "BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_local"),
    *("CNN_conv", "BNN_conv_flip", "BNN_conv_nonflip"),
)
BATCH, MANY = 64, 64


def synthetic() -> Dataset:
    """6,000 images of noise, of MNIST's shape."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6000, 28, 28, 1)).astype(np.uint8)
    labels = rng.integers(0, 10, 6000)
    return Dataset("noise", images, labels, images[:64], labels[:64], 10, scale=1 / 255)


def seconds_of(trainer: Trainer, steps: int) -> float:
    """Trains on images chosen at random; seconds of the whole."""
    shape = (steps, trainer.virtual_ranks.images_a_step)
    places = np.random.default_rng(0).integers(0, 6000, shape).astype(np.int32)
    started = time.perf_counter()
    trainer.train(places)
    return time.perf_counter() - started


def main() -> None:
    """Prints the table, and writes it with its origin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="csv file; its origin is written beside it")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ranks = distributed.init(Session(), threads=1)
    dataset, rows = synthetic(), []
    for model in arguments.models:
        trainers = []
        for count in (1, MANY):
            experiment = Experiment(model=model, batch_size=BATCH, virtual_ranks=count, threads=1)
            network = networks.build_for(experiment, dataset)
            trainers.append(Trainer(experiment, dataset, network, ranks))
        one, many = trainers
        seconds_of(one, 2), seconds_of(many, 1)  # traces
        pairs = [
            (1e3 * seconds_of(one, MANY), 1e3 * seconds_of(many, 1))
            for _ in range(arguments.repeats)
        ]
        ratios = [many_ms / one_ms for one_ms, many_ms in pairs]
        rows.append(
            {
                "model": model,
                "virtual_ranks": MANY,
                "at_once": many.virtual_ranks.side_by_side,
                "repeats": arguments.repeats,
                "ms_one_by_one": round(statistics.median(pair[0] for pair in pairs), 3),
                "ms_virtual": round(statistics.median(pair[1] for pair in pairs), 3),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3),
                "ratio_max": round(max(ratios), 3),
            }
        )
        print(rows[-1], flush=True)
    if arguments.out:
        write_table(arguments.out, rows)
        write_origin(arguments.out.with_suffix(".json"), batch_size=BATCH)


if __name__ == "__main__":
    main()
