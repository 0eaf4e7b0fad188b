"""Networks that take images apart against the same networks on whole images."""

import numpy as np
import pytest
import tensorflow as tf

from bnnlib import networks
from bnnlib.networks import fast_ops, seeds
from tests.networks.inputs import COLOUR, GREY, SEED, images_of, set_biases


@pytest.mark.parametrize("image_shape", [GREY, COLOUR, (8, 6, 2), (7, 9, 2), (8, 8, 6)])
@pytest.mark.parametrize(
    "name", ["BNN_conv_flip", "BNN_conv_local", "CNN_conv", "BNN_FC_flip", "CNN_VGG"]
)
def test_which_networks_unfold_images(name, image_shape):
    network = networks.build(name, image_shape, 10)
    # By convolution and pooling only, of even sizes, and where patches are not too many.
    fits = image_shape in (GREY, COLOUR, (8, 6, 2))
    assert network.unfolds(tf.zeros([1, *image_shape])) == (fits and "conv" in name)


@pytest.mark.parametrize("image_shape", [GREY, COLOUR, (8, 6, 2)])
def test_windows_have_the_logits_of_their_images(image_shape):
    network = networks.build("BNN_conv_flip", image_shape, 10)
    set_biases(network)
    images = images_of(image_shape)
    images[0] = 0.0  # blank
    images[1] = 0.25  # uniform within, not at the padded edge
    images[2, : image_shape[0] // 2] = 0.25
    kernels = network.sample(SEED)
    windows = network.windows(tf.constant(images))
    expected = network.predict(images, kernels)
    np.testing.assert_allclose(network.predict(windows, kernels), expected, atol=2e-5)
    assert windows.first.shape[0] < windows.row_of.shape[0] == len(images) * np.prod(windows.side)


@pytest.mark.parametrize("name", ["BNN_conv_flip", "BNN_conv_nonflip", "CNN_conv"])
@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
def test_unfolded_training_is_the_layers_convolution_and_pooling(name, image_shape):
    network = networks.build(name, image_shape, 10)
    set_biases(network)
    images = tf.constant(images_of(image_shape))
    first, last = network.layers

    def by_layers():
        pooled = fast_ops.max_pool(first(images, SEED)) + first.bias
        flat = tf.reshape(tf.nn.relu(pooled), [len(images), -1])
        return tf.matmul(flat, last.kernel) + last.bias

    results = []
    for logits_of in (lambda: network(images, SEED), by_layers):
        with tf.GradientTape() as tape:
            logits = logits_of()
            loss = tf.reduce_sum(tf.square(logits))
        results.append([logits, *tape.gradient(loss, first.trainable_variables)])
    for unfolded, plain in zip(*results, strict=True):
        scale = np.abs(plain).max()
        np.testing.assert_allclose(unfolded / scale, plain / scale, atol=2e-5)


@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
def test_unfolded_local_training_is_the_moments_the_noise_and_the_maximum(image_shape):
    network = networks.build("BNN_conv_local", image_shape, 10)
    set_biases(network)
    images = images_of(image_shape)
    images[1] = 0.0  # blank
    images[2, : image_shape[0] // 2] = 0.0
    images = tf.constant(images)
    first, last = network.layers
    height, width, _ = image_shape
    # The noise of place (a, b) of each 2x2 block, brought where that place is in the image.
    drawn = seeds.standard_normal([2, 2, len(images), height // 2, width // 2, 64], SEED)
    noise = tf.reshape(tf.transpose(drawn, [2, 3, 0, 4, 1, 5]), [len(images), height, width, 64])

    def by_layers():
        variance = first.apply(images**2, first.stddev() ** 2)
        outputs = fast_ops.noisy(first.apply(images, first.mean), variance, noise)
        pooled = fast_ops.max_pool(outputs) + first.bias
        flat = tf.reshape(tf.nn.relu(pooled), [len(images), -1])
        return tf.matmul(flat, last.kernel) + last.bias

    results = []
    for logits_of in (lambda: network(images, SEED), by_layers):
        with tf.GradientTape() as tape:
            logits = logits_of()
            loss = tf.reduce_sum(tf.square(logits))
        results.append([logits, *tape.gradient(loss, first.trainable_variables)])
    for unfolded, plain in zip(*results, strict=True):
        scale = np.abs(plain).max()
        assert np.isfinite(unfolded).all()
        np.testing.assert_allclose(unfolded / scale, plain / scale, atol=2e-5)
