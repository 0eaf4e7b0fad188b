"""Keras models as networks: every layer in the zero limit, graphs, choices, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers as keras

from bnnlib import networks
from bnnlib.errors import ExperimentError
from bnnlib.networks import FilterResponseNormalization, from_keras
from bnnlib.networks.from_keras import ESTIMATOR_PARTS
from bnnlib.networks.networks import ESTIMATORS
from tests.networks.inputs import SEED, images_of

SHAPE = (8, 8, 4)
ESTIMATED = [name for name, part in ESTIMATOR_PARTS.items() if part in ESTIMATORS]
# On images of 8 x 8 pixels and 4 channels; those of one axis see the rows one after another.
LAYERS = {
    "Dense": [lambda: keras.Dense(3, activation="relu")],
    "Dense without bias": [lambda: keras.Dense(3, use_bias=False)],
    "Conv2D": [lambda: keras.Conv2D(3, (3, 2), activation="tanh")],
    "Conv2D same, strided": [lambda: keras.Conv2D(3, 3, strides=2, padding="same")],
    "Conv2D dilated": [lambda: keras.Conv2D(3, 3, dilation_rate=2, use_bias=False)],
    "Conv1D causal": [
        lambda: keras.Reshape((16, 16)),
        lambda: keras.Conv1D(3, 4, padding="causal", dilation_rate=2),
    ],
    "Conv1D strided": [lambda: keras.Reshape((16, 16)), lambda: keras.Conv1D(3, 3, strides=2)],
    "DepthwiseConv2D": [lambda: keras.DepthwiseConv2D(3, strides=2, depth_multiplier=2)],
    "SeparableConv2D": [
        lambda: keras.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, dilation_rate=2)
    ],
    "LayerNormalization": [lambda: keras.LayerNormalization()],
    "LayerNormalization of two axes": [lambda: keras.LayerNormalization(axis=[1, 3], scale=False)],
    "GroupNormalization": [lambda: keras.GroupNormalization(2)],
    "GroupNormalization of channels": [lambda: keras.GroupNormalization(-1, center=False)],
    "FilterResponseNormalization": [FilterResponseNormalization],
    "Dropout": [lambda: keras.Dropout(0.4)],
    "pooling": [
        lambda: keras.ZeroPadding2D(1),
        lambda: keras.MaxPooling2D(3, strides=2),
        lambda: keras.AveragePooling2D(2, padding="same"),
    ],
    "global pooling": [lambda: keras.GlobalMaxPooling2D()],
    "activations": [
        lambda: keras.LeakyReLU(0.2),
        lambda: keras.Activation("swish"),
        lambda: keras.ELU(),
        lambda: keras.Lambda(lambda x: x * x),
    ],
    "shapes": [
        lambda: keras.Permute((2, 1, 3)),
        lambda: keras.Cropping2D(1),
        lambda: keras.UpSampling2D(2),
        lambda: keras.Rescaling(2.0, 1.0),
    ],
}


def model_of(*layers, shape=SHAPE, seed=3):
    """The layers in a row, then logits; every weight is random, biases and scales too."""
    tf_keras.utils.set_random_seed(seed)
    model = tf_keras.Sequential([keras.Input(shape), *layers, keras.Flatten(), keras.Dense(3)])
    return with_weights(model)


def with_weights(model):
    rng = np.random.default_rng(7)
    model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def without_deviations(network):
    for name, variable in network.named_variables().items():
        if name.endswith("/rho"):
            variable.assign(tf.fill(variable.shape, -30.0))
    return network


def assert_zero_limit(model, estimator, images):
    network = without_deviations(from_keras(model, estimator=estimator))
    expected = model(images).numpy()
    several = tf.stack([SEED, SEED + 1])
    no_masks = network.dropout == 0
    for logits in (
        network.predict(images, network.means()),
        network.predict(images, network.sample(SEED)),
        *([network(images, SEED), network(images, several)] if no_masks else []),
    ):
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(images, SEED) ** 2) + network.kl()
    gradients = tape.gradient(loss, list(network.named_variables().values()))
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("estimator", ESTIMATED)
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_without_deviations_a_network_is_the_keras_model(layers, estimator):
    model = model_of(*(make() for make in layers))
    assert_zero_limit(model, estimator, images_of(SHAPE))


def graph():
    """Two branches, one layer in both, operations of TensorFlow, and a model inside the model."""
    tf_keras.utils.set_random_seed(5)
    shared = keras.Conv2D(4, 3, padding="same", name="shared")
    head = tf_keras.Sequential([keras.Flatten(), keras.Dense(3, name="logits")], name="head")
    images = keras.Input(SHAPE)
    first, second = shared(images), shared(keras.ReLU()(images))
    joined = keras.Concatenate()([first, keras.Conv2D(2, 1, name="side")(second)])
    left, right = tf.split(joined, 2, axis=-1)
    return with_weights(tf_keras.Model(images, head(keras.Add()([left * 2.0, right]))))


@pytest.mark.parametrize("estimator", ESTIMATED)
def test_a_graph_with_branches_and_a_shared_layer_is_the_keras_model(estimator):
    model = graph()
    assert_zero_limit(model, estimator, images_of(SHAPE))
    names = [layer.name for layer in from_keras(model).layers]
    assert names == ["shared", "side", "logits"]


@pytest.mark.parametrize("estimator", ESTIMATED)
def test_an_estimators_outputs_have_the_posteriors_mean_and_variance(estimator):
    """A strided depthwise convolution: its outputs over many seeds against the weights' own."""
    model = model_of(keras.DepthwiseConv2D(3, strides=2), keras.GlobalAveragePooling2D())
    network = from_keras(model, "first", estimator, posterior_stddev=0.2)
    layer, x = network.layers[0], images_of(SHAPE, batch=1)
    seeds = [tf.constant([3, number], tf.int64) for number in range(1500)]
    call = tf.function(layer, autograph=False)
    drawn = np.stack([call(x, seed)[0].numpy() for seed in seeds])
    variance = layer.apply(tf.square(x), tf.square(layer.stddev()))[0]
    np.testing.assert_allclose(drawn.mean(0), layer.apply(x, layer.mean)[0], atol=0.06)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.25)


@pytest.mark.parametrize(
    ("chosen", "bayesian"),
    [
        ("none", []),
        ("first", ["shared"]),
        ("last", ["logits"]),
        ("all", ["shared", "side", "logits"]),
        (["side", "logits"], ["side", "logits"]),
    ],
)
def test_the_bayesian_layers_are_those_chosen(chosen, bayesian):
    network = from_keras(graph(), chosen)
    assert [layer.name for layer in network.layers if layer.bayesian] == bayesian


def test_both_parts_of_a_separable_convolution_are_chosen_by_its_name():
    model = model_of(keras.SeparableConv2D(5, 3, name="apart"))
    assert [layer.bayesian for layer in from_keras(model, ["apart"]).layers] == [True, True, False]


def test_dropout_draws_masks_beside_weights_and_images_keep_their_own():
    network = from_keras(model_of(keras.Dropout(0.5)), "none")
    images, means = images_of(SHAPE), network.means()
    assert network.is_stochastic
    one, other = (network.predict(images, means, SEED + number).numpy() for number in (0, 9))
    assert (one != other).any()
    np.testing.assert_array_equal(network.predict(images, means, SEED), one)
    predict = tf.function(network.predict, autograph=False)
    seeds = [tf.constant([5, number], tf.int64) for number in range(600)]
    drawn = np.mean([predict(images, means, seed) for seed in seeds], axis=0)
    np.testing.assert_allclose(drawn, network.predict(images, means), atol=0.4)


def test_the_posterior_starts_at_the_models_weights_with_a_share_of_their_size():
    model = model_of(keras.Conv2D(3, 3))
    network = from_keras(model, init_from="model", init_scale=0.25)
    kernel = model.layers[0].get_weights()[0]
    np.testing.assert_array_equal(network.layers[0].mean, kernel)
    np.testing.assert_allclose(network.layers[0].stddev(), 0.25 * np.abs(kernel), rtol=1e-3)


class Custom(keras.Layer):
    def call(self, inputs):
        return inputs


class Subclassed(tf_keras.Model):
    def call(self, inputs):
        return inputs


def frozen():
    layer = keras.Dense(3)
    layer.trainable = False
    return layer


REFUSED = {
    "BatchNormalization": (keras.BatchNormalization, "statistics.*take GroupNormalization"),
    "LSTM": (lambda: [keras.Reshape((16, 16)), keras.LSTM(3)], "recurrent.*take Conv1D"),
    "Bidirectional": (
        lambda: [keras.Reshape((16, 16)), keras.Bidirectional(keras.GRU(2))],
        "recurrent.*take Conv1D",
    ),
    "GaussianNoise": (lambda: keras.GaussianNoise(0.1), "seed.*take Dropout"),
    "SpatialDropout2D": (lambda: keras.SpatialDropout2D(0.1), "seed.*take Dropout"),
    "RandomFlip": (keras.RandomFlip, "seed.*take Dropout"),
    "Conv2DTranspose": (lambda: keras.Conv2DTranspose(3, 3), "no rule.*take of .*Conv2D"),
    "Custom": (Custom, "no rule.*take of .*Lambda"),
    "Conv2D": (lambda: keras.Conv2D(4, 3, groups=2), "groups=2; take DepthwiseConv2D"),
    "Dense": (frozen, "frozen.*leave trainable=True"),
    "GroupNormalization": (lambda: keras.GroupNormalization(2, axis=1), "axis 1; take axis=-1"),
    "Dropout": (lambda: keras.Dropout(0.1, noise_shape=(None, 1, 1, 4)), "noise_shape; leave it"),
    "DepthwiseConv2D": (
        lambda: keras.DepthwiseConv2D(3, depthwise_regularizer="l2"),
        "depthwise_regularizer.*prior_stddev",
    ),
    "SeparableConv2D": (
        lambda: keras.SeparableConv2D(3, 3, pointwise_constraint="max_norm"),
        "pointwise_constraint.*prior_stddev",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_without_meaning_is_refused_by_name_reason_and_alternative(name):
    make, told = REFUSED[name]
    layers = make()
    with pytest.raises(ExperimentError, match=rf"^layer '\w+' \({name}\) is refused: .*{told}"):
        from_keras(model_of(*(layers if isinstance(layers, list) else [layers])))


def two_inputs():
    first, second = keras.Input(SHAPE), keras.Input(SHAPE)
    return tf_keras.Model([first, second], keras.Dense(3)(keras.Flatten()(first + second)))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Subclassed, "no graph to convert: write it as a Sequential"),
        (lambda: tf_keras.Sequential([keras.Dense(3)]), "give its first layer input_shape"),
        (two_inputs, "2 inputs and 1 outputs, expected one of each"),
        (lambda: model_of(keras.Flatten(), keras.Softmax()).layers[0], "is no model of Keras 2"),
        (
            lambda: tf_keras.Sequential(
                [keras.Input(SHAPE), keras.Flatten(), keras.Dense(3, activation="softmax")]
            ),
            "ends in probabilities.*leave the softmax out",
        ),
        (
            lambda: tf_keras.Sequential([keras.Input(SHAPE), keras.Conv2D(3, 3)]),
            "expected logits .*end it in Flatten",
        ),
    ],
)
def test_what_is_no_graph_from_images_to_logits_is_refused(make, told):
    with pytest.raises(ExperimentError, match=told):
        from_keras(make())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"estimator": "flip"}, "estimator = 'flip': expected one of flipout, "),
        ({"bayesian_layers": "some"}, "bayesian_layers = 'some': expected one of auto, none"),
        ({"bayesian_layers": ["sides"]}, "sides: no such layer .*did you mean side"),
    ],
)
def test_a_choice_that_is_none_is_refused(arguments, told):
    with pytest.raises(ExperimentError, match=told):
        from_keras(graph(), **arguments)


# As published: 60K in uncertainty-baselines' table; VGG16 and ResNet18 in their CIFAR forms;
# Izmailov et al. 2021, which are 274,042.
PUBLISHED = {
    "LeNet5": ((28, 28, 1), 61_706, 5),
    "VGG16": ((32, 32, 3), 14_728_266, 14),
    "ResNet18": ((32, 32, 3), 11_173_962, 21),
    "ResNet20_FRN": ((32, 32, 3), 274_042, 22),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_reference_networks_have_the_published_parameters(name):
    shape, parameters, kernels = PUBLISHED[name]
    twin, bayesian = (
        networks.build(full, shape, 10) for full in (f"CNN_{name}", f"BNN_{name}_flip")
    )
    assert sum(value.size for value in twin.weights().values()) == parameters
    assert sum(layer.bayesian for layer in bayesian.layers) == kernels
    assert not twin.is_bayesian
    rhos = [value.size for key, value in bayesian.weights().items() if key.endswith("rho")]
    assert sum(value.size for value in bayesian.weights().values()) == parameters + sum(rhos)


def test_the_same_seed_gives_the_same_reference_network():
    one, other = (networks.build("BNN_LeNet5_flip", (28, 28, 1), 10, seed=4) for _ in range(2))
    different = networks.build("BNN_LeNet5_flip", (28, 28, 1), 10, seed=5)
    for name, value in one.weights().items():
        np.testing.assert_array_equal(other.weights()[name], value)
    assert (different.weights()["layer0/mean"] != one.weights()["layer0/mean"]).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"estimator": "local"}, "says its estimator in its name"),
        ({"init_from": "model"}, "no trained weights of its own"),
        ({"dropout": 0.1}, "put Dropout layers into it"),
    ],
)
def test_what_contradicts_a_reference_network_is_refused(arguments, told):
    with pytest.raises(ExperimentError, match=told):
        networks.build("BNN_LeNet5_flip", (28, 28, 1), 10, **arguments)
