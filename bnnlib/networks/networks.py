"""The networks of the study by name, every builder with one signature.

The name says the first layer: ``conv`` or ``FC``, ``flip`` for Flipout and ``nonflip`` for plain
reparameterization; ``CNN_…`` are the deterministic twins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment, unknown_name
from bnnlib.networks.layers import (
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
    plain,
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


class Windows(NamedTuple):
    """A block of images as a pooled first convolution sees them (:meth:`Network.windows`).

    Attributes:
        first, second, third, fourth: ``(rows, patch)``, the patches at the four places of each 2x2
            block that pooling takes the maximum of; equal uniform windows share a row.
        row_of: int32 ``(batch * height / 2 * width / 2,)``.
        side: height and width of the pooled output.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    row_of: Tensor
    side: tuple[int, int]


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
            side = (images.shape[1] // 2, images.shape[2] // 2)
            operations[0] = functools.partial(_pooled_convolution, kernel=kernel, side=side)
            return self._forward(self.unfold(images), operations, seed, pooled=True)
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
        """The input patches of a pooled first convolution, which :meth:`unfolds`.

        The convolution then is a matrix product and a maximum, and each image can have a kernel of
        its own, which halves Flipout's multiplications. `make bench` measures it; TensorFlow's
        convolution of one channel takes twice as long.

        Args:
            images: float32 ``(batch, height, width, channels)``.

        Returns:
            float32 ``(batch, 4, height / 2 * width / 2, patch)``, second the place in the 2x2 block
            that pooling takes the maximum of.
        """
        size = self.stages[0].size
        places = _patch_places(*images.shape[1:], size)
        return tf.reshape(_pixels(images, size, places), [-1, *places.shape[:2], places[0, 0].size])

    @plain
    def windows(self, images: Tensor) -> Windows:
        """What :meth:`unfold` gives, each uniform window once: for many draws of :meth:`predict`.

        A window is what one place of the pooled output sees, one pixel larger than a patch. Half of
        MNIST's are blank.

        Args:
            images: as for :meth:`unfold`.
        """
        size = self.stages[0].size
        height, width, channels = images.shape[1:]
        side = size + 1
        numbers = side**2 * channels
        places = _window_places(height, width, channels, size)
        every = tf.reshape(_pixels(images, size, places), [-1, numbers])
        is_uniform = tf.reduce_min(every, axis=1) == tf.reduce_max(every, axis=1)
        uniform, others = tf.where(is_uniform)[:, 0], tf.where(~is_uniform)[:, 0]
        values, which = tf.unique(tf.gather(every[:, 0], uniform))
        count = tf.shape(values)[0]
        rows = tf.concat(
            [tf.tile(values[:, tf.newaxis], [1, numbers]), tf.gather(every, others)], axis=0
        )
        rows = tf.reshape(rows, [-1, side, side, channels])
        first, second, third, fourth = (
            tf.reshape(rows[:, down : down + size, right : right + size], [-1, size**2 * channels])
            for down in (0, 1)
            for right in (0, 1)
        )
        row_of = tf.dynamic_stitch(
            [tf.cast(uniform, tf.int32), tf.cast(others, tf.int32)],
            [which, count + tf.range(tf.shape(others)[0])],
        )
        return Windows(first, second, third, fourth, row_of, (height // 2, width // 2))

    def predict(
        self,
        images: Tensor | Windows,
        kernels: list[Tensor],
        mask_seed: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(batch, num_classes)`` under one weight draw that all images share.

        `images` are as they are or as :meth:`windows` gives them.
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
        if isinstance(images, Windows):
            operations[0] = functools.partial(_convolution_of_windows, kernel=kernels[0])
            return self._forward(images, operations, mask_seed, pooled=True)
        return self._forward(images, operations, mask_seed)

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


def _pooled_convolution(patches: Tensor, kernel: Tensor, side: tuple[int, int]) -> Tensor:
    """Convolution and 2x2 max-pooling of what :meth:`Network.unfold` gives.

    Args:
        patches: ``(batch, 4, height / 2 * width / 2, patch)``.
        kernel: ``(size, size, channels, outputs)``, or one for each image.
        side: height and width of the pooled output.

    Returns:
        ``(batch, height / 2, width / 2, outputs)``, before bias.
    """
    patch, outputs = patches.shape[-1], kernel.shape[-1]
    # A product an image, also where all share a kernel: what it makes stays in the cache.
    matrix = tf.reshape(kernel, [-1, patch, outputs])
    matrix = tf.broadcast_to(matrix, [tf.shape(patches)[0], patch, outputs])
    four = [tf.matmul(place, matrix) for place in tf.unstack(patches, axis=1)]
    return tf.reshape(largest_of_four(*four), [-1, *side, outputs])


def _convolution_of_windows(windows: Windows, kernel: Tensor) -> Tensor:
    """As :func:`_pooled_convolution`, of what :meth:`Network.windows` gives, one kernel for all."""
    *four, row_of, side = windows
    matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
    rows = largest_of_four(*(tf.matmul(place, matrix) for place in four))
    return tf.reshape(tf.gather(rows, row_of), [-1, *side, kernel.shape[-1]])


def _pixels(images: Tensor, size: int, places: np.ndarray) -> Tensor:
    """Of each padded image the numbers at `places`: ``(batch, places.size)``, in their order."""
    before, after = (size - 1) // 2, size // 2  # SAME padding
    padded = tf.pad(images, [[0, 0], [before, after], [before, after], [0, 0]])
    # Pixels first: a pixel of all images is one piece of memory to copy.
    pixels = tf.transpose(tf.reshape(padded, [-1, math.prod(padded.shape[1:])]))
    return tf.transpose(tf.gather(pixels, places.ravel()))


@functools.lru_cache(maxsize=8)
def _window_places(height: int, width: int, channels: int, size: int) -> np.ndarray:
    """Places in a flat padded image: ``(windows, size + 1, size + 1, channels)``, int32."""
    below, right, down, along, channel = np.ogrid[
        0:height:2, 0:width:2, 0 : size + 1, 0 : size + 1, 0:channels
    ]
    places = ((below + down) * (width + size - 1) + right + along) * channels + channel
    return places.reshape(-1, size + 1, size + 1, channels).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _patch_places(height: int, width: int, channels: int, size: int) -> np.ndarray:
    """The same of all patches: ``(4, windows, size, size, channels)``, int32."""
    windows = _window_places(height, width, channels, size)
    return np.stack([windows[:, a : a + size, b : b + size] for a in (0, 1) for b in (0, 1)])


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


def build_for(experiment: Experiment, dataset: Dataset) -> Network:
    """The network that a run trains, by :func:`build`, with the errors of that."""
    return build(
        experiment.model,
        dataset.image_shape,
        dataset.num_classes,
        experiment.prior_stddev,
        experiment.bayesian_layers,
        experiment.seed,
        experiment.dropout,
    )


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
def to_inputs(images: Tensor, dataset: Dataset) -> Tensor:
    """What networks are given: stored images as float32, scaled, minus the mean image if any.

    Args:
        images: ``(batch, height, width, channels)`` in the data set's own type.
        dataset: whose `scale` and `mean_image` apply.
    """
    inputs = tf.cast(images, tf.float32) * dataset.scale
    return inputs if dataset.mean_image is None else inputs - dataset.mean_image
