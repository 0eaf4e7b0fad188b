"""Runs of one rank on tiny data, for the tests that read what a run leaves."""

from bnnlib import networks
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer
from bnnlib.metrics import judge
from bnnlib.record import provenance
from bnnlib.record.run import Run
from bnnlib.session import Session


def start(tiny, directory, **parameters):
    given = {"model": "BNN_FC_flip", "dataset": "tiny", "batch_size": 32, "log_every": 2}
    experiment = Experiment(**{**given, "run_dir": str(directory), **parameters})
    network = networks.build_for(experiment, tiny)
    trainer = Trainer(experiment, tiny, network, Ranks())
    return Run.open(Session(), experiment, Ranks(), provenance.collect()), trainer


def finish(run, trainer, tiny):
    run.resume(trainer)
    list(run.follow(trainer))
    test = prediction.predict(trainer.network, tiny, tiny.x_test, 2, 0)
    run.finish(judge({"test": (test, tiny.y_test)}))
