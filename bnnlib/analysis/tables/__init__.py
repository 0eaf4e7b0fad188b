"""The table behind each figure: predictions in, from records or from anywhere; tidy rows out.

A :class:`Predicted` is one model's predictions of one set of images. :meth:`Group.predictions`
reads those of a group of runs and of the ensembles of their seeds; :func:`given` takes a user's own
arrays. Every function makes from them the rows that one figure of :mod:`bnnlib.analysis.figures`
draws and one paragraph of :mod:`bnnlib.analysis.findings` reads.
"""

from bnnlib.analysis.predictions import Group, Predicted, ensemble, given
from bnnlib.analysis.runs import named
from bnnlib.analysis.tables.common import SCORES
from bnnlib.analysis.tables.conformal import conformal
from bnnlib.analysis.tables.draws import (
    Example,
    convergence,
    example_draws,
    examples,
    posterior_over_training,
    signal_to_noise,
)
from bnnlib.analysis.tables.other_sets import (
    FALSE_ALARMS,
    OOD_SCORES,
    by_severities,
    corruption_means,
    ood,
    ood_groups,
    ood_histograms,
    roc,
    shifts,
    uncertainties,
)
from bnnlib.analysis.tables.pairs import ALL, differences, ood_differences, shift_differences
from bnnlib.analysis.tables.pairs import COLUMNS as PAIR_COLUMNS
from bnnlib.analysis.tables.test_set import (
    COVERAGES,
    entropies,
    recorded,
    reliability,
    risk_coverage,
    scores,
)

__all__ = [
    "ALL",
    "COVERAGES",
    "FALSE_ALARMS",
    "OOD_SCORES",
    "PAIR_COLUMNS",
    "SCORES",
    "Example",
    "Group",
    "Predicted",
    "by_severities",
    "conformal",
    "convergence",
    "corruption_means",
    "differences",
    "ensemble",
    "entropies",
    "example_draws",
    "examples",
    "given",
    "named",
    "ood",
    "ood_differences",
    "ood_groups",
    "ood_histograms",
    "posterior_over_training",
    "recorded",
    "reliability",
    "risk_coverage",
    "roc",
    "scores",
    "shift_differences",
    "shifts",
    "signal_to_noise",
    "uncertainties",
]
