"""Coverage-guided fuzzing of what reads files: arbitrary bytes give values or the library's errors.

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    PYTHONPATH=.:$(echo .venv/lib/python3*/site-packages) \\
        /tmp/fuzz/bin/python tests/faults/fuzz.py CORPUS -max_total_time=600

atheris (libFuzzer for Python) is no dependency of the project, and a virtual environment of the
same Python version holds it. The first byte of an input chooses the loader: a data set of the
user's, a set out of distribution, a checkpoint, predictions, a record, its step log, its posterior,
its lock. A finding is an exception that is not the library's own, and libFuzzer keeps its input.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

os.environ["BNN_DATA_MAX_BYTES"] = str(2**20)
with atheris.instrument_imports(
    include=["bnnlib", "numpy.lib._npyio_impl", "numpy.lib.format", "zipfile", "json"]
):
    import bnnlib
    from bnnlib import data
    from bnnlib.errors import BnnlibError
    from bnnlib.record import checkpoint, files, lock, schema
    from bnnlib.record.logs import read_posterior, read_steps
    from bnnlib.record.schema import ATTEMPT_KEYS, KEYS, read_record

import numpy as np

FOLDER = Path(tempfile.mkdtemp(prefix="bnn-fuzz-", dir="/dev/shm"))
COUNTS = {"valid": 0, "refused": 0}


def _npz(content: bytes) -> Path:
    path = FOLDER / "a.npz"
    path.write_bytes(content)
    return path


def _text(name: str, content: bytes) -> Path:
    (FOLDER / name).write_bytes(content)
    return FOLDER


TINY = data.load("tiny")
LOADERS = (
    lambda content: data.load(str(_npz(content))),
    lambda content: data.ood_set(TINY, str(_npz(content))),
    lambda content: checkpoint.load(_npz(content)),
    lambda content: files.read_npz(_npz(content), "predictions"),
    lambda content: read_record(_text("run.json", content)),
    lambda content: read_steps(_text("steps.jsonl", content)),
    lambda content: read_posterior(_text("posterior.jsonl", content)),
    lambda content: lock.refuse_if_held(_text("run.lock", content)),
)


def one_input(content: bytes) -> None:
    """Any input: a value or a BnnlibError."""
    if not content:
        return
    try:
        LOADERS[content[0] % len(LOADERS)](content[1:])
    except BnnlibError:
        COUNTS["refused"] += 1
    else:
        COUNTS["valid"] += 1


def seeds(corpus: Path) -> None:
    """Valid files of each kind, from which libFuzzer mutates."""
    corpus.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "seed.npz"
    images, labels = np.zeros((4, 4, 4, 1), np.uint8), np.array([0, 1, 0, 1])
    for kind, arrays in {
        0: {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels},
        1: {"x_test": np.zeros((2, 28, 28, 1), np.uint8)},
        2: {"step": np.asarray(3), "layer0/mean": np.ones(2, np.float32)},
        3: {"test/mean_probs": np.full((2, 2), 0.5, np.float32)},
    }.items():
        for save in (np.savez, np.savez_compressed):
            save(path, **arrays)
            (corpus / f"seed-{kind}-{save.__name__}").write_bytes(bytes([kind]) + path.read_bytes())
    record, attempt = (
        {key: kinds[0]() for key, kinds in keys.items()} for keys in (KEYS, ATTEMPT_KEYS)
    )
    record["attempts"] = [attempt]
    texts = {
        4: schema.to_json(record | {"status": "finished", "parameters": {"epochs": 1}}),
        5: b'{"step": 1, "epoch": 0.5, "loss": 1.0, "nll": 1.0, "kl": 2.0, "learning_rate": 0.1, '
        b'"images_per_second": 1.0, "seconds": 1.0, "warmup": false}\n',
        6: b'{"step": 0, "epoch": 0, "layer": "dense", "mean": [1], "stddev": [1], "snr": [1]}\n',
        7: b'{"host": "a", "pid": 1, "process_started": 2, "job_id": null, "started": "x", '
        b'"token": "y", "beat": 0}',
    }
    for kind, text in texts.items():
        (corpus / f"seed-{kind}").write_bytes(bytes([kind]) + text)


if __name__ == "__main__":
    seeds(Path(sys.argv[1]))
    print(f"fuzzing {bnnlib.__file__}")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
