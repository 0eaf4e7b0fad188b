"""A training step against what else a reader could have written; `make bench` runs it.

For each network, on MNIST or CIFAR-10 shapes, batch 64, one pinned core and all cores:

    bnnlib             this library's Trainer: the steps of a log line in one graph
    keras_fit          TFP's layers (Keras' for the deterministic twins), trained by Keras' `fit`
    tf_function        the same layers, a training step in a `tf.function`, batches resident
    tf_function_onednn the same with TF_ENABLE_ONEDNN_OPTS=1, which this library sets for itself
    twin               this library's Trainer on the deterministic twin of a Bayesian network
    flip               this library's Trainer on the Flipout form of a network with `local` noise
    ivon               this library's Trainer on a deterministic network, by IVON instead of Adam

Every way is a process of its own. The processes of one network take turns, so that noise of the
machine meets all of them; a figure is the median over the turns. The rates of this core (matrix
product, copy, normal draws) are measured in turns with them and give the floor of a step: its
multiplications, its passes over activations and weights, its draws.

    python -m jobs.bench.steps [--repeats 5] [--models BNN_FC_flip …] [--out figures/bench]

writes bench.csv (a row a network, way and number of threads), floor.csv, prediction.csv (30 draws
over 10,000 images), memory.csv (peak of a rank), twin.csv and flip.csv (a step over the twin's and
over Flipout's), ivon.csv (IVON's step over Adam's) and bench.json, their origin. TFP has no local
convolution.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jobs.bench.common import (
    pin,
    spread,
    worker_command,
    worker_environment,
    write_origin,
    write_table,
)

BATCH = 64
MNIST = (
    *("BNN_conv_flip", "BNN_conv_nonflip", "BNN_FC_flip", "BNN_FC_nonflip", "CNN_conv", "CNN_FC"),
    *("BNN_conv_local", "BNN_FC_local"),
)
VGG = ("BNN_VGG_flip", "CNN_VGG")
WAYS = ("bnnlib", "keras_fit", "tf_function", "tf_function_onednn", "twin", "flip", "ivon")
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
SECONDS = 0.7  # of one turn
NUM_IMAGES = {"mnist": 60_000, "cifar10": 50_000}
PREDICTED = ("BNN_FC_flip", "BNN_conv_flip")  # 30 draws over 10,000 images


# --- a worker: one network, one way, one number of threads ---------------------------------------


def worker(model: str, way: str, threads: int) -> None:
    """Answers each line of standard input by one line of figures; ends with its input."""
    pin(threads)
    dataset = dataset_of(model)
    if way in OTHERS:
        model = OTHERS[way](model)
    step, predict = (with_bnnlib if way in ("bnnlib", "ivon", *OTHERS) else with_tfp)(
        model, dataset, threads, way
    )
    step(3)  # traced, and its memory answer
    count = 3
    started = time.perf_counter()
    step(count)
    # As many steps as fill a turn, whatever the way's speed.
    count = max(2, min(400, int(SECONDS * count / (time.perf_counter() - started))))
    step(count)
    print(json.dumps({"ready": count}), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        if line.strip() == "predict":
            predict()
            answer = {"seconds": time.perf_counter() - started}
        else:
            step(count)
            answer = {"ms": (time.perf_counter() - started) / count * 1e3}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer | {"peak_mib": peak}), flush=True)


def dataset_of(model: str) -> str:
    """The data set whose image shape a network takes."""
    return "cifar10" if "VGG" in model else "mnist"


def twin_of(model: str) -> str:
    """The deterministic network of the same layers."""
    return f"CNN_{model.split('_')[1]}"


def flip_of(model: str) -> str:
    """The network of the same layers with Flipout."""
    return f"BNN_{model.split('_')[1]}_flip"


OTHERS = {"twin": twin_of, "flip": flip_of}  # networks that a network is measured against


def can_go(model: str, way: str) -> bool:
    """Whether there is such a way of training the network."""
    if way == "twin":
        return model.startswith("BNN")
    if way == "flip":
        return model.endswith("_local")
    if way == "ivon":
        return model.startswith("CNN")
    return way == "bnnlib" or not model.endswith("_local") or "FC" in model


def images_of(dataset: str, train: int):
    """Random images of the real set's shape and size; speed does not depend on what they show."""
    import numpy as np

    generator = np.random.default_rng(0)
    shape = SHAPES[dataset]
    x = generator.integers(0, 256, (train + 10_000, *shape), dtype=np.uint8)
    y = generator.integers(0, 10, train + 10_000)
    return (x[:train], y[:train]), (x[train:], y[train:])


def with_bnnlib(model: str, dataset: str, threads: int, way: str):
    """This library: a function that takes steps, and one that predicts."""
    from bnnlib import networks
    from bnnlib.data import Dataset, epoch_batches
    from bnnlib.experiment import Experiment
    from bnnlib.inference import distributed
    from bnnlib.inference.prediction import Predictor
    from bnnlib.inference.trainer import Trainer
    from bnnlib.session import Session

    ranks = distributed.init(Session(), threads)
    (x, y), (x_test, y_test) = images_of(dataset, NUM_IMAGES[dataset])
    data = Dataset(
        name=dataset, x_train=x, y_train=y, x_test=x_test, y_test=y_test, num_classes=10,
        scale=1 / 255, mean_image=None,
    )  # fmt: skip
    network = networks.build(model, data.image_shape, 10)
    method = "ivon" if way == "ivon" else "adam"
    experiment = Experiment(model=model, dataset=dataset, inference=method)
    trainer = Trainer(experiment, data, network, ranks)
    batches = epoch_batches(len(x), BATCH, 1, 0, 0, 0)

    def step(count: int) -> None:
        trainer.train(batches[:count])

    predictor = Predictor(network, data, 30, 0)
    return step, lambda: predictor(x_test)


def with_tfp(model: str, dataset: str, threads: int, way: str):
    """What TFP's documentation shows: Keras layers with a KL loss, `fit` or a step of one's own."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if way.endswith("onednn"):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    import numpy as np
    import tensorflow as tf
    import tf_keras as keras

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    (x, y), (x_test, _) = images_of(dataset, NUM_IMAGES[dataset])
    network = tfp_network(model, SHAPES[dataset], len(x))
    optimizer = keras.optimizers.Adam(1e-3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    scaled_test = (x_test / np.float32(255)).astype(np.float32)

    def predict() -> None:
        # 30 predictions of Keras; a Flipout layer draws anew in each.
        probs = sum(tf.nn.softmax(network.predict(scaled_test, verbose=0)) for _ in range(30)) / 30
        assert probs.shape == (10_000, 10)

    if way == "keras_fit":
        network.compile(optimizer, loss)
        scaled = (x[: 500 * BATCH] / np.float32(255)).astype(np.float32)

        def fit(count: int) -> None:
            network.fit(scaled[: count * BATCH], y[: count * BATCH], BATCH, verbose=0)

        return fit, predict

    count = 100
    resident = tf.constant(
        (x[: count * BATCH] / np.float32(255)).reshape(count, BATCH, *SHAPES[dataset]), tf.float32
    )
    labels = tf.constant(y[: count * BATCH].reshape(count, BATCH))

    @tf.function
    def one(images, targets):
        with tf.GradientTape() as tape:
            value = loss(targets, network(images, training=True)) + sum(network.losses)
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return value

    pairs = [(resident[i], labels[i]) for i in range(count)]

    def steps(wanted: int) -> None:
        for index in range(wanted):
            value = one(*pairs[index % count])
        value.numpy()

    return steps, predict


def tfp_network(model: str, shape: tuple[int, int, int], num_train: int):
    """The same network of TFP's and Keras' layers, KL/N among its losses."""
    import tensorflow_probability as tfp
    import tf_keras as keras

    def kl(q, p, _):
        return tfp.distributions.kl_divergence(q, p) / num_train

    flip, bayesian, everywhere = model.endswith("_flip"), "BNN" in model, "VGG" in model
    layers = tfp.layers
    convolution = layers.Convolution2DFlipout if flip else layers.Convolution2DReparameterization
    dense = layers.DenseFlipout if flip else layers.DenseReparameterization
    if model.endswith("_local"):
        dense = layers.DenseLocalReparameterization

    def conv(filters: int, size: int, relu: bool = True):
        words = {"padding": "SAME", "activation": "relu"}
        if bayesian:
            return convolution(filters, size, kernel_divergence_fn=kl, **words)
        return keras.layers.Conv2D(filters, size, **words)

    def full(units: int, activation: str | None = None, first: bool = False):
        if bayesian and (first or everywhere):
            return dense(units, activation=activation, kernel_divergence_fn=kl)
        return keras.layers.Dense(units, activation=activation)

    pool, flat = keras.layers.MaxPooling2D, keras.layers.Flatten
    if "VGG" in model:
        blocks = [layer for f in (32, 64, 128) for layer in (conv(f, 3), conv(f, 3), pool(2))]
        rest = [flat(), full(128, "relu"), full(10)]
    elif "conv" in model:
        blocks, rest = [conv(64, 5), pool(2)], [flat(), full(10)]
    else:
        blocks, rest = [flat(), full(64, "relu", first=True)], [full(10)]
    network = keras.Sequential([keras.Input(shape), *blocks, *rest])
    return network


# --- the floor: what this core could do ----------------------------------------------------------


def rates() -> dict[str, float]:
    """This core's single-precision product (GFLOP/s), copy (GB/s) and normal draw (ns), now."""
    import numpy as np

    a = np.ones((1024, 1024), np.float32)
    big = np.ones(1 << 24, np.float32)
    copy = np.empty_like(big)
    generator, draws = np.random.default_rng(0), np.empty(1 << 20, np.float32)

    def best(action, times: int) -> float:
        durations = []
        for _ in range(times):
            started = time.perf_counter()
            action()
            durations.append(time.perf_counter() - started)
        return min(durations)

    return {
        "gflop_per_s": 2 * 1024**3 / best(lambda: a @ a, 5) / 1e9,
        "copy_gb_per_s": 2 * big.nbytes / best(lambda: np.copyto(copy, big), 3) / 1e9,
        "ns_per_normal": best(lambda: generator.standard_normal(out=draws, dtype=np.float32), 3)
        / len(draws)
        * 1e9,
    }


def rates_worker() -> None:
    """Answers each line of standard input by the rates of one core."""
    pin(1)
    rates()
    print(json.dumps({"ready": 1}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(rates()), flush=True)


def counts(model: str) -> dict[str, float]:
    """What one step must do: 10^9 operations of products, 10^9 bytes to pass over, normal draws.

    A forward product and its gradients of kernel and of input are 2 operations each a multiply;
    the first layer needs no gradient of its input. Flipout doubles all of its layer's, and so do
    the variances of local noise. Passed over, once written and once read each: the output of each
    layer (twice for these two) and its gradient, and thrice its kernel's numbers for Adam. Drawn
    are the kernel's noise, or the outputs'.
    """
    local = model.endswith("_local")
    double = local or model.endswith("_flip")
    bayesian, everywhere = "BNN" in model, "VGG" in model
    if everywhere:
        plan, side, channels = [], 32, 3
        for filters in (32, 64, 128):
            for pool in (False, True):
                plan.append((9 * channels * filters, side * side, filters))
                channels = filters
                side = side // 2 if pool else side
        plan += [(side * side * channels * 128, 1, 128), (1280, 1, 10)]
    elif "conv" in model:
        plan = [(25 * 64, 784, 64), (14 * 14 * 64 * 10, 1, 10)]
    else:
        plan = [(784 * 64, 1, 64), (640, 1, 10)]
    operations = passes = draws = 0.0
    for index, (kernel, places, outputs) in enumerate(plan):
        is_bayesian = bayesian and (everywhere or index == 0)
        twice = 2 if double and is_bayesian else 1
        products = 2 if index == 0 else 3
        operations += 2.0 * BATCH * kernel * places * products * twice
        numbers = kernel * (2 if is_bayesian else 1)
        passes += 4.0 * (2 * BATCH * places * outputs * (1 + twice) + 2 * 3 * numbers)
        drawn = BATCH * places * outputs if local else kernel
        draws += drawn if is_bayesian else 0
    return {"gflop": operations / 1e9, "gbyte": passes / 1e9, "draws": draws}


# --- the parent: takes turns ---------------------------------------------------------------------


class Process:
    """A worker and what it answered."""

    def __init__(self, *words: object) -> None:
        self.words = " ".join(map(str, words))
        environment = worker_environment() | {"OPENBLAS_NUM_THREADS": "1"}
        environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
        self.process = subprocess.Popen(
            worker_command("jobs.bench.steps", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.answer()

    def answer(self) -> dict[str, float]:
        """The next line of the worker."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.words} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, what: str = "step") -> dict[str, float]:
        """One turn: some steps, or a prediction."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Asks the workers in turn, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="turns of each process (default 5)")
    parser.add_argument("--models", nargs="+", default=[*MNIST, *VGG])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--skip-prediction", action="store_true", help="time steps alone")
    parser.add_argument("--out", type=Path, help="folder of the tables; without: only printed")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == ["rates"]:
        return rates_worker()
    if arguments.worker:
        model, way, threads = arguments.worker
        return worker(model, way, int(threads))
    gauge = Process("rates")
    gauged: list[dict[str, float]] = []
    rows, floors, predictions, memory = [], [], [], []
    costs: dict[str, list[dict[str, object]]] = {name: [] for name in (*OTHERS, "ivon")}
    for model in arguments.models:
        for threads in arguments.threads:
            ways = [way for way in arguments.ways if can_go(model, way)]
            workers = {way: Process(model, way, threads) for way in ways}
            times: dict[str, list[float]] = {way: [] for way in workers}
            peaks: dict[str, float] = {}
            here = []
            for _ in range(arguments.repeats):
                here.append(gauge.ask())
                for way, process in workers.items():
                    answer = process.ask()
                    times[way].append(answer["ms"])
                    peaks[way] = answer["peak_mib"]
            reference = statistics.median(times.get("tf_function", [float("nan")]))
            for way, values in times.items():
                median, least, most = spread(values)
                rows.append(
                    {
                        "model": model, "baseline": way, "threads": threads,
                        "ms_per_step": round(median, 4), "ms_min": round(least, 4),
                        "ms_max": round(most, 4), "speedup": round(reference / median, 3),
                    }
                )  # fmt: skip
                print(
                    f"{model:17}{way:20}{threads} thread(s) {median:8.2f} ms"
                    f" ({least:.2f} to {most:.2f}), {reference / median:5.2f} of tf_function",
                    flush=True,
                )
            for other in OTHERS:
                if {"bnnlib", other} <= set(times):
                    costs[other].append(over("bnnlib", other, model, threads, times))
                    print(f"   over its {other}:", costs[other][-1], flush=True)
            if {"bnnlib", "ivon"} <= set(times):
                costs["ivon"].append(over("ivon", "bnnlib", model, threads, times))
                print("   IVON over Adam:", costs["ivon"][-1], flush=True)
            if threads == 1 and "bnnlib" in times:
                floors.append(floor(model, here, statistics.median(times["bnnlib"])))
                print("   floor:", floors[-1], flush=True)
            gauged += here
            if threads == 1:
                memory += [{"model": model, "baseline": w, "peak_mib": p} for w, p in peaks.items()]
            asked = model in PREDICTED and not arguments.skip_prediction
            if asked and threads == 1 and {"bnnlib", "tf_function"} <= set(workers):
                seconds: dict[str, list[float]] = {w: [] for w in ("bnnlib", "tf_function")}
                workers["bnnlib"].ask("predict")  # traces; a second of Keras' minute does not count
                for turn in range(min(3, arguments.repeats)):
                    seconds["bnnlib"].append(workers["bnnlib"].ask("predict")["seconds"])
                    if turn == 0:  # minutes, and nothing hangs on their last percent
                        answer = workers["tf_function"].ask("predict")
                        seconds["tf_function"].append(answer["seconds"])
                for way, kept in seconds.items():
                    median, least, most = spread(kept)
                    name = "bnnlib" if way == "bnnlib" else "keras_predict"
                    predictions.append(
                        {
                            "model": model, "baseline": name, "threads": threads,
                            "seconds": round(median, 3), "seconds_min": round(least, 3),
                            "seconds_max": round(most, 3),
                            "speedup": round(statistics.median(seconds["tf_function"]) / median, 2),
                        }
                    )  # fmt: skip
                    print("   30 draws, 10,000 images:", predictions[-1], flush=True)
            for process in workers.values():
                process.close()
    gauge.close()
    if arguments.out:
        tables = {
            "bench": rows, "floor": floors, "prediction": predictions, "memory": memory,
            **costs,
        }  # fmt: skip
        for name, table in tables.items():
            if table:
                write_table(arguments.out / f"{name}.csv", table)
        rates_found = {
            key: dict(zip(("median", "min", "max"), spread([g[key] for g in gauged]), strict=True))
            for key in gauged[0]
        }
        write_origin(
            arguments.out / "bench.json",
            repeats=arguments.repeats,
            batch_size=BATCH,
            rates=rates_found,
        )


def floor(model: str, here: list[dict[str, float]], measured: float) -> dict[str, object]:
    """The least that a step can take at this core's best rates, and how far it is from that."""
    need = counts(model)
    fastest = {"gflop_per_s": max, "copy_gb_per_s": max, "ns_per_normal": min}
    rate = {key: pick(turn[key] for turn in here) for key, pick in fastest.items()}
    products = need["gflop"] / rate["gflop_per_s"] * 1e3
    passes = need["gbyte"] / rate["copy_gb_per_s"] * 1e3
    draws = need["draws"] * rate["ns_per_normal"] / 1e6
    parts = {"products_ms": products, "passes_ms": passes, "draws_ms": draws}
    least = sum(parts.values())
    return {
        "model": model,
        **{key: round(value, 3) for key, value in rate.items()},
        **{key: round(value, 3) for key, value in parts.items()},
        "floor_ms": round(least, 3), "ms_per_step": round(measured, 3),
        "measured_over_floor": round(measured / least, 2),
    }  # fmt: skip


def over(
    one: str, other: str, model: str, threads: int, times: dict[str, list[float]]
) -> dict[str, object]:
    """What one way of a network costs beside another, from steps of the same turn."""
    ratios = [a / b for a, b in zip(times[one], times[other], strict=True)]
    median, least, most = (round(value, 3) for value in spread(ratios))
    name = "adam" if one == "ivon" else other
    ratio = {f"ms_over_{name}": median, "ratio_min": least, "ratio_max": most}
    return {"model": model, "threads": threads, **ratio}


if __name__ == "__main__":
    main()
