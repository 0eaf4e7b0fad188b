"""Is the installed Horovod usable here? If not, one sentence on standard output and exit code 1.

Run alone or under a launcher, `python check_horovod.py RANKS`; on a cluster `jobs/check.sh SITE`
does it. Asked for are MPI, or Gloo under horovodrun, and where BNN_GPUS promises each rank a GPU,
that GPU and NCCL. `--gloo` asks for Gloo beside MPI. The sentence is not on standard error since
TensorFlow writes there, more than anybody reads.
"""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Unusable(Exception):
    """Why this Horovod cannot be used, as one sentence."""


def _tensorflow_version() -> str:
    """The installed TensorFlow's version: the index calls the one without CUDA tensorflow-cpu."""
    for name in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    raise Unusable("TensorFlow is not installed.")


def check(ranks: int, gloo: bool = False) -> None:
    """Goes from what is cheap to see to a sum over all ranks.

    Args:
      ranks: how many ranks the launcher was asked for.
      gloo: whether Gloo is needed beside MPI.

    Raises:
      Unusable: at the first thing that does not hold.
    """
    spec = importlib.util.find_spec("horovod")
    if spec is None or spec.origin is None:
        raise Unusable("Horovod is not installed.")
    # Horovod's build writes down what it was compiled against.
    record = Path(spec.origin).with_name("metadata.json")
    built_for = json.loads(record.read_text()).get("tensorflow") if record.exists() else None
    installed = _tensorflow_version()
    if built_for != installed:
        raise Unusable(
            f"Horovod was built for TensorFlow {built_for}, but {installed} is installed."
        )
    try:
        import horovod.tensorflow as hvd
        import tensorflow as tf
    except Exception as error:  # a wrong binary can raise anything from here
        reason = " ".join(str(error).split()).rstrip(".")
        raise Unusable(
            f"import horovod.tensorflow fails: {type(error).__name__}: {reason}."
        ) from error
    for name, is_built in _needed(hvd, gloo):
        if not is_built:
            raise Unusable(f"Horovod was built without {name}.")
    hvd.init()
    if hvd.size() != ranks:
        from bnnlib import launcher
        from bnnlib.inference import joining

        why = joining.why_alone(launcher.name())
        raise Unusable(f"{ranks} ranks were started, but Horovod counts {hvd.size()}: {why}.")
    if _promised_gpu() or tf.config.list_physical_devices("GPU"):
        _use_own_gpu(hvd.local_rank())
    total = float(hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum))
    expected = ranks * (ranks + 1) / 2
    if total != expected:
        raise Unusable(f"an allreduce of 1 to {ranks} gave {total}, not {expected}.")


def _needed(hvd: Any, gloo: bool) -> Iterator[tuple[str, bool]]:
    """What this launcher and this site need of Horovod, and whether it was built with it."""
    under_horovodrun = "HOROVOD_RANK" in os.environ
    if not under_horovodrun:
        yield "MPI", hvd.mpi_built()
    if under_horovodrun or gloo:
        yield "Gloo", hvd.gloo_built()
    if _promised_gpu():
        yield "NCCL", bool(hvd.nccl_built())


def _promised_gpu() -> bool:
    return (os.environ.get("BNN_GPUS") or "0") != "0"


def _use_own_gpu(local_rank: int) -> None:
    from bnnlib.errors import BnnlibError
    from bnnlib.inference import devices

    try:
        devices.use_own_gpu(local_rank)
    except BnnlibError as error:
        raise Unusable(f"{error}.") from error


if __name__ == "__main__":
    try:
        check(int(sys.argv[1]), "--gloo" in sys.argv)
    except Unusable as error:
        print(error)
        sys.exit(1)
