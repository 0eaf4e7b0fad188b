"""Where a training step's time goes, op by op; `make bench` runs it after steps.py.

One pinned core, batch 64, random images of the real sets' shapes. TensorFlow's own profiler notes
each op of some dozens of steps, and the ops of one kind are added up:

    python -m jobs.bench.ops [--models BNN_FC_flip …] [--out figures/bench]

writes ops.csv: a row a network and kind of op, with milliseconds and calls a step. The row
`between ops` is the rest of the profiled steps' own time. Profiling costs an op about a
microsecond; bench.csv has the time without it.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import tempfile
import time
from pathlib import Path

from jobs.bench import steps
from jobs.bench.common import (
    pin,
    worker_command,
    worker_environment,
    write_origin,
    write_table,
)

STEPS = {"FC": 300, "conv": 40, "VGG": 4}


def profile(model: str) -> dict[str, object]:
    """The kinds of op of one network's step, in this process."""
    pin(1)
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    count = STEPS[model.split("_")[1]]
    step, _ = steps.with_bnnlib(model, steps.dataset_of(model), 1, "bnnlib")
    step(count)  # traced, and its memory profiled
    step(count)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            started = time.perf_counter()
            step(count)
            seconds = time.perf_counter() - started
        space = xplane_pb2.XSpace()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            place, _, kind = names[event.metadata_id].rpartition(":")
            if place.startswith("while/body"):  # an op of a step; the rest is who called the steps
                spent[kind] += event.duration_ps / 1e9 / count
                calls[kind] += 1
    rows = [
        {"op": kind, "ms_per_step": round(ms, 4), "calls_per_step": round(calls[kind] / count, 2)}
        for kind, ms in spent.most_common()
    ]
    whole = seconds / count * 1e3
    rest = {"op": "between ops", "ms_per_step": round(whole - sum(spent.values()), 4)}
    return {"ms_per_step": whole, "rows": [*rows, rest | {"calls_per_step": ""}]}


def main() -> None:
    """Profiles each network in a process of its own, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[*steps.MNIST, *steps.VGG])
    parser.add_argument("--out", type=Path, help="folder of ops.csv; without: only printed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(profile(arguments.worker)))
        return
    table = []
    for model in arguments.models:
        done = subprocess.run(
            worker_command("jobs.bench.ops", model),
            env=worker_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        profiled = json.loads(done.stdout.splitlines()[-1])
        print(f"{model}: {profiled['ms_per_step']:.2f} ms a step while profiled")
        for row in profiled["rows"]:
            table.append({"model": model} | row)
            if row["ms_per_step"] >= 0.02 * profiled["ms_per_step"]:
                print(f"    {row['ms_per_step']:8.3f} ms  {row['calls_per_step']:>5}  {row['op']}")
    if arguments.out:
        write_table(arguments.out / "ops.csv", table)
        write_origin(arguments.out / "ops.json")


if __name__ == "__main__":
    main()
