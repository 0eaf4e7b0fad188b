"""Networks against Keras with the same weights, and parameter counts worked by hand."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bnnlib import data, networks
from bnnlib.errors import ExperimentError
from bnnlib.names import MODELS
from bnnlib.networks import Deterministic, Flipout, LocalReparameterization, Reparameterization
from bnnlib.networks.layers import dropout
from bnnlib.networks.seeds import DRAWS_PER_LAYER
from tests.networks.inputs import COLOUR, GREY, SEED, images_of, set_biases

# --- what is built --------------------------------------------------------------------------------


def kinds(name, image_shape=GREY, **options):
    return [type(layer) for layer in networks.build(name, image_shape, 10, **options).layers]


@pytest.mark.parametrize("bayesian_layers", ["auto", "first", "all"])
@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_layers_that_its_name_says(name, image_shape, bayesian_layers):
    network = networks.build(name, image_shape, 7, bayesian_layers=bayesian_layers)
    family, structure, *estimator = name.split("_")
    estimators = {"flip": Flipout, "nonflip": Reparameterization, "local": LocalReparameterization}
    posterior = estimators.get("".join(estimator))
    assert (posterior is None) == (family == "CNN")
    num_layers = 8 if structure == "VGG" else 2
    num_bayesian = num_layers if bayesian_layers == "all" else 1
    if bayesian_layers == "auto" and structure == "VGG":
        num_bayesian = num_layers
    expected = [posterior] * num_bayesian + [Deterministic] * (num_layers - num_bayesian)
    if posterior is None:
        expected = [Deterministic] * num_layers
    assert [type(layer) for layer in network.layers] == expected
    assert network.is_bayesian == (family == "BNN")
    dimensions = [len(layer.kernel_shape) for layer in network.layers]
    assert dimensions == {"conv": [4, 2], "FC": [2, 2], "VGG": [4] * 6 + [2, 2]}[structure]

    logits = network(images_of(image_shape, batch=2), SEED)
    assert logits.shape == (2, 7)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    kl = network.kl().numpy()
    assert kl == pytest.approx(sum(layer.kl().numpy() for layer in network.layers), rel=1e-6)
    assert (kl > 0) == network.is_bayesian


# Biases count once, posterior kernels twice (mean and rho).
COUNTS = {
    # 5x5 kernels, 64 filters; pooled to 14x14 or 16x16; dense to ten classes.
    ("CNN_conv", GREY): [25 * 1 * 64 + 64, 14 * 14 * 64 * 10 + 10],
    ("CNN_conv", COLOUR): [25 * 3 * 64 + 64, 16 * 16 * 64 * 10 + 10],
    ("BNN_conv_flip", GREY): [2 * 1600 + 64, 125450],
    ("BNN_conv_nonflip", COLOUR): [2 * 4800 + 64, 163850],
    ("CNN_FC", GREY): [784 * 64 + 64, 64 * 10 + 10],
    ("BNN_FC_flip", GREY): [2 * 50176 + 64, 650],
    ("BNN_FC_nonflip", COLOUR): [2 * 3072 * 64 + 64, 650],
    ("BNN_FC_local", GREY): [2 * 50176 + 64, 650],
    ("BNN_conv_local", GREY): [2 * 1600 + 64, 125450],
    # 3x3 kernels; 28 or 32 pixels become 4 in three poolings that round up.
    ("CNN_VGG", COLOUR): [896, 9248, 18496, 36928, 73856, 147584, 2048 * 128 + 128, 1290],
    ("CNN_VGG", GREY): [320, 9248, 18496, 36928, 73856, 147584, 2048 * 128 + 128, 1290],
    ("BNN_VGG_flip", GREY): [
        *(608, 18464, 36928, 73792, 147584, 295040),
        *(2 * 2048 * 128 + 128, 2 * 1280 + 10),
    ],
}


@pytest.mark.parametrize(("name", "image_shape"), COUNTS)
def test_parameter_counts_by_hand(name, image_shape):
    network = networks.build(name, image_shape, 10)
    rows = networks.summary(network)
    assert [row["parameters"] for row in rows] == COUNTS[name, image_shape]
    assert sum(weight.size for weight in network.weights().values()) == sum(
        COUNTS[name, image_shape]
    )
    assert [row["type"] for row in rows] == [kind.__name__ for kind in kinds(name, image_shape)]


def test_summary_by_hand():
    assert networks.summary(networks.build("BNN_conv_flip", GREY, 10)) == [
        {
            "layer": "layer0_convolution",
            "type": "Flipout",
            "kernel": (5, 5, 1, 64),
            "parameters": 3264,
        },
        {
            "layer": "layer1_dense",
            "type": "Deterministic",
            "kernel": (12544, 10),
            "parameters": 125450,
        },
    ]


def test_prior_stddev_reaches_every_posterior():
    network = networks.build("BNN_VGG_flip", GREY, 10, prior_stddev=0.25)
    assert {float(layer.prior.scale) for layer in network.layers} == {0.25}


def test_unknown_names_are_refused():
    with pytest.raises(
        ExperimentError, match=r"^BNN_conv_flop: no such model; did you mean BNN_conv_flip\?"
    ):
        networks.build("BNN_conv_flop", GREY, 10)
    with pytest.raises(
        ExperimentError,
        match=r"^lenet: no such model; did you mean CNN_LeNet5\? Known: BNN_conv_flip, ",
    ):
        networks.build("lenet", GREY, 10)
    with pytest.raises(ExperimentError, match="'middle': expected one of auto, none, first, last"):
        networks.build("BNN_FC_flip", GREY, 10, bayesian_layers="middle")
    with pytest.raises(ExperimentError, match="its deterministic twin, CNN_FC"):
        networks.build("BNN_FC_flip", GREY, 10, bayesian_layers="none")
    with pytest.raises(ExperimentError, match="did you mean layer1_dense"):
        networks.build("BNN_FC_flip", GREY, 10, bayesian_layers=["layer1_dens"])


@pytest.mark.parametrize(("which", "first"), [("last", False), (["layer0_convolution"], True)])
def test_the_bayesian_layers_are_those_chosen(which, first):
    network = networks.build("BNN_conv_flip", GREY, 10, bayesian_layers=which)
    assert [layer.bayesian for layer in network.layers] == [first, not first]
    assert network.predict(images_of(GREY), network.sample(SEED)).shape == (4, 10)
    assert network(images_of(GREY), SEED).shape == (4, 10)


# --- what is computed -----------------------------------------------------------------------------


def keras_twin(name, image_shape):
    """The usual order, convolution - bias - ReLU - pooling, in Keras' layers."""
    keras = tf_keras.layers
    pool = keras.MaxPooling2D(2, padding="same")
    if name == "CNN_VGG":
        hidden = [
            layer
            for filters in (32, 64, 128)
            for layer in (
                keras.Conv2D(filters, 3, padding="same", activation="relu"),
                keras.Conv2D(filters, 3, padding="same", activation="relu"),
                keras.MaxPooling2D(2, padding="same"),
            )
        ]
        hidden += [keras.Flatten(), keras.Dense(128, activation="relu")]
    elif name == "CNN_conv":
        hidden = [
            keras.Conv2D(64, 5, padding="same", activation="relu"),
            pool,
            keras.Flatten(),
        ]
    else:
        hidden = [keras.Flatten(), keras.Dense(64, activation="relu")]
    return tf_keras.Sequential([keras.InputLayer(image_shape), *hidden, keras.Dense(10)])


@pytest.mark.parametrize("image_shape", [GREY, COLOUR, (7, 9, 2)])
@pytest.mark.parametrize("name", ["CNN_conv", "CNN_FC", "CNN_VGG"])
def test_pooling_before_bias_and_relu_is_the_usual_network(name, image_shape):
    network, twin = networks.build(name, image_shape, 10), keras_twin(name, image_shape)
    set_biases(network)
    twin.set_weights([w for layer in network.layers for w in (layer.kernel, layer.bias)])
    images = images_of(image_shape)
    expected = twin(images).numpy()
    np.testing.assert_allclose(network(images, SEED), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        network.predict(images, network.sample(SEED)), expected, rtol=1e-4, atol=1e-5
    )

    # And so are its gradients, where pooling's tied maxima would show.
    labels = np.arange(4)
    with tf.GradientTape(persistent=True) as tape:
        loss, twins_loss = (
            tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            for logits in (network(images, SEED), twin(images))
        )
    weights = [w for layer in network.layers for w in (layer.kernel, layer.bias)]
    for gradient, keras_gradient in zip(
        tape.gradient(loss, weights),
        tape.gradient(twins_loss, twin.trainable_variables),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, keras_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["BNN_conv_nonflip", "BNN_FC_nonflip"])
def test_a_training_draw_of_reparameterization_is_a_prediction_with_that_draw(name):
    network = networks.build(name, GREY, 10, bayesian_layers="all")
    set_biases(network)
    images = images_of(GREY)
    np.testing.assert_allclose(
        network(images, SEED), network.predict(images, network.sample(SEED)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "name",
    ["BNN_conv_flip", "BNN_conv_nonflip", "BNN_FC_flip", "BNN_conv_local", "BNN_FC_local"],
)
def test_logits_follow_from_the_seed_alone(name):
    network, images = networks.build(name, GREY, 10), images_of(GREY)
    first = network(images, SEED).numpy()
    other = network(images, SEED + 1).numpy()
    assert (other != first).all()
    np.testing.assert_array_equal(network(images, SEED), first)


@pytest.mark.parametrize("bayesian_layers", ["first", "all"])
@pytest.mark.parametrize("image_shape", [GREY, (7, 9, 2)])  # unfolded, and not
@pytest.mark.parametrize("name", MODELS)
def test_virtual_ranks_side_by_side_are_one_after_another(name, image_shape, bayesian_layers):
    rate = 0.5 if name.startswith("CNN") else 0.0
    network = networks.build(name, image_shape, 10, bayesian_layers=bayesian_layers, dropout=rate)
    set_biases(network)
    images = tf.constant(images_of(image_shape, batch=6))
    several = tf.stack([SEED, SEED + 1, SEED + tf.constant([0, 7], tf.int64)])
    apart = tf.concat([network(images[2 * n : 2 * n + 2], several[n]) for n in range(3)], 0)
    scale = np.abs(apart).max()
    np.testing.assert_allclose(network(images, several) / scale, apart / scale, atol=2e-6)
    np.testing.assert_array_equal(network(images, several[:1]), network(images, several[0]))


@pytest.mark.parametrize("estimator", ["nonflip", "local"])
def test_estimators_share_posterior_draws_and_predictions(estimator):
    """Their names differ in training alone."""
    flip, other = (networks.build(f"BNN_FC_{e}", GREY, 10, seed=3) for e in ("flip", estimator))
    images = images_of(GREY)
    for name, value in flip.weights().items():
        np.testing.assert_array_equal(other.weights()[name], value)
    assert flip.kl().numpy() == other.kl().numpy()
    predictions = [network.predict(images, network.sample(SEED)) for network in (flip, other)]
    np.testing.assert_array_equal(*predictions)


def test_layers_draw_different_noise_of_one_seed():
    # Two layers of one shape, 64 x 64: with the same noise their draws would be equal.
    network = networks.build("BNN_FC_flip", (8, 8, 1), 64, bayesian_layers="all")
    draws = [
        ((draw["kernel"] - layer.mean) / layer.posterior.stddev()).numpy().ravel()
        for layer, draw in zip(network.layers, network.sample(SEED), strict=True)
    ]
    assert abs(np.corrcoef(draws)[0, 1]) < 5 / 64
    means = [layer.mean.numpy().ravel() for layer in network.layers]
    assert abs(np.corrcoef(means)[0, 1]) < 5 / 64


@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
@pytest.mark.parametrize("name", ["BNN_conv_flip", "CNN_FC", "CNN_VGG"])
def test_the_last_layer_makes_logits_of_the_features(name, image_shape):
    network = networks.build(name, image_shape, 10)
    set_biases(network)
    images, draw = images_of(image_shape), network.sample(SEED)
    features = network.features(images, draw)
    assert features.shape == (4, network.layers[-1].kernel_shape[0])
    assert (features.numpy() >= 0).all()  # after the ReLU of the layer before
    logits = features @ draw[-1]["kernel"] + draw[-1]["bias"]
    assert np.allclose(logits, network.predict(images, draw), atol=1e-5)


def test_an_images_prediction_does_not_depend_on_its_batch():
    network, images = networks.build("BNN_conv_flip", GREY, 10), images_of(GREY)
    kernels = network.sample(SEED)
    alone = tf.concat([network.predict(images[n : n + 1], kernels) for n in range(4)], 0)
    np.testing.assert_allclose(network.predict(images, kernels), alone, rtol=1e-4, atol=1e-6)


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_follow_from_the_seed(name):
    one, same, other = (networks.build(name, GREY, 10, seed=seed).weights() for seed in (3, 3, 4))
    for key, value in one.items():
        np.testing.assert_array_equal(same[key], value)
        if not key.endswith("bias"):
            assert (other[key] != value).mean() > 0.99


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_all_that_a_network_is(name):
    network = networks.build(name, GREY, 10, seed=1)
    set_biases(network)
    weights = network.weights()
    assert len(weights) == len(network.trainable_variables)
    other = networks.build(name, GREY, 10, seed=2)
    images = images_of(GREY)
    assert (other(images, SEED).numpy() != network(images, SEED).numpy()).all()
    other.load_weights(weights)
    np.testing.assert_array_equal(other(images, SEED), network(images, SEED))
    assert other.kl().numpy() == network.kl().numpy()
    for key, value in other.weights().items():
        np.testing.assert_array_equal(value, weights[key])


def test_weights_have_the_names_of_their_layers():
    assert set(networks.build("BNN_FC_flip", GREY, 10).weights()) == {
        *("layer0/mean", "layer0/rho", "layer0/bias"),
        *("layer1/kernel", "layer1/bias"),
    }


def test_weights_are_copies():
    network = networks.build("CNN_FC", GREY, 10)
    before = network.weights()
    kept = before["layer1/bias"].copy()
    network.layers[1].bias.assign_add(tf.ones(10))
    np.testing.assert_array_equal(before["layer1/bias"], kept)


@pytest.mark.parametrize(
    ("name", "image_shape", "message"),
    [
        ("CNN_FC", GREY, r"'layer0/kernel', 'layer0/mean', 'layer0/rho'.* of another network$"),
        ("BNN_FC_flip", COLOUR, r"^layer0/mean has shape \(3072, 64\).*expects \(784, 64\)"),
        ("BNN_conv_flip", GREY, r"has shape .*the network BNN_FC_flip expects"),
    ],
)
def test_another_networks_weights_are_refused_and_nothing_is_set(name, image_shape, message):
    network = networks.build("BNN_FC_flip", GREY, 10)
    before = network.weights()
    wrong = networks.build(name, image_shape, 10, seed=9).weights()
    with pytest.raises(ExperimentError, match=message):
        network.load_weights(wrong)
    for key, value in network.weights().items():
        np.testing.assert_array_equal(value, before[key])


def test_weights_with_one_wrong_shape_set_nothing():
    network = networks.build("CNN_FC", GREY, 10)
    before = network.weights()
    wrong = {key: value + 1 for key, value in before.items()}
    wrong["layer1/kernel"] = np.zeros((64, 9), np.float32)
    with pytest.raises(ExperimentError, match=r"^layer1/kernel has shape \(64, 9\)"):
        network.load_weights(wrong)
    for key, value in network.weights().items():
        np.testing.assert_array_equal(value, before[key])


# --- inputs ---------------------------------------------------------------------------------------


def test_inputs_are_scaled_and_centred():
    dataset = data.load("tiny")
    images = np.zeros((2, *GREY), np.uint8)
    images[1] = 51
    inputs = networks.to_inputs(tf.constant(images), dataset).numpy()
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[0], 0.0)
    np.testing.assert_allclose(inputs[1], 0.2, rtol=1e-6)

    mean_image = np.linspace(0, 1, 784, dtype=np.float32).reshape(GREY)
    centred = dataclasses.replace(dataset, mean_image=mean_image)
    inputs = networks.to_inputs(tf.constant(images), centred).numpy()
    np.testing.assert_allclose(inputs, [0.0 - mean_image, 0.2 - mean_image], atol=1e-7)

    floating = dataclasses.replace(dataset, scale=1.0)
    values = np.full((1, *GREY), 3.5, np.float64)
    np.testing.assert_array_equal(networks.to_inputs(values, floating), values.astype(np.float32))


@pytest.mark.parametrize("name", ["tiny", "tiny_cifar10"])
def test_a_data_sets_own_mean_image_centres_its_inputs(name):
    dataset = data.load(name, subtract_mean=True)
    inputs = networks.to_inputs(dataset.x_train, dataset).numpy()
    assert np.abs(inputs.mean(axis=0)).max() < 1e-5
    assert inputs.std() > 0.1


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_in_a_dense_network_by_hand():
    network = networks.build("CNN_FC", GREY, 10, dropout=0.4)
    set_biases(network)
    images = images_of(GREY)
    first, last = network.layers
    hidden = np.maximum(images.reshape(4, -1) @ first.kernel.numpy() + first.bias.numpy(), 0)
    mask_seed = SEED + tf.constant([DRAWS_PER_LAYER, 0], tf.int64)  # of layer 1; layer 0 has none
    dropped = dropout(tf.constant(hidden), 0.4, mask_seed).numpy()
    logits = dropped @ last.kernel.numpy() + last.bias.numpy()
    for result in (network(images, SEED), network.predict(images, network.sample(SEED), SEED)):
        np.testing.assert_allclose(result, logits, atol=1e-5)
    assert 0.2 < (dropped[hidden > 0] == 0).mean() < 0.6


@pytest.mark.parametrize("name", ["CNN_conv", "CNN_FC"])
def test_the_mean_over_masks_is_the_network_without_dropout(name):
    """Its last layer is linear, and no other has dropout before it."""
    network = networks.build(name, GREY, 10, seed=3, dropout=0.5)
    plain = networks.build(name, GREY, 10, seed=3)
    set_biases(network)
    set_biases(plain)
    image = images_of(GREY, batch=1)
    draws = network(np.repeat(image, 2000, axis=0), SEED).numpy()
    error = draws.std(axis=0) / 2000**0.5
    assert (error > 0).all()
    assert (np.abs(draws.mean(axis=0) - plain(image, SEED).numpy()[0]) < 5 * error).all()


def test_every_later_dense_layer_has_masks_of_its_own(monkeypatch):
    seen = []

    def spy(x, rate, seed):
        seen.append((tuple(x.shape), rate, tuple(seed.numpy())))
        return x

    monkeypatch.setattr(networks.networks, "dropout", spy)
    network = networks.build("CNN_VGG", COLOUR, 10, dropout=0.2)
    network(images_of(COLOUR), SEED)
    assert [(shape, rate) for shape, rate, _ in seen] == [((4, 2048), 0.2), ((4, 128), 0.2)]
    assert len({seed for *_, seed in seen}) == 2


def test_dropout_makes_a_deterministic_network_stochastic_and_keeps_its_weights():
    plain, dropped = (networks.build("CNN_conv", GREY, 10, seed=3, dropout=d) for d in (0.0, 0.1))
    assert (plain.is_bayesian, plain.is_stochastic) == (False, False)
    assert (dropped.is_bayesian, dropped.is_stochastic) == (False, True)
    bayesian = networks.build("BNN_conv_flip", GREY, 10)
    assert (bayesian.is_bayesian, bayesian.is_stochastic) == (True, True)
    for name, value in plain.weights().items():
        np.testing.assert_array_equal(dropped.weights()[name], value)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("BNN")])
def test_dropout_is_refused_for_bayesian_networks(name):
    with pytest.raises(ExperimentError, match=r"dropout = 0\.1: .* twin, CNN_(conv|FC|VGG)$"):
        networks.build(name, GREY, 10, dropout=0.1)


def test_a_twins_prior_is_on_the_kernels_that_are_bayesian_in_the_other_network():
    for layers in ("first", "all"):
        network = networks.build("BNN_conv_flip", GREY, 10, 0.5, layers)
        twin = networks.build("CNN_conv", GREY, 10, 0.5, layers, weight_decay="prior")
        assert [layer.prior_stddev for layer in twin.layers] == [
            0.5 if layer.bayesian else None for layer in network.layers
        ]


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("BNN")])
def test_weight_decay_is_refused_for_bayesian_networks(name):
    with pytest.raises(
        ExperimentError, match=r"weight_decay = 'prior': .* twin, CNN_(conv|FC|VGG)$"
    ):
        networks.build(name, GREY, 10, weight_decay="prior")


def test_the_means_are_the_network_without_noise():
    network = networks.build("BNN_FC_flip", GREY, 10, bayesian_layers="all", seed=3)
    for layer in network.layers:
        layer.rho.assign(tf.fill(layer.rho.shape, -200.0))
    images = images_of(GREY)
    found = network.predict(images, network.means())
    np.testing.assert_allclose(found, network(images, tf.constant([0, 0], tf.int64)), atol=1e-5)


def test_a_dropout_networks_means_drop_nothing():
    plain, dropped = (networks.build("CNN_conv", GREY, 10, seed=3, dropout=d) for d in (0.0, 0.5))
    found, expected = (n.predict(images_of(GREY), n.means()) for n in (dropped, plain))
    np.testing.assert_array_equal(found, expected)
