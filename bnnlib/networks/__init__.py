"""What is a Bayesian layer, and what is a network?

Rooms: `seeds` (stateless noise), `fast_ops` (the same values and gradients in less time), `patches`
(a convolution as matrix products), `graphs` (functions that run as graphs), `layers` (Flipout,
reparameterization, local reparameterization, their deterministic twin), `networks` (a network, and
the study's by name), `keras_layers` (what each Keras layer is here), `from_keras` (any Keras model
as a network), `reference` (the field's networks), `twin` (a posterior's start at its deterministic
twin), `builders` (the network that a name means), `posterior` (what a trained one is), `pruning`
(which of its weights can go), `pruned` (a network without them).
"""

from bnnlib.networks.builders import build, build_for
from bnnlib.networks.fast_ops import plain
from bnnlib.networks.from_keras import from_keras
from bnnlib.networks.graphs import graph
from bnnlib.networks.keras_layers import FilterResponseNormalization
from bnnlib.networks.layers import (
    Deterministic,
    Draw,
    Flipout,
    Layer,
    LocalReparameterization,
    Reparameterization,
)
from bnnlib.networks.networks import Network, Posterior, Stage, summary, to_inputs
from bnnlib.networks.patches import Windows
from bnnlib.networks.posterior import draw_probs
from bnnlib.networks.seeds import (
    INITIAL,
    PREDICTION,
    TRAINING,
    Tensor,
    standard_normal,
    stream_key,
)

__all__ = [
    "INITIAL",
    "PREDICTION",
    "TRAINING",
    "Deterministic",
    "Draw",
    "FilterResponseNormalization",
    "Flipout",
    "Layer",
    "LocalReparameterization",
    "Network",
    "Posterior",
    "Reparameterization",
    "Stage",
    "Tensor",
    "Windows",
    "build",
    "build_for",
    "draw_probs",
    "from_keras",
    "graph",
    "plain",
    "standard_normal",
    "stream_key",
    "summary",
    "to_inputs",
]
