"""Which weights go, by hand; a pruned network is exactly what its arrays say, shrunk or not."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.errors import ExperimentError
from bnnlib.inference import prediction
from bnnlib.networks import pruned, pruning
from bnnlib.networks.pruning import Weights
from jobs.local import prune
from tests.networks.inputs import COLOUR, GREY, SEED, images_of, set_biases

MEAN = np.array([[0.5, -2.0], [0.1, 0.0]], np.float32)
STDDEV = np.array([[0.1, 4.0], [0.01, 1.0]], np.float32)


def of(by, stddev=STDDEV, prior=1.0, seed=0):
    return pruning.scores(by, [MEAN], [stddev], [prior], seed)[0]


def test_scores_by_hand():
    np.testing.assert_allclose(of("signal_to_noise"), [[5, 0.5], [10, 0]], rtol=1e-6)
    np.testing.assert_allclose(of("magnitude", None), np.abs(MEAN))
    # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s; the posterior that is its prior: 0.
    expected = [[-0.37 + np.log(10), 9.5 - np.log(4)], [-0.49495 + np.log(100), 0]]
    np.testing.assert_allclose(of("kl"), expected, atol=1e-5)
    doubled = pruning.scores("kl", [2 * MEAN], [2 * STDDEV], [2.0])[0]
    np.testing.assert_allclose(doubled, expected, atol=1e-5)


def test_a_random_order_is_the_seeds_and_differs_from_layer_to_layer():
    first, second = pruning.scores("random", [MEAN, MEAN], [None, None], [1, 1], 3)
    assert np.array_equal(first, pruning.scores("random", [MEAN], [STDDEV], [1], 3)[0])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, of("random", seed=4))


def test_a_score_that_there_is_not_is_refused():
    with pytest.raises(ExperimentError, match="'snr': expected one of signal_to_noise, kl"):
        of("snr")
    with pytest.raises(ExperimentError, match="no deviations; expected one of magnitude, random"):
        of("kl", None)


def test_the_least_scores_go_globally_or_from_each_layer():
    layers = [np.array([[1.0, 9.0], [2.0, 8.0]]), np.array([3.0, 4.0])]
    first, second = pruning.kept(layers, 0.5)
    assert first.tolist() == [[False, True], [False, True]]
    assert second.tolist() == [False, True]
    first, second = pruning.kept(layers, 0.5, by_layer=True)
    assert first.tolist() == [[False, True], [False, True]]
    assert second.tolist() == [False, True]
    first, second = pruning.kept(layers, 2 / 3)
    assert (first.sum(), second.sum()) == (2, 0)
    first, second = pruning.kept(layers, 0.75, by_layer=True)
    assert (first.sum(), second.sum()) == (1, 0)


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_share_is_exact_and_what_has_gone_stays_away(by_layer):
    rng = np.random.default_rng(0)
    # Many alike: a threshold would take all of them or none.
    layers = [rng.integers(0, 3, (20, 5)).astype(float), rng.integers(0, 3, 40).astype(float)]
    before = pruning.kept(layers, 0, by_layer)
    assert all(stays.all() for stays in before)
    for share in (0.1, 0.35, 0.8, 0.995, 1.0):
        stays = pruning.kept(layers, share, by_layer)
        counts = [100, 40] if by_layer else [140]
        expected = sum(count - round(share * count) for count in counts)
        assert sum(int(one.sum()) for one in stays) == expected
        assert all((one <= other).all() for one, other in zip(stays, before, strict=True))
        before = stays


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ExperimentError, match="expected a part of all weights, from 0 to 1"):
        pruning.kept([np.ones(3)], share)


def test_what_goes_is_zero_in_mean_and_deviation_and_in_the_trap_it_is_not():
    stays = np.array([[True, False], [False, True]])
    layer = Weights({"kernel": MEAN, "bias": np.ones(2, np.float32)}, STDDEV)
    (gone,) = pruning.without([layer], [stays])
    assert gone.mean["kernel"].tolist() == [[0.5, 0], [0, 0]]
    assert gone.stddev.tolist() == [[np.float32(0.1), 0], [0, 1]]
    assert pruning.remaining(gone).tolist() == stays.tolist()
    (trap,) = pruning.without([layer], [stays], pruning.TRAP_STDDEV)
    assert trap.mean["kernel"].tolist() == gone.mean["kernel"].tolist()
    np.testing.assert_allclose(trap.stddev, [[0.1, 0.693147], [0.693147, 1]], rtol=1e-6)
    assert pruning.remaining(trap).all()
    assert pruning.without([layer], [None])[0] is layer


def chain():
    """Three inputs, three units, two outputs: all that can go, and why, is seen."""
    first = np.array([[1, 0, 2], [0, 0, 3], [0, 0, 0]], np.float32)
    second = np.array([[1, 2], [3, 4], [0, 0]], np.float32)
    return [
        Weights({"kernel": first, "bias": np.array([0, 5, 0], np.float32)}, 0 * first),
        Weights({"kernel": second, "bias": np.array([10, 20], np.float32)}, None),
    ]


def test_units_and_inputs_go_that_nothing_needs_and_a_constant_one_into_the_bias():
    (first, second), inputs = pruning.shrunk(chain())
    # Unit 1 always answers 5; unit 2 is read by none, and so input 1, which it alone reads, goes.
    assert first.mean["kernel"].tolist() == [[1]]
    assert first.mean["bias"].tolist() == [0]
    assert second.mean["kernel"].tolist() == [[1, 2]]
    assert second.mean["bias"].tolist() == [25, 40]
    assert inputs.tolist() == [0]


def test_a_constant_unit_stays_where_weights_with_a_deviation_read_it():
    first, second = chain()
    noisy = Weights(second.mean, np.array([[0, 0], [0, 1], [0, 0]], np.float32))
    (left, after), _ = pruning.shrunk([first, noisy])
    assert left.mean["kernel"].tolist() == [[1, 0]]
    assert after.stddev.tolist() == [[0, 0], [0, 1]]
    first.mean["bias"][1] = -5  # relu answers 0: its noise is of nothing
    (left, _), _ = pruning.shrunk([first, noisy])
    assert left.mean["kernel"].tolist() == [[1]]


def test_a_file_holds_what_is_left():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(100, 100)).astype(np.float32)
    layer = Weights({"kernel": kernel, "bias": np.ones(100, np.float32)}, np.abs(kernel))
    stays = pruning.kept([np.abs(kernel)], 0.99)
    whole, least = (
        pruning.packed_bytes(pruning.without([layer], [which])) for which in (None, stays[0])
    )
    file = io.BytesIO()
    np.savez_compressed(file, mean=kernel, stddev=np.abs(kernel))
    assert whole == pytest.approx(len(file.getvalue()), rel=0.02)
    assert 100 * 8 < least < 100 * 8 + 10_000 / 8 + 1500  # the weights, a bit each, and the names


# --- With a network ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return data.load("tiny")


def build(name="BNN_FC_flip", layers="all", shape=GREY):
    network = networks.build(name, shape, 10, 1.0, layers, seed=1)
    set_biases(network)
    return network


def halved(network, by="signal_to_noise", share=0.5, stddev=0.0, by_layer=True):
    """A network's weights, of which a share has gone from the layers that have a posterior."""
    layers = prune.prunable(network)
    stays = pruning.kept(pruned.scores_of(network, layers, by), share, by_layer)
    of_layer = dict(zip(layers, stays, strict=True))
    weights = pruned.weights_of(network)
    all_layers = [of_layer.get(index) for index in range(len(weights))]
    return pruning.without(weights, all_layers, stddev), all_layers


@pytest.mark.parametrize("model", ["BNN_FC_flip", "BNN_FC_nonflip"])
def test_without_pruning_the_draws_are_the_networks_own_bit_by_bit(model):
    network = build(model)
    whole = pruned.PrunedPosterior(pruned.weights_of(network))
    for own, other in zip(network.sample(SEED), whole.sample(SEED), strict=True):
        assert own.keys() == other.keys()
        for name, value in own.items():
            assert np.array_equal(value, other[name])


def test_a_removed_weight_is_zero_in_every_draw_and_the_others_are_drawn_as_before():
    network = build()
    weights, stays = halved(network)
    before = network.sample(SEED)
    for own, other, stay in zip(
        before, pruned.PrunedPosterior(weights).sample(SEED), stays, strict=True
    ):
        assert not stay.all()
        assert (other["kernel"].numpy()[~stay] == 0).all()
        assert np.array_equal(other["kernel"].numpy()[stay], own["kernel"].numpy()[stay])


def test_the_trap_is_what_zeros_in_the_layers_variables_give():
    """As public code prunes: mean and rho times the mask."""
    network = build()
    weights, stays = halved(network, stddev=pruning.TRAP_STDDEV)
    trapped = pruned.PrunedPosterior(weights).sample(SEED)
    for layer, stay in zip(network.layers, stays, strict=True):
        layer.mean.assign(layer.mean * stay)
        layer.rho.assign(layer.rho * stay)
    for own, other in zip(network.sample(SEED), trapped, strict=True):
        np.testing.assert_allclose(own["kernel"], other["kernel"], rtol=1e-5, atol=1e-6)
    noise = trapped[0]["kernel"].numpy()[~stays[0]]
    assert noise.std() == pytest.approx(np.log(2), rel=0.05)


def test_a_pruned_network_predicts_and_a_removed_first_layer_leaves_the_biases(tiny):
    network = networks.build("BNN_FC_flip", tiny.image_shape, tiny.num_classes, 1.0, "first")
    set_biases(network)
    own = prediction.predict(network, tiny, tiny.x_test[:20], 3, 0)
    network.posterior = pruned.PrunedPosterior(pruned.weights_of(network))
    same = prediction.predict(network, tiny, tiny.x_test[:20], 3, 0)
    assert np.array_equal(own.mean_probs, same.mean_probs)
    network.posterior = None
    weights, _ = halved(network, share=1.0)
    network.posterior = pruned.PrunedPosterior(weights)
    none = prediction.predict(network, tiny, tiny.x_test[:20], 3, 0)
    hidden = np.maximum(network.layers[0].bias, 0)
    logits = hidden @ network.layers[1].kernel.numpy() + network.layers[1].bias.numpy()
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(none.mean_probs, np.tile(expected, (20, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "layers", "shape"),
    [
        ("BNN_FC_flip", "first", GREY),
        ("BNN_FC_flip", "all", GREY),
        ("BNN_conv_flip", "first", COLOUR),
        ("BNN_conv_flip", "all", GREY),
    ],
)
def test_a_shrunk_network_is_the_same_function(model, layers, shape):
    network = build(model, layers, shape)
    weights, _ = halved(network, share=0.6, by_layer=False)
    # Whole units go: of the first layer every third's inputs, every fifth's outputs.
    kernel, stddev = weights[0].mean["kernel"], weights[0].stddev
    kernel[..., ::3], stddev[..., ::3] = 0, 0
    after = weights[1]
    rows = after.mean["kernel"].reshape(-1, 64, 10)
    rows[:, ::5] = 0
    if after.stddev is not None:
        after.stddev.reshape(-1, 64, 10)[:, ::5] = 0
    left, inputs = pruning.shrunk(weights)
    assert left[0].mean["bias"].size <= 64 - (13 if layers == "first" else 12)
    images = images_of(shape)
    cut = images
    if "FC" in model:
        kernel[:300], stddev[:300] = 0, 0
        left, inputs = pruning.shrunk(weights)
        assert inputs.size <= 784 - 300
        cut = prune.images_at(images, inputs)
    # One draw: the whole network's noise is cut as its kernel is; at the means there is none.
    means = [{n: tf.constant(v) for n, v in one.mean.items()} for one in weights]
    fewer = [{n: tf.constant(v) for n, v in one.mean.items()} for one in left]
    expected = network.predict(images, means)
    np.testing.assert_allclose(network.predict(cut, fewer), expected, rtol=1e-3, atol=1e-4)
    # And the deviations are cut at the same places.
    high = [Weights({**w.mean, "kernel": w.mean["kernel"] + w.stddev}, None)
            if w.stddev is not None else w for w in weights]  # fmt: skip
    low = [Weights({**w.mean, "kernel": w.mean["kernel"] + w.stddev}, None)
           if w.stddev is not None else w for w in left]  # fmt: skip
    expected = network.predict(images, [w.mean for w in high])
    np.testing.assert_allclose(
        network.predict(cut, [w.mean for w in low]), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("model", "many"), [("BNN_FC_flip", 400), ("BNN_conv_flip", 100)])
def test_the_shrunk_network_predicts_the_same_distribution(tiny, model, many):
    network = networks.build(model, tiny.image_shape, tiny.num_classes, 1.0, "first")
    set_biases(network)
    weights, _ = halved(network, share=0.98)
    left, inputs = pruning.shrunk(weights)
    assert left[0].mean["kernel"].size < 0.8 * weights[0].mean["kernel"].size
    images = tiny.x_test[:20]
    network.posterior = pruned.PrunedPosterior(weights)
    whole = prediction.predict(network, tiny, images, many, 0)
    own, seen, described = prune.network_with(network, left), images, tiny.inputs
    if model == "BNN_FC_flip":
        assert inputs.size < np.prod(tiny.image_shape)
        seen, described = prune.images_at(images, inputs), prune.inputs_at(tiny.inputs, inputs)
    shrunk = prediction.Predictor(own, described, many, 0)(seen)
    np.testing.assert_allclose(shrunk.mean_probs, whole.mean_probs, atol=0.05)


def test_a_posterior_of_all_weights_together_is_refused():
    network = build("CNN_FC", "auto")
    network.posterior = pruned.PrunedPosterior(pruned.weights_of(network))
    with pytest.raises(ExperimentError, match="its posterior is of all weights together"):
        pruned.weights_of(network)


def test_the_inputs_of_some_pixels_are_described_with_their_mean(tiny):
    mean = np.arange(np.prod(tiny.image_shape), dtype=np.float32).reshape(tiny.image_shape)
    inputs = dataclasses.replace(tiny.inputs, mean_image=mean)
    found = prune.inputs_at(inputs, np.array([3, 5]))
    assert found.image_shape == (1, 2, 1)
    assert found.mean_image.ravel().tolist() == [3, 5]
