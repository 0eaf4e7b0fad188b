"""Writes references.json: what other libraries make of arrays that test_references.py scores too.

They need PyTorch, which is larger than the rest of CI's environment together, so their numbers are
kept, with their versions. To make them again:

    python -m venv /tmp/references
    /tmp/references/bin/pip install torch torch-uncertainty relplot crepes hypothesis
    PYTHONPATH=. /tmp/references/bin/python tests/metrics/make_references.py
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import relplot  # type: ignore[import-not-found]
import torch
import torch_uncertainty.metrics.classification as tu  # type: ignore[import-not-found]
import torch_uncertainty.ood_criteria as criteria  # type: ignore[import-not-found]
from crepes import ConformalClassifier  # type: ignore[import-not-found]

from tests.metrics.cases import random_draws, random_predictions

LIBRARIES = ("torch", "torch-uncertainty", "torchmetrics", "relplot", "crepes", "numpy")


def scored(metric, *arrays):
    metric.update(*(torch.as_tensor(array) for array in arrays))
    return float(metric.compute())


def of_predictions(seed):
    probs, labels = random_predictions(seed)
    bins = {"task": "multiclass", "num_bins": 15, "num_classes": 5}
    relplot.config.use_logit_scaling = False  # the paper's kernel, reflected at 0 and 1
    right = (probs.argmax(axis=1) == labels).astype(float)
    # Of 99 crepes would keep a class of p-value 0.1 exactly, which the quantile leaves out.
    held_out, theirs = random_predictions(seed + 100, num_images=100)
    classifier = ConformalClassifier()
    classifier.fit(1 - held_out[np.arange(100), theirs])
    sets = classifier.predict_set(1 - probs, confidence=0.9, smoothing=False)
    return {
        "nll": scored(tu.CategoricalNLL(), probs, labels),
        "brier": scored(tu.BrierScore(num_classes=5), probs, labels),
        "ece": scored(tu.CalibrationError(**bins), probs, labels),
        "mce": scored(tu.CalibrationError(**bins, norm="max"), probs, labels),
        "aurc": scored(tu.AURC(), probs, labels),
        "augrc": scored(tu.AUGRC(), probs, labels),
        "coverage_at_risk": scored(tu.CovAtxRisk(0.2), probs, labels),
        "risk_at_coverage": scored(tu.RiskAtxCov(0.8), probs, labels),
        "smooth_ece": scored(
            tu.SmoothCalibrationError(kernel_type="reflected"), probs.astype(np.float32), labels
        ),
        "smooth_ece_relplot": float(relplot.smECE(probs.max(axis=1), right)),
        "coverage_thr": float(sets[np.arange(300), labels].mean()),
        "set_size_thr": float(sets.sum(axis=1).mean()),
    }


def of_draws(seed):
    probs, logits = random_draws(seed)  # (num_draws, num_images, num_classes)
    by_image = probs.transpose(1, 0, 2)
    votes = tu.VariationRatio(probabilistic=False)
    found = {
        "disagreement": scored(tu.Disagreement(), by_image),
        "variation_ratio": scored(votes, probs),
        "mutual_information": scored(tu.MutualInformation(), by_image),
        "entropy": scored(tu.Entropy(), torch.as_tensor(probs.mean(axis=0))),
    }
    logits_by_image = torch.as_tensor(logits.transpose(1, 0, 2))
    for name, criterion in (
        ("max_logit", criteria.MaxLogitCriterion()),
        ("energy", criteria.EnergyCriterion()),
    ):
        found[name] = float(criterion(logits_by_image).mean())
    return found


if __name__ == "__main__":
    found: dict[str, Any] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    found = {"versions": found, "predictions": [of_predictions(seed) for seed in range(3)]}
    found["draws"] = [of_draws(seed) for seed in range(3)]
    path = Path(__file__).with_name("references.json")
    path.write_text(json.dumps(found, indent=2) + "\n")
