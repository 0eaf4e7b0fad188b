"""Every metric of one evaluation set at once: what a run record holds."""

import math
from collections.abc import Callable

import numpy.typing as npt

from bnnlib.errors import MetricsError
from bnnlib.metrics.calibration import classwise_ece, ece, ece_equal_mass, mce
from bnnlib.metrics.checks import check_labelled, check_probs, check_scores, check_votes
from bnnlib.metrics.ece_law import ece_debiased
from bnnlib.metrics.ood import aupr_in, aupr_out, auroc, fpr_at_tpr
from bnnlib.metrics.scores import accuracy, brier, nll
from bnnlib.metrics.selective import augrc, aurc, e_aurc
from bnnlib.metrics.smooth import smooth_ece
from bnnlib.metrics.uncertainty import OOD_SCORES, disagreement, uncertainty_scores


def summary(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    expected_entropy: npt.ArrayLike | None = None,
    votes: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Every metric of one labelled evaluation set.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        labels: Class numbers, `(num_images,)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.
        votes: Draws that predict each class, `(num_images, num_classes)`.

    Returns:
        `accuracy`, `nll` (nats), `brier`, `ece`, `ece_debiased`, `ece_equal_mass`, `classwise_ece`,
        `mce`, `smooth_ece`, the mean over images of `entropy`, `aleatoric` and `epistemic` (nats;
        the last two NaN, unknown, without an expected entropy), `aurc`, `e_aurc` and `augrc`; with
        votes also the mean of `disagreement`.

    Raises:
        MetricsError: The arrays are not of the same images or not what they should be.
    """
    checked, checked_labels = check_labelled(probs, labels)
    scores = uncertainty_scores(checked, expected_entropy)
    aleatoric = epistemic = math.nan
    if expected_entropy is not None:
        aleatoric = float(check_scores(expected_entropy, "expected_entropy", len(checked)).mean())
        epistemic = float(scores["mutual_information"].mean())
    known = {}
    if votes is not None:
        checked_votes = check_votes(votes, checked.shape)
        known["disagreement"] = float(disagreement(checked_votes).mean())
    return known | {
        "accuracy": accuracy(checked, checked_labels),
        "nll": nll(checked, checked_labels),
        "brier": brier(checked, checked_labels),
        "ece": ece(checked, checked_labels),
        "ece_debiased": ece_debiased(checked, checked_labels),
        "ece_equal_mass": ece_equal_mass(checked, checked_labels),
        "classwise_ece": classwise_ece(checked, checked_labels),
        "mce": mce(checked, checked_labels),
        "smooth_ece": smooth_ece(checked, checked_labels),
        "entropy": float(scores["entropy"].mean()),
        "aleatoric": aleatoric,
        "epistemic": epistemic,
        "aurc": aurc(checked, checked_labels),
        "e_aurc": e_aurc(checked, checked_labels),
        "augrc": augrc(checked, checked_labels),
    }


def ood_summary(
    in_probs: npt.ArrayLike,
    in_expected_entropy: npt.ArrayLike | None,
    out_probs: npt.ArrayLike,
    out_expected_entropy: npt.ArrayLike | None,
    in_logits: npt.ArrayLike | None = None,
    out_logits: npt.ArrayLike | None = None,
    in_votes: npt.ArrayLike | None = None,
    out_votes: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """How well each uncertainty tells an OOD set from the test set.

    Args:
        in_probs: Mean class probabilities of the test set, `(num_in, num_classes)`.
        in_expected_entropy: Mean entropy of the draws in nats, `(num_in,)`.
        out_probs: Mean class probabilities of the OOD set, `(num_out, num_classes)`.
        out_expected_entropy: Mean entropy of the draws in nats, `(num_out,)`.
        in_logits: Mean logits of the draws, shaped as `in_probs`.
        out_logits: Mean logits of the draws, shaped as `out_probs`.
        in_votes: Draws that predict each class, shaped as `in_probs`.
        out_votes: Draws that predict each class, shaped as `out_probs`.

    Returns:
        `auroc_S`, `aupr_in_S`, `aupr_out_S` and `fpr95_S` for each score S of `OOD_SCORES`; NaN,
        unknown, for those whose array is not given.

    Raises:
        MetricsError: The arrays are not what they should be, the sets differ in their number of
            classes, or only one of them has expected entropies, logits or votes.
    """
    in_checked = check_probs(in_probs, "in_probs")
    out_checked = check_probs(out_probs, "out_probs")
    if in_checked.shape[1] != out_checked.shape[1]:
        raise MetricsError(
            f"in_probs has {in_checked.shape[1]} classes and out_probs {out_checked.shape[1]}, "
            "expected predictions of one model."
        )
    for what, inside, outside in (
        ("expected entropies", in_expected_entropy, out_expected_entropy),
        ("logits", in_logits, out_logits),
        ("votes", in_votes, out_votes),
    ):
        if (inside is None) != (outside is None):
            raise MetricsError(f"only one of the two sets has {what}: give both or neither.")
    in_scores = uncertainty_scores(in_checked, in_expected_entropy, in_logits, in_votes)
    out_scores = uncertainty_scores(out_checked, out_expected_entropy, out_logits, out_votes)
    metrics: dict[str, Callable[..., float]] = {
        "auroc": auroc,
        "aupr_in": aupr_in,
        "aupr_out": aupr_out,
        "fpr95": fpr_at_tpr,
    }
    return {
        f"{name}_{score}": (
            metric(in_scores[score], out_scores[score]) if score in in_scores else math.nan
        )
        for name, metric in metrics.items()
        for score in OOD_SCORES
    }
