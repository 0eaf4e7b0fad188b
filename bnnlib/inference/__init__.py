"""How is a network trained on ranks, and how is it asked?

Rooms: `objective` (the loss and its gradient), `state` (all that training changes, and a method's
verbs), `methods` (those by name), `adam`, `ivon` and `swag` (a method each), `trainer` (the
training page: a step and the loop), `laplace` (a posterior of a trained network's last layer),
`distributed` (all of Horovod), `joining` (its start), `cores` and `devices` (what a rank may use),
`step_clock` (stamps inside a step), `prediction` (draws), `evaluation` (all that a trained network
is judged on), `tensorboard` (a run's curves there), `gradient_variance` (how noisy a step's
gradient is), `restore` (the network of a run on the disk).
"""

from bnnlib.inference import distributed
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.evaluation import accuracy_of_means, evaluate, sets
from bnnlib.inference.laplace import refuse_unfit
from bnnlib.inference.loading import LoadedRun, Predicted, load_run
from bnnlib.inference.objective import objective
from bnnlib.inference.prediction import Predictor, predict
from bnnlib.inference.restore import restore
from bnnlib.inference.state import Method, TrainState
from bnnlib.inference.trainer import DivergedError, Trainer

__all__ = [
    "DivergedError",
    "LoadedRun",
    "Method",
    "Predicted",
    "Predictor",
    "Ranks",
    "TrainState",
    "Trainer",
    "accuracy_of_means",
    "distributed",
    "evaluate",
    "load_run",
    "objective",
    "predict",
    "refuse_unfit",
    "restore",
    "sets",
]
