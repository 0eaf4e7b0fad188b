"""Distributed training of Bayesian neural networks: models, training, evaluation, records."""

import importlib
import os
import tempfile
from typing import Any

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


def __getattr__(name: str) -> Any:
    """``load_run`` (:mod:`bnnlib.inference.loading`), imported with TensorFlow when first used."""
    if name == "load_run":
        return importlib.import_module("bnnlib.inference.loading").load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
