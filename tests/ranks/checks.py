"""What every rank sees, written to ``<folder>/rank<rank>.json`` for tests/test_distributed.py.

Usage: ``mpiexec -n 2 python tests/ranks/checks.py <folder>``. One start does many checks, since a
start costs the import of TensorFlow on every rank. ``checks.py <folder> virtual`` trains virtual
ranks alone.
"""

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib import data, launcher, networks, process
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, laplace, prediction
from bnnlib.inference.trainer import DivergedError, Trainer
from bnnlib.session import Session

# isort: split
import tensorflow as tf

GLOBAL_BATCH = 16
NO_WIDTH = -200.0  # of rho: a draw is the mean, and ranks' noise plays no part


def digest(*arrays):
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


def digest_of(weights):
    return digest(*(weights[name] for name in sorted(weights)))


def error_of(action):
    """What `action` raises, as text; None if it does not."""
    try:
        action()
    except BnnlibError as error:
        return f"{type(error).__name__}: {error}"
    return None


def refuse(where, ranks):
    """An action that fails on the ranks `where` and gives 10 times the rank on others."""

    def action():
        if ranks.rank in where:
            raise ExperimentError(f"no cake on {ranks.rank}")
        return 10 * ranks.rank

    return action


def check_start(ranks):
    return {
        "ranks": dataclasses.asdict(ranks),
        "launcher": [launcher.name(), launcher.rank(), launcher.size()],
        "controller": distributed.build_info().get("controller"),
        "intra_threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }


def check_collectives(ranks):
    numbers = np.random.default_rng(0).normal(size=(ranks.size, 3, 2)).astype(np.float32)
    own = tf.constant(numbers[ranks.rank])
    in_graph = tf.function(lambda tensor: distributed.average(tensor, "graph"))
    variables = [tf.Variable(own), tf.Variable(ranks.rank + 5, dtype=tf.int64)]
    distributed.broadcast(variables, "check")
    return {
        "numpy_mean": numbers.mean(axis=0).tolist(),
        "average": distributed.average(own, "eager").numpy().tolist(),
        "average_in_graph": in_graph(own).numpy().tolist(),
        "average_fp16": distributed.average(own, "half", "fp16").numpy().tolist(),
        "scalar": float(distributed.average(tf.constant(float(ranks.rank)), "scalar")),
        "gathered": distributed.gather({"rank": ranks.rank, "text": "ä" * ranks.rank}),
        "broadcast_is_rank_0s": bool((variables[0].numpy() == numbers[0]).all())
        and int(variables[1].numpy()) == 5,
    }


def check_agreement(ranks, folder):
    last = ranks.size - 1
    calls = folder / "calls.txt"

    def call():
        with calls.open("a") as file:
            file.write(f"start {ranks.rank}\n")
        if ranks.local_rank == 0:
            time.sleep(0.3)  # the others would overtake it if they did not wait
        with calls.open("a") as file:
            file.write(f"end {ranks.rank}\n")
        return f"value {ranks.rank}"

    returned = distributed.on_first_local_rank(call, ranks)
    return {
        "fine": distributed.agree(refuse([], ranks)),
        "one": error_of(lambda: distributed.agree(refuse([last], ranks))),
        "all": error_of(lambda: distributed.agree(refuse(range(ranks.size), ranks))),
        "again": distributed.agree(refuse([], ranks)),
        "first_local": returned,
        "first_local_fails": error_of(
            lambda: distributed.on_first_local_rank(refuse([0], ranks), ranks)
        ),
        "other_local_fails": error_of(
            lambda: distributed.on_first_local_rank(refuse([last], ranks), ranks)
        ),
    }


def check_equality(ranks):
    """Weights that are the same on all ranks, and that differ in the last bit on the last one."""
    same = {"layer0/mean": np.ones(3, np.float32), "adam1/0": np.zeros(2, np.float32)}
    other = dict(same)
    if ranks.rank == ranks.size - 1 > 0:
        other["layer0/mean"] = np.nextafter(same["layer0/mean"], np.float32(2))
    return {
        "same": error_of(lambda: distributed.refuse_difference(same)),
        "other": error_of(lambda: distributed.refuse_difference(other)),
    }


def trainer_of(dataset, ranks, network_seed=0, network=None, **parameters):
    experiment = Experiment(
        **{"batch_size": 8, "steps": 9, "log_every": 2, "model": "BNN_FC_flip"} | parameters
    )
    network = network or networks.build(
        experiment.model,
        dataset.image_shape,
        dataset.num_classes,
        prior_stddev=experiment.prior_stddev,
        seed=network_seed,
    )
    return Trainer(experiment, dataset, network, ranks)


def check_training(ranks, noise_streams):
    dataset = data.load("tiny")
    # Every rank builds another network; the trainer makes them rank 0's.
    built = networks.build("BNN_FC_flip", dataset.image_shape, 10, seed=ranks.rank)
    result = {"built": digest_of(built.weights())}
    trainer = trainer_of(dataset, ranks, network=built, noise_streams=noise_streams)
    result["initial"] = digest_of(built.weights())
    result["is_rank_0s"] = result["initial"] == digest_of(
        networks.build("BNN_FC_flip", dataset.image_shape, 10, seed=0).weights()
    )
    key = trainer.virtual_ranks.keys[0]
    result["noise"] = digest(
        *(draw["kernel"] for draw in built.sample(tf.constant([key, 0], tf.int64)))
    )
    lines = [dataclasses.asdict(line) for line in trainer.run(until=lambda: trainer.step == 6)]
    result["lines"] = [
        {name: line[name] for name in ("step", "epoch", "loss", "nll", "kl", "learning_rate")}
        for line in lines
    ]
    state = trainer.state()
    result["trained"] = digest_of(state)
    list(trainer.run())
    result["uninterrupted"] = digest_of(trainer.state())
    return result, state


def check_resumption(ranks, state):
    dataset = data.load("tiny")
    # Rank 0 alone restores a checkpoint; the others hold something else until the broadcast.
    resumed = trainer_of(dataset, ranks, network_seed=7)
    if ranks.rank == 0:
        resumed.restore(state)
    resumed.broadcast()
    result = {"restored": digest_of(resumed.state())}
    list(resumed.run())
    result["resumed"] = digest_of(resumed.state())
    return result


def train_without_noise(ranks, folder):
    """A network without noise, trained on the same global batches whatever the number of ranks."""
    dataset = data.load("tiny")
    # A narrow prior, so that a KL scaled by the number of ranks would show.
    network = networks.build("BNN_FC_flip", dataset.image_shape, 10, prior_stddev=0.1, seed=3)
    network.layers[0].rho.assign(tf.fill(network.layers[0].rho.shape, NO_WIDTH))
    trainer = trainer_of(
        dataset,
        ranks,
        network=network,
        batch_size=GLOBAL_BATCH // ranks.size,
        learning_rate_scaling="none",
        log_every=8,
        steps=8,
    )
    (line,) = trainer.run()
    np.savez(
        folder / f"without_noise{ranks.rank}.npz",
        losses=np.array([line.loss, line.nll]),
        **network.weights(),
    )


# IVON whose second derivatives move within 50 steps.
IVON = {"inference": "ivon", "learning_rate": 0.1, "ivon_h0": 0.1, "ivon_beta2": 0.99}
# What trains on virtual ranks: every estimator, dense and convolution, and each method.
VIRTUAL = {
    "flipout": {"model": "BNN_FC_flip"},
    "flipout convolution": {"model": "BNN_conv_flip"},
    "reparameterization": {"model": "BNN_FC_nonflip"},
    "twin": {"model": "CNN_FC"},
    "local": {"model": "BNN_FC_local"},
    "two streams": {"model": "BNN_FC_nonflip", "noise_streams": 2},
    "ivon": {"model": "CNN_FC", **IVON},
    "ivon convolution": {"model": "CNN_conv", **IVON},
}


def train_virtual_ranks(ranks, folder):
    """Eight virtual ranks, however many of them a process carries; 50 steps, all lines."""
    dataset = data.load("tiny")
    chosen = {"virtual_ranks": 8 // ranks.size, "batch_size": 4, "steps": 50, "log_every": 5}
    chosen["learning_rate_scaling"] = "none"  # eight times the rate learns these images by heart
    for name, parameters in VIRTUAL.items():
        trainer = trainer_of(dataset, ranks, **chosen, **parameters)
        lines = [[line.loss, line.nll, line.kl] for line in trainer.run()]
        if ranks.rank == 0:
            kept = {n: v for n, v in trainer.state().items() if n.startswith(("layer", "ivon_h"))}
            np.savez(folder / f"{name}.npz", lines=np.array(lines), **kept)


def check_large_nll(ranks):
    """A first step's nll beyond float16's largest number, as each compression logs it."""
    dataset = data.load("tiny")
    found = {}
    for compression in ("none", "fp16"):
        network = networks.build("CNN_FC", dataset.image_shape, 10, seed=3)
        network.layers[-1].bias.assign([4e5] + [0.0] * 9)
        trainer = trainer_of(
            dataset, ranks, network=network, model="CNN_FC", steps=1, compression=compression
        )
        (line,) = trainer.run()
        found[compression] = [line.nll, trainer.bytes_a_step]
    return found


def check_divergence(ranks):
    """Images of which only the last rank's are no numbers."""
    dataset = data.load("tiny")
    images = dataset.x_train.astype(np.float32) / 255
    if ranks.rank == ranks.size - 1:
        images[:] = np.nan
    broken = dataclasses.replace(dataset, x_train=images, scale=1.0)
    trainer = trainer_of(broken, ranks, model="CNN_FC", steps=2)
    try:
        list(trainer.run())
    except DivergedError as error:
        return {"error": str(error)}
    return {"error": None}


def check_prediction(ranks):
    prediction.BLOCK = 10  # 64 images: seven blocks, not the same number on every rank
    dataset = data.load("tiny")
    network = networks.build("BNN_conv_flip", dataset.image_shape, 10, seed=1)
    found = prediction.predict(network, dataset, dataset.x_test, 4, 3, ranks)
    few = prediction.predict(network, dataset, dataset.x_test[:5], 4, 3, ranks)
    return {
        "probs": digest(found.mean_probs),
        "entropy": digest(found.expected_entropy),
        "few": digest(few.mean_probs, few.expected_entropy),
        "sums": [float(found.mean_probs.sum(axis=1).min()), float(found.mean_probs.sum())],
    }


def check_laplace(ranks, folder):
    """Last-layer Laplace of one network by all ranks: of each form, numbers and a digest of all."""
    prediction.BLOCK = 10  # more blocks than ranks, not the same number on every rank
    dataset = data.load("tiny")
    found = {}
    for form, model, images in (
        ("full", "CNN_FC", 64),
        ("kronecker", "CNN_VGG", 300),  # more images than the last layer's 129 inputs
        ("gram", "CNN_conv", 64),
    ):
        some = np.arange(images) % dataset.num_train_examples
        part = dataclasses.replace(
            dataset, x_train=dataset.x_train[some], y_train=dataset.y_train[some]
        )
        network = networks.build(model, dataset.image_shape, 10, seed=1)
        full, laplace.FULL = laplace.FULL, 1_000 if form == "kronecker" else laplace.FULL
        arrays = laplace.fit(network, part, ranks).arrays
        laplace.FULL = full
        names = ["values"] if form == "full" else ["values_in", "values_out"]
        if ranks.rank == 0:
            np.savez(folder / f"laplace_{form}.npz", **{n: arrays[n] for n in names})
        found[form] = {
            "digest": digest_of(arrays),
            "prior_precision": float(arrays["prior_precision"]),
            "log_marginal_likelihood": float(arrays["log_marginal_likelihood"]),
        }
    return found


def main(folder, only=""):
    ranks = distributed.init(Session(), threads=1)
    train_virtual_ranks(ranks, folder)
    if only == "virtual":
        process.shut_horovod_down()
        (folder / f"rank{ranks.rank}.json").write_text("{}")
        return
    independent, state = check_training(ranks, 0)
    shared, _ = check_training(ranks, 1)
    train_without_noise(ranks, folder)
    results = {
        "start": check_start(ranks),
        "collectives": check_collectives(ranks),
        "agreement": check_agreement(ranks, folder),
        "independent": independent,
        "shared": shared,
        "resume": check_resumption(ranks, state),
        "divergence": check_divergence(ranks),
        "large_nll": check_large_nll(ranks),
        "equality": check_equality(ranks),
        "laplace": check_laplace(ranks, folder),
        "prediction": check_prediction(ranks),
        "threads_error": error_of(lambda: distributed.init(Session(), threads=2)),
        "same_threads_again": dataclasses.asdict(distributed.init(Session(), threads=1)),
    }
    process.shut_horovod_down()
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
