"""Distributed training of Bayesian neural networks: models, Horovod training, evaluation, records."""

import os

# TensorFlow Probability's layers need Keras 2, and the choice is read when TensorFlow is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.1.0"
