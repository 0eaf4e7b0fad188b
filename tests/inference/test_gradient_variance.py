"""The variance of an averaged gradient: by hand for one weight, and as identities of a network."""

import math

import numpy as np
import pytest
import tensorflow as tf

from bnnlib import networks
from bnnlib.analysis.questions import gradient_variance_law as law
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference import gradient_variance
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.objective import gradient
from bnnlib.inference.virtual_ranks import VirtualRanks
from bnnlib.networks import TRAINING, stream_key
from tests.inference.small import dataset_of

# --- One weight: y = w x with w ~ N(MEAN, SIGMA^2), half the squared error, four images ----------
MEAN, SIGMA = 0.7, 0.4
X = np.array([1.0, -2.0, 0.5, 1.5])
Y = np.array([0.3, 1.0, -1.0, 2.0])
LAYERS = {
    "reparameterization": networks.Reparameterization,
    "flipout": networks.Flipout,
    "local": networks.LocalReparameterization,
}


def by_hand(estimator: str, ranks: int, x=X, y=Y) -> tuple[float, float]:
    """The variance of the mean gradient by MEAN and by SIGMA.

    With e the draw and a = x (x MEAN - y), an image's gradient is a + x^2 SIGMA e by MEAN and
    a e + x^2 SIGMA e^2 by SIGMA. Images of one rank share e. Under Flipout they share it but for a
    sign of their own, so that e^2, of variance 2, is still shared; under local nothing is.
    """
    a, s = x * (x * MEAN - y), x**2 * SIGMA
    own = np.eye(len(x))
    same_rank = np.kron(np.eye(ranks), np.ones((len(x) // ranks,) * 2))
    first, second = {
        "reparameterization": (same_rank, same_rank),
        "flipout": (own, same_rank),
        "local": (own, own),
    }[estimator]
    of_mean = s @ first @ s
    of_sigma = a @ first @ a + 2 * s @ second @ s
    return of_mean / len(x) ** 2, of_sigma / len(x) ** 2


def draws_of(estimator: str, ranks: int, count: int) -> np.ndarray:
    """`count` gradients by mean and deviation, ``(count, 2)``, of the library's own layer."""
    layer = LAYERS[estimator]("one", (1, 1), tf.constant([0, 0], tf.int64), 1.0)
    layer.mean.assign([[MEAN]])
    keys = tf.constant([stream_key(0, TRAINING, rank) for rank in range(ranks)], tf.int64)
    x, y = (tf.constant(values[:, None], tf.float32) for values in (X, Y))

    def of_draw(step):
        seeds = tf.stack([keys, tf.repeat(step, ranks)], axis=1)
        stddev = tf.constant([[SIGMA]], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(stddev)
            outputs = layer(x, seeds[0] if ranks == 1 else seeds, stddev)
            loss = tf.reduce_mean(0.5 * tf.square(outputs - y))
        return tf.concat([g[0] for g in tape.gradient(loss, [layer.mean, stddev])], 0)

    steps = tf.range(count, dtype=tf.int64)
    return tf.function(lambda: tf.map_fn(of_draw, steps, tf.float32))().numpy()


@pytest.mark.parametrize("estimator", LAYERS)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_one_weight_has_the_variance_worked_by_hand(estimator, ranks):
    batches = np.split(draws_of(estimator, ranks, 1600), 20)  # of equal images: no more than draws
    parts = {"mean": np.array([True, False]), "sigma": np.array([False, True])}
    found = gradient_variance.of_batches(batches, parts)
    for part, expected in zip(parts, by_hand(estimator, ranks), strict=True):
        assert found[part].noise == pytest.approx(expected, abs=4 * found[part].noise_error)
        assert found[part].noise_error < 0.16 * expected


@pytest.mark.parametrize("batch", [4, 64])
def test_the_law_is_exact_for_one_weight_by_its_mean(batch):
    """V_plain(R) = V_Flipout + c (1/R - 1/B), of B equal images; by the deviation c is a^2."""
    x, y = np.full(batch, 1.5), np.full(batch, 2.0)
    a, s = 1.5 * (1.5 * MEAN - 2.0), 1.5**2 * SIGMA
    for ranks in (1, 2, 4):
        plain, flipout = (by_hand(name, ranks, x, y) for name in ("reparameterization", "flipout"))
        for more, less, covariance in zip(plain, flipout, (s * s, a * a), strict=True):
            assert more - less == pytest.approx(covariance * (1 / ranks - 1 / batch), abs=1e-12)
    # By the mean Flipout's own variance does not change with the ranks, as the law says.
    start = [by_hand(name, 1, x, y)[0] for name in ("flipout", "reparameterization")]
    for estimator in LAYERS:
        for ranks in (1, 2, 4):
            weights = law.weights_of_law(estimator, "own", batch, ranks)
            predicted = np.dot(weights, start)
            assert predicted == pytest.approx(by_hand(estimator, ranks, x, y)[0], rel=1e-9)


# --- The nested analysis of variance -------------------------------------------------------------


def test_both_parts_and_their_errors_are_right_over_many_repeats():
    rng = np.random.default_rng(0)
    noise, images, scores = 3.0, 0.5, []
    for _ in range(400):
        means = rng.normal(0, math.sqrt(images), (12, 1, 6))
        draws = means + rng.normal(0, math.sqrt(noise), (12, 4, 6))
        found = gradient_variance.of_batches(draws, {"all": np.ones(6, bool)})["all"]
        errors = found.noise - 6 * noise, found.images - 6 * images
        scores.append([errors[0], found.noise_error, errors[1], found.images_error])
    of_noise, its_error, of_images, their_error = np.array(scores).T
    for found, error in ((of_noise, its_error), (of_images, their_error)):
        assert abs(found.mean()) < 4 * found.std() / 20  # unbiased
        assert math.sqrt(np.square(error).mean()) == pytest.approx(found.std(), rel=0.15)


def test_too_few_batches_or_draws_are_refused():
    parts = {"all": np.ones(2, bool)}
    with pytest.raises(BnnlibError, match="weight draws of batch 0: 1, expected 2 or more"):
        gradient_variance.of_batches([np.zeros((1, 2))], parts)
    with pytest.raises(BnnlibError, match="batches of images: 2, expected 3 or more"):
        gradient_variance.of_batches([np.zeros((2, 2))] * 2, parts)


# --- A network, by the step that training takes --------------------------------------------------
DATASET = dataset_of(96, (4, 4, 1), 3)


def measured(model: str, ranks: int, streams: int, batches: int = 3, draws: int = 4):
    experiment = Experiment(
        model=model, batch_size=8 // ranks, virtual_ranks=ranks, noise_streams=streams
    )
    network = networks.build_for(experiment, DATASET)
    return gradient_variance.measure(experiment, DATASET, network, batches, draws)


def test_one_stream_for_all_ranks_is_one_rank():
    alone, shared, own = (
        measured("BNN_FC_nonflip", *how)["all"] for how in ((1, 0), (4, 1), (4, 0))
    )
    assert shared.noise == pytest.approx(alone.noise, rel=1e-4)
    assert shared.images == pytest.approx(alone.images, rel=1e-3)
    assert own.noise != pytest.approx(alone.noise, rel=1e-2)


def test_a_point_estimate_has_no_noise_and_its_images_are_those_of_the_gradient():
    found = measured("CNN_FC", 2, 0, batches=12)
    assert set(found) == {"points", "all"}
    assert found["all"].noise == found["points"].noise == 0
    experiment = Experiment(model="CNN_FC", batch_size=8)
    network = networks.build_for(experiment, DATASET)
    ranks = VirtualRanks(experiment, DATASET, network, Ranks(), 1)
    gradients = []
    for places in gradient_variance._batches(96, 8, 0, 12):
        images, labels = DATASET.x_train[places], DATASET.y_train[places].astype(np.int32)
        batches = ranks.batches(tf.constant(images), tf.constant(labels), tf.constant(0, tf.int64))
        each = gradient(network, batches, tf.constant(1.0), 96)[0]
        gradients.append(np.concatenate([part.numpy().ravel() for part in each]))
    expected = np.var(gradients, axis=0, ddof=1).sum()
    assert found["all"].images == pytest.approx(expected, rel=1e-4)


def test_the_parts_are_means_deviations_and_points():
    found = measured("BNN_FC_flip", 1, 0)
    assert {part: one.entries for part, one in found.items()} == {
        "means": 16 * 64,
        "deviations": 16 * 64,
        "points": 64 + 64 * 3 + 3,
        "all": 2 * 16 * 64 + 64 + 64 * 3 + 3,
    }
    total = sum(found[part].noise for part in ("means", "deviations", "points"))
    assert found["all"].noise == pytest.approx(total)


def test_no_two_batches_of_one_epoch_share_an_image_and_epochs_follow_one_another():
    orders = list(gradient_variance._batches(20, 8, 0, 5))
    assert [len(order) for order in orders] == [8] * 5
    assert len({*orders[0], *orders[1]}) == 16
