"""Prunes the networks of finished runs and judges what is left: pruned, speed and units.csv.

    python -m jobs.local.prune runs/pruning figures/pruning

A case is a run's network at its end, pruned by one score at one share, and judged as the run's own
evaluation does: all test images, the run's draws (the same noise at every share), and near sets.
Each case appends a row when it is done; what is there already is passed over, so a measurement that
was stopped goes on. It takes about 1.4 CPU seconds a case of a dense network on MNIST.

pruned.csv: ``scope`` is what a share is taken of, all weights with a posterior (`global`) or each
layer's (`layer`); a twin's are the kernels that have a posterior in its Bayesian network.
``removed`` says what a removed weight is: `zero` in mean and deviation, or `trap`, mean and rho 0.
``of_a_draw`` is the mean accuracy of single draws. ``units`` and ``inputs`` are those left where
whole ones are taken out, ``bytes`` the file of what is left.

speed.csv: CPU seconds of predicting `images` test images by the run's draws: of the pruned network
as it was laid out (`whole`), without the units and inputs that no weight needs (`shrunk`), and of
the unpruned one (share 0); in turns, median and quartiles. `--only speed` makes it alone, and anew.

units.csv: a row a unit of each `BNN_FC_flip`'s first layer: the share at which the last of its
incoming weights goes by signal to noise (``goes_at``), that weight's ratio of |mean| to deviation
(``greatest``), the median of their deviations (``stddev``), its bias, and the largest size of the
weights that read it (``outgoing``). `--only units` makes it alone, and anew.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnnlib.data import Dataset, Inputs
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, evaluation
from bnnlib.inference.prediction import Predictor
from bnnlib.inference.restore import restore
from bnnlib.launch.here import forget_graphs
from bnnlib.metrics import HOLDOUT, TEST, Evaluation
from bnnlib.networks import Network, pruned, pruning
from bnnlib.record.schema import read_record
from jobs.bench import common

SHARES = (0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
KEYS = ("run", "scope", "by", "removed", "share")
COLUMNS = (
    *KEYS,
    *("weights", "units", "inputs", "bytes", "accuracy", "of_a_draw", "nll", "ece_debiased"),
    *("epistemic", "auroc_near", "cpu_seconds"),
)
NEAR = ["near"]
SNR = ("signal_to_noise",)
ORDER = [
    *(("BNN_FC_flip", "auto"), ("BNN_FC_flip", "all"), ("CNN_FC", "auto")),
    *(("BNN_FC_nonflip", "auto"), ("BNN_conv_flip", "auto")),
]
SPEED_SHARES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
# A convolution takes forty times as long.
SPEED_IMAGES, SPEED_ROUNDS = {"BNN_FC_flip": 2000, "BNN_conv_flip": 200}, 15


class Case(NamedTuple):
    """One pruning of one network; `by` is ``none`` at share 0."""

    scope: str = "global"
    by: str = "none"
    removed: str = "zero"
    share: float = 0.0


def cases(experiment: Experiment) -> Iterator[Case]:
    """The cases of a run, most valuable first.

    Every score is asked of `BNN_FC_flip` as the study has it; of the others only what is said of
    them: whether another estimator or a second Bayesian layer changes it.
    """
    yield Case()
    every = experiment.bayesian_layers == "all"
    zero: tuple[str, ...]
    trap: tuple[str, ...]
    by_layer: tuple[str, ...]
    if not experiment.model.startswith("BNN"):
        zero, trap, by_layer = pruning.POINT_SCORES, (), ()
    elif experiment.model == "BNN_FC_flip" and not every:
        zero, trap, by_layer = pruning.SCORES, SNR, ()
    else:
        zero, trap, by_layer = SNR, SNR, SNR if every else ()
    for scope, removed, scores in (
        ("global", "zero", zero[:1]),
        ("global", "trap", trap),
        ("layer", "zero", by_layer),
        ("global", "zero", zero[1:]),
    ):
        for by in scores:
            yield from (Case(scope, by, removed, share) for share in SHARES)


def prunable(network: Network) -> list[int]:
    """The numbers of the layers that are pruned: those with a posterior; of a twin, the first."""
    return [index for index, layer in enumerate(network.layers) if layer.bayesian] or [0]


def prune(experiment: Experiment, network: Network, case: Case) -> list[pruning.Weights]:
    """The network's weights after a case's pruning; the network stays as it is."""
    weights = pruned.weights_of(network)
    if case.share == 0:
        return weights
    layers = prunable(network)
    found = pruned.scores_of(network, layers, case.by, experiment.seed)
    stays = pruning.kept(found, case.share, case.scope == "layer")
    of_layer = dict(zip(layers, stays, strict=True))
    stddev = pruning.TRAP_STDDEV if case.removed == "trap" else 0.0
    return pruning.without(weights, [of_layer.get(i) for i in range(len(weights))], stddev)


def row_of(
    case: Case,
    experiment: Experiment,
    dataset: Dataset,
    network: Network,
    sets: Sequence[evaluation.Set],
) -> dict[str, Any]:
    """Prunes, judges, and says what is left."""
    started = time.process_time()
    weights = prune(experiment, network, case)
    network.posterior = pruned.PrunedPosterior(weights)
    try:
        judged = evaluation.evaluate(experiment, network, dataset, sets)
    finally:
        network.posterior = None
    left, inputs = pruning.shrunk(weights)
    layers = prunable(network)
    entries = sum(int(pruning.remaining(weights[index]).sum()) for index in layers)
    return case._asdict() | {
        "weights": entries,
        "units": left[0].mean["bias"].size,
        "inputs": inputs.size,
        "bytes": pruning.packed_bytes(weights),
        **scores(judged),
        "cpu_seconds": round(time.process_time() - started, 2),
    }


def scores(judged: Evaluation) -> dict[str, Any]:
    """What a row says of an evaluation, to six digits."""
    rows = {row["set"]: row for row in judged.rows}
    prediction, labels = judged.predictions[TEST]
    near = [row["auroc_entropy"] for row in rows.values() if row.get("ood_group") == "near"]
    assert prediction.votes is not None
    draws = prediction.votes.sum(axis=1, dtype=np.int64)[0]
    right = prediction.votes[np.arange(len(labels)), labels].mean() / draws
    found = {name: rows[TEST][name] for name in ("accuracy", "nll", "ece_debiased", "epistemic")}
    found |= {"of_a_draw": right, "auroc_near": float(np.mean(near)) if near else math.nan}
    return {name: f"{value:.6g}" for name, value in found.items()}


def judge(runs: Path, figures: Path) -> None:
    """Appends the rows that pruned.csv lacks of the runs below a folder."""
    path = figures / "pruned.csv"
    common.write_origin(path.with_suffix(".json"), runs=str(runs))
    done = common.rows_there(path, KEYS)
    for directory in finished(runs):
        name = directory.relative_to(runs).as_posix()
        experiment = Experiment.from_mapping(read_record(directory)["parameters"])
        left = [
            case
            for case in cases(experiment)
            if (name, *map(str, case[:3]), str(case.share)) not in done
        ]
        if not left:
            continue
        experiment, dataset, network = restore(directory)
        experiment = dataclasses.replace(
            experiment,
            ood_sets=NEAR,
            test_draws=experiment.test_draws if network.is_stochastic else 1,
        )
        sets = [one for one in evaluation.sets(experiment, dataset) if one.name != HOLDOUT]
        for case in left:
            row = {"run": name} | row_of(case, experiment, dataset, network, sets)
            common.append_rows(path, [row], COLUMNS)
        print(f"{name}: {len(left)} cases", flush=True)
        forget_graphs()


def finished(runs: Path) -> list[Path]:
    """The finished runs below a folder, a network after another and seed by seed.

    So a stop leaves whole seeds, of the networks that are asked most.
    """
    found = [file.parent for file in sorted(runs.rglob("run.json"))]
    records = {directory: read_record(directory) for directory in found}
    done = [one for one in found if records[one]["status"] == "finished"]
    places = {}
    for directory in done:
        parameters = records[directory]["parameters"]
        which = parameters["model"], parameters["bayesian_layers"]
        known = ORDER.index(which) if which in ORDER else len(ORDER)
        places[directory] = known, parameters["seed"]
    return sorted(done, key=lambda directory: places[directory])


# --- Time ----------------------------------------------------------------------------------------


def speeds(runs: Path, figures: Path) -> None:
    """Times what a network with Flipout in its first layer needs to predict; seed 0."""
    rows = []
    for directory in finished(runs):
        experiment = Experiment.from_mapping(read_record(directory)["parameters"])
        if experiment.model in SPEED_IMAGES and experiment.seed == 0:
            rows += speed_of(directory, directory.relative_to(runs).as_posix())
            forget_graphs()
    common.write_table(figures / "speed.csv", rows)
    common.write_origin(figures / "speed.json", runs=str(runs))


def speed_of(directory: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one run: each share by signal to noise, whole and shrunk, and share 0."""
    experiment, dataset, network = restore(directory)
    images = dataset.x_test[: SPEED_IMAGES[experiment.model]]
    ways: dict[tuple[float, str], Any] = {}
    for share in (0.0, *SPEED_SHARES):
        by = "signal_to_noise" if share else "none"
        weights = prune(experiment, network, Case("global", by, "zero", share))
        left, inputs = pruning.shrunk(weights)
        ways[share, "whole"] = _way(experiment, network, dataset, weights, None)
        if share:
            ways[share, "shrunk"] = _way(experiment, network, dataset, left, inputs)
    seconds: dict[tuple[float, str], list[float]] = {key: [] for key in ways}
    for turn in range(SPEED_ROUNDS + 1):
        for key, way in ways.items():
            started = time.process_time()
            way(images)
            if turn:  # the first traces the graph
                seconds[key].append(time.process_time() - started)
    return [
        {"run": name, "share": share, "way": way, "images": len(images)}
        | {"draws": experiment.test_draws, "rounds": SPEED_ROUNDS}
        | dict(
            zip(
                ("quarter", "median", "three_quarters"),
                (f"{one:.5g}" for one in statistics.quantiles(taken, n=4)),
                strict=True,
            )
        )
        for (share, way), taken in seconds.items()
    ]


def _way(
    experiment: Experiment,
    network: Network,
    dataset: Dataset,
    weights: Sequence[pruning.Weights],
    places: np.ndarray | None,
) -> Any:
    """What predicts images by these weights, of the pixels at `places` alone."""
    own = network_with(network, weights)
    if not network.is_dense:
        places = None  # of a convolution: channels, and MNIST has but one
    inputs = dataset.inputs if places is None else inputs_at(dataset.inputs, places)
    predictor = Predictor(own, inputs, experiment.test_draws, experiment.seed)

    def way(images: np.ndarray) -> None:
        predictor(images if places is None else images_at(images, places))

    return way


def network_with(network: Network, weights: Sequence[pruning.Weights]) -> Network:
    """The network with a posterior of its own; its layers are shared and take any shape."""
    own = copy.copy(network)
    own.posterior = pruned.PrunedPosterior(weights)
    return own


def images_at(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The pixels at `places` of each image, as an image of one row."""
    return images.reshape(len(images), -1)[:, places].reshape(len(images), 1, -1, 1)


def inputs_at(inputs: Inputs, places: np.ndarray) -> Inputs:
    """What describes :func:`images_at`."""
    mean = None if inputs.mean_image is None else images_at(inputs.mean_image[None], places)[0]
    return dataclasses.replace(inputs, image_shape=(1, places.size, 1), mean_image=mean)


# --- Units ---------------------------------------------------------------------------------------


def units(runs: Path, figures: Path) -> None:
    """Says of each unit of the networks with Flipout and one Bayesian layer why it goes."""
    rows = []
    for directory in finished(runs):
        parameters = read_record(directory)["parameters"]
        if (parameters["model"], parameters["bayesian_layers"]) == ("BNN_FC_flip", "auto"):
            name = directory.relative_to(runs).as_posix()
            _, _, network = restore(directory)
            rows += [{"run": name} | row for row in units_of(pruned.weights_of(network))]
            forget_graphs()
    common.write_table(figures / "units.csv", rows)
    common.write_origin(figures / "units.json", runs=str(runs))


def units_of(weights: Sequence[pruning.Weights]) -> list[dict[str, Any]]:
    """The rows of one network: of the units of its first layer, read by its second."""
    first, second = weights[:2]
    assert first.stddev is not None
    (ratios,) = pruning.scores(*SNR, [first.mean["kernel"]], [first.stddev], [1.0])
    greatest = ratios.max(axis=0)
    values = {
        "goes_at": [(ratios <= one).mean() for one in greatest],
        "greatest": greatest,
        "stddev": np.median(first.stddev, axis=0),
        "bias": first.mean["bias"],
        "outgoing": np.abs(second.mean["kernel"]).max(axis=1),
    }
    return [
        {"unit": unit} | {name: f"{column[unit]:.6g}" for name, column in values.items()}
        for unit in range(greatest.size)
    ]


def main() -> int:
    """Prunes what is below one folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of runs, such as runs/pruning")
    parser.add_argument("figures", type=Path, help="folder of the tables")
    parser.add_argument("--only", choices=["pruned", "speed", "units"], help="this table alone")
    arguments = parser.parse_args()
    distributed.set_threads()
    arguments.figures.mkdir(parents=True, exist_ok=True)
    steps = {"pruned": judge, "speed": speeds, "units": units}
    try:
        for name, step in steps.items():
            if arguments.only in (None, name):
                step(arguments.runs, arguments.figures)
    except BnnlibError as error:
        print(f"prune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
