"""Last-layer Laplace: a normal posterior over the last layer of a network that has been trained.

Daxberger et al. 2021, "Laplace Redux" (arXiv 2106.14806). With the last layer's P weights theta
(kernel and bias, P = (inputs + 1) classes), an image's features phi_n with a 1 at their end, and
its probabilities p_n, the posterior is

    q = N(theta, (H + delta I)^-1),    the prior N(0, 1 / delta) on each weight              (1)
    H = sum over images n of  phi_n phi_n^T (x) Lambda_n,    Lambda_n = diag(p_n) - p_n p_n^T   (2)

H is the generalised Gauss-Newton matrix of the training set's nll; for a last layer it is the
Hessian. Above :data:`FULL` weights it is Kronecker-factored (Martens and Grosse 2015, section 3.1):

    H = A (x) G,    A = mean over n of phi_n phi_n^T,    G = sum over n of Lambda_n              (3)

The precision delta maximises the marginal likelihood (Immer et al. 2021, arXiv 2104.04975; MacKay
1992, "The evidence framework applied to classification networks"). With H's eigenvalues lambda_i,

    log p(D | delta) = log p(D | theta) - delta |theta|^2 / 2
                       + sum over i of log(delta / (lambda_i + delta)) / 2                      (4)

Its derivative by log delta is half of gamma - delta |theta|^2, where gamma = sum of lambda_i /
(lambda_i + delta) counts the weights that the data determine. It falls as delta grows, so that (4)
has one maximum. An image's predictive distribution is the mean over draws of (1), or by the probit
approximation (MacKay 1992; one logit of mean f_c and variance v_c a class)

    softmax of f_c / sqrt(1 + pi v_c / 8)                                                       (5)

(2) and (3) are sums over images: each rank sums its own, and the ranks add up in one allreduce.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
import tensorflow as tf

from bnnlib.data import Dataset
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.networks import Draw, Network, Tensor, graph, to_inputs
from bnnlib.networks.seeds import DRAWS_PER_LAYER, KERNEL, standard_normal, substream
from bnnlib.record.files import read_npz, write_npz
from bnnlib.record.run import Run

FILE = "laplace.npz"
# Up to so many weights H is held as it is.
FULL = 2_000
# The most bytes that the eigenvectors of A may take. The decomposition takes three times as many,
# and about ten minutes of a core at 12,545 rows.
LARGEST = 2**30
# Beyond so many rows a matrix is decomposed in float32: half the bytes and the time.
MOST_IN_FLOAT64 = 4_096
# Between which log(delta) is sought.
LOG_PRECISIONS = (-46.0, 46.0)

Arrays = dict[str, np.ndarray]


class LastLayer:
    """The posterior (1), as :attr:`bnnlib.networks.Network.posterior`.

    Attributes:
        arrays: what the file ``laplace.npz`` holds: ``prior_precision`` (delta),
            ``log_marginal_likelihood`` (4) in nats, ``effective_parameters`` (gamma), and H by its
            eigenvectors: ``values`` ``(P,)`` and ``vectors`` ``(P, P)``; or of A ``values_in``
            ``(r,)`` and ``vectors_in`` ``(inputs + 1, r)``, of G ``values_out`` ``(classes,)`` and
            ``vectors_out`` ``(classes, classes)``. What `vectors_in` leaves out has eigenvalue 0.
    """

    def __init__(self, network: Network, arrays: Arrays) -> None:
        self.network, self.arrays = network, arrays
        inputs, classes = network.layers[-1].kernel_shape
        self.shape = (inputs + 1, classes)
        self.precision = float(arrays["prior_precision"])
        if "values" in arrays:
            scale = 1.0 / np.sqrt(arrays["values"] + self.precision)
            self.root = tf.constant(arrays["vectors"] * scale, tf.float32)
        else:
            self.vectors_in = tf.constant(arrays["vectors_in"], tf.float32)
            self.vectors_out = tf.constant(arrays["vectors_out"], tf.float32)
            self.variance = 1.0 / (
                np.outer(arrays["values_in"], arrays["values_out"]) + self.precision
            )

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights, of which the last layer's differ from their means."""
        last = (len(self.network.layers) - 1) * DRAWS_PER_LAYER
        noise = self.spread(standard_normal(self.shape, substream(seed, last + KERNEL)))
        *others, means = self.means()
        kernel, bias = means["kernel"] + noise[:-1], means["bias"] + noise[-1]
        return [*others, {"kernel": kernel, "bias": bias}]

    def means(self) -> list[Draw]:
        """The trained weights of every layer."""
        return [layer.mean_draw() for layer in self.network.layers]

    def stddevs(self) -> list[Draw]:
        """The standard deviation of the last layer's weights, in the shape of a draw.

        Other layers have None.
        """
        if "values" in self.arrays:
            variance = tf.reshape(tf.reduce_sum(tf.square(self.root), 1), self.shape)
        else:
            beyond = tf.constant(self.variance - 1.0 / self.precision, tf.float32)
            within = tf.square(self.vectors_in) @ beyond
            within = tf.matmul(within, tf.square(self.vectors_out), transpose_b=True)
            variance = 1.0 / self.precision + within
        stddev = tf.sqrt(variance)
        others: Draw = {"kernel": None, "bias": None}
        last = {"kernel": stddev[:-1], "bias": stddev[-1]}
        return [*(others for _ in self.network.layers[:-1]), last]

    def spread(self, noise: Tensor) -> Tensor:
        """A root of the covariance times standard normal `noise`, ``(inputs + 1, classes)``."""
        if "values" in self.arrays:
            return tf.reshape(tf.linalg.matvec(self.root, tf.reshape(noise, [-1])), self.shape)
        # Outside of the eigenvectors the covariance is the prior's.
        beyond = tf.constant(np.sqrt(self.variance) - self.precision**-0.5, tf.float32)
        within = tf.matmul(self.vectors_in, noise, transpose_a=True) @ self.vectors_out
        within = self.vectors_in @ (beyond * within)
        return noise * self.precision**-0.5 + tf.matmul(within, self.vectors_out, transpose_b=True)

    def variances(self, features: Tensor) -> Tensor:
        """The variance of each logit.

        Args:
            features: float32 ``(num_images, inputs)``.

        Returns:
            float32 ``(num_images, classes)``.
        """
        features = tf.pad(features, [[0, 0], [0, 1]], constant_values=1.0)
        if "values" in self.arrays:
            root = tf.reshape(self.root, [*self.shape, -1])
            return tf.reduce_sum(tf.square(tf.tensordot(features, root, 1)), -1)
        beyond = tf.constant(self.variance - 1.0 / self.precision, tf.float32)
        within = tf.square(features @ self.vectors_in) @ beyond
        within = tf.matmul(within, tf.square(self.vectors_out), transpose_b=True)
        return tf.reduce_sum(tf.square(features), -1, keepdims=True) / self.precision + within

    def metrics(self) -> dict[str, float]:
        """The fit's numbers for the run's record."""
        names = ("prior_precision", "log_marginal_likelihood", "effective_parameters")
        return {f"laplace_{name}": float(self.arrays[name]) for name in names}


class Probit(Network):
    """A network with a posterior :class:`LastLayer` whose logits are those of (5)."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.name, network.stages, network.layers, network.dropout)
        assert isinstance(network.posterior, LastLayer)
        self.posterior = network.posterior

    def unfolds(self, images: Tensor) -> bool:
        """Never: there is one draw, and nothing to gain."""
        return False

    def predict(self, images: Any, draw: Sequence[Draw], mask_seed: Tensor | None = None) -> Tensor:
        """Logits ``(batch, num_classes)``; `draw` is the means, and there are no masks."""
        features = self.features(images, draw)
        logits = features @ draw[-1]["kernel"] + draw[-1]["bias"]
        assert isinstance(self.posterior, LastLayer)
        return logits * tf.math.rsqrt(1.0 + math.pi / 8.0 * self.posterior.variances(features))


def refuse_unfit(experiment: Experiment, network: Network, num_train_examples: int) -> None:
    """Refuses, before training, what could not be fitted after it.

    Features must be one function of the image: where an earlier layer has a posterior or dropout
    masks, (2) would be of one draw among many.

    Raises:
        ExperimentError: a network that is stochastic itself, or a last layer too large; or the
            probit approximation without a Laplace posterior.
    """
    if not experiment.laplace:
        if experiment.predict_with == "probit":
            raise ExperimentError(
                "predict_with = 'probit': it approximates the predictive distribution of a "
                "Laplace posterior; set laplace: true, or take draws"
            )
        return
    if network.is_stochastic:
        own = "dropout masks" if network.dropout else "a posterior already"
        raise ExperimentError(
            f"laplace = True: {experiment.model} has {own}, so that the last layer's inputs are no "
            "function of the image alone; expected a CNN_… trained by inference: adam, dropout: 0"
        )
    if type(network) is not Network:  # a graph: its output need not be its last layer's
        raise ExperimentError(
            f"laplace = True: {experiment.model} is a Keras model's graph, whose last layer's "
            "inputs are not known here; expected a CNN_… of bnnlib.names.MODELS, or inference: swag"
        )
    rows, _ = network.layers[-1].kernel_shape
    columns = min(rows + 1, num_train_examples)
    size = 4 * (rows + 1) * columns
    if _weights_of(network) > FULL and size > LARGEST:
        raise ExperimentError(
            f"laplace = True: {experiment.model} gives its last layer {rows:,} inputs, whose "
            f"{columns:,} eigenvectors take {size / 2**30:.1f} GiB, more than the "
            f"{LARGEST / 2**30:.0f} GiB that this is made for; take a network with a narrower "
            "last layer, such as CNN_VGG (128), or fewer training images than inputs (holdout)"
        )


def attach(experiment: Experiment, network: Network, dataset: Dataset, run: Run) -> None:
    """Gives a trained network its Laplace posterior, where `laplace` asks for it; all ranks call.

    A run that has not finished keeps the posterior in ``laplace.npz`` and notes its numbers; a
    finished one gives back what it keeps.

    Raises:
        RecordError: the file cannot be written or read; raised on every rank.
        ExperimentError: as :func:`fit`.
    """
    if not experiment.laplace:
        return
    ranks, path = run.ranks, Path(run.directory) / FILE

    def read() -> Arrays:
        return read_npz(path, "Laplace posterior") if ranks.rank == 0 else {}

    if run.is_finished:
        network.posterior = LastLayer(network, ranks.gather(ranks.agree(read))[0])
        return
    posterior = fit(network, dataset, ranks)
    ranks.agree(lambda: write_npz(path, posterior.arrays) if ranks.rank == 0 else None)
    run.note(posterior.metrics())
    network.posterior = posterior


def load(directory: str | Path, network: Network) -> LastLayer:
    """The posterior that a run keeps.

    Raises:
        RecordError: it is missing or damaged.
    """
    return LastLayer(network, read_npz(Path(directory) / FILE, "Laplace posterior"))


def fit(network: Network, dataset: Dataset, ranks: Ranks | Any = None) -> LastLayer:
    """Fits (1) to the training set, on all ranks together; the same on every rank.

    Rank 0 decomposes the sum and the others get its numbers, since a decomposition by another
    build of LAPACK may turn the eigenvectors.

    Args:
        network: trained; its last layer is deterministic.
        dataset: whose training images are fitted, without those held out.
        ranks: all must call; alone if not given.

    Raises:
        ExperimentError: H is 0.
    """
    ranks = ranks or Ranks()
    rows = network.layers[-1].kernel_shape[0] + 1
    num_images = dataset.num_train_examples
    if _weights_of(network) <= FULL:
        sums = _full_sums(network, dataset, ranks)
    elif rows <= num_images:
        sums = _kronecker_sums(network, dataset, ranks)
    else:
        sums = _gram_sums(network, dataset, ranks)

    def decompose() -> Arrays:
        if ranks.rank > 0:
            return {}
        arrays = _decomposed(sums, num_images)
        values = arrays["values"] if "values" in arrays else _products(arrays)
        weights = network.layers[-1].mean_draw()
        square = sum(float((w.numpy().astype(np.float64) ** 2).sum()) for w in weights.values())
        return arrays | _evidence(values, square, float(sums["log_likelihood"]))

    return LastLayer(network, ranks.gather(ranks.agree(decompose))[0])


def _weights_of(network: Network) -> int:
    inputs, classes = network.layers[-1].kernel_shape
    return (inputs + 1) * classes


# ----- the sums over images


def _blocks(
    network: Network, dataset: Dataset, ranks: Ranks
) -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
    """This rank's blocks: first image, phi ``(n, inputs + 1)``, p ``(n, classes)``, sum of log p.

    Features are float32, probabilities and the sum float64.
    """
    *_, last = means = network.means()
    kernel, bias = (last[name].numpy().astype(np.float64) for name in ("kernel", "bias"))
    features_of = graph(
        lambda images: network.features(to_inputs(images, dataset), means), reduce_retracing=True
    )
    size = prediction.BLOCK
    for start in range(ranks.rank * size, dataset.num_train_examples, ranks.size * size):
        features = features_of(tf.constant(dataset.x_train[start : start + size])).numpy()
        log_probs = features @ kernel + bias
        log_probs -= np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
        labels = dataset.y_train[start : start + size]
        log_likelihood = float(log_probs[np.arange(len(labels)), labels].sum())
        ones = np.ones((len(features), 1), np.float32)
        yield start, np.concatenate([features, ones], 1), np.exp(log_probs), log_likelihood


def _lambda_sum(probs: np.ndarray) -> np.ndarray:
    """The sum of Lambda_n over a block."""
    return np.diag(probs.sum(axis=0)) - probs.T @ probs


def _full_sums(network: Network, dataset: Dataset, ranks: Ranks) -> Arrays:
    """H of (2), ``(P, P)``, weights in the order of the kernel's rows, the bias the last row."""
    inputs, classes = network.layers[-1].kernel_shape
    h, total = np.zeros((inputs + 1, classes, inputs + 1, classes)), 0.0
    for _, features, probs, log_likelihood in _blocks(network, dataset, ranks):
        phi = features.astype(np.float64)
        for c in range(classes):
            for d in range(c + 1):
                weight = probs[:, c] * ((c == d) - probs[:, d])
                h[:, c, :, d] += phi.T @ (phi * weight[:, None])
        total += log_likelihood
    for c in range(classes):
        for d in range(c):
            h[:, d, :, c] = h[:, c, :, d]
    size = (inputs + 1) * classes
    return _total({"h": h.reshape(size, size), "log_likelihood": np.array(total)}, np.float64)


def _kronecker_sums(network: Network, dataset: Dataset, ranks: Ranks) -> Arrays:
    """A times the number of images, and G, of (3)."""
    inputs, classes = network.layers[-1].kernel_shape
    kind = _precision_of(inputs + 1)
    a, g, total = np.zeros((inputs + 1, inputs + 1), kind), np.zeros((classes, classes)), 0.0
    for _, features, probs, log_likelihood in _blocks(network, dataset, ranks):
        phi = features.astype(kind)
        a += phi.T @ phi
        g += _lambda_sum(probs)
        total += log_likelihood
    sums = _total({"g": g, "log_likelihood": np.array(total)}, np.float64)
    return sums | _total({"a": a}, kind)


def _gram_sums(network: Network, dataset: Dataset, ranks: Ranks) -> Arrays:
    """All images' phi, ``(num_images, inputs + 1)``, smaller than A; and G of (3)."""
    inputs, classes = network.layers[-1].kernel_shape
    phi = np.zeros((dataset.num_train_examples, inputs + 1), np.float32)
    g, total = np.zeros((classes, classes)), 0.0
    for start, features, probs, log_likelihood in _blocks(network, dataset, ranks):
        phi[start : start + len(features)] = features  # the other ranks add 0 to these rows
        g += _lambda_sum(probs)
        total += log_likelihood
    sums = _total({"g": g, "log_likelihood": np.array(total)}, np.float64)
    return sums | _total({"phi": phi}, np.float32)


def _total(sums: Mapping[str, np.ndarray], kind: Any) -> Arrays:
    """The sums over all ranks, by one allreduce."""
    flat = np.concatenate([value.ravel().astype(kind, copy=False) for value in sums.values()])
    parts = np.split(
        distributed.total(flat, "laplace"), np.cumsum([v.size for v in sums.values()])[:-1]
    )
    pairs = zip(sums.items(), parts, strict=True)
    return {name: part.reshape(value.shape) for (name, value), part in pairs}


# ----- eigenvalues, and the precision by them


def _precision_of(rows: int) -> Any:
    return np.float64 if rows <= MOST_IN_FLOAT64 else np.float32


def _decomposed(sums: Mapping[str, np.ndarray], num_images: int) -> Arrays:
    """H by eigenvectors, as :attr:`LastLayer.arrays` has it; rounding below 0 becomes 0."""
    if "h" in sums:
        values, vectors = scipy.linalg.eigh(sums["h"])
        return {"values": np.maximum(values, 0.0), "vectors": vectors.astype(np.float32)}
    values_out, vectors_out = scipy.linalg.eigh(sums["g"])
    if "a" in sums:
        values_in, vectors_in = scipy.linalg.eigh(sums["a"] / num_images, overwrite_a=True)
    else:  # phi's singular vectors are A's eigenvectors
        phi = sums["phi"].astype(_precision_of(num_images))
        vectors_in, singular, _ = scipy.linalg.svd(phi.T, full_matrices=False, overwrite_a=True)
        values_in = singular.astype(np.float64) ** 2 / num_images
    return {
        "values_in": np.maximum(values_in, 0.0).astype(np.float64),
        "vectors_in": vectors_in.astype(np.float32),
        "values_out": np.maximum(values_out, 0.0),
        "vectors_out": vectors_out.astype(np.float32),
    }


def _products(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The eigenvalues of A (x) G but for those that are 0."""
    return np.outer(arrays["values_in"], arrays["values_out"]).ravel()


def _evidence(values: np.ndarray, square: float, log_likelihood: float) -> Arrays:
    """The precision that maximises (4), (4) there, and gamma.

    Args:
        values: H's eigenvalues; those that are 0 change nothing.
        square: |theta|^2.
        log_likelihood: log p(D | theta), nats.

    Raises:
        ExperimentError: no precision is best: H or theta is 0.
    """

    def gamma(precision: float) -> float:
        return float((values / (values + precision)).sum())

    def slope(log_precision: float) -> float:
        precision = math.exp(log_precision)
        return gamma(precision) - precision * square

    low, high = LOG_PRECISIONS
    if not slope(low) > 0 > slope(high):
        raise ExperimentError(
            f"laplace: the largest eigenvalue of the last layer's curvature is {values.max():.3g} "
            f"and the sum of its squared weights {square:.3g}: no prior precision is best. A "
            "network that is certain of every training image has no curvature; train it less, or "
            "under a prior (weight_decay: prior)"
        )
    precision = math.exp(scipy.optimize.brentq(slope, low, high, xtol=1e-12))
    occam = 0.5 * float(np.log(precision / (values + precision)).sum())
    return {
        "prior_precision": np.array(precision),
        "log_marginal_likelihood": np.array(log_likelihood - 0.5 * precision * square + occam),
        "effective_parameters": np.array(gamma(precision)),
    }
