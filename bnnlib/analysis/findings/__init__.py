"""What a figure shows for the runs loaded, in sentences computed from its table.

There is one function for each figure of :mod:`bnnlib.analysis.figures`; it takes the figure's
table. :func:`verdict` says in three sentences what all of them together show. Nothing is written in
advance: where a Bayesian network is no better than its twin, the sentence says so, and where the
records lack what the figure needs, it says what is missing. Values stand with their 95 % interval
in square brackets, over images and, of several runs, over seeds. A difference is claimed only where
its interval, as it is written, excludes zero. The text is Markdown.
"""

from bnnlib.analysis.findings.draws import (
    convergence,
    example_draws,
    posterior_over_training,
    signal_to_noise,
)
from bnnlib.analysis.findings.other_sets import (
    corruptions,
    false_alarms,
    ood,
    ood_groups,
    shifts,
    uncertainties,
)
from bnnlib.analysis.findings.test_set import (
    accuracy_against_nll,
    entropies,
    reliability,
    risk_coverage,
    scores,
)
from bnnlib.analysis.findings.verdict import verdict

__all__ = [
    "accuracy_against_nll",
    "convergence",
    "corruptions",
    "entropies",
    "example_draws",
    "false_alarms",
    "ood",
    "ood_groups",
    "posterior_over_training",
    "reliability",
    "risk_coverage",
    "scores",
    "shifts",
    "signal_to_noise",
    "uncertainties",
    "verdict",
]
