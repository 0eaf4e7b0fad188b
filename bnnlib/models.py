"""The networks of the study by name, every builder with one signature.

The name says the first layer: ``conv`` or ``FC``, ``flip`` for Flipout and ``nonflip`` for plain
reparameterization; ``CNN_…`` are the deterministic twins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset
from bnnlib.errors import ExperimentError
from bnnlib.experiment import unknown_name
from bnnlib.layers import (
    DRAWS_PER_LAYER,
    INITIAL,
    MASK,
    Deterministic,
    Flipout,
    Layer,
    Reparameterization,
    Tensor,
    dropout,
    largest_of_four,
    max_pool,
    stream_key,
    substream,
)

CONVOLUTION_FILTERS = 64
CONVOLUTION_SIZE = 5
DENSE_UNITS = 64
VGG_BLOCKS = (32, 64, 128)
VGG_DENSE_UNITS = 128
# Numbers in a patch, up to which patches take about as much memory as what is made of them.
LARGEST_PATCH = 128


@dataclasses.dataclass(frozen=True)
class Stage:
    """One layer's place in a network: what the layer is, and whether 2x2 max-pooling follows."""

    kind: str  # "convolution" or "dense"
    outputs: int
    size: int = 0  # of a convolution's square kernel, pixels
    pool: bool = False


class Network(tf.Module):
    """Layers in a row, ReLU between them: images to logits.

    Attributes:
        layers: the layers in order.
        dropout: rate of dropout before each dense layer after the first layer, at prediction as in
            training (MC dropout, Gal and Ghahramani 2016); 0: none.
        is_bayesian: whether any layer has a posterior.
        is_stochastic: whether draws differ, by weights or by dropout masks.
    """

    def __init__(
        self, name: str, stages: list[Stage], layers: list[Layer], dropout: float = 0.0
    ) -> None:
        super().__init__(name=name)
        self.stages = stages
        self.layers = layers
        self.dropout = dropout
        self.is_bayesian = any(layer.bayesian for layer in layers)
        self.is_stochastic = self.is_bayesian or dropout > 0

    def __call__(
        self, images: Tensor, seed: Tensor, stddevs: list[Tensor | None] | None = None
    ) -> Tensor:
        """Logits of one training draw: Flipout layers give every image a perturbation of its own.

        Args:
            images: float32 ``(batch, height, width, channels)``.
            seed: int64 ``(2,)``; the same seed gives the same logits.
            stddevs: of :meth:`stddevs`, for a caller that needs them for the KL too.

        Returns:
            float32 ``(batch, num_classes)``.
        """
        stddevs = self.stddevs() if stddevs is None else stddevs
        operations: list[Callable[[Tensor], Tensor]] = [
            functools.partial(layer, seed=s, stddev=stddev)
            for (layer, s), stddev in zip(self._seeded(seed), stddevs, strict=True)
        ]
        if self.unfolds(images):
            layer, s = next(self._seeded(seed))
            kernel = layer.batch_kernel(tf.shape(images)[0], s, stddevs[0])
            operations[0] = functools.partial(_pooled_convolution, kernel=kernel)
            return self._forward(self.unfold(images), operations, seed, True)
        return self._forward(images, operations, seed)

    def stddevs(self) -> list[Tensor | None]:
        """Each layer's posterior standard deviations; None for a deterministic one."""
        return [layer.stddev() for layer in self.layers]

    def sample(self, seed: Tensor) -> list[Tensor]:
        """One draw of every layer's kernel from the posterior, for :meth:`predict`."""
        return [layer.sample(s) for layer, s in self._seeded(seed)]

    def unfolds(self, images: Tensor) -> bool:
        """Whether the first layer is a pooled convolution whose patches :meth:`unfold` makes."""
        stage = self.stages[0]
        height, width, channels = images.shape[1:]
        fits = stage.size**2 * channels <= LARGEST_PATCH
        return stage.pool and height % 2 == 0 and width % 2 == 0 and fits

    def unfold(self, images: Tensor) -> Tensor:
        """Images in the form that makes a pooled first convolution cheapest: its input patches.

        The convolution then is a matrix product and a maximum, and each image can have a kernel of
        its own, which halves Flipout's multiplications. Many draws of :meth:`predict` share them.
        `make bench` measures it; TensorFlow's convolution of one channel takes twice as long.

        Args:
            images: float32 ``(batch, height, width, channels)``.

        Returns:
            float32 ``(4, batch, height / 2, width / 2, patch)``, first the place in the 2x2 block
            that pooling takes the maximum of; or the images as they are.
        """
        if not self.unfolds(images):
            return images
        height, width, channels = images.shape[1:]
        size = self.stages[0].size
        before, after = (size - 1) // 2, size // 2  # SAME padding
        padded = tf.pad(images, [[0, 0], [before, after], [before, after], [0, 0]])
        places = _patch_places(height, width, channels, size)
        # Pixels first: a pixel of all images is one piece of memory to copy.
        pixels = tf.transpose(tf.reshape(padded, [-1, math.prod(padded.shape[1:])]))
        patches = tf.reshape(tf.gather(pixels, places), [4, places.size // 4, -1])
        return tf.reshape(
            tf.transpose(patches, [0, 2, 1]), [4, -1, height // 2, width // 2, size**2 * channels]
        )

    def predict(
        self, images: Tensor, kernels: list[Tensor], mask_seed: Tensor | None = None
    ) -> Tensor:
        """Logits ``(batch, num_classes)`` under one weight draw that all images share.

        `images` are as they are or as :meth:`unfold` gives them.
        Each image has dropout masks of its own where there are any; they follow from `mask_seed`
        int64 ``(2,)`` and the image's place in the batch.

        Flipout's signs change the dependence between images, never one image's predictive
        distribution; without them a draw needs half the multiplications, and an image's
        prediction does not depend on the batch that it comes in.
        """
        operations: list[Callable[[Tensor], Tensor]] = [
            functools.partial(layer.apply, kernel=kernel)
            for layer, kernel in zip(self.layers, kernels, strict=True)
        ]
        unfolded = len(images.shape) == 5
        if unfolded:
            operations[0] = functools.partial(_pooled_convolution, kernel=kernels[0])
        return self._forward(images, operations, mask_seed, unfolded)

    def kl(self, stddevs: list[Tensor | None] | None = None) -> Tensor:
        """KL(q||p) in nats over all kernels; 0 for a deterministic network."""
        stddevs = self.stddevs() if stddevs is None else stddevs
        return tf.add_n(
            [layer.kl(stddev) for layer, stddev in zip(self.layers, stddevs, strict=True)]
        )

    def weights(self) -> dict[str, np.ndarray]:
        """Every trainable variable's value by its name, such as ``layer0/mean``."""
        return {name: variable.numpy() for name, variable in self._named().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets every trainable variable.

        Raises:
            ExperimentError: names or shapes are not this network's; nothing has been set then.
        """
        named = self._named()
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

    def _named(self) -> dict[str, tf.Variable]:
        return {
            f"layer{index}/{variable.name.split(':')[0].split('/')[-1]}": variable
            for index, layer in enumerate(self.layers)
            for variable in layer.trainable_variables
        }

    def _seeded(self, seed: Tensor) -> Iterator[tuple[Layer, Tensor]]:
        for index, layer in enumerate(self.layers):
            yield layer, substream(seed, index * DRAWS_PER_LAYER)

    def _forward(
        self,
        x: Tensor,
        operations: list[Callable[[Tensor], Tensor]],
        mask_seed: Tensor | None,
        pooled: bool = False,
    ) -> Tensor:
        last = len(self.layers) - 1
        for index, (stage, layer) in enumerate(zip(self.stages, self.layers, strict=True)):
            if stage.kind == "dense" and len(x.shape) > 2:
                x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
            if self.dropout > 0 and stage.kind == "dense" and index > 0:
                x = dropout(x, self.dropout, substream(mask_seed, index * DRAWS_PER_LAYER + MASK))
            x = operations[index](x)
            if stage.pool and not (pooled and index == 0):
                # Before bias and ReLU: both are monotone, so the function is exactly the usual
                # one, on a quarter of the elements.
                x = max_pool(x)
            x = tf.nn.bias_add(x, layer.bias)
            if index < last:
                x = tf.nn.relu(x)
        return x


def _pooled_convolution(patches: Tensor, kernel: Tensor) -> Tensor:
    """Convolution and 2x2 max-pooling of what :meth:`Network.unfold` gives.

    Args:
        patches: ``(4, batch, height / 2, width / 2, patch)``.
        kernel: ``(size, size, channels, outputs)``, or one for each image.

    Returns:
        ``(batch, height / 2, width / 2, outputs)``, before bias.
    """
    _, _, height, width, patch = patches.shape
    outputs = kernel.shape[-1]
    # An image a matrix product, also where all share a kernel: what it makes stays in the cache.
    matrix = tf.reshape(kernel, [-1, patch, outputs])
    rows = tf.reshape(patches, [4, -1, height * width, patch])
    four = [tf.matmul(place, matrix) for place in tf.unstack(rows)]
    return tf.reshape(largest_of_four(*four), [-1, height, width, outputs])


@functools.lru_cache(maxsize=8)
def _patch_places(height: int, width: int, channels: int, size: int) -> np.ndarray:
    """Places in a flat padded image of all patches' numbers, in the order of `Network.unfold`."""
    rows, columns, below, right, down, along, channel = np.ogrid[
        0:2, 0:2, 0 : height // 2, 0 : width // 2, 0:size, 0:size, 0:channels
    ]
    row, column = 2 * below + rows + down, 2 * right + columns + along
    return ((row * (width + size - 1) + column) * channels + channel).ravel().astype(np.int32)


Builder = Callable[..., Network]


def _one_layer(kind: str) -> Callable[[int], list[Stage]]:
    first = {
        "conv": Stage("convolution", CONVOLUTION_FILTERS, CONVOLUTION_SIZE, pool=True),
        "FC": Stage("dense", DENSE_UNITS),
    }[kind]
    return lambda num_classes: [first, Stage("dense", num_classes)]


def _vgg(num_classes: int) -> list[Stage]:
    convolutions = [
        Stage("convolution", filters, 3, pool=second)
        for filters in VGG_BLOCKS
        for second in (False, True)
    ]
    return [*convolutions, Stage("dense", VGG_DENSE_UNITS), Stage("dense", num_classes)]


def _builder(
    name: str,
    stages_of: Callable[[int], list[Stage]],
    bayesian: type[Reparameterization] | None,
    default_layers: str = "first",
) -> Builder:
    def build(
        image_shape: tuple[int, int, int],
        num_classes: int,
        prior_stddev: float = 1.0,
        bayesian_layers: str = "auto",
        seed: int = 0,
        dropout: float = 0.0,
    ) -> Network:
        if dropout > 0 and bayesian is not None:
            raise ExperimentError(
                f"dropout = {dropout}: {name} has a posterior over its weights already; dropout is "
                f"for its deterministic twin, {name.rpartition('_')[0].replace('BNN', 'CNN')}"
            )
        which = default_layers if bayesian_layers == "auto" else bayesian_layers
        if which not in ("first", "all"):
            raise ExperimentError(
                f"bayesian_layers = {bayesian_layers!r}: expected auto, first or all"
            )
        stages = stages_of(num_classes)
        layers: list[Layer] = []
        for index, (stage, kernel_shape) in enumerate(_kernel_shapes(stages, image_shape)):
            # Seeds from the run's seed alone: every rank builds bitwise the same network.
            key = tf.constant([stream_key(seed, INITIAL), index], tf.int64)
            label = f"layer{index}_{stage.kind}"
            if bayesian is None or (which == "first" and index > 0):
                layers.append(Deterministic(label, kernel_shape, key))
            else:
                layers.append(bayesian(label, kernel_shape, key, prior_stddev))
        return Network(name, stages, layers, dropout)

    build.__doc__ = f"Builds {name}; see :func:`build`."
    return build


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


BUILDERS: dict[str, Builder] = {
    "BNN_conv_flip": _builder("BNN_conv_flip", _one_layer("conv"), Flipout),
    "BNN_conv_nonflip": _builder("BNN_conv_nonflip", _one_layer("conv"), Reparameterization),
    "BNN_FC_flip": _builder("BNN_FC_flip", _one_layer("FC"), Flipout),
    "BNN_FC_nonflip": _builder("BNN_FC_nonflip", _one_layer("FC"), Reparameterization),
    "CNN_conv": _builder("CNN_conv", _one_layer("conv"), None),
    "CNN_FC": _builder("CNN_FC", _one_layer("FC"), None),
    "BNN_VGG_flip": _builder("BNN_VGG_flip", _vgg, Flipout, "all"),
    "BNN_VGG_nonflip": _builder("BNN_VGG_nonflip", _vgg, Reparameterization, "all"),
    "CNN_VGG": _builder("CNN_VGG", _vgg, None),
}
SIX = ("BNN_conv_flip", "BNN_conv_nonflip", "BNN_FC_flip", "BNN_FC_nonflip", "CNN_conv", "CNN_FC")


def build(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    prior_stddev: float = 1.0,
    bayesian_layers: str = "auto",
    seed: int = 0,
    dropout: float = 0.0,
) -> Network:
    """The network `name` with its initial weights.

    Args:
        name: a key of :data:`BUILDERS`.
        image_shape: ``(height, width, channels)``.
        num_classes: number of logits.
        prior_stddev: standard deviation of the normal prior on each kernel entry.
        bayesian_layers: ``first`` or ``all``; ``auto`` is ``all`` for the VGG networks, else
            ``first``. Without effect on the deterministic twins.
        seed: of the initial weights; the same seed gives bitwise the same weights.
        dropout: rate before each dense layer after the first layer; deterministic networks only.

    Returns:
        The network.

    Raises:
        ExperimentError: no such network, a bad `bayesian_layers`, or dropout in a Bayesian one.
    """
    if name not in BUILDERS:
        raise ExperimentError(unknown_name(name, list(BUILDERS), "model"))
    return BUILDERS[name](image_shape, num_classes, prior_stddev, bayesian_layers, seed, dropout)


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


def in_order(names: Iterable[str]) -> list[str]:
    """Names of networks, each once: the study's in its order, then a user's own as they come.

    A variant follows its network, as ``CNN_FC ensemble(5)`` does ``CNN_FC``.
    """
    present = list(dict.fromkeys(names))
    order = list(dict.fromkeys([*BUILDERS, *(network_of(name) for name in present)]))
    return sorted(present, key=lambda n: (order.index(network_of(n)), n != network_of(n)))


def network_of(name: str) -> str:
    """The network of a variant's name: ``CNN_FC`` of ``CNN_FC dropout(0.1) ensemble(5)``."""
    return re.sub(r"( \w+\([^()]*\))+$", "", name)


def twin(name: str) -> str | None:
    """The deterministic twin of a Bayesian network; None for any other network or variant."""
    other = "CNN_" + name.split("_")[1] if name.startswith("BNN_") else ""
    return other if name in BUILDERS and other in BUILDERS else None


def to_inputs(images: Tensor, dataset: Dataset) -> Tensor:
    """What networks are given: stored images as float32, scaled, minus the mean image if any.

    Args:
        images: ``(batch, height, width, channels)`` in the data set's own type.
        dataset: whose `scale` and `mean_image` apply.
    """
    inputs = tf.cast(images, tf.float32) * dataset.scale
    return inputs if dataset.mean_image is None else inputs - dataset.mean_image
