"""The time of Horovod's average at growing message sizes, which the cost model is fitted to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnlib import launcher, process
from bnnlib.record import provenance
from bnnlib.record.files import write_text
from bnnlib.session import Session

SIZES = tuple(4 * 4**power for power in range(12))  # 4 B to 16 MiB


def measure(sizes: Sequence[int] = SIZES, repeats: int = 9, times: int = 0) -> dict[str, Any]:
    """Times Horovod's average of one tensor of each size, as training calls it; all ranks call.

    Args:
        sizes: in bytes, each at least one entry of four.
        repeats: turns of a graph.
        times: averages a turn; 0: 100 of up to 256 kB, 10 of more.

    Returns:
        ``rows`` (bytes, ranks, ms, ms_min, ms_max of an average, over `repeats` turns of a graph
        that makes several), and what they were measured on.
    """
    from bnnlib.inference import distributed  # after provenance: MPI allows no new processes

    origin = provenance.collect()
    ranks = distributed.init(Session(), threads=1, with_horovod=True)
    import tensorflow as tf

    rows = []
    for size in sizes:
        count = max(1, size // 4)
        # About as long each; the same number on all ranks.
        number = times or (100 if size <= 2**18 else 10)

        @tf.function
        def several(tensor: Any, number: int = number, size: int = size) -> Any:
            for _ in tf.range(number):
                tensor = distributed.average(tensor, f"ladder.{size}")
            return tensor

        tensor = tf.ones([count])
        several(tensor)
        milliseconds = []
        for _ in range(repeats):
            distributed.gather(None)  # all begin together
            began = time.perf_counter()
            several(tensor).numpy()
            milliseconds.append(1e3 * (time.perf_counter() - began) / number)
        rows.append(
            {
                "bytes": 4 * count,
                "ranks": ranks.size,
                "ms": float(np.median(milliseconds)),
                "ms_min": min(milliseconds),
                "ms_max": max(milliseconds),
            }
        )
    return {
        "rows": rows,
        "ranks": ranks.size,
        "hosts": list(ranks.hosts),
        "threads": ranks.threads,
        "cores": ranks.cores,
        "controller": distributed.build_info()["controller"],
        "horovod": {k: v for k, v in os.environ.items() if k.startswith("HOROVOD_")},
        **origin,
    }


def write(path: str | Path, sizes: Sequence[int], repeats: int, times: int) -> None:
    """Measures on the ranks of this launch; rank 0 writes `path` and prints the rows.

    Raises:
        RecordError: `path` cannot be written.
    """
    ladder = measure(sizes, repeats, times)
    if launcher.rank() == 0:
        text = json.dumps(ladder, indent=2) + "\n"
        write_text(Path(path), text)
        print(f"{'bytes':>10} {'ms':>10} {'least':>10} {'most':>10}")
        for row in ladder["rows"]:
            numbers = (row["ms"], row["ms_min"], row["ms_max"])
            print(f"{row['bytes']:>10}" + "".join(f" {number:10.4f}" for number in numbers))
    process.shut_horovod_down()
