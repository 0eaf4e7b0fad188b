"""The benchmark's tables: columns, what follows from what, origin. No time is judged."""

import json
import math
import sys

import horovod.tensorflow as hvd
import pandas as pd
import pytest

from bnnlib import data, networks
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer
from jobs.bench import steps

pytestmark = pytest.mark.long

BENCH = {"model", "baseline", "threads", "ms_per_step", "ms_min", "ms_max", "speedup"}


@pytest.fixture(scope="module")
def tables(launch, tmp_path_factory):
    """steps.py and ops.py on one small network of each kind."""
    folder = tmp_path_factory.mktemp("bench")
    words = [
        "--models",
        "BNN_FC_flip",
        "CNN_FC",
        "BNN_FC_local",
        "--threads",
        "1",
        "--repeats",
        "2",
    ]
    words += ["--skip-prediction", "--ways", "bnnlib", "tf_function", "keras_fit", "twin", "flip"]
    words += ["ivon"]
    for script, more in (("steps", words), ("ops", ["--models", "BNN_FC_flip"])):
        module = f"jobs.bench.{script}"
        done = launch(sys.executable, "-m", module, *more, "--out", folder, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_row_each_network_way_and_number_of_threads(tables):
    table = pd.read_csv(tables / "bench.csv")
    assert set(table.columns) == BENCH
    assert sorted(zip(table["model"], table["baseline"], strict=True)) == [
        ("BNN_FC_flip", "bnnlib"), ("BNN_FC_flip", "keras_fit"), ("BNN_FC_flip", "tf_function"),
        ("BNN_FC_flip", "twin"), ("BNN_FC_local", "bnnlib"), ("BNN_FC_local", "flip"),
        ("BNN_FC_local", "keras_fit"), ("BNN_FC_local", "tf_function"), ("BNN_FC_local", "twin"),
        ("CNN_FC", "bnnlib"), ("CNN_FC", "ivon"), ("CNN_FC", "keras_fit"),
        ("CNN_FC", "tf_function"),
    ]  # fmt: skip
    assert (table["ms_min"] <= table["ms_per_step"]).all()
    assert (table["ms_per_step"] <= table["ms_max"]).all()
    for _, rows in table.groupby("model"):
        reference = rows.set_index("baseline").loc["tf_function", "ms_per_step"]
        assert rows["speedup"].to_numpy() == pytest.approx(
            reference / rows["ms_per_step"].to_numpy(), rel=1e-2
        )
    twin = pd.read_csv(tables / "twin.csv")
    assert twin["model"].tolist() == ["BNN_FC_flip", "BNN_FC_local"]  # a twin has none
    assert pd.read_csv(tables / "flip.csv")["model"].tolist() == ["BNN_FC_local"]
    assert pd.read_csv(tables / "ivon.csv")["model"].tolist() == ["CNN_FC"]
    memory = pd.read_csv(tables / "memory.csv")
    assert (memory["peak_mib"] > 100).all()  # TensorFlow alone is more


def test_the_floor_is_its_parts(tables):
    table = pd.read_csv(tables / "floor.csv")
    parts = table[["products_ms", "passes_ms", "draws_ms"]].sum(axis=1)
    assert table["floor_ms"].to_numpy() == pytest.approx(parts.to_numpy(), abs=2e-3)
    assert table["measured_over_floor"].to_numpy() == pytest.approx(
        (table["ms_per_step"] / table["floor_ms"]).to_numpy(), rel=2e-2
    )
    assert table.set_index("model").loc["CNN_FC", "draws_ms"] == 0


def test_ops_are_those_of_a_step(tables):
    table = pd.read_csv(tables / "ops.csv").set_index("op")
    # TensorFlow's profiler leaves out ops of a few microseconds, as two of the last layer's are on
    # a fast processor; how many products a step has is in its graph, below.
    products = [name for name in table.index if "MatMul" in name]
    calls = table.loc[products, "calls_per_step"].sum()
    assert 5 <= round(calls) <= 7, table
    assert table.loc["StatelessRandomUniformV2", "calls_per_step"] >= 0.9
    assert table["ms_per_step"].drop("between ops").min() >= 0


def test_a_step_has_the_products_that_the_ops_are_held_against():
    """Forward, gradient of the kernel and of the input, less the first layer's input.

    Flipout's first layer has each of its two twice.
    """
    experiment = Experiment(model="BNN_FC_flip", dataset="tiny")
    dataset = data.load("tiny")
    hvd.init()
    trainer = Trainer(experiment, dataset, networks.build_for(experiment, dataset), Ranks())
    step = trainer._updates.get_concrete_function().graph.as_graph_def()
    nodes = [node.op for function in step.library.function for node in function.node_def]
    assert nodes.count("MatMul") == 7


@pytest.mark.parametrize("name", ["bench.json", "ops.json"])
def test_a_table_says_where_it_comes_from(tables, name):
    origin = json.loads((tables / name).read_text())
    assert {"commit", "clean", "versions", "hardware", "command", "started"} <= set(origin)
    assert origin["versions"]["tensorflow"]
    assert origin["hardware"]["cores"] >= 1
    assert "--out" in origin["command"]


def test_counted_work_is_the_networks():
    # The dense twin: 784 x 64 forward and kernel's gradient, 64 x 10 those and the input's.
    assert steps.counts("CNN_FC")["gflop"] * 1e9 == 2 * 64 * (2 * 784 * 64 + 3 * 640)
    assert steps.counts("BNN_FC_flip")["draws"] == 784 * 64
    assert steps.counts("CNN_conv")["draws"] == 0
    # A dense layer's local noise is one normal an output; its variances double the products.
    assert steps.counts("BNN_FC_local")["draws"] == 64 * 64
    assert steps.counts("BNN_FC_local")["gflop"] == steps.counts("BNN_FC_flip")["gflop"]
    assert steps.counts("BNN_conv_local")["draws"] == 64 * 784 * 64
    # Flipout doubles the first layer's products, and all of a network whose layers all are its.
    assert steps.counts("BNN_VGG_flip")["gflop"] == 2 * steps.counts("CNN_VGG")["gflop"]
    for model in (*steps.MNIST, *steps.VGG):
        assert all(math.isfinite(value) for value in steps.counts(model).values())
        assert steps.twin_of(model) in (*steps.MNIST, *steps.VGG)
        assert steps.flip_of(model) in (*steps.MNIST, *steps.VGG)
