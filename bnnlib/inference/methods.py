"""The methods that turn data into a posterior, by the names of the parameter `inference`."""

from __future__ import annotations

from collections.abc import Callable

from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import adam, ivon
from bnnlib.inference.state import Method
from bnnlib.names import twin_of
from bnnlib.networks import Network


def build_for(experiment: Experiment, network: Network, num_train_examples: int) -> Method:
    """The method that a run trains its network by.

    Raises:
        ExperimentError: the method cannot train this network, or not with these parameters.
    """
    return METHODS[experiment.inference](experiment, network, num_train_examples)


def _adam(experiment: Experiment, network: Network, num_train_examples: int) -> Method:
    return adam.build(experiment.rho_rate)


def _ivon(experiment: Experiment, network: Network, num_train_examples: int) -> Method:
    if any(layer.bayesian for layer in network.layers):
        twin = twin_of(experiment.model)
        raise ExperimentError(
            f"inference = 'ivon': {experiment.model} has Bayesian layers, and IVON's posterior is "
            "over the weights of a network without them; take "
            f"{'model: ' + twin if twin else 'its deterministic twin'}, or inference: adam"
        )
    for name, why in _NOT_WITH_IVON.items():
        value, default = getattr(experiment, name), getattr(Experiment(), name)
        if value != default:
            raise ExperimentError(
                f"{name} = {value!r}: not together with inference = 'ivon', {why}; leave it at "
                f"{default!r}, or take inference: adam"
            )
    return ivon.build(
        num_train_examples,
        experiment.prior_stddev,
        experiment.kl_weight,
        experiment.ivon_h0,
        experiment.ivon_beta2,
    )


METHODS: dict[str, Callable[[Experiment, Network, int], Method]] = {"adam": _adam, "ivon": _ivon}

_NOT_WITH_IVON = {
    "dropout": "whose draws of all weights are the posterior: masks would be a second one",
    "kl_annealing_epochs": "whose draws are as wide as kl_weight says and would begin as one point",
    "posterior_stddev": "whose initial deviation is 1 / sqrt(N (ivon_h0 + delta))",
    "weight_decay": "which has the prior on all weights already",
}
