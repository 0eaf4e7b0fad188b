"""Tables of conformal sets: how often they hold the label, their size, and both by class."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.predictions import Predicted
from bnnlib.analysis.tables.common import in_model_order, labels_of


def conformal(
    predictions: Sequence[Predicted],
    held_out: Sequence[Predicted],
    alpha: float = metrics.ALPHA,
) -> pd.DataFrame:
    """Coverage and size of every run's conformal sets, of all images and of those of each class.

    Args:
        predictions: of one labelled set.
        held_out: of the images held out, of the same runs; a run that is not among them is left
            out, since nothing says how large its sets must be.
        alpha: the share of sets that may miss the label.

    Returns:
        A row a run, method (:data:`bnnlib.metrics.CONFORMAL_METHODS`) and class: model, run, seed,
        method, class (its number; ``all`` first), num_images, coverage and set_size (NaN of a class
        without images), and threshold, infinite where too few images are held out: then each set
        holds all classes.
    """
    of_runs = {(one.model, one.run): one for one in held_out}
    rows = []
    for one in in_model_order(predictions):
        theirs = of_runs.get((one.model, one.run))
        if theirs is None:
            continue
        labels = labels_of(one)
        for method in metrics.CONFORMAL_METHODS:
            sets, threshold = metrics.conformal_sets(
                one.mean_probs, theirs.mean_probs, labels_of(theirs), method, alpha
            )
            whose = {"model": one.model, "run": one.run, "seed": one.seed, "method": method}
            coverage, size = metrics.set_coverage(sets, labels), metrics.set_size(sets)
            by_class = zip(*metrics.sets_by_class(sets, labels), strict=True)
            for name, values in [("all", (len(labels), coverage, size)), *enumerate(by_class)]:
                found = dict(zip(("num_images", "coverage", "set_size"), values, strict=True))
                rows.append(whose | {"class": name} | found | {"threshold": threshold})
    columns = ["model", "run", "seed", "method", "class", "num_images", "coverage", "set_size"]
    return pd.DataFrame(rows, columns=[*columns, "threshold"])
