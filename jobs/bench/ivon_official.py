"""LeNet-5 on MNIST by IVON's official code: what bnnlib's own is held against in figures/ivon.

    pip install torch ivon-opt==0.1.3          # into an environment of its own; CPU wheels do
    python -m jobs.bench.ivon_official --seeds 0 1 2 --out figures/ivon/official.csv

The settings are those of the published comparison (one core, batch 64, 12 epochs, cosine rate, 30
draws): learning rate 0.2, h0 0.5, weight decay 2e-4. `--start` chooses the first weights: those of
PyTorch, uniform in +-1/sqrt(fan_in), or Glorot's, as Keras has them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import ivon
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax

from bnnlib import data, metrics
from jobs.bench.common import append_rows

EPOCHS, BATCH, DRAWS = 12, 64, 30
STARTS = ("torch", "glorot")


def lenet5(start: str) -> nn.Sequential:
    """The network of bnnlib.networks.reference.lenet5: 61,706 parameters."""
    network = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    if start == "glorot":
        for layer in network:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return network


def run(seed: int, optimiser: str, start: str) -> dict[str, Any]:
    """Trains and tests one network: a row of the table, with the training's CPU seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    mnist = data.load("mnist")
    train, test = (
        torch.tensor(x.reshape(-1, 1, 28, 28).astype(np.float32) / 255)
        for x in (mnist.x_train, mnist.x_test)
    )
    labels = torch.tensor(mnist.y_train.astype(np.int64))
    network = lenet5(start)
    by: Any
    if optimiser == "ivon":
        by = ivon.IVON(
            network.parameters(), lr=0.2, ess=len(train), hess_init=0.5, weight_decay=2e-4
        )
    else:
        by = torch.optim.Adam(network.parameters(), lr=1e-3)
    steps = len(train) // BATCH
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(by, EPOCHS * steps)

    def backward(batch: torch.Tensor) -> None:
        by.zero_grad()
        cross_entropy(network(train[batch]), labels[batch]).backward()

    began = time.process_time()
    for _ in range(EPOCHS):
        images = torch.tensor(order.permutation(len(train))[: steps * BATCH])
        for batch in images.split(BATCH):
            if optimiser == "ivon":
                with by.sampled_params(train=True):
                    backward(batch)
            else:
                backward(batch)
            by.step()
            rate.step()
    seconds = time.process_time() - began

    def predict() -> np.ndarray:
        with torch.no_grad():
            return torch.cat([softmax(network(x).double(), 1) for x in test.split(1000)]).numpy()

    if optimiser == "ivon":
        probs = np.zeros((len(test), 10))
        for _ in range(DRAWS):
            with by.sampled_params():
                probs += predict() / DRAWS
    else:
        probs = predict()
    scores = {
        name: getattr(metrics, name)(probs, mnist.y_test) for name in ("accuracy", "nll", "ece")
    }
    row = {"code": "ivon-opt 0.1.3", "optimiser": optimiser, "start": start, "seed": seed}
    return (
        row | {k: round(float(v), 5) for k, v in scores.items()} | {"cpu_seconds": round(seconds)}
    )


def main() -> int:
    """Writes a row a run, as it ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimisers", nargs="+", default=["ivon"], choices=["ivon", "adam"])
    parser.add_argument("--starts", nargs="+", default=["torch"], choices=STARTS)
    parser.add_argument("--out", type=Path, required=True, help="the table; rows are added")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for optimiser in arguments.optimisers:
            for start in arguments.starts:
                row = run(seed, optimiser, start)
                append_rows(arguments.out, [row])
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
