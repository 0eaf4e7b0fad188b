"""Any Keras model as a network: its graph, with Bayesian layers in place of Keras' own.

The model's layers are walked in the order in which Keras runs them. Each layer with weights becomes
one of this library's (:mod:`bnnlib.networks.keras_layers` says which), the others stay functions;
so every estimator, posterior and method of training works on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from bnnlib.errors import ExperimentError
from bnnlib.networks import keras_layers, twin
from bnnlib.networks.fast_ops import plain
from bnnlib.networks.keras_layers import Scaling
from bnnlib.networks.layers import Deterministic, Draw, Layer, Reparameterization, dropout
from bnnlib.networks.networks import ESTIMATORS, Network, chosen
from bnnlib.networks.seeds import DRAWS_PER_LAYER, INITIAL, MASK, Tensor, stream_key, substream

# The estimators by their own names; the study's networks have them as a part of theirs.
ESTIMATOR_PARTS = {"flipout": "flip", "reparameterization": "nonflip", "local": "local"}


Arguments = tuple[list[Any], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor of the graph is made: which node makes it, and which of its outputs it is."""

    node: int
    output: int = 0


class Node(NamedTuple):
    """One step of the graph.

    Attributes:
        arguments: positional and by name, a :class:`Place` for each tensor.
        function: what is called with them; None for a layer with weights and for dropout.
        number: of the layer with weights, or of the dropout, among its like.
        rate: of the dropout; 0 for everything else.
    """

    arguments: Arguments
    function: Callable[..., Any] | None = None
    number: int = 0
    rate: float = 0.0


class GraphNetwork(Network):
    """A network whose forward pass is a graph of layers and plain functions.

    Dropout is Monte Carlo dropout, at prediction as in training (Gal and Ghahramani 2016), and can
    stand beside Bayesian layers. A layer that the graph has in several places has the same draw in
    all of them.

    Attributes:
        nodes: in an order in which they can run; node 0 is the images.
        output: where the logits are made.
    """

    def __init__(
        self, name: str, nodes: list[Node], output: Place, layers: list[Layer], num_classes: int
    ) -> None:
        super().__init__(name, [], layers, max([node.rate for node in nodes], default=0.0))
        self.nodes, self.output, self._num_classes = nodes, output, num_classes

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self._num_classes

    @property
    def is_dense(self) -> bool:
        """Whether no layer is a convolution."""
        return all(len(layer.kernel_shape) in (0, 2) for layer in self.layers)

    def unfolds(self, images: Tensor) -> bool:
        """False: no layer works on the images' patches."""
        return False

    @plain
    def __call__(
        self, images: Tensor, seeds: Tensor, stddevs: list[Tensor | None] | None = None
    ) -> Tensor:
        """Logits of one training draw; see :meth:`Network.__call__`."""
        stddevs = self.stddevs() if stddevs is None else stddevs
        seeded = list(self._seeded(seeds))

        def run(index: int, x: Tensor) -> Tensor:
            layer, its_seeds = seeded[index]
            if isinstance(layer, Scaling):
                return layer.function(x, layer.weights)
            return _with_bias(layer(x, its_seeds, stddevs[index]), layer.bias)

        return self._run(images, run, seeds)

    @plain
    def logits(self, images: Tensor, draw: Sequence[Draw], mask_seed: Tensor) -> Tensor:
        """Logits of a training batch under one given draw; see :meth:`Network.logits`."""
        return self.predict(images, draw, mask_seed)

    @plain
    def predict(
        self, images: Tensor, draw: Sequence[Draw], mask_seed: Tensor | None = None
    ) -> Tensor:
        """Logits under one weight draw that all images share; see :meth:`Network.predict`."""

        def run(index: int, x: Tensor) -> Tensor:
            layer, weights = self.layers[index], draw[index]
            if isinstance(layer, Scaling):
                return layer.function(x, weights)
            return _with_bias(layer.apply(x, weights["kernel"]), weights.get("bias"))

        return self._run(images, run, mask_seed)

    def _run(
        self, images: Tensor, layer: Callable[[int, Tensor], Tensor], mask_seed: Tensor | None
    ) -> Tensor:
        """The graph's output, each layer with weights computed by `layer`, given its number."""
        values: list[list[Any]] = [[images]]

        def value(argument: Any) -> Any:
            if isinstance(argument, Place):
                return values[argument.node][argument.output]
            return argument

        for node in self.nodes[1:]:
            arguments, named = tf.nest.map_structure(value, node.arguments)
            if node.function is not None:
                made = node.function(*arguments, **named)
            elif node.rate == 0:
                made = layer(node.number, arguments[0])
            elif mask_seed is None:
                made = arguments[0]
            else:  # a seed behind those of all layers
                use = (len(self.layers) + node.number) * DRAWS_PER_LAYER + MASK
                made = dropout(arguments[0], node.rate, substream(mask_seed, use))
            values.append(tf.nest.flatten(made))
        return values[self.output.node][self.output.output]


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else tf.nn.bias_add(x, bias)


def from_keras(
    model: tf_keras.Model,
    bayesian_layers: str | Sequence[str] = "all",
    estimator: str = "flipout",
    prior_stddev: float = 1.0,
    init_from: str | Path | None = None,
    init_scale: float = 0.1,
    posterior_stddev: float = 0.0,
    weight_decay: str = "none",
    seed: int = 0,
) -> Network:
    """A Keras model as a network with posteriors over its kernels.

    Args:
        model: Sequential or functional, of one input ``(batch, height, width, channels)`` and one
            output, the logits ``(batch, num_classes)``. It is left as it is.
        bayesian_layers: ``none``, ``first``, ``last`` or ``all`` of the layers with a kernel, or
            the names of some.
        estimator: ``flipout``, ``reparameterization`` or ``local``, of all Bayesian layers.
        prior_stddev: standard deviation of the normal prior on each kernel entry.
        init_from: where the posterior starts. None: its means at the model's weights, its
            deviations as `posterior_stddev` says. ``model``: the deviations too, a share
            `init_scale` of each weight's size (MOPED, Krishnan et al. 2020). A path: the same from
            the weights of that finished deterministic run.
        init_scale: see `init_from`.
        posterior_stddev: of the initial posterior; 0: TFP's, softplus(-3) or about 0.05.
        weight_decay: ``prior`` puts the prior on every kernel that has no posterior; ``none`` puts
            it on none.
        seed: of the initial deviations; the same seed gives bitwise the same.

    Returns:
        The network. Its layers have the names of the model's; its weights are called
        ``layer<i>/…`` in the order in which Keras runs the layers.

    Raises:
        ExperimentError: a layer or an option of it has no meaning here (with its name, the reason
            and the alternative), the model is no such graph, or an argument is none of the above.
    """
    if estimator not in ESTIMATOR_PARTS:
        raise ExperimentError(
            f"estimator = {estimator!r}: expected one of {', '.join(ESTIMATOR_PARTS)}"
        )
    graph = _Graph()
    output = graph.walk(_checked(model), [Place(0)])[0]
    _refuse_probabilities(model, graph.last)
    kernels = [index for index, part in enumerate(graph.parts) if part.kernel is not None]
    if not kernels:
        raise ExperimentError(f"model {model.name!r} has no layer with a kernel to train")
    numbers = chosen(bayesian_layers, [graph.parts[index].name for index in kernels])
    bayesian = {kernels[number] for number in numbers}
    layers: list[Layer] = []
    for index, part in enumerate(graph.parts):
        key = tf.constant([stream_key(seed, INITIAL), index], tf.int64)
        if part.kernel is None or part.operation is None:
            layers.append(Scaling(part.name, part.weights, part.scaling))
            continue
        shape = part.kernel.shape
        if index in bayesian:
            kind: type[Reparameterization] = ESTIMATORS[ESTIMATOR_PARTS[estimator]]
            layers.append(
                kind(part.name, shape, key, prior_stddev, posterior_stddev, part.operation)
            )
        else:
            decay = prior_stddev if weight_decay == "prior" else None
            layers.append(Deterministic(part.name, shape, key, decay, part.operation))
    network = GraphNetwork(model.name, graph.nodes, output, layers, int(model.output_shape[-1]))
    weights = {
        f"layer{index}/{name}": value
        for index, part in enumerate(graph.parts)
        for name, value in part.all_weights().items()
    }
    if init_from is None:
        twin.start_at(network, weights)
    else:
        own = str(init_from) == "model"
        twin.start_at(network, weights if own else twin.weights_of(init_from), init_scale)
    return network


class _Part(NamedTuple):
    """A layer with weights, as it is in the Keras model."""

    name: str
    kernel: np.ndarray | None
    weights: dict[str, np.ndarray]
    operation: keras_layers.Operation | None = None
    scaling: Any = None  # a function of inputs and weights, where there is no kernel

    def all_weights(self) -> dict[str, np.ndarray]:
        return self.weights | ({} if self.kernel is None else {"kernel": self.kernel})


class _Graph:
    """What a walk over a model collects."""

    def __init__(self) -> None:
        self.nodes: list[Node] = [Node(([], {}))]  # the images
        self.parts: list[_Part] = []
        self.last: Any = None  # the Keras layer that was met last
        self._numbers: dict[int, list[int]] = {}  # of a Keras layer's parts, by its id
        self._masks = 0

    def walk(self, model: Any, inputs: list[Place]) -> list[Place]:
        """Appends a model's nodes; the places of its outputs, given those of its inputs."""
        places = {id(tensor): place for tensor, place in zip(model.inputs, inputs, strict=True)}

        def place_of(argument: Any) -> Any:
            return places.get(id(argument), argument)

        # The order in which Keras runs them, by depth.
        depths = sorted(model._nodes_by_depth.items(), reverse=True)
        for keras_node in (node for _, nodes in depths for node in nodes):
            if keras_node.is_input:
                continue
            arguments = tf.nest.map_structure(
                place_of, (list(keras_node.call_args), dict(keras_node.call_kwargs))
            )
            tensors = tf.nest.flatten(keras_node.outputs)
            made = self._add(keras_node.layer, arguments, len(tensors))
            places |= {id(tensor): place for tensor, place in zip(tensors, made, strict=True)}
        return [places[id(tensor)] for tensor in model.outputs]

    def _add(self, layer: Any, arguments: Arguments, outputs: int) -> list[Place]:
        """Appends the nodes of one call of a Keras layer; the places of its outputs."""
        inputs = [place for place in tf.nest.flatten(arguments) if isinstance(place, Place)]
        if isinstance(layer, tf_keras.Model):
            return self.walk(_checked(layer), inputs)
        keras_layers.check(layer)
        self.last = layer
        if type(layer) is tf_keras.layers.Dropout:
            if layer.rate > 0:
                inputs = [self._append(Node((inputs, {}), None, self._masks, float(layer.rate)))]
                self._masks += 1
            return inputs
        if type(layer) not in (*keras_layers.KERNELS, *keras_layers.SCALINGS):
            node = self._append(Node(arguments, layer.call)).node
            return [Place(node, output) for output in range(outputs)]
        for number in self._parts_of(layer):
            inputs = [self._append(Node((inputs, {}), None, number))]
        activation = getattr(layer, "activation", None)
        if activation not in (None, tf_keras.activations.linear):
            inputs = [self._append(Node((inputs, {}), activation))]
        return inputs

    def _append(self, node: Node) -> Place:
        self.nodes.append(node)
        return Place(len(self.nodes) - 1)

    def _parts_of(self, layer: Any) -> list[int]:
        """The numbers of the layers that a Keras layer with weights becomes, once each."""
        if id(layer) not in self._numbers:
            first = len(self.parts)
            self.parts += _parts(layer)
            self._numbers[id(layer)] = list(range(first, len(self.parts)))
        return self._numbers[id(layer)]


def _parts(layer: Any) -> list[_Part]:
    of_class = type(layer)
    if of_class in keras_layers.SCALINGS:
        weights = {
            variable.name.split(":")[0].split("/")[-1]: variable.numpy()
            for variable in layer.weights
        }
        scaling = keras_layers.SCALINGS[of_class](layer)
        return [_Part(layer.name, None, weights, scaling=scaling)]
    return [
        _Part(
            layer.name,
            getattr(layer, part.kernel).numpy(),
            {"bias": layer.bias.numpy()} if part.operation.has_bias else {},
            part.operation,
        )
        for part in keras_layers.KERNELS[of_class](layer)
    ]


def _checked(model: Any) -> Any:
    """The model itself, if it is a graph of one input and one output."""
    if not isinstance(model, tf_keras.Model):
        raise ExperimentError(
            f"a {type(model).__module__}.{type(model).__name__} is no model of Keras 2: return a "
            "Sequential or functional model of tf_keras (or of tf.keras, which is the same here)"
        )
    if not model._is_graph_network:
        why = (
            "it does not know its input's shape: give its first layer input_shape=(height, width, "
            "channels)"
            if isinstance(model, tf_keras.Sequential)
            else "a subclassed model has no graph to convert: write it as a Sequential or "
            "functional model"
        )
        raise ExperimentError(f"model {model.name!r} ({type(model).__name__}) is refused: {why}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExperimentError(
            f"model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} "
            "outputs, expected one of each: images and logits"
        )
    return model


def _refuse_probabilities(model: Any, last: Any) -> None:
    """Refuses a model that ends in probabilities, where the loss expects logits."""
    of_last = getattr(last, "activation", None)
    operation = str(getattr(last, "symbol", ""))  # of TensorFlow, as tf.nn.softmax
    if (
        isinstance(last, tf_keras.layers.Softmax)
        or of_last in (tf_keras.activations.softmax, tf_keras.activations.sigmoid)
        or operation.endswith(("softmax", "sigmoid"))
    ):
        raise ExperimentError(
            f"model {model.name!r} ends in probabilities, by its last layer {last.name!r}; "
            "expected logits: leave the softmax out"
        )
    if len(model.output_shape) != 2:
        raise ExperimentError(
            f"model {model.name!r} has outputs of shape {model.output_shape}, expected logits "
            "(None, num_classes): end it in Flatten or a pooling, then Dense"
        )
