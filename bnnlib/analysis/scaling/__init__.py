"""What ranks add: what was measured, from run records, and a model of what they should add.

The figures are :mod:`bnnlib.analysis.scaling.figures`, the sentences under them
:mod:`bnnlib.analysis.scaling.findings`.
"""

from bnnlib.analysis.scaling.cost_model import (
    ALGORITHMS,
    ARIES,
    PUBLISHED,
    SLINGSHOT,
    Fit,
    Interconnect,
    against_measured,
    allreduce,
    compute_term,
    fit,
    predict,
    recursive_doubling,
    ring,
    scenarios,
    straggler,
)
from bnnlib.analysis.scaling.ladder import ladder_table, read_ladder
from bnnlib.analysis.scaling.theta import THETA, THETA_BYTES, theta, theta_waiting
from bnnlib.analysis.scaling.timings import (
    bytes_a_step,
    calibration,
    efficiencies,
    profiles,
    times_to_accuracy,
    timings,
)

__all__ = [
    "ALGORITHMS",
    "ARIES",
    "PUBLISHED",
    "SLINGSHOT",
    "THETA",
    "THETA_BYTES",
    "Fit",
    "Interconnect",
    "against_measured",
    "allreduce",
    "bytes_a_step",
    "calibration",
    "compute_term",
    "efficiencies",
    "fit",
    "ladder_table",
    "predict",
    "profiles",
    "read_ladder",
    "recursive_doubling",
    "ring",
    "scenarios",
    "straggler",
    "theta",
    "theta_waiting",
    "times_to_accuracy",
    "timings",
]
