"""Evaluates at 1, 2 and 4 ranks in one start, for tests/inference/test_evaluation.py.

Usage: ``mpiexec -n 4 python tests/ranks/evaluations.py <folder>``. Every process evaluates alone;
then ranks 0 and 1, and as a second pair 2 and 3, as two ranks; then all four together.
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib import data, networks
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, evaluation, prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.session import Session

# isort: split
import tensorflow as tf

NETWORKS = {"BNN_FC_flip": 0.0, "CNN_conv": 0.3}  # with their dropout


def network_of(name, dropout, dataset):
    network = networks.build(name, dataset.image_shape, 10, seed=1, dropout=dropout)
    for layer in network.layers:
        if layer.bayesian:
            layer.rho.assign(tf.fill(layer.rho.shape, -1.0))  # draws that disagree
    return network


def main(folder):
    world = distributed.init(Session(), threads=1)
    prediction.BLOCK = 10  # 64 test images are 7 blocks: no number of ranks divides them
    gather_all = distributed.gather
    for name, dropout in NETWORKS.items():
        experiment = Experiment(
            model=name,
            dataset="tiny",
            dropout=dropout,
            holdout=0.1,
            test_draws=7,
            eval_draws=4,
            eval_images=33,
            eval_sets=["rotate-30", "gaussian_noise-3"],
            ood_sets=["uniform_noise"],
        )
        dataset = data.load("tiny", holdout=experiment.holdout)
        network = network_of(name, dropout, dataset)
        sets = evaluation.sets(experiment, dataset)
        for size in (1, 2, 4):
            first = world.rank - world.rank % size
            distributed.gather = functools.partial(group, gather_all, first, size)
            ranks = Ranks(rank=world.rank % size, size=size)
            found = evaluation.evaluate(experiment, network, dataset, sets, ranks)
            arrays = {}
            for key, (one, _) in found.predictions.items():
                arrays[f"{key}/mean_probs"] = one.mean_probs
                arrays[f"{key}/expected_entropy"] = one.expected_entropy
                arrays[f"{key}/mean_logits"], arrays[f"{key}/votes"] = one.mean_logits, one.votes
            curve = found.predictions["test"][0].draws_curve
            arrays["ladder"] = curve.mean_probs
            arrays["ladder_entropy"] = curve.expected_entropy
            path = Path(folder, f"{name}-{size}-{world.rank}")
            np.savez(path.with_suffix(".npz"), **arrays)
            found.metrics.pop("evaluation_seconds")
            path.with_suffix(".json").write_text(json.dumps([found.rows, found.metrics]))


def group(gather_all, first, size, value):
    """What a gather among the ranks first, …, first + size - 1 alone gives."""
    return gather_all(value)[first : first + size] if size > 1 else [value]


main(sys.argv[1])
