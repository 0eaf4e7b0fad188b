"""Where a training step's time goes, op by op; `make bench` runs it after bench.py.

One pinned core, batch 64, random images of the real sets' shapes. TensorFlow's own profiler notes
each op of some dozens of steps, and the ops of one kind are added up:

    python jobs/local/bench_ops.py [--models BNN_FC_flip …] [--out figures/bench]

writes ops.csv: a row a network and kind of op, with milliseconds and calls a step. The row
`between ops` is the rest of the profiled steps' own time. Profiling costs an op about a
microsecond; bench.csv has the time without it.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench

STEPS = {"FC": 300, "conv": 40, "VGG": 4}


def profile(model: str) -> dict[str, object]:
    """The kinds of op of one network's step, in this process."""
    bench.pin(1)
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    count = STEPS[model.split("_")[1]]
    step, _ = bench.own(model, bench.dataset_of(model), 1, "bnnlib")
    step(count)  # traced, and its memory found
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
    parser.add_argument("--models", nargs="+", default=[*bench.MNIST, *bench.VGG])
    parser.add_argument("--out", type=Path, help="folder of ops.csv; without: only printed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(profile(arguments.worker)))
        return
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    table = []
    environment = os.environ | {"PYTHONPATH": str(bench.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    for model in arguments.models:
        command = [sys.executable, __file__, "--worker", model]
        told = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        found = json.loads(told.stdout.splitlines()[-1])
        print(f"{model}: {found['ms_per_step']:.2f} ms a step while profiled")
        for row in found["rows"]:
            table.append({"model": model} | row)
            if row["ms_per_step"] >= 0.02 * found["ms_per_step"]:
                print(f"    {row['ms_per_step']:8.3f} ms  {row['calls_per_step']:>5}  {row['op']}")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        bench.write(arguments.out / "ops.csv", table)
        origin = {"started": started} | bench.origin()
        (arguments.out / "ops.json").write_text(json.dumps(origin, indent=2) + "\n")


if __name__ == "__main__":
    main()
