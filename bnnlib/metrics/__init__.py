"""How good and how honest a predictive distribution is: pure functions of probabilities and labels.

Arrays go in, numbers come out; nothing here knows a model, a run or a rank. Predictions sharded
over ranks are gathered first, and no result depends on the order of the images but for random ones.

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
- A draw votes for the class of its greatest probability. Logits are averaged over draws as such.
- Random numbers, of a bootstrap or of conformal sets, follow from a seed and an image's place.
- Input that no metric can be computed from raises `MetricsError`; it never gives a number.
"""

from bnnlib.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_values,
    correlation,
    ece_resampled,
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
from bnnlib.metrics.conformal import (
    ALPHA,
    CONFORMAL_METHODS,
    CONFORMAL_SCORES,
    ClassCoverage,
    ConformalSets,
    conformal_scores,
    conformal_sets,
    conformal_summary,
    conformal_threshold,
    set_coverage,
    set_size,
    sets_by_class,
)
from bnnlib.metrics.ece_law import IfCalibrated, ece_debiased, ece_interval, if_calibrated
from bnnlib.metrics.evaluation import (
    HOLDOUT,
    KINDS,
    REFERENCE,
    SCALED,
    SMALLEST_PROB,
    TEST,
    TRAIN,
    VECTOR_SCALED,
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
from bnnlib.metrics.selective import (
    RiskCoverage,
    augrc,
    aurc,
    coverage_at_risk,
    e_aurc,
    risk_at_coverage,
    risk_coverage,
)
from bnnlib.metrics.smooth import smooth_ece
from bnnlib.metrics.soft_labels import (
    cross_entropy,
    entropy_correlation,
    modal_labels,
    soft_brier,
    soft_summary,
    total_variation,
)
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
    OOD_SCORES,
    count_votes,
    disagreement,
    expected_entropy,
    mean_probs,
    mutual_information,
    predictive_entropy,
    uncertainty_scores,
    variation_ratio,
)
from bnnlib.metrics.vector_scaling import (
    VectorScaling,
    apply_vector_scaling,
    fit_vector_scaling,
)

__all__ = [
    "ALPHA",
    "CONFORMAL_METHODS",
    "CONFORMAL_SCORES",
    "ENTROPY_TOLERANCE",
    "HOLDOUT",
    "KINDS",
    "MUTUAL_INFORMATION_RESOLUTION",
    "NUM_BINS",
    "OOD_SCORES",
    "PROBABILITY_TOLERANCE",
    "REFERENCE",
    "SCALED",
    "SMALLEST_PROB",
    "TEMPERATURE_RANGE",
    "TEST",
    "TRAIN",
    "VECTOR_SCALED",
    "AurocParts",
    "ClassCoverage",
    "ConformalSets",
    "DrawsCurve",
    "Evaluation",
    "IfCalibrated",
    "Interval",
    "Labels",
    "Prediction",
    "Predictions",
    "ReliabilityBins",
    "RiskCoverage",
    "VectorScaling",
    "accuracy",
    "apply_temperature",
    "apply_vector_scaling",
    "augrc",
    "aupr_in",
    "aupr_out",
    "aurc",
    "auroc",
    "auroc_parts",
    "bootstrap_interval",
    "bootstrap_values",
    "brier",
    "classwise_ece",
    "conformal_scores",
    "conformal_sets",
    "conformal_summary",
    "conformal_threshold",
    "correlation",
    "count_votes",
    "coverage_at_risk",
    "cross_entropy",
    "difference",
    "disagreement",
    "e_aurc",
    "ece",
    "ece_debiased",
    "ece_equal_mass",
    "ece_interval",
    "ece_resampled",
    "entropy_correlation",
    "expected_entropy",
    "fit_temperature",
    "fit_vector_scaling",
    "fpr_at_tpr",
    "if_calibrated",
    "interval",
    "judge",
    "log_mean_probs",
    "mce",
    "mean_probs",
    "modal_labels",
    "mutual_information",
    "nll",
    "ood_summary",
    "over_runs",
    "percentile_interval",
    "predictive_entropy",
    "reliability_bins",
    "risk_at_coverage",
    "risk_coverage",
    "set_coverage",
    "set_kind",
    "set_size",
    "sets_by_class",
    "smooth_ece",
    "soft_brier",
    "soft_summary",
    "summary",
    "temperature_interval",
    "total_variation",
    "uncertainty_scores",
    "variation_ratio",
    "with_seeds",
]
