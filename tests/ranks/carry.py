"""Trains a run up to a step, on however many processes, for tests/inference/test_distributed.py.

Usage: ``mpiexec -n 4 python tests/ranks/carry.py <run directory> <virtual ranks> <last step>``.
"""

import sys
from pathlib import Path

import numpy as np

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib import data, networks, process
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed
from bnnlib.inference.trainer import Trainer
from bnnlib.record import provenance
from bnnlib.record.run import Run
from bnnlib.session import Session


def main(directory, virtual_ranks, last):
    origin = provenance.collect()
    session = Session()
    ranks = distributed.init(session, threads=1)
    experiment = Experiment(
        model="BNN_FC_flip",
        dataset="tiny",
        virtual_ranks=virtual_ranks,
        batch_size=8,
        steps=50,
        log_every=1,
        on_rank_change="continue",
        run_dir=directory,
    )
    run = Run.open(session, experiment, ranks, origin)
    dataset = data.load(experiment.dataset)
    trainer = Trainer(experiment, dataset, networks.build_for(experiment, dataset), ranks, session)
    run.resume(trainer)
    list(run.follow(trainer, until=lambda: trainer.step == last))
    run.stop(f"after step {trainer.step}")
    if ranks.rank == 0:
        np.savez(Path(directory) / "weights.npz", **trainer.network.weights())
    process.shut_horovod_down()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
