"""Distributed training of Bayesian neural networks: models, training, evaluation, records.

    import bnnlib

    run = bnnlib.train(model="BNN_FC_flip", dataset="digits", epochs=3)
    run.metrics["accuracy"], run.history
    run.predict(images).mean_probs
    bnnlib.load_run("runs/digits/BNN_FC_flip-r1-s0-epochs=3")

``bnnlib.Experiment?`` lists the parameters of :func:`train`; ``bnnlib.MODELS`` and
``bnnlib.DATASETS`` what it can train on what. Each name is imported when it is first used:
TensorFlow only with what trains or predicts.
"""

import importlib
import os
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; the table below is what runs
    from bnnlib import analysis, data, errors, metrics
    from bnnlib.analysis.runs import load as read_runs
    from bnnlib.analysis.runs import load_evaluation as read_evaluations
    from bnnlib.data import Dataset
    from bnnlib.data import load as load_data
    from bnnlib.errors import BnnlibError
    from bnnlib.experiment import Experiment
    from bnnlib.inference.loading import LoadedRun, Predicted, load_run
    from bnnlib.metrics import summary as evaluate
    from bnnlib.names import ALL_MODELS as MODELS
    from bnnlib.names import DATASETS, OOD_SETS
    from bnnlib.training import train

# TensorFlow Probability's layers need Keras 2, and the choice is read when TensorFlow is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# A CPU-only node is told by TensorFlow, on every rank, that it found no GPU libraries, as an error.
# Python exceptions and fatal messages are not affected; 0 to 2 in the environment shows the rest.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow turns oneDNN on by itself only on processors with AVX-512; convolutions are twice as
# fast with it on AVX2, too (CNN_conv 24 against 40 ms a step, measured side by side).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Without a home folder Keras would make one named `~` in the working folder when it is imported.
if not os.path.isabs(os.path.expanduser("~")):
    os.environ.setdefault("KERAS_HOME", f"{tempfile.gettempdir()}/.keras-{os.getuid()}")

__version__ = "0.1.0"

__all__ = [
    "DATASETS",
    "MODELS",
    "OOD_SETS",
    "BnnlibError",
    "Dataset",
    "Experiment",
    "LoadedRun",
    "Predicted",
    "analysis",
    "data",
    "errors",
    "evaluate",
    "load_data",
    "load_run",
    "metrics",
    "read_evaluations",
    "read_runs",
    "train",
]

# Where each name is, and what it is called there; empty for a module.
_PLACES = {
    "DATASETS": ("bnnlib.names", "DATASETS"),
    "MODELS": ("bnnlib.names", "ALL_MODELS"),
    "OOD_SETS": ("bnnlib.names", "OOD_SETS"),
    "BnnlibError": ("bnnlib.errors", "BnnlibError"),
    "Dataset": ("bnnlib.data", "Dataset"),
    "Experiment": ("bnnlib.experiment", "Experiment"),
    "LoadedRun": ("bnnlib.inference.loading", "LoadedRun"),
    "Predicted": ("bnnlib.inference.loading", "Predicted"),
    "analysis": ("bnnlib.analysis", ""),
    "data": ("bnnlib.data", ""),
    "errors": ("bnnlib.errors", ""),
    "evaluate": ("bnnlib.metrics", "summary"),
    "load_data": ("bnnlib.data", "load"),
    "load_run": ("bnnlib.inference.loading", "load_run"),
    "metrics": ("bnnlib.metrics", ""),
    "read_evaluations": ("bnnlib.analysis.runs", "load_evaluation"),
    "read_runs": ("bnnlib.analysis.runs", "load"),
    "train": ("bnnlib.training", "train"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name in _PLACES:
        place, inside = _PLACES[name]
        module = importlib.import_module(place)
        globals()[name] = getattr(module, inside) if inside else module
        return globals()[name]
    guess = ""
    if not name.startswith("_"):
        near = importlib.import_module("bnnlib.names").nearest(name, __all__)
        guess = f"; did you mean {near}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{guess}", name=name)


def __dir__() -> list[str]:
    """What is public, for completion: nothing is imported for it."""
    return [*__all__, "__version__"]
