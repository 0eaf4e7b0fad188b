"""The methods that turn data into a posterior, by the names of the parameter `inference`."""

from __future__ import annotations

from collections.abc import Callable

from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import adam, ivon, swag
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
    _refuse_bayesian(experiment, network)
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


def _swag(experiment: Experiment, network: Network, num_train_examples: int) -> Method:
    _refuse_bayesian(experiment, network)
    if experiment.dropout:
        raise ExperimentError(
            f"dropout = {experiment.dropout}: not together with inference = 'swag', whose draws of "
            "all weights are the posterior: masks would be a second one; leave it at 0.0, or take "
            "inference: adam"
        )
    return swag.build(experiment)


def _refuse_bayesian(experiment: Experiment, network: Network) -> None:
    if any(layer.bayesian for layer in network.layers):
        twin = twin_of(experiment.model)
        raise ExperimentError(
            f"inference = {experiment.inference!r}: {experiment.model} has Bayesian layers, and "
            f"the posterior of {experiment.inference} is over the weights of a network without "
            f"them; take {'model: ' + twin if twin else 'its deterministic twin'}, or inference: "
            "adam"
        )


METHODS: dict[str, Callable[[Experiment, Network, int], Method]] = {
    "adam": _adam,
    "ivon": _ivon,
    "swag": _swag,
}

_NOT_WITH_IVON = {
    "dropout": "whose draws of all weights are the posterior: masks would be a second one",
    "kl_annealing_epochs": "whose draws are as wide as kl_weight says and would begin as one point",
    "posterior_stddev": "whose initial deviation is 1 / sqrt(N (ivon_h0 + delta))",
    "weight_decay": "which has the prior on all weights already",
}
