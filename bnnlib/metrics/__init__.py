"""How good and how honest a predictive distribution is: pure functions of probabilities and labels.

Arrays go in, numbers come out; nothing here knows a model, a run or a rank. Predictions sharded
over ranks are gathered first, and no result depends on the order of the images.

The conventions, the same for every function:

- Probabilities `(num_images, num_classes)` are converted to float64. A row's sum may miss one by
  `PROBABILITY_TOLERANCE`; rows are neither clipped nor renormalized.
- The prediction is the class of greatest probability, the lowest index where several are greatest.
  The confidence is that greatest probability.
- Equal-width bins are closed on the right, `(lower, upper]`, and zero belongs to the first one;
  there are `NUM_BINS` of them. An edge is in the bin below it, written in float64 or in float32.
- Equal-mass bins end at values that occur, closed on the right too, so images of equal confidence
  share a bin and an image's place in the array never matters. Without ties their sizes differ by
  one at most; with ties some may be empty.
- Entropies are in nats. Every uncertainty is greater for a less certain image.
- Out of distribution (OOD) is the positive class, and a greater score says OOD.
- Tied scores count one half in the AUROC, share one threshold in the AUPR and the FPR, and stand in
  random order in risk-coverage curves, where the risk is the expectation over these orders.
- Input that no metric can be computed from raises `MetricsError`; it never gives a number.
"""

from bnnlib.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_values,
    interval,
    percentile_interval,
)
from bnnlib.metrics.calibration import (
    NUM_BINS,
    ReliabilityBins,
    classwise_ece,
    ece,
    ece_equal_mass,
    mce,
    reliability_bins,
)
from bnnlib.metrics.checks import PROBABILITY_TOLERANCE
from bnnlib.metrics.ece_law import IfCalibrated, ece_debiased, ece_interval, if_calibrated
from bnnlib.metrics.evaluation import (
    HOLDOUT,
    KINDS,
    REFERENCE,
    SCALED,
    SMALLEST_PROB,
    TEST,
    TRAIN,
    DrawsCurve,
    Evaluation,
    Labels,
    Prediction,
    Predictions,
    judge,
    log_mean_probs,
    set_kind,
)
from bnnlib.metrics.intervals import Interval, difference, over_runs, with_seeds
from bnnlib.metrics.ood import AurocParts, aupr_in, aupr_out, auroc, auroc_parts, fpr_at_tpr
from bnnlib.metrics.scores import accuracy, brier, nll
from bnnlib.metrics.selective import RiskCoverage, aurc, coverage_at_risk, e_aurc, risk_coverage
from bnnlib.metrics.summaries import ood_summary, summary
from bnnlib.metrics.temperature import (
    TEMPERATURE_RANGE,
    apply_temperature,
    fit_temperature,
    temperature_interval,
)
from bnnlib.metrics.uncertainty import (
    ENTROPY_TOLERANCE,
    MUTUAL_INFORMATION_RESOLUTION,
    expected_entropy,
    mean_probs,
    mutual_information,
    predictive_entropy,
    uncertainty_scores,
)

__all__ = [
    "ENTROPY_TOLERANCE",
    "HOLDOUT",
    "KINDS",
    "MUTUAL_INFORMATION_RESOLUTION",
    "NUM_BINS",
    "PROBABILITY_TOLERANCE",
    "REFERENCE",
    "SCALED",
    "SMALLEST_PROB",
    "TEMPERATURE_RANGE",
    "TEST",
    "TRAIN",
    "AurocParts",
    "DrawsCurve",
    "Evaluation",
    "IfCalibrated",
    "Interval",
    "Labels",
    "Prediction",
    "Predictions",
    "ReliabilityBins",
    "RiskCoverage",
    "accuracy",
    "apply_temperature",
    "aupr_in",
    "aupr_out",
    "aurc",
    "auroc",
    "auroc_parts",
    "bootstrap_interval",
    "bootstrap_values",
    "brier",
    "classwise_ece",
    "coverage_at_risk",
    "difference",
    "e_aurc",
    "ece",
    "ece_debiased",
    "ece_equal_mass",
    "ece_interval",
    "expected_entropy",
    "fit_temperature",
    "fpr_at_tpr",
    "if_calibrated",
    "interval",
    "judge",
    "log_mean_probs",
    "mce",
    "mean_probs",
    "mutual_information",
    "nll",
    "ood_summary",
    "over_runs",
    "percentile_interval",
    "predictive_entropy",
    "reliability_bins",
    "risk_coverage",
    "set_kind",
    "summary",
    "temperature_interval",
    "uncertainty_scores",
    "with_seeds",
]
