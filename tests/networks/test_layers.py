"""Layers against hand-worked numbers, TFP's layers and their own defining formulas.

Statistical tolerances are standard errors computed from the number of draws. The seeds are fixed,
so a test that passes once passes always.
"""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from bnnlib.networks import (
    Deterministic,
    Flipout,
    LocalReparameterization,
    Reparameterization,
    layers,
    seeds,
)

DENSE, CONVOLUTION = (6, 4), (3, 3, 2, 4)
BAYESIAN = [Reparameterization, Flipout, LocalReparameterization]
DRAWS = 3000
# Standard errors: 5 is exceeded by chance once in 1.7 million comparisons, of some hundred here.
ERRORS = 5.0


def seed(first=11, second=0):
    return tf.constant([first, second], tf.int64)


def inverse_softplus(scale):
    return np.log(np.expm1(scale))


def make(kind, kernel_shape, prior_stddev=1.0, number=1):
    return kind("a", kernel_shape, seed(number, number), prior_stddev)


def with_posterior(kind, mean, scale, prior_stddev=1.0):
    mean, scale = (np.asarray(part, np.float32) for part in (mean, scale))
    layer = make(kind, mean.shape, prior_stddev)
    layer.mean.assign(mean)
    layer.rho.assign(inverse_softplus(scale))
    return layer


def inputs_of(kernel_shape, batch=3):
    shape = (batch, 6) if len(kernel_shape) == 2 else (batch, 5, 5, 2)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def outputs_of(call, draws=DRAWS):
    """Outputs of `call(draw)` for all draws, `(draws, …)`, computed inside one graph."""
    numbers = tf.range(draws, dtype=tf.int64)
    run = tf.function(lambda: tf.map_fn(call, numbers, fn_output_signature=tf.float32))
    return run().numpy()


# --- the initial posterior ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAYESIAN)
def test_the_initial_deviation_is_tfps_or_the_one_asked_for(kind):
    shape = (100, 50)
    rhos = {s: kind("a", shape, seed(), 1.0, s).rho.numpy() for s in (0.0, 1e-6, 0.3, 1.0, 1000.0)}
    for stddev, rho in rhos.items():
        # Rho has a standard deviation of 0.1, its median an error of 0.1 * 1.25 / sqrt(5000).
        expected = stddev or 0.048587
        assert np.log1p(np.exp(-abs(np.median(rho)))) + max(np.median(rho), 0) == pytest.approx(
            expected, rel=0.01
        )
        assert rho.std() == pytest.approx(0.1, rel=0.05)
    # The noise is the same whatever the deviation, so that runs that differ in it alone compare.
    np.testing.assert_allclose(rhos[0.3] - np.median(rhos[0.3]), rhos[0.0] + 3.0, atol=0.02)


# --- KL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior_stddev", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", BAYESIAN)
def test_kl_is_zero_and_flat_where_the_posterior_is_the_prior(kind, prior_stddev):
    layer = with_posterior(kind, np.zeros((7, 5)), np.full((7, 5), prior_stddev), prior_stddev)
    with tf.GradientTape() as tape:
        kl = layer.kl()
    slopes = tape.gradient(kl, [layer.mean, layer.rho])
    # 35 terms of the order of 1, each rounded to 2^-24.
    assert abs(kl.numpy()) < 35 * 1e-6
    for slope in slopes:
        np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_kl_by_hand():
    # log(prior/s) + (s^2 + m^2) / (2 prior^2) - 1/2, with (m, s) = (1, 1) and (0, 2).
    mean, scale = [[1.0], [0.0]], [[1.0], [2.0]]
    assert with_posterior(Flipout, mean, scale).kl().numpy() == pytest.approx(
        0.5 + (1.5 - 0.693147), abs=1e-5
    )
    assert with_posterior(Flipout, mean, scale, prior_stddev=2.0).kl().numpy() == pytest.approx(
        (0.693147 + 0.25 - 0.5) + 0.0, abs=1e-5
    )


def test_kl_is_the_sum_over_entries_never_their_mean():
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(3, 4)), rng.uniform(0.1, 1, size=(3, 4))
    entries = [
        with_posterior(Flipout, [[m]], [[s]]).kl().numpy()
        for m, s in zip(mean.flat, scale.flat, strict=True)
    ]
    whole = with_posterior(Flipout, mean, scale).kl().numpy()
    assert whole == pytest.approx(np.sum(entries), rel=1e-5)
    four = with_posterior(Flipout, np.tile(mean, (2, 2)), np.tile(scale, (2, 2))).kl().numpy()
    assert four == pytest.approx(4 * whole, rel=1e-5)


@pytest.mark.parametrize("prior_stddev", [0.3, 1.0])
def test_kl_is_what_sampling_estimates(prior_stddev):
    rng = np.random.default_rng(1)
    layer = with_posterior(
        Flipout, rng.normal(size=(4, 3)), rng.uniform(0.2, 1.5, size=(4, 3)), prior_stddev
    )
    draws = outputs_of(lambda draw: layer.sample(tf.stack([tf.constant(5, tf.int64), draw])))
    mean, scale = layer.mean.numpy(), np.logaddexp(0, layer.rho.numpy())
    ratio = (
        scipy.stats.norm.logpdf(draws, mean, scale)
        - scipy.stats.norm.logpdf(draws, 0, prior_stddev)
    ).sum(axis=(1, 2))
    error = ratio.std(ddof=1) / np.sqrt(DRAWS)
    assert abs(layer.kl().numpy() - ratio.mean()) < ERRORS * error
    assert error < 0.02 * layer.kl().numpy()  # the comparison can tell a wrong KL


def test_a_posterior_without_width_has_finite_kl_and_gradient():
    layer = with_posterior(Flipout, np.zeros((2, 1)), np.ones((2, 1)))
    layer.rho.assign([[-200.0], [-1000.0]])
    with tf.GradientTape() as tape:
        kl = layer.kl()
    assert kl.numpy() == pytest.approx(2 * (23 * np.log(2) - 0.5), rel=1e-5)  # floor 2^-23
    assert np.isfinite(tape.gradient(kl, layer.rho)).all()


def test_a_deterministic_layer_has_no_kl():
    layer = Deterministic("a", DENSE, seed())
    assert layer.kl().numpy() == 0.0
    assert not layer.bayesian
    np.testing.assert_array_equal(layer.sample(seed(1)), layer.sample(seed(2)))


# --- against TFP's layers -------------------------------------------------------------------------


TFP_LAYERS = [
    (Flipout, DENSE, tfp.layers.DenseFlipout),
    (Reparameterization, DENSE, tfp.layers.DenseReparameterization),
    (Flipout, CONVOLUTION, tfp.layers.Convolution2DFlipout),
    (Reparameterization, CONVOLUTION, tfp.layers.Convolution2DReparameterization),
    (LocalReparameterization, DENSE, tfp.layers.DenseLocalReparameterization),
    # TFP has no convolution of the kind; each output has the distribution that this one gives it.
    (LocalReparameterization, CONVOLUTION, tfp.layers.Convolution2DReparameterization),
]


@pytest.mark.parametrize(
    ("kind", "kernel_shape", "tfp_layer"),
    TFP_LAYERS,
    ids=[f"{row[0].__name__}-{row[2].__name__}" for row in TFP_LAYERS],
)
def test_outputs_have_the_mean_and_variance_of_tfps_layer(kind, kernel_shape, tfp_layer):
    layer = make(kind, kernel_shape)
    inputs = inputs_of(kernel_shape)
    size = {} if len(kernel_shape) == 2 else {"kernel_size": 3, "padding": "same"}
    tf.random.set_seed(0)
    reference = tfp_layer(kernel_shape[-1], **size)
    reference(inputs)
    loc, untransformed_scale, bias = reference.trainable_variables
    loc.assign(layer.mean)
    untransformed_scale.assign(layer.rho)
    bias.assign(tf.zeros_like(bias))
    reference(inputs)
    assert layer.kl().numpy() == pytest.approx(reference.losses[0].numpy(), rel=1e-5)

    outputs_here = outputs_of(
        lambda draw: layer(inputs, tf.stack([tf.constant(7, tf.int64), draw]))
    )
    outputs_of_tfp = outputs_of(lambda _: reference(inputs))

    # Every output is normal, with this mean and variance, under every estimator.
    mean = layer.apply(inputs, layer.mean).numpy()
    variance = layer.apply(inputs**2, layer.posterior.variance()).numpy()
    for outputs in (outputs_here, outputs_of_tfp):
        assert np.abs((outputs.mean(0) - mean) / np.sqrt(variance / DRAWS)).max() < ERRORS
        # A normal sample variance's relative standard error is sqrt(2 / (draws - 1)).
        relative = outputs.var(0, ddof=1) / variance - 1
        assert np.abs(relative).max() < ERRORS * np.sqrt(2 / (DRAWS - 1))
    difference = (outputs_here.mean(0) - outputs_of_tfp.mean(0)) / np.sqrt(2 * variance / DRAWS)
    assert np.abs(difference).max() < ERRORS
    ratio = outputs_here.var(0, ddof=1) / outputs_of_tfp.var(0, ddof=1) - 1
    assert np.abs(ratio).max() < ERRORS * np.sqrt(4 / (DRAWS - 1))


# --- what is shared between a batch's examples ----------------------------------------------------


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_flipouts_perturbations_are_uncorrelated_between_equal_examples(kernel_shape):
    layer = make(Flipout, kernel_shape)
    inputs = np.repeat(inputs_of(kernel_shape, batch=1), 4, axis=0)
    outputs = outputs_of(lambda draw: layer(inputs, tf.stack([tf.constant(9, tf.int64), draw])))
    perturbations = outputs - layer.apply(inputs, layer.mean).numpy()
    for one, other in itertools.combinations(range(4), 2):
        products = perturbations[:, one] * perturbations[:, other]
        errors = products.std(axis=0, ddof=1) / np.sqrt(DRAWS)
        assert np.abs(products.mean(axis=0) / errors).max() < ERRORS
        # Wholly shared, the mean would be the variance: far outside these bounds.
        assert (ERRORS * errors < 0.5 * perturbations.var(axis=(0, 1))).all()


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_reparameterizations_perturbation_is_shared_exactly(kernel_shape):
    layer = make(Reparameterization, kernel_shape)
    inputs = np.repeat(inputs_of(kernel_shape, batch=1), 4, axis=0)
    outputs = layer(inputs, seed(1)).numpy()
    assert (outputs == outputs[:1]).all()
    np.testing.assert_array_equal(outputs, layer.apply(inputs, layer.sample(seed(1))))


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_flipout_is_a_kernel_of_its_own_for_every_example(kernel_shape):
    # Wen et al. 2018: example n sees mean + perturbation * (r_n s_n^T).
    layer, inputs = make(Flipout, kernel_shape), inputs_of(kernel_shape)
    perturbation = layer.sample(seed()) - layer.mean
    inner = [1] * (len(kernel_shape) - 2)
    signs_in = seeds.random_signs(
        [3, *inner, kernel_shape[-2]], seeds.substream(seed(), seeds.SIGN_IN)
    )
    signs_out = seeds.random_signs(
        [3, *inner, kernel_shape[-1]], seeds.substream(seed(), seeds.SIGN_OUT)
    )
    by_example = [
        layer.apply(
            inputs[n : n + 1],
            layer.mean
            + perturbation
            * tf.reshape(signs_in[n], [*inner, -1, 1])
            * tf.reshape(signs_out[n], [*inner, 1, -1]),
        )
        for n in range(3)
    ]
    np.testing.assert_allclose(layer(inputs, seed()), tf.concat(by_example, 0), atol=1e-5)


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
@pytest.mark.parametrize("kind", [Flipout, Reparameterization])
def test_the_kernels_of_a_batch_are_those_of_the_call(kind, kernel_shape):
    layer, inputs = make(kind, kernel_shape), inputs_of(kernel_shape)
    kernel = layer.batch_kernel(3, seed())
    shared = kind is Reparameterization
    assert kernel.shape == (kernel_shape if shared else (3, *kernel_shape))
    outputs = [
        layer.apply(inputs[n : n + 1], kernel if shared else kernel[n]) for n in range(len(inputs))
    ]
    np.testing.assert_allclose(layer(inputs, seed()), tf.concat(outputs, 0), atol=1e-5)


# --- local reparameterization ---------------------------------------------------------------------


def gradients_of(layer, inputs, weights, parameters, draws):
    """The gradients of sum(weights * output^2) by the parameters, `(draws, numbers)`."""

    def one(draw):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            outputs = layer(inputs, tf.stack([tf.constant(7, tf.int64), draw]))
            loss = tf.reduce_sum(weights * outputs**2)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, parameters)], 0)

    return outputs_of(one, draws)


@pytest.mark.parametrize(
    ("kernel_shape", "tfp_layer"),
    [(DENSE, tfp.layers.DenseLocalReparameterization), (CONVOLUTION, None)],
)
def test_local_gradients_have_the_expectation_of_the_formula_and_of_tfps(kernel_shape, tfp_layer):
    layer, inputs = (
        make(LocalReparameterization, kernel_shape),
        tf.constant(inputs_of(kernel_shape)),
    )
    layer.rho.assign(tf.fill(kernel_shape, -0.5))  # noise that matters
    parameters = [layer.mean, layer.rho, inputs]
    mean = layer.apply(inputs, layer.mean)
    weights = np.random.default_rng(5).normal(size=mean.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        # The expectation of a squared normal is its squared mean and its variance.
        squares = layer.apply(inputs, layer.mean) ** 2
        squares += layer.apply(inputs**2, layer.posterior.variance())
        loss = tf.reduce_sum(weights * squares)
    expected = np.concatenate([np.ravel(g) for g in tape.gradient(loss, parameters)])
    found = [gradients_of(layer, inputs, weights, parameters, DRAWS)]
    if tfp_layer is not None:
        reference = tfp_layer(kernel_shape[-1])
        reference(inputs)
        loc, untransformed_scale, bias = reference.trainable_variables
        loc.assign(layer.mean)
        untransformed_scale.assign(layer.rho)
        bias.assign(tf.zeros_like(bias))
        tf.random.set_seed(1)
        found.append(
            gradients_of(
                lambda x, _: reference(x),
                inputs,
                weights,
                [loc, untransformed_scale, inputs],
                DRAWS,
            )
        )
    for gradients in found:
        error = gradients.std(axis=0, ddof=1) / np.sqrt(DRAWS)
        assert np.abs((gradients.mean(axis=0) - expected) / error).max() < ERRORS
        assert np.median(error / np.abs(expected)) < 0.2  # the comparison can tell a wrong one


def test_a_local_convolution_by_hand():
    # The column 1, 2, 0 under a kernel of means 1, -1, 2 and deviations 0.5, 1, 2: with zeros
    # around it, the places see (0, 1, 2), (1, 2, 0) and (2, 0, 0).
    kernel, deviations = ([[[[v]]] for v in row] for row in ([1.0, -1.0, 2.0], [0.5, 1.0, 2.0]))
    layer = with_posterior(
        LocalReparameterization,
        np.reshape(kernel, (3, 1, 1, 1)),
        np.reshape(deviations, (3, 1, 1, 1)),
    )
    column = tf.reshape(tf.constant([1.0, 2.0, 0.0]), [1, 3, 1, 1])
    outputs = outputs_of(lambda draw: layer(column, tf.stack([tf.constant(7, tf.int64), draw])))
    outputs = outputs.reshape(DRAWS, 3)
    mean, variance = np.array([3.0, -1.0, 2.0]), np.array([17.0, 4.25, 1.0])
    assert (np.abs(outputs.mean(0) - mean) < ERRORS * np.sqrt(variance / DRAWS)).all()
    relative = outputs.var(0, ddof=1) / variance - 1
    assert np.abs(relative).max() < ERRORS * np.sqrt(2 / (DRAWS - 1))
    # Places have noise of their own: a shared kernel would correlate the first two by 0.47.
    correlations = np.corrcoef(outputs.T) - np.eye(3)
    assert np.abs(correlations).max() < ERRORS / np.sqrt(DRAWS)


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_local_noise_is_independent_between_equal_examples(kernel_shape):
    layer = make(LocalReparameterization, kernel_shape)
    inputs = np.repeat(inputs_of(kernel_shape, batch=1), 2, axis=0)
    outputs = outputs_of(lambda draw: layer(inputs, tf.stack([tf.constant(9, tf.int64), draw])))
    one, other = np.moveaxis(outputs, 1, 0).reshape(2, DRAWS, -1)
    for a, b in zip(one.T, other.T, strict=True):
        assert abs(np.corrcoef(a, b)[0, 1]) < ERRORS / np.sqrt(DRAWS)


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_a_blank_example_has_no_local_noise_and_a_gradient_of_zero(kernel_shape):
    layer = make(LocalReparameterization, kernel_shape)
    inputs = inputs_of(kernel_shape, batch=3)
    inputs[1:] = 0.0

    def outputs_and_gradients(examples):
        with tf.GradientTape() as tape:
            outputs = layer(examples, seed())
            loss = tf.reduce_sum((outputs - 1.0) ** 2)
        return outputs, tape.gradient(loss, [layer.mean, layer.rho])

    outputs, gradients = outputs_and_gradients(tf.constant(inputs))
    assert (outputs.numpy()[1:] == 0.0).all()
    assert (outputs.numpy()[:1] != 0.0).any()
    _, blank = outputs_and_gradients(tf.constant(inputs[1:]))
    for gradient, of_blank in zip(gradients, blank, strict=True):
        assert np.isfinite(gradient).all()
        assert (gradient.numpy() != 0).all()
        assert (of_blank.numpy() == 0).all()


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_a_local_layer_without_width_is_its_mean(kernel_shape):
    layer, inputs = make(LocalReparameterization, kernel_shape), inputs_of(kernel_shape)
    layer.rho.assign(tf.fill(kernel_shape, -200.0))
    with tf.GradientTape() as tape:
        outputs = layer(inputs, seed())
        loss = tf.reduce_sum(outputs**2)
    np.testing.assert_allclose(outputs, layer.apply(inputs, layer.mean), atol=1e-5)
    for gradient in tape.gradient(loss, [layer.mean, layer.rho]):
        assert np.isfinite(gradient).all()


# --- seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAYESIAN)
@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
def test_one_seed_gives_one_output_bit_by_bit(kind, kernel_shape):
    layer, inputs = make(kind, kernel_shape), inputs_of(kernel_shape)
    first = layer(inputs, seed(3, 4)).numpy()
    layer(inputs, seed(3, 5))
    tf.random.set_seed(99)
    tf.random.normal([10])
    np.testing.assert_array_equal(layer(inputs, seed(3, 4)), first)
    np.testing.assert_array_equal(make(kind, kernel_shape)(inputs, seed(3, 4)), first)
    assert (layer(inputs, seed(3, 5)).numpy() != first).all()


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
@pytest.mark.parametrize("kind", [*BAYESIAN, Deterministic])
def test_several_seeds_side_by_side_are_one_call_after_another(kind, kernel_shape):
    options = () if kind is Deterministic else (1.0,)
    layer = kind("a", kernel_shape, seed(1, 1), *options)
    inputs, several = inputs_of(kernel_shape, batch=6), tf.stack([seed(3, n) for n in range(3)])
    stddev = layer.stddev()
    apart = [layer(inputs[2 * n : 2 * n + 2], several[n], stddev) for n in range(3)]
    np.testing.assert_allclose(layer(inputs, several, stddev), tf.concat(apart, 0), atol=1e-6)
    # The same holds where the batch's size is known only when the graph runs.
    shape = (None, *inputs.shape[1:])
    run = tf.function(lambda x: layer(x, several), input_signature=[tf.TensorSpec(shape)])
    np.testing.assert_allclose(run(inputs), tf.concat(apart, 0), atol=1e-6)
    kernels = layer.batch_kernel(6, several)
    for n in range(3):
        alone = layer.batch_kernel(2, several[n])
        shared = len(kernels.shape) == len(kernel_shape)
        part = kernels if shared else kernels[2 * n : 2 * n + 2]
        np.testing.assert_allclose(part, np.broadcast_to(alone, part.shape), atol=1e-7)
    if kind is not Deterministic:
        draws = layer.sample(several)
        assert draws.shape == (3, *kernel_shape)
        np.testing.assert_allclose(draws[1], layer.sample(several[1]), atol=1e-7)
        assert (draws.numpy()[1] != draws.numpy()[2]).all()


@pytest.mark.parametrize("kernel_shape", [DENSE, CONVOLUTION])
@pytest.mark.parametrize("kind", BAYESIAN)
def test_one_seed_as_a_row_is_that_seed_bit_by_bit(kind, kernel_shape):
    layer, inputs = make(kind, kernel_shape), inputs_of(kernel_shape)
    row = seed(3, 4)[tf.newaxis]
    np.testing.assert_array_equal(layer(inputs, row), layer(inputs, seed(3, 4)))
    np.testing.assert_array_equal(layer.batch_kernel(3, row), layer.batch_kernel(3, seed(3, 4)))


# --- initial values -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAYESIAN)
def test_posteriors_start_as_tfps(kind):
    layer = make(kind, (200, 300))
    mean, rho = layer.mean.numpy().ravel(), layer.rho.numpy().ravel()
    for values, centre in ((mean, 0.0), (rho, -3.0)):
        assert abs(values.mean() - centre) < ERRORS * 0.1 / np.sqrt(values.size)
        assert abs(values.std() - 0.1) < ERRORS * 0.1 / np.sqrt(2 * values.size)
        assert scipy.stats.kstest(values, "norm", args=(centre, 0.1)).pvalue > 1e-4
    assert abs(np.corrcoef(mean, rho)[0, 1]) < ERRORS / np.sqrt(mean.size)
    assert (layer.bias.numpy() == 0).all()
    np.testing.assert_allclose(layer.posterior.stddev(), np.log1p(np.exp(layer.rho)), rtol=1e-5)
    assert layer.prior.loc.numpy() == 0.0
    assert layer.prior.scale.numpy() == 1.0


@pytest.mark.parametrize("kernel_shape", [(300, 200), (5, 5, 30, 64)])
def test_deterministic_kernels_start_as_keras(kernel_shape):
    layer = Deterministic("a", kernel_shape, seed())
    keras = tf_keras.initializers.GlorotUniform(seed=1)(kernel_shape).numpy()
    fans = kernel_shape[-2] + kernel_shape[-1]
    limit = np.sqrt(6 / (fans * np.prod(kernel_shape[:-2])))
    for kernel in (layer.kernel.numpy(), keras):
        assert 0.999 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
    same = scipy.stats.ks_2samp(layer.kernel.numpy().ravel(), keras.ravel())
    assert same.pvalue > 1e-4
    assert (layer.bias.numpy() == 0).all()


def test_dropout_keeps_the_mean_and_the_share():
    x = tf.constant(np.random.default_rng(0).uniform(1, 2, size=(400, 500)), tf.float32)
    for rate in (0.1, 0.5, 0.9):
        dropped = layers.dropout(x, rate, seed()).numpy()
        kept = dropped != 0
        np.testing.assert_allclose(dropped[kept], x.numpy()[kept] / (1 - rate), rtol=1e-6)
        error = (rate * (1 - rate) / kept.size) ** 0.5  # of a share of so many coins
        assert abs(kept.mean() - (1 - rate)) < 5 * error
        assert abs(dropped.mean() / x.numpy().mean() - 1) < 6 * error / (1 - rate)


def test_dropout_masks_of_images_features_and_seeds_are_independent():
    ones = tf.ones([300, 300])
    mask, other = (layers.dropout(ones, 0.5, seed(11, n)).numpy() > 0 for n in (0, 1))
    np.testing.assert_array_equal(mask, layers.dropout(ones, 0.5, seed(11, 0)).numpy() > 0)
    agree = [mask == other, mask[1:] == mask[:-1], mask[:, 1:] == mask[:, :-1]]
    for same in agree:
        assert abs(same.mean() - 0.5) < 5 * 0.5 / same.size**0.5


def test_dropout_masks_side_by_side_are_those_of_each_seed():
    x = tf.constant(np.random.default_rng(0).uniform(1, 2, size=(6, 50)), tf.float32)
    several = tf.stack([seed(3, n) for n in range(3)])
    apart = [layers.dropout(x[2 * n : 2 * n + 2], 0.5, several[n]) for n in range(3)]
    np.testing.assert_array_equal(layers.dropout(x, 0.5, several), tf.concat(apart, 0))


def test_without_dropout_nothing_changes():
    x = tf.constant([[1.0, -2.0, 0.0]])
    np.testing.assert_array_equal(layers.dropout(x, 0.0, seed()), x)
