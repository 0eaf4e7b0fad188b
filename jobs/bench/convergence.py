"""Which settings bring a posterior to its optimum soonest: figures/convergence/tried.csv.

A line of standard input is a setting in JSON: names and values of parameters, and ``natural``, the
rates of precisions and of means at the schedule's peak (:mod:`jobs.bench.natural`).

    echo '{"model": "BNN_FC_flip", "epochs": 100, "rho_rate": 10}' |
        taskset -c 1 python -m jobs.bench.convergence figures/convergence/tried.csv

Each setting trains on the digits with a tenth held out, as `make study` does: two virtual ranks of
64 images, here in one process with one thread, and appends a row. The loss, the negative ELBO an
image, is measured after training over all training images with ten draws, and `kl_change` is the
fall of KL over the last tenth of the steps, in parts of the last KL (below 0: it has grown). The
scores are of 30 draws on the 1,000 test images, one seed. `sigma` and `snr` are quantiles over the
first layer's entries: 10, 50 and 90 % of the deviations; 50, 90 and 99 % of abs(mean)/deviation.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bnnlib import data, metrics, networks
from bnnlib.data import Dataset
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed
from bnnlib.inference.prediction import predict
from bnnlib.inference.trainer import Trainer
from bnnlib.networks import Network, Tensor, posterior, to_inputs
from bnnlib.session import Session
from jobs.bench import natural
from jobs.bench.common import append_rows

STUDY: dict[str, Any] = {
    "dataset": "digits",
    "holdout": 0.1,
    "virtual_ranks": 2,
    "threads": 1,
    "log_every": 10,
}
SETTINGS = (
    *("learning_rate", "learning_rate_schedule", "rho_rate", "kl_annealing_epochs"),
    "posterior_stddev",
)
COLUMNS = (
    *("model", "epochs", "steps", *SETTINGS, "natural", "cpu_seconds", "kl_change", "loss"),
    *("train_nll", "kl", "accuracy", "nll", "ece", "sigma", "snr"),
)
ELBO_DRAWS, TEST_DRAWS, BLOCK, SEED = 10, 30, 400, 977


def measure(setting: dict[str, Any]) -> dict[str, Any]:
    """The row of one setting."""
    rates = setting.pop("natural", None)
    experiment = Experiment(**(STUDY | setting))
    dataset = data.load(experiment.dataset, experiment.subtract_mean, experiment.holdout)
    network = networks.build_for(experiment, dataset)
    trainer = Trainer(experiment, dataset, network, distributed.Ranks())
    if rates:
        peak = experiment.learning_rate * experiment.learning_rate_factor(experiment.virtual_ranks)
        factors = (rate / peak for rate in rates)
        trainer.method = natural.build(dataset.num_train_examples, *factors)
    trainer._updates.get_concrete_function()  # traced before the clock runs
    started = time.process_time()
    lines = list(trainer.run())
    seconds = time.process_time() - started
    before = [line for line in lines if line.step <= 0.9 * trainer.step][-1]
    nll, kl = loss_terms(network, dataset)
    found = predict(network, dataset, dataset.x_test, TEST_DRAWS, experiment.seed)
    summary = metrics.summary(found.mean_probs, dataset.y_test, found.expected_entropy)
    row = {"model": experiment.model, "epochs": experiment.epochs, "steps": trainer.step}
    row |= {name: getattr(experiment, name) for name in SETTINGS}
    row |= {"natural": "/".join(map(str, rates or [])), "cpu_seconds": round(seconds, 1)}
    row["kl_change"] = round((before.kl - lines[-1].kl) / lines[-1].kl, 4) if kl else ""
    row |= {"train_nll": round(nll, 4), "kl": round(kl, 1)}
    row["loss"] = round(nll + kl / dataset.num_train_examples, 4)
    row |= {name: round(summary[name], 4) for name in ("accuracy", "nll", "ece")}
    for mean, stddev in list(posterior.entries(network).values())[:1]:
        row["sigma"] = quantiles(stddev, 0.1, 0.5, 0.9)
        row["snr"] = quantiles(np.abs(mean) / stddev, 0.5, 0.9, 0.99)
    return {name: row.get(name, "") for name in COLUMNS}


def loss_terms(network: Network, dataset: Dataset) -> tuple[float, float]:
    """The NLL an image over all training images, mean of some draws, and the KL, nats."""

    @tf.function
    def block(images: Tensor, labels: Tensor, draw: Tensor) -> Tensor:
        logits = network(to_inputs(images, dataset), tf.stack([tf.constant(SEED, tf.int64), draw]))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reduce_sum(losses)

    size, total = dataset.num_train_examples, 0.0
    for first in range(0, size, BLOCK):
        images = tf.constant(dataset.x_train[first : first + BLOCK])
        labels = tf.constant(dataset.y_train[first : first + BLOCK].astype(np.int32))
        for draw in range(ELBO_DRAWS if network.is_stochastic else 1):
            total += float(block(images, labels, tf.constant(draw, tf.int64)))
    draws = ELBO_DRAWS if network.is_stochastic else 1
    return total / (size * draws), float(network.kl())


def quantiles(values: np.ndarray, *levels: float) -> str:
    """The quantiles with two digits, as 0.05/0.10/0.20."""
    return "/".join(f"{value:.2f}" for value in np.quantile(values, levels))


def main() -> None:
    """Measures the settings of standard input, one after another."""
    path = Path(sys.argv[1])
    distributed.init(Session(), threads=1, inter_threads=1)
    for line in sys.stdin:
        row = measure(json.loads(line))
        append_rows(path, [row], COLUMNS)


if __name__ == "__main__":
    main()
