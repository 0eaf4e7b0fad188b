"""The network that a name means: the study's, one of the field's, or a user's own function."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tf_keras

from bnnlib.data import Dataset, Inputs
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment, unknown_name
from bnnlib.names import ALL_MODELS, MODELS, twin_of
from bnnlib.networks import networks, reference, twin
from bnnlib.networks.from_keras import ESTIMATOR_PARTS, from_keras
from bnnlib.networks.networks import Network
from bnnlib.record import source

Shape = tuple[int, int, int]


def build(
    name: str,
    image_shape: Shape,
    num_classes: int,
    prior_stddev: float = 1.0,
    bayesian_layers: str | Sequence[str] = "auto",
    seed: int = 0,
    dropout: float = 0.0,
    posterior_stddev: float = 0.0,
    weight_decay: str = "none",
    estimator: str = "auto",
    init_from: str = "",
    init_scale: float = 0.1,
    own: Mapping[str, str] | None = None,
) -> Network:
    """The network `name` with its initial weights.

    Args:
        name: one of :data:`bnnlib.names.ALL_MODELS`, or a user's own function
            (:mod:`bnnlib.record.source`).
        image_shape: ``(height, width, channels)``.
        num_classes: number of logits.
        prior_stddev: standard deviation of the normal prior on each kernel entry.
        bayesian_layers: as of :func:`bnnlib.networks.from_keras.from_keras`; ``auto`` is ``first``
            for the study's small networks, else ``all``.
        seed: seed of the initial weights; the same seed gives bitwise the same weights.
        dropout: rate before each dense layer after the first layer, of the study's deterministic
            networks only.
        posterior_stddev: of the initial posterior; 0: TFP's, softplus(-3) or about 0.05.
        weight_decay: ``prior`` puts the prior on a deterministic network's kernels.
        estimator: ``flipout``, ``reparameterization`` or ``local``, of a user's own network;
            ``auto`` is ``flipout`` there. A network of this library says its own in its name.
        init_from: folder of a finished run of the deterministic twin, where the posterior starts
            (MOPED); ``model``: a user's own network at its own weights; empty: neither.
        init_scale: initial deviations as a share of the weights' size, with `init_from`.
        own: the file of a user's function; read now if not given.

    Returns:
        The network.

    Raises:
        ExperimentError: no such network, or arguments that contradict it or one another.
        RecordError: `init_from` names no finished run.
    """
    if source.is_own(name) or name not in MODELS:
        if dropout > 0:
            raise ExperimentError(
                f"dropout = {dropout}: {name} is a Keras model; put Dropout layers into it (here "
                "they draw masks at prediction, too), or take one of the study's networks"
            )
        options: dict[str, Any] = {
            "bayesian_layers": "all" if bayesian_layers == "auto" else bayesian_layers,
            "prior_stddev": prior_stddev,
            "init_from": init_from or None,
            "init_scale": init_scale,
            "posterior_stddev": posterior_stddev,
            "weight_decay": weight_decay,
            "seed": seed,
        }
    if source.is_own(name):
        made = own_model(name, image_shape, num_classes, seed, own)
        flipout = "flipout" if estimator == "auto" else estimator
        return from_keras(made, estimator=flipout, **options)
    if name not in ALL_MODELS:
        raise ExperimentError(unknown_name(name, list(ALL_MODELS), "model"))
    _refuse_contradiction(name, estimator, init_from)
    if name not in MODELS:
        _, _, rest = name.partition("_")
        architecture, _, part = rest.rpartition("_") if twin_of(name) else (rest, "", "")
        if not part:
            options["bayesian_layers"] = "none"
        with seeded(seed):
            made = reference.MODELS[architecture](image_shape, num_classes)
        by_part = {part: estimator for estimator, part in ESTIMATOR_PARTS.items()}
        return from_keras(made, estimator=by_part.get(part, "flipout"), **options)
    network = networks.build(
        name,
        image_shape,
        num_classes,
        prior_stddev,
        bayesian_layers,
        seed,
        dropout,
        posterior_stddev,
        weight_decay,
    )
    if init_from:
        twin.start_at(network, twin.weights_of(init_from), init_scale)
    return network


def build_for(
    experiment: Experiment,
    dataset: Dataset | Inputs,
    own: Mapping[str, str] | None = None,
    start: bool = True,
) -> Network:
    """Builds the network that a run trains; raises the errors of :func:`build`.

    Args:
        experiment: of the run.
        dataset: whose images it is for, or what a record holds of them.
        own: the file of a user's function; read now if not given.
        start: whether the posterior starts where `init_from` says; without need where trained
            weights are loaded next.
    """
    chosen: Any = experiment.bayesian_layers
    if (
        chosen == "auto"
        and experiment.inference in ("ivon", "swag")
        and source.is_own(experiment.model)
    ):
        chosen = "none"  # its posterior is over the weights of a network without Bayesian layers
    return build(
        experiment.model,
        dataset.image_shape,
        dataset.num_classes,
        experiment.prior_stddev,
        chosen,
        experiment.seed,
        experiment.dropout,
        experiment.posterior_stddev,
        experiment.weight_decay,
        experiment.estimator,
        experiment.init_from if start else "",
        experiment.init_scale,
        own,
    )


def own_model(
    name: str,
    image_shape: Shape,
    num_classes: int,
    seed: int,
    own: Mapping[str, str] | None = None,
) -> tf_keras.Model:
    """The Keras model that a user's function makes.

    Args:
        name: ``path/to/file.py:function`` or ``package.module:function``.
        image_shape: ``(height, width, channels)``.
        num_classes: number of logits.
        seed: of its initial weights.
        own: of :func:`bnnlib.record.source.read`; read now if not given.

    Raises:
        ExperimentError: the function is missing or raises, or the model is not for these images.
    """
    own = own or source.read(name)
    assert own is not None
    function: Callable[..., Any] = source.function_of(own, name)
    with seeded(seed):
        try:
            model = function(image_shape, num_classes)
        except Exception as error:
            raise ExperimentError(
                f"model = {name!r}: {own['function']}({image_shape}, {num_classes}) raised "
                f"{source.told(error)}"
            ) from error
        if isinstance(model, tf_keras.Sequential) and not model.built:
            model.build((None, *image_shape))
    if isinstance(model, tf_keras.Model) and model._is_graph_network:
        for what, found, expected in (
            ("inputs", model.input_shape, (None, *image_shape)),
            ("outputs", model.output_shape, (None, num_classes)),
        ):
            if found != expected:
                raise ExperimentError(
                    f"model = {name!r}: {own['function']} returned a model with {what} of shape "
                    f"{found}, expected {expected}: use its arguments image_shape and num_classes"
                )
    return model


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes Keras' initial weights and layer names those of `seed`, whatever was made before.

    Python's and NumPy's global generators are as before afterwards.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - what Keras seeds, too
    tf_keras.backend.reset_uids()
    tf_keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _refuse_contradiction(name: str, estimator: str, init_from: str) -> None:
    if estimator != "auto" and not name.endswith(f"_{ESTIMATOR_PARTS[estimator]}"):
        raise ExperimentError(
            f"estimator = {estimator!r}: {name} says its estimator in its name; take another name "
            "(bnnlib.names.ALL_MODELS), or auto"
        )
    if init_from == "model":
        raise ExperimentError(
            f"init_from = 'model': {name} has no trained weights of its own; name the folder of a "
            "finished run of its deterministic twin"
        )
