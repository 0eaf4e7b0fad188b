"""What is a Bayesian layer, and what is a network?

Rooms: `seeds` (stateless noise), `fast_ops` (the same values and gradients in less time), `patches`
(a convolution as matrix products), `layers` (Flipout, reparameterization, local reparameterization,
their deterministic twin), `networks` (the study's networks by name), `posterior` (what a trained
one is).
"""

from bnnlib.networks.fast_ops import normal_kl, plain
from bnnlib.networks.layers import (
    Deterministic,
    Draw,
    Flipout,
    Layer,
    LocalReparameterization,
    Reparameterization,
)
from bnnlib.networks.networks import Network, Posterior, Stage, build, build_for, summary, to_inputs
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
    "normal_kl",
    "plain",
    "standard_normal",
    "stream_key",
    "summary",
    "to_inputs",
]
