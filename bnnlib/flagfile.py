"""The seed study's command line: its flag names, what each becomes here, and which are refused.

The seed study (bnn_hvd, Sharma and Jennings) starts a run as
``horovodrun -n 2 -H localhost:2 python CNN_BNN_Model.py --flagfile=config.cfg``; a config in its
names runs here as ``python -m bnnlib.training --flagfile=config.cfg``. Each flag below is honoured
or refused with a reason; none is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from bnnlib.errors import ExperimentError

_BNN = ["BNN_conv_flip", "BNN_conv_nonflip", "BNN_FC_flip", "BNN_FC_nonflip"]
_CNN = ["CNN_conv", "CNN_FC"]


def definitions() -> flags.FlagValues:
    """The seed study's flags with its own defaults where it has one."""
    values = flags.FlagValues()

    def define(kind: Any, name: str, default: Any, meaning: str, **limits: Any) -> None:
        kind(name, default, meaning, flag_values=values, **limits)

    define(flags.DEFINE_string, "model_type", "BNN", "BNN: the network bnnConv; CNN: cnnConv")
    define(flags.DEFINE_enum, "bnnConv", "BNN_conv_flip", "Bayesian network", enum_values=_BNN)
    define(flags.DEFINE_enum, "cnnConv", "CNN_conv", "deterministic network", enum_values=_CNN)
    define(flags.DEFINE_string, "data_dir", None, "the data set's .npz, or a name bnnlib knows")
    define(flags.DEFINE_string, "model_data", None, "the run's directory")
    define(flags.DEFINE_boolean, "UseEpoch", False, "True: train epochs; False: iteration")
    define(flags.DEFINE_integer, "epochs", 10, "passes over the training set")
    define(flags.DEFINE_integer, "iteration", 8000, "steps, divided by the number of ranks")
    define(flags.DEFINE_integer, "batch_size", 64, "images a rank a step")
    define(flags.DEFINE_float, "learning_rate", 1e-3, "at one rank; multiplied by the ranks")
    define(flags.DEFINE_integer, "num_intra", 0, "threads inside an op; 0: cores / ranks")
    define(flags.DEFINE_integer, "num_inter", 1, "threads between ops")
    define(flags.DEFINE_integer, "kmp_blocktime", None, "KMP_BLOCKTIME, milliseconds")
    define(flags.DEFINE_string, "kmp_affinity", None, "KMP_AFFINITY")
    define(flags.DEFINE_integer, "print_step", 10, "steps between lines of steps.jsonl")
    define(flags.DEFINE_boolean, "verbose", False, "print the network's weights and shapes")
    define(flags.DEFINE_boolean, "compression", False, "fp16 gradients")
    return values


def read(path: str | Path, ranks: int = 1) -> tuple[dict[str, Any], dict[str, str], bool]:
    """A flagfile as parameters of an Experiment.

    Args:
        path: an absl flagfile, ``--name=value`` a line, ``#`` comments.
        ranks: Horovod ranks; the seed study stops after ``iteration // ranks`` steps.

    Returns:
        Parameters by name; environment variables to set before TensorFlow is imported
        (``KMP_BLOCKTIME``, ``KMP_AFFINITY``: they act in TensorFlow builds with OpenMP, such as
        Intel's on Theta, and PyPI's build does not read them); whether ``verbose`` was asked.

    Raises:
        ExperimentError: the file is missing, a flag is unknown or has a value it cannot have, or
            it asks for something that is not done here.
    """
    if not Path(path).is_file():
        raise ExperimentError(f"--flagfile={path}: no such file")
    seed = definitions()
    try:
        rest = seed(["bnnlib.training", f"--flagfile={path}"])
    except (flags.Error, OSError) as error:
        raise ExperimentError(f"--flagfile={path}: {error}") from error
    if rest[1:]:
        raise ExperimentError(f"--flagfile={path}: {rest[1]!r} is no flag; write --name=value")
    if seed.model_type not in ("BNN", "CNN"):
        raise ExperimentError(f"model_type = {seed.model_type!r}: expected BNN or CNN")
    if seed.compression:
        raise ExperimentError("compression = True: fp16 gradients are not offered yet; take it out")
    values = {
        "model": seed.bnnConv if seed.model_type == "BNN" else seed.cnnConv,
        "batch_size": seed.batch_size,
        "learning_rate": seed.learning_rate,
        "learning_rate_scaling": "linear",  # as the seed study: 0.001 * hvd.size(), no warm-up
        "warmup_epochs": 0.0,
        "threads": seed.num_intra,
        "inter_threads": seed.num_inter,
        "log_every": seed.print_step,
    }
    if seed.data_dir is not None:
        values["dataset"] = seed.data_dir
    if seed.model_data is not None:
        # The seed study puts each network's results in a folder of its own below model_data.
        values["run_dir"] = str(Path(seed.model_data) / values["model"])
    if seed.UseEpoch:
        values["epochs"] = seed.epochs
    elif seed.iteration < ranks:
        raise ExperimentError(
            f"iteration = {seed.iteration}: expected at least the number of ranks, {ranks}, among "
            "which the seed study divides it; or --UseEpoch=True with epochs"
        )
    else:
        values["steps"] = seed.iteration // ranks
    environment = {}
    if seed.kmp_blocktime is not None:
        environment["KMP_BLOCKTIME"] = str(seed.kmp_blocktime)
    if seed.kmp_affinity is not None:
        environment["KMP_AFFINITY"] = seed.kmp_affinity
    return values, environment, bool(seed.verbose)
