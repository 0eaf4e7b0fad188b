"""Distributed training of Bayesian neural networks: models, training, evaluation, records."""

import os

# TensorFlow Probability's layers need Keras 2, and the choice is read when TensorFlow is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# A CPU-only node is told by TensorFlow, on every rank, that it found no GPU libraries, as an error.
# Python exceptions and fatal messages are not affected; 0 to 2 in the environment shows the rest.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
