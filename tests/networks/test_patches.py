"""Networks that take images apart against the same networks on whole images."""

import numpy as np
import pytest
import tensorflow as tf

from bnnlib import networks
from bnnlib.networks import fast_ops, patches, seeds
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


BOTH_WAYS = pytest.mark.parametrize("convolves_fast", [False, True])


@BOTH_WAYS
@pytest.mark.parametrize("name", ["BNN_conv_flip", "BNN_conv_nonflip", "CNN_conv"])
@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
def test_unfolded_training_is_the_layers_convolution_and_pooling(
    monkeypatch, name, image_shape, convolves_fast
):
    monkeypatch.setattr(patches, "convolves_fast", lambda: convolves_fast)
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


@BOTH_WAYS
@pytest.mark.parametrize("batch", [None, 4, 12, 16])  # unknown to the graph; 16 go in two parts
def test_pooled_convolutions_and_their_gradients(monkeypatch, convolves_fast, batch):
    monkeypatch.setattr(patches, "convolves_fast", lambda: convolves_fast)
    images = images_of((8, 6, 2), batch or 16)
    images[1] = 0.0
    kernel = np.random.default_rng(5).normal(size=(3, 3, 2, 4)).astype(np.float32)
    results = []
    for function in (
        patches.pooled_convolution,
        lambda x, k: tf.nn.max_pool2d(tf.nn.conv2d(x, k, 1, "SAME"), 2, 2, "SAME"),
    ):

        @tf.function(input_signature=[tf.TensorSpec([batch, 8, 6, 2]), tf.TensorSpec([3, 3, 2, 4])])
        def run(images, kernel, function=function):
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                pooled = function(images, kernel)
                loss = tf.reduce_sum(tf.square(pooled))
            return pooled, tape.gradient(loss, kernel)

        results.append(run(images, kernel))
    for ours, plain in zip(*results, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_convolution_is_fast_where_the_processor_and_onednn_make_it(monkeypatch, tmp_path):
    answers = []
    for flags, onednn in (("avx2 avx512f", "1"), ("avx2", "1"), ("avx2 avx512f", "0")):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(patches, "Path", lambda _: tmp_path / "cpuinfo")
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
        answers.append(patches.convolves_fast.__wrapped__())
    assert answers == [True, False, False]
