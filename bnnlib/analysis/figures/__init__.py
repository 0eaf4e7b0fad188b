"""Figures as functions of a tidy table; :mod:`bnnlib.analysis.tables` makes the tables.

Every function draws what it is given and returns the matplotlib figure. Text keeps a size that can
be read where the picture is shown 800 pixels wide.
"""

from bnnlib.analysis.figures.draws import (
    convergence_with_draws,
    draws_of_images,
    posterior_over_training,
    signal_to_noise,
)
from bnnlib.analysis.figures.other_sets import (
    against_severity,
    corruptions,
    epistemic_against_aleatoric,
    ood_histograms,
    roc_curves,
)
from bnnlib.analysis.figures.test_set import (
    accuracy_against_nll,
    comparison_table,
    entropy_of_right_and_wrong,
    reliability_diagrams,
    risk_against_coverage,
)
from bnnlib.analysis.figures.training import image_row, training_curves

__all__ = [
    "accuracy_against_nll",
    "against_severity",
    "comparison_table",
    "convergence_with_draws",
    "corruptions",
    "draws_of_images",
    "entropy_of_right_and_wrong",
    "epistemic_against_aleatoric",
    "image_row",
    "ood_histograms",
    "posterior_over_training",
    "reliability_diagrams",
    "risk_against_coverage",
    "roc_curves",
    "signal_to_noise",
    "training_curves",
]
