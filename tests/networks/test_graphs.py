"""Graphs as TensorFlow runs them: no sum may depend on which of its terms is ready first."""

import dataclasses

import numpy as np
from tensorflow.python.eager import context

from bnnlib import data, networks
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer


def ops_of(call):
    """The types of the operations that TensorFlow's optimizers made of the graphs of a call."""
    context.enable_run_metadata()
    try:
        call()
        run = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return {node.op for part in run.partition_graphs for node in part.node}


def test_a_step_by_ivon_adds_its_tensors_in_their_order():
    """With as many images as MNIST has: with few, TensorFlow leaves the sums alone."""
    tiny = data.load("tiny")
    many = dataclasses.replace(
        tiny,
        x_train=np.zeros((60_000, *tiny.x_train.shape[1:]), np.uint8),
        y_train=np.zeros(60_000, np.int64),
    )
    experiment = Experiment(dataset="tiny", steps=1, model="CNN_FC", inference="ivon")
    trainer = Trainer(experiment, many, networks.build_for(experiment, many), Ranks())
    ops = ops_of(lambda: list(trainer.run()))
    assert "AddN" in ops
    assert "TemporaryVariable" not in ops
