"""How uncertain a prediction is, and which part of it more knowing the weights would remove."""

import numpy as np
import numpy.typing as npt
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import Floats, check_draws, check_probs, check_scores

# nats. An expected entropy cannot exceed the entropy of the mean (Jensen). Rounded probabilities
# may seem to break that by thousandths; entropies in bits, or of other images, break it by more.
ENTROPY_TOLERANCE = 1e-2

# nats. What float32 records leave of a mutual information that is zero. Ranked as it is, that noise
# would give a deterministic network an OOD score.
MUTUAL_INFORMATION_RESOLUTION = 1e-6


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


def uncertainty_scores(
    probs: npt.ArrayLike, expected_entropy: npt.ArrayLike | None = None
) -> dict[str, Floats]:
    """The three scores that rank images by uncertainty, greater for a less certain image.

    Args:
        probs: Mean class probabilities, `(num_images, num_classes)`.
        expected_entropy: Mean entropy of the draws in nats, `(num_images,)`.

    Returns:
        `max_probability` (one minus it), `entropy` (nats) and, where the expected entropy is
        given, `mutual_information` (nats), each float64 `(num_images,)`.

    Raises:
        MetricsError: The arrays are not probabilities and entropies of the same images.
    """
    checked = check_probs(probs)
    scores = {"max_probability": 1.0 - checked.max(axis=1), "entropy": _row_entropies(checked)}
    if expected_entropy is not None:
        scores["mutual_information"] = mutual_information(checked, expected_entropy)
    return scores
