"""What is kept of a run, and what if something breaks? Reading needs no TensorFlow."""

from bnnlib.record.identity import run_directory
from bnnlib.record.lock import LockedError
from bnnlib.record.logs import (
    LEVELS,
    AccuracyLog,
    LayerLog,
    StepLog,
    read_accuracy,
    read_posterior,
    read_steps,
    training_metrics,
)
from bnnlib.record.predictions import read_all_predictions, read_predictions
from bnnlib.record.profile import read_profile
from bnnlib.record.run import Run
from bnnlib.record.schema import ATTEMPT_KEYS, KEYS, SCHEMA, read_record
from bnnlib.record.stopping import Stopped

__all__ = [
    "ATTEMPT_KEYS",
    "KEYS",
    "LEVELS",
    "SCHEMA",
    "AccuracyLog",
    "LayerLog",
    "LockedError",
    "Run",
    "StepLog",
    "Stopped",
    "read_accuracy",
    "read_all_predictions",
    "read_posterior",
    "read_predictions",
    "read_profile",
    "read_record",
    "read_steps",
    "run_directory",
    "training_metrics",
]
