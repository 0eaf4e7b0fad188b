"""Which device a rank trains on: a GPU of its own, where there are any.

A job script that gives each rank a GPU says so in BNN_GPUS. Where a rank then sees none, it refuses
to train: on its CPU the run would take many times as long, and nothing would say why.
"""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from bnnlib.errors import DistributedError, SiteError

# NVIDIA's and AMD's, and Intel's, as its extension of TensorFlow calls them.
KINDS = ("GPU", "XPU")
DRIVER = Path("/proc/driver/nvidia/version")


def use_own_gpu(local_rank: int) -> None:
    """Shows TensorFlow one GPU alone, that of this rank's place on its host; none stays none.

    Raises:
        SiteError: BNN_GPUS promises this rank a GPU, and TensorFlow sees none, or it is no number.
        DistributedError: TensorFlow already holds several.
    """
    gpus = [gpu for kind in KINDS for gpu in tf.config.list_physical_devices(kind)]
    if not gpus:
        _refuse_if_promised()
        return
    own = gpus[local_rank % len(gpus)]
    try:
        tf.config.set_visible_devices(own, own.device_type)
    except RuntimeError:
        if len(tf.config.get_visible_devices(own.device_type)) != 1:
            raise DistributedError(
                "TensorFlow was used before bnnlib.inference.distributed.init and holds every GPU; "
                "restart the kernel and run the notebook from its top"
            ) from None


def _refuse_if_promised() -> None:
    promised = os.environ.get("BNN_GPUS") or "0"
    if not promised.isdigit():
        raise SiteError(f"BNN_GPUS = {promised!r}: expected the GPUs of a rank, 0 or 1")
    if int(promised):
        raise SiteError(
            f"BNN_GPUS = {promised}: the job script gives each rank a GPU, and TensorFlow sees "
            f"none: {_missing()}. GPUS=0 among the job's variables trains on CPUs"
        )


def _missing() -> str:
    """Which of the things that a GPU needs is not there, and what to do; the first that is seen."""
    if not tf.test.is_built_with_gpu_support():
        return (
            "this TensorFlow is built without CUDA; BNN_ENV must name an environment for GPUs, as "
            "jobs/polaris/environment.sh and jobs/slurm/environment_gpu.sh make it (jobs/README.md)"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if hidden.split(",")[0] in ("", "-1", "NoDevFiles"):  # the last is Slurm's word
        return f"CUDA_VISIBLE_DEVICES = {hidden!r} hides them"
    if not DRIVER.exists():
        return (
            f"this host has no NVIDIA driver ({DRIVER} is missing); the job must ask for GPUs, "
            "as with --gpus-per-node"
        )
    return (
        "CUDA's libraries cannot be loaded, and TF_CPP_MIN_LOG_LEVEL=0 names them; pip install "
        f"'tensorflow[and-cuda]=={tf.__version__}' brings them"
    )
