"""Records written by hand, and predictions for them."""

import json

import numpy as np

from bnnlib import metrics
from bnnlib.experiment import Experiment
from bnnlib.metrics import Prediction
from bnnlib.record import schema
from bnnlib.record.predictions import write_predictions
from bnnlib.record.schema import SCHEMA


def random_probs(seed, num_images=40, num_draws=None, sharpness=1.0):
    shape = (num_images, 3) if num_draws is None else (num_draws, num_images, 3)
    logits = sharpness * np.random.default_rng(seed).normal(size=shape)
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def write_run(folder, model, seed, sets, **parameters):
    """A finished record with predictions: `sets` holds probabilities and labels by set."""
    predictions = {}
    for name, (probs, labels) in sets.items():
        draws = probs if probs.ndim == 3 else probs[np.newaxis]
        mean, entropy = draws.mean(axis=0), metrics.expected_entropy(draws)
        predictions[name] = Prediction(mean.astype(np.float32), entropy.astype(np.float32)), labels
    experiment = Experiment(**{"model": model, "dataset": "tiny", "seed": seed} | parameters)
    write_record(folder, experiment, predictions)


def write_record(folder, experiment, predictions, **changes):
    """A finished record of an experiment, which was judged by `predictions`."""
    judged = metrics.judge(predictions)
    folder.mkdir(parents=True)
    record = {
        "schema": SCHEMA,
        "parameters": experiment.to_dict(),
        "status": "finished",
        "metrics": judged.metrics | {"images_per_second": 100.0 + experiment.seed},
        "evaluation": judged.rows,
        "error": None,
        "ranks": 1,
        "hosts": ["h"],
        "threads": 1,
        "seed": experiment.seed,
        "commit": None,
        "clean": None,
        "versions": {},
        "horovod": {},
        "launcher": "alone",
        "job_id": None,
        "environment": {},
        "command": "test",
        "started": "2020-01-01T00:00:00+00:00",
        "ended": None,
        "startup_seconds": None,
    }
    (folder / "run.json").write_text(json.dumps(schema.plain(record | changes)))
    write_predictions(folder, predictions)
