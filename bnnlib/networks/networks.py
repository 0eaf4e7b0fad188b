"""The networks of the study by name, every builder with one signature.

A name says what the first layer is: ``conv`` or ``FC``, ``flip`` for Flipout, ``nonflip`` for plain
and ``local`` for local reparameterization. ``CNN_…`` are the deterministic twins.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset, Inputs
from bnnlib.errors import ExperimentError
from bnnlib.experiment import unknown_name
from bnnlib.names import MODELS, twin_of
from bnnlib.networks.fast_ops import max_pool, plain
from bnnlib.networks.layers import (
    Deterministic,
    Draw,
    Flipout,
    Layer,
    LocalReparameterization,
    Reparameterization,
    dropout,
)
from bnnlib.networks.patches import (
    Windows,
    can_unfold,
    convolution_of_windows,
    pooled_convolution,
    windows_of,
)
from bnnlib.networks.seeds import (
    DRAWS_PER_LAYER,
    INITIAL,
    MASK,
    Tensor,
    stream_key,
    substream,
)

CONVOLUTION_FILTERS = 64
CONVOLUTION_SIZE = 5
DENSE_UNITS = 64
VGG_BLOCKS = (32, 64, 128)
VGG_DENSE_UNITS = 128


@dataclasses.dataclass(frozen=True)
class Stage:
    """One layer's place in a network: what the layer is, and whether 2x2 max-pooling follows."""

    kind: str  # "convolution" or "dense"
    outputs: int
    size: int = 0  # of a convolution's square kernel, pixels
    pool: bool = False


class Posterior(Protocol):
    """A posterior over all of a network's weights, made by the method that trains it."""

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights; the same seed, int64 ``(2,)``, gives the same."""

    def means(self) -> list[Draw]:
        """The mean of every layer's weights, each in the shape of a draw."""

    def stddevs(self) -> list[Draw]:
        """The standard deviation of every layer's weights, each in the shape of a draw."""


class Network(tf.Module):
    """Layers in a row, ReLU between them: images to logits.

    Attributes:
        layers: the layers in order.
        dropout: rate of dropout before each dense layer after the first layer, at prediction as in
            training (MC dropout, Gal and Ghahramani 2016); 0: none.
        posterior: of all weights together, where the method of training makes one
            (:class:`Posterior`); else each Bayesian layer has its own.
    """

    def __init__(
        self, name: str, stages: list[Stage], layers: list[Layer], dropout: float = 0.0
    ) -> None:
        super().__init__(name=name)
        self.stages = stages
        self.layers = layers
        self.dropout = dropout
        self.posterior: Posterior | None = None

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return int(self.layers[-1].kernel_shape[-1])

    @property
    def is_dense(self) -> bool:
        """Whether no layer is a convolution."""
        return all(stage.kind == "dense" for stage in self.stages)

    @property
    def is_bayesian(self) -> bool:
        """Whether any weight has a posterior."""
        return self.posterior is not None or any(layer.bayesian for layer in self.layers)

    @property
    def is_stochastic(self) -> bool:
        """Whether draws differ, by weights or by dropout masks."""
        return self.is_bayesian or self.dropout > 0

    def __call__(
        self, images: Tensor, seeds: Tensor, stddevs: list[Tensor | None] | None = None
    ) -> Tensor:
        """Logits of one training draw: Flipout layers give every image a perturbation of its own.

        Args:
            images: float32 ``(batch, height, width, channels)``.
            seeds: int64 ``(2,)``, or ``(K, 2)`` for K equal parts of the batch, computed as by K
                calls; the same seed gives the same logits.
            stddevs: what :meth:`stddevs` returns, if the caller has it already (for the KL).

        Returns:
            float32 ``(batch, num_classes)``.
        """
        stddevs = self.stddevs() if stddevs is None else stddevs
        operations: list[Callable[[Tensor], Tensor]] = [
            functools.partial(layer, seeds=s, stddev=stddev)
            for (layer, s), stddev in zip(self._seeded(seeds), stddevs, strict=True)
        ]
        biases = [layer.bias for layer in self.layers]
        if self.unfolds(images):
            layer, s = next(self._seeded(seeds))
            operations[0] = functools.partial(layer.pooled, seeds=s, stddev=stddevs[0])
        return self._forward(images, operations, biases, seeds, pooled=self.unfolds(images))

    def logits(self, images: Tensor, draw: Sequence[Draw], mask_seed: Tensor) -> Tensor:
        """Logits of a training batch under one given draw of the weights, for its gradient.

        Args:
            images: float32 ``(batch, height, width, channels)``.
            draw: as of :meth:`sample`.
            mask_seed: as of :meth:`predict`.

        Returns:
            float32 ``(batch, num_classes)``, those of :meth:`predict` up to rounding.
        """
        operations, biases = self._operations(draw)
        if self.unfolds(images):
            operations[0] = functools.partial(pooled_convolution, kernel=draw[0]["kernel"])
        return self._forward(images, operations, biases, mask_seed, pooled=self.unfolds(images))

    def stddevs(self) -> list[Tensor | None]:
        """Each layer's posterior standard deviations; None for a deterministic one."""
        return [layer.stddev() for layer in self.layers]

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights from the posterior, for :meth:`predict`."""
        if self.posterior is not None:
            return self.posterior.sample(seed)
        return [layer.draw(s) for layer, s in self._seeded(seed)]

    def means(self) -> list[Draw]:
        """The posterior's mean of every layer's weights, as a draw."""
        if self.posterior is not None:
            return self.posterior.means()
        return [layer.mean_draw() for layer in self.layers]

    def is_drawn(self, index: int) -> bool:
        """Whether the weights of layer `index` differ from draw to draw."""
        return self.posterior is not None or self.layers[index].bayesian

    def unfolds(self, images: Tensor) -> bool:
        """Whether the first layer is a pooled convolution that works on the images' patches."""
        stage = self.stages[0]
        return stage.pool and can_unfold(tuple(images.shape[1:]), stage.size)

    def windows(self, images: Tensor) -> Windows:
        """The images taken apart once, for many draws of :meth:`predict`.

        Args:
            images: float32 ``(batch, height, width, channels)``, which the network
                :meth:`unfolds`.
        """
        return windows_of(images, self.stages[0].size)

    def predict(
        self,
        images: Tensor | Windows,
        draw: Sequence[Draw],
        mask_seed: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(batch, num_classes)`` under one weight draw that all images share.

        Args:
            images: float32 ``(batch, height, width, channels)``, or what :meth:`windows` makes of
                them.
            draw: from :meth:`sample` or :meth:`means`.
            mask_seed: int64 ``(2,)``, for a network with dropout; an image's dropout masks follow
                from it and the image's place in the batch. None: no masks.

        Flipout's signs change the dependence between images, never one image's predictive
        distribution; without them a draw needs half the multiplications, and an image's
        prediction does not depend on the batch that it comes in.
        """
        operations, biases = self._operations(draw)
        if isinstance(images, Windows):
            operations[0] = functools.partial(convolution_of_windows, kernel=draw[0]["kernel"])
            return self._forward(images, operations, biases, mask_seed, pooled=True)
        return self._forward(images, operations, biases, mask_seed)

    def features(self, images: Tensor, draw: Sequence[Draw]) -> Tensor:
        """What the last layer is given under one weight draw, without dropout masks.

        Args:
            images: float32 ``(batch, height, width, channels)``.
            draw: from :meth:`sample` or :meth:`means`.

        Returns:
            float32 ``(batch, inputs of the last layer)``.
        """
        operations, biases = self._operations(draw)
        operations[-1], biases[-1] = tf.identity, tf.zeros(self.layers[-1].kernel_shape[:1])
        return self._forward(images, operations, biases, None)

    def kl(self, stddevs: list[Tensor | None] | None = None) -> Tensor:
        """KL(q||p) in nats over all kernels; 0 without a prior."""
        stddevs = self.stddevs() if stddevs is None else stddevs
        return tf.add_n(
            [layer.kl(stddev) for layer, stddev in zip(self.layers, stddevs, strict=True)]
        )

    def weights(self) -> dict[str, np.ndarray]:
        """Every trainable variable's value by its name, such as ``layer0/mean``."""
        return {name: variable.numpy() for name, variable in self.named_variables().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets every trainable variable.

        Raises:
            ExperimentError: names or shapes are not this network's; nothing has been set then.
        """
        named = self.named_variables()
        if set(named) != set(weights):
            raise ExperimentError(
                f"weights {sorted(set(named) ^ set(weights))} are in only one of the network "
                f"{self.name} and what is to be loaded: the file is of another network"
            )
        for name, variable in named.items():
            if variable.shape != weights[name].shape:
                raise ExperimentError(
                    f"{name} has shape {weights[name].shape}, the network {self.name} expects "
                    f"{tuple(variable.shape)}: the file is of another network or data set"
                )
        for name, variable in named.items():
            variable.assign(weights[name])

    def named_variables(self) -> dict[str, tf.Variable]:
        """Every trainable variable by its name, such as ``layer0/mean``."""
        return {
            f"layer{index}/{variable.name.split(':')[0].split('/')[-1]}": variable
            for index, layer in enumerate(self.layers)
            for variable in layer.trainable_variables
        }

    def _seeded(self, seed: Tensor) -> Iterator[tuple[Layer, Tensor]]:
        for index, layer in enumerate(self.layers):
            yield layer, substream(seed, index * DRAWS_PER_LAYER)

    def _operations(
        self, draw: Sequence[Draw]
    ) -> tuple[list[Callable[[Tensor], Tensor]], list[Tensor]]:
        """Each layer's linear operation under one draw, and its bias."""
        operations: list[Callable[[Tensor], Tensor]] = [
            functools.partial(layer.apply, kernel=weights["kernel"])
            for layer, weights in zip(self.layers, draw, strict=True)
        ]
        return operations, [weights["bias"] for weights in draw]

    def _forward(
        self,
        x: Tensor,
        operations: list[Callable[[Tensor], Tensor]],
        biases: list[Tensor],
        mask_seed: Tensor | None,
        pooled: bool = False,
    ) -> Tensor:
        last, masked = len(self.layers) - 1, self.dropout > 0 and mask_seed is not None
        for index, stage in enumerate(self.stages):
            if stage.kind == "dense" and len(x.shape) > 2:
                x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
            if masked and stage.kind == "dense" and index > 0:
                x = dropout(x, self.dropout, substream(mask_seed, index * DRAWS_PER_LAYER + MASK))
            x = operations[index](x)
            if stage.pool and not (pooled and index == 0):
                # Before bias and ReLU: both are monotone, so the function is exactly the usual
                # one, on a quarter of the elements.
                x = max_pool(x)
            x = tf.nn.bias_add(x, biases[index])
            if index < last:
                x = tf.nn.relu(x)
        return x


def _one_layer(first: Stage) -> Callable[[int], list[Stage]]:
    return lambda num_classes: [first, Stage("dense", num_classes)]


def _vgg(num_classes: int) -> list[Stage]:
    convolutions = [
        Stage("convolution", filters, 3, pool=second)
        for filters in VGG_BLOCKS
        for second in (False, True)
    ]
    return [*convolutions, Stage("dense", VGG_DENSE_UNITS), Stage("dense", num_classes)]


# What the parts of a network's name mean: the stages for a number of classes, and the Bayesian
# layers' estimator, which a deterministic network's name lacks.
ARCHITECTURES: dict[str, Callable[[int], list[Stage]]] = {
    "conv": _one_layer(Stage("convolution", CONVOLUTION_FILTERS, CONVOLUTION_SIZE, pool=True)),
    "FC": _one_layer(Stage("dense", DENSE_UNITS)),
    "VGG": _vgg,
}
ESTIMATORS: dict[str, type[Reparameterization]] = {
    "flip": Flipout,
    "nonflip": Reparameterization,
    "local": LocalReparameterization,
}


def build(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    prior_stddev: float = 1.0,
    bayesian_layers: str | Sequence[str] = "auto",
    seed: int = 0,
    dropout: float = 0.0,
    posterior_stddev: float = 0.0,
    weight_decay: str = "none",
) -> Network:
    """The network `name` with its initial weights.

    Args:
        name: one of :data:`bnnlib.names.MODELS`.
        image_shape: ``(height, width, channels)``.
        num_classes: number of logits.
        prior_stddev: standard deviation of the normal prior on each kernel entry.
        bayesian_layers: ``first``, ``last``, ``all``, or names of layers; ``auto`` is ``all`` for
            the VGG networks, else ``first``. Of a deterministic twin, those of the network whose
            twin it is.
        seed: seed of the initial weights; the same seed gives bitwise the same weights.
        dropout: rate before each dense layer after the first layer; deterministic networks only.
        posterior_stddev: of the initial posterior; 0: TFP's, softplus(-3) or about 0.05.
        weight_decay: ``prior`` puts the prior on the kernels of the layers `bayesian_layers` of a
            deterministic network; ``none`` puts it on none.

    Returns:
        The network.

    Raises:
        ExperimentError: no such network, a bad `bayesian_layers`, or dropout or weight decay in a
            Bayesian one.
    """
    if name not in MODELS:
        raise ExperimentError(unknown_name(name, list(MODELS), "model"))
    _, architecture, *estimator = name.split("_")
    if dropout > 0 and estimator:
        raise ExperimentError(
            f"dropout = {dropout}: {name} has a posterior over its weights already; dropout is "
            f"for its deterministic twin, {twin_of(name)}"
        )
    if weight_decay != "none" and estimator:
        raise ExperimentError(
            f"weight_decay = {weight_decay!r}: {name} has its prior in the KL term already; weight "
            f"decay is for its deterministic twin, {twin_of(name)}"
        )
    which = bayesian_layers
    if which == "auto":
        which = "all" if architecture == "VGG" else "first"
    if which == "none" and estimator:
        raise ExperimentError(
            f"bayesian_layers = 'none': {name} has Bayesian layers; without them it is its "
            f"deterministic twin, {twin_of(name)}"
        )
    stages = ARCHITECTURES[architecture](num_classes)
    labels = [f"layer{index}_{stage.kind}" for index, stage in enumerate(stages)]
    with_prior = chosen(which, labels)
    layers: list[Layer] = []
    for index, (_, kernel_shape) in enumerate(_kernel_shapes(stages, image_shape)):
        # Seeds from the run's seed alone: every rank builds bitwise the same network.
        key = tf.constant([stream_key(seed, INITIAL), index], tf.int64)
        label, has_prior = labels[index], index in with_prior
        if estimator and has_prior:
            bayesian = ESTIMATORS[estimator[0]]
            layers.append(bayesian(label, kernel_shape, key, prior_stddev, posterior_stddev))
        else:
            decays = has_prior and weight_decay == "prior"
            layers.append(Deterministic(label, kernel_shape, key, prior_stddev if decays else None))
    return Network(name, stages, layers, dropout)


def chosen(bayesian_layers: str | Sequence[str], names: Sequence[str]) -> set[int]:
    """The numbers of the layers that a word or a list of names chooses.

    Args:
        bayesian_layers: ``none``, ``first``, ``last``, ``all``, or names.
        names: of the layers with a kernel, in order; parts of one layer share a name.

    Raises:
        ExperimentError: no such word, or no such layer.
    """
    numbers = range(len(names))
    if isinstance(bayesian_layers, str):
        words = {"none": numbers[:0], "first": numbers[:1], "last": numbers[-1:], "all": numbers}
        if bayesian_layers not in words:
            raise ExperimentError(
                f"bayesian_layers = {bayesian_layers!r}: expected one of auto, {', '.join(words)}, "
                "or a list of layers' names"
            )
        return set(words[bayesian_layers])
    for name in bayesian_layers:
        if name not in names:
            told = unknown_name(name, list(dict.fromkeys(names)), "layer with a kernel")
            raise ExperimentError(f"bayesian_layers = {list(bayesian_layers)!r}: {told}")
    return {number for number in numbers if names[number] in set(bayesian_layers)}


def _kernel_shapes(
    stages: list[Stage], image_shape: tuple[int, int, int]
) -> list[tuple[Stage, tuple[int, ...]]]:
    height, width, channels = image_shape
    shapes: list[tuple[Stage, tuple[int, ...]]] = []
    for stage in stages:
        if stage.kind == "convolution":
            shapes.append((stage, (stage.size, stage.size, channels, stage.outputs)))
            if stage.pool:
                height, width = -(-height // 2), -(-width // 2)  # SAME padding rounds up
        else:
            shapes.append((stage, (height * width * channels, stage.outputs)))
            height = width = 1
        channels = stage.outputs
    return shapes


def summary(network: Network) -> list[dict[str, Any]]:
    """One row a layer: its name, class, kernel shape and number of trainable numbers."""
    return [
        {
            "layer": layer.name,
            "type": type(layer).__name__,
            "kernel": layer.kernel_shape,
            "parameters": sum(int(np.prod(v.shape)) for v in layer.trainable_variables),
        }
        for layer in network.layers
    ]


@plain
def to_inputs(images: Tensor, dataset: Dataset | Inputs) -> Tensor:
    """The input of a network: stored images as float32, scaled, minus the mean image if any.

    Args:
        images: ``(batch, height, width, channels)`` in the data set's own type.
        dataset: the data set whose `scale` and `mean_image` apply.
    """
    inputs = tf.cast(images, tf.float32) * dataset.scale
    return inputs if dataset.mean_image is None else inputs - dataset.mean_image
