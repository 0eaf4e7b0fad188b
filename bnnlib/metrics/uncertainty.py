"""How uncertain a prediction is, and which part of it more knowing the weights would remove."""

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import (
    Floats,
    Integers,
    check_draws,
    check_probs,
    check_scores,
    check_votes,
    real_array,
)

# nats. An expected entropy cannot exceed the entropy of the mean (Jensen). Rounded probabilities
# may seem to break that by thousandths; entropies in bits, or of other images, break it by more.
ENTROPY_TOLERANCE = 1e-2

# nats. What float32 records leave of a mutual information that is zero. Ranked as it is, that noise
# would give a deterministic network an OOD score.
MUTUAL_INFORMATION_RESOLUTION = 1e-6

# The names of `uncertainty_scores`.
OOD_SCORES = (
    "max_probability",
    "entropy",
    "mutual_information",
    "expected_entropy",
    "variation_ratio",
    "max_logit",
    "energy",
)


def mean_probs(draw_probs: npt.ArrayLike) -> Floats:
    """The Monte Carlo predictive distribution: class probabilities averaged over draws.

    Args:
        draw_probs: Class probabilities of each draw, `(num_draws, num_images, num_classes)`.

    Returns:
        Mean class probabilities, float64 `(num_images, num_classes)`.

    Raises:
        MetricsError: Any draw holds no probabilities, or there is none.
    """
    draws = check_draws(draw_probs)
    total = np.zeros(draws.shape[1:])
    for index, draw in enumerate(draws):
        total += check_probs(draw, f"draw_probs[{index}]")
    return total / len(draws)


def expected_entropy(draw_probs: npt.ArrayLike) -> Floats:
    """The aleatoric part of the predictive entropy: entropies of the draws, averaged.

    Args:
        draw_probs: Class probabilities of each draw, `(num_draws, num_images, num_classes)`.

    Returns:
        Expected entropy of each image in nats, float64 `(num_images,)`.

    Raises:
        MetricsError: Any draw holds no probabilities, or there is none.
    """
    draws = check_draws(draw_probs)
    total = np.zeros(draws.shape[1])
    for index, draw in enumerate(draws):
        total += _row_entropies(check_probs(draw, f"draw_probs[{index}]"))
    return total / len(draws)


def _row_entropies(probs: Floats) -> Floats:
    return special.entr(probs).sum(axis=1)


def predictive_entropy(probs: npt.ArrayLike) -> Floats:
    """The entropy of each image's predictive distribution, the total uncertainty.

    Args:
        probs: Class probabilities, `(num_images, num_classes)`.

    Returns:
        Nats, float64 `(num_images,)`, between 0 and log(num_classes).

    Raises:
        MetricsError: The array is not probabilities.
    """
    return _row_entropies(check_probs(probs))


def mutual_information(probs: npt.ArrayLike, expected_entropy: npt.ArrayLike) -> Floats:
    """The epistemic part of each image's entropy: what knowing the weights would remove.

    Entropy of the mean less mean of the entropies (Houlsby et al., Bayesian Active Learning for
    Classification and Preference Learning, 2011, eq. 2; Depeweg et al., Decomposition of
    Uncertainty in Bayesian Deep Learning, 2018). Values within `MUTUAL_INFORMATION_RESOLUTION`
    of zero, what float32 records leave of a zero, are returned as zero. Rounded input can leave
    values somewhat below zero; they are returned as they are.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.

    Returns:
        Nats, float64 `(num_images,)`.

    Raises:
        MetricsError: The arrays are not of the same images, or an expected entropy is negative or
            exceeds the entropy by more than `ENTROPY_TOLERANCE`, which no set of draws can give.
    """
    entropy = _row_entropies(check_probs(probs))
    expected = check_scores(expected_entropy, "expected_entropy", len(entropy))
    wrong = (expected < -ENTROPY_TOLERANCE) | (expected > entropy + ENTROPY_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricsError(
            f"expected_entropy is {expected[row]:g} in row {row}, expected 0 to {entropy[row]:g} "
            "nats, the entropy of the mean. Give nats, of the same images and draws as probs."
        )
    information = entropy - expected
    return np.where(np.abs(information) <= MUTUAL_INFORMATION_RESOLUTION, 0.0, information)


def count_votes(draw_probs: npt.ArrayLike) -> Integers:
    """How many draws predict each class of each image.

    Args:
        draw_probs: Class probabilities of each draw, `(num_draws, num_images, num_classes)`.

    Returns:
        int64 `(num_images, num_classes)`; each row sums to the number of draws.

    Raises:
        MetricsError: Any draw holds no probabilities, or there is none.
    """
    draws = check_draws(draw_probs)
    votes = np.zeros(draws.shape[1:], np.int64)
    for index, draw in enumerate(draws):
        predicted = check_probs(draw, f"draw_probs[{index}]").argmax(axis=1)
        votes[np.arange(len(votes)), predicted] += 1
    return votes


def variation_ratio(votes: npt.ArrayLike) -> Floats:
    """The fraction of an image's draws that do not predict the class that most predict.

    1 − n_max / n of n draws (Freeman, Elementary Applied Statistics, 1965; Gal, Uncertainty in Deep
    Learning, 2016, section 3.3.1). torch-uncertainty calls it so with `probabilistic=False` alone;
    its default is one minus the mean probability, which is `max_probability` here.

    Args:
        votes: Draws that predict each class, `(num_images, num_classes)`, of `count_votes`.

    Returns:
        float64 `(num_images,)`, from 0 to 1 − 1 / num_classes; 0 of a single draw.

    Raises:
        MetricsError: They are no votes.
    """
    checked = check_votes(votes)
    return 1.0 - checked.max(axis=1) / checked.sum(axis=1)


def disagreement(votes: npt.ArrayLike) -> Floats:
    """The fraction of the pairs of an image's draws that predict different classes.

    1 − Σ_c n_c (n_c − 1) / (n (n − 1)) of n draws, of which n_c predict class c (Fort, Hu &
    Lakshminarayanan, Deep Ensembles: A Loss Landscape Perspective, 2019, its pairs averaged; the
    same as torch-uncertainty's Disagreement).

    Args:
        votes: Draws that predict each class, `(num_images, num_classes)`, of `count_votes`.

    Returns:
        float64 `(num_images,)`, between 0 and 1; 0 of a single draw, which nothing contradicts.

    Raises:
        MetricsError: They are no votes.
    """
    checked = check_votes(votes).astype(np.float64)
    draws = checked.sum(axis=1)
    agreeing = (checked * (checked - 1.0)).sum(axis=1)
    return 1.0 - np.where(draws > 1.0, agreeing / np.maximum(draws * (draws - 1.0), 1.0), 1.0)


def uncertainty_scores(
    probs: npt.ArrayLike,
    expected_entropy: npt.ArrayLike | None = None,
    mean_logits: npt.ArrayLike | None = None,
    votes: npt.ArrayLike | None = None,
) -> dict[str, Floats]:
    """The scores that rank images by uncertainty, greater for a less certain image.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.
        mean_logits: Mean logits of the draws, `(num_images, num_classes)`.
        votes: Draws that predict each class, `(num_images, num_classes)`.

    Returns:
        By the names of `OOD_SCORES`, each float64 `(num_images,)`:

        - `max_probability`: one minus it (Hendrycks & Gimpel 2017), 0 to 1 − 1 / num_classes.
        - `entropy` of the mean, nats.
        - `mutual_information` and `expected_entropy`, nats, where the latter is given.
        - `variation_ratio`, where votes are given.
        - `max_logit`: minus the greatest logit (Hendrycks et al., Scaling Out-of-Distribution
          Detection for Real-World Settings, 2022), and `energy`: −log Σ_c exp(logit_c) (Liu et al.,
          Energy-based Out-of-distribution Detection, 2020, eq. 4 at temperature 1), where logits
          are given; both of the mean over draws, in nats, of any sign.

    Raises:
        MetricsError: The arrays are not of the same images, or not what they should be.
    """
    checked = check_probs(probs)
    scores = {"max_probability": 1.0 - checked.max(axis=1), "entropy": _row_entropies(checked)}
    if expected_entropy is not None:
        scores["mutual_information"] = mutual_information(checked, expected_entropy)
        scores["expected_entropy"] = np.asarray(expected_entropy, np.float64)
    if votes is not None:
        scores["variation_ratio"] = variation_ratio(check_votes(votes, checked.shape))
    if mean_logits is not None:
        logits = _check_logits(mean_logits, checked.shape)
        scores["max_logit"] = -logits.max(axis=1)
        scores["energy"] = -special.logsumexp(logits, axis=1)
    return scores


def _check_logits(mean_logits: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = real_array(mean_logits, "mean_logits").astype(np.float64)
    if array.shape != shape:
        raise MetricsError(f"mean_logits has shape {array.shape}, expected that of probs, {shape}.")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise MetricsError(
            f"mean_logits has a value that is not finite in row {row}: {array[row]}."
        )
    return array
