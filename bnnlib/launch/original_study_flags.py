"""The original study's command line: its flag names, what each becomes here, and which are refused.

The original study (bnn_hvd, Sharma and Jennings) starts a run as
``horovodrun -n 2 -H localhost:2 python CNN_BNN_Model.py --flagfile=config.cfg``; a config in its
names runs here as ``python -m bnnlib.training --flagfile=config.cfg``. Each flag below is honoured
or refused with a reason; none is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from bnnlib import parameters
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment, unknown_name

_BNN = ["BNN_conv_flip", "BNN_conv_nonflip", "BNN_FC_flip", "BNN_FC_nonflip"]
_CNN = ["CNN_conv", "CNN_FC"]


def definitions() -> flags.FlagValues:
    """The original study's flags with its own defaults where it has one."""
    values = flags.FlagValues()

    def text(name: str, default: str | None, meaning: str) -> None:
        flags.DEFINE_string(name, default, meaning, flag_values=values)

    def choice(name: str, choices: list[str], meaning: str) -> None:
        # The original study's own configs write CNN_Conv where its code compares with CNN_conv.
        flags.DEFINE_enum(
            name, choices[0], choices, meaning, flag_values=values, case_sensitive=False
        )

    def whole(name: str, default: int | None, least: int, meaning: str) -> None:
        flags.DEFINE_integer(name, default, meaning, lower_bound=least, flag_values=values)

    def switch(name: str, meaning: str) -> None:
        flags.DEFINE_boolean(name, False, meaning, flag_values=values)

    choice("model_type", ["BNN", "CNN"], "BNN: the network bnnConv; CNN: cnnConv")
    choice("bnnConv", _BNN, "Bayesian network")
    choice("cnnConv", _CNN, "deterministic network")
    text("data_dir", None, "the data set's .npz, or a name bnnlib knows")
    text("model_data", None, "the run's directory")
    switch("UseEpoch", "True: train epochs; False: iteration")
    whole("epochs", 10, 1, "passes over the training set")
    whole("iteration", 8000, 1, "steps, divided by the number of ranks")
    whole("batch_size", 64, 1, "images a rank a step")
    flags.DEFINE_float(
        "learning_rate", 1e-3, "at one rank; multiplied by the ranks", flag_values=values
    )
    whole("num_intra", 0, 0, "threads inside an op; 0: cores / ranks")
    whole("num_inter", 1, 1, "threads between ops")
    whole("kmp_blocktime", None, 0, "KMP_BLOCKTIME, milliseconds")
    text("kmp_affinity", None, "KMP_AFFINITY")
    whole("print_step", 10, 1, "steps between lines of steps.jsonl")
    switch("verbose", "print the network's weights and shapes")
    switch("compression", "fp16 gradients")
    return values


def read(path: str | Path, ranks: int = 1) -> tuple[Experiment, dict[str, str], bool]:
    """The experiment that a flagfile describes.

    Args:
        path: an absl flagfile, ``--name=value`` a line, ``#`` comments.
        ranks: Horovod ranks; the original study stops after ``iteration // ranks`` steps.

    Returns:
        The experiment; environment variables to set before TensorFlow is imported
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
        parameters.text_of(path, "flags")
        words = seed.read_flags_from_files([f"--flagfile={path}"])
        # A byte-order mark before the first line, which may be a comment.
        words = [word.removeprefix("\ufeff") for word in words]
        words = [word for word in words if word and not word.startswith(("#", "//"))]
        if any(word.startswith(("--undefok", "-undefok")) for word in words):
            raise ExperimentError(f"--flagfile={path}: undefok would ignore flags; take it out")
        rest = seed(["bnnlib.training", *words])
    except ExperimentError:
        raise
    except flags.IllegalFlagValueError as error:
        raise ExperimentError(f"--flagfile={path}: {_illegal(error, seed)}") from error
    except flags.UnrecognizedFlagError as error:
        message = unknown_name(error.flagname, sorted(_names(seed)), "flag")
        raise ExperimentError(f"--flagfile={path}: {message}") from error
    except (flags.Error, OSError, ValueError) as error:  # ValueError: bytes that are no text
        raise ExperimentError(f"--flagfile={path}: {error}") from error
    if rest[1:]:
        raise ExperimentError(f"--flagfile={path}: {rest[1]!r} is no flag; write --name=value")
    values: dict[str, Any] = {
        "model": seed.bnnConv if seed.model_type == "BNN" else seed.cnnConv,
        "batch_size": seed.batch_size,
        "learning_rate": seed.learning_rate,
        "learning_rate_scaling": "linear",  # as the original study: 0.001 * hvd.size(), no warm-up
        "warmup_epochs": 0.0,
        "threads": seed.num_intra,
        "inter_threads": seed.num_inter,
        "log_every": seed.print_step,
        "compression": "fp16" if seed.compression else "none",
    }
    if seed.data_dir is not None:
        values["dataset"] = seed.data_dir
    if seed.model_data is not None:
        # The original study puts each network's results in a folder of its own below model_data.
        values["run_dir"] = str(Path(seed.model_data) / values["model"])
    if seed.UseEpoch:
        values["epochs"] = seed.epochs
    elif seed.iteration < ranks:
        raise ExperimentError(
            f"iteration = {seed.iteration}: expected at least the number of ranks, {ranks}, among "
            "which the original study divides it; or --UseEpoch=True with epochs"
        )
    else:
        values["steps"] = seed.iteration // ranks
    environment = {}
    if seed.kmp_blocktime is not None:
        environment["KMP_BLOCKTIME"] = str(seed.kmp_blocktime)
    if seed.kmp_affinity is not None:
        environment["KMP_AFFINITY"] = seed.kmp_affinity
    return Experiment.from_mapping(values), environment, bool(seed.verbose)


def _names(values: flags.FlagValues) -> set[str]:
    """The study's flags, without absl's own ``flagfile`` and ``undefok``."""
    return set(values) - {"flagfile", "undefok"}


def _illegal(error: flags.IllegalFlagValueError, values: flags.FlagValues) -> str:
    """Absl's ``flag --name=value: reason`` with what was expected in place of Python's reason."""
    name, _, value = str(error).removeprefix("flag --").partition("=")
    value = value.removesuffix(f": {error.__context__}")
    parser = values[name].parser
    kind = parser.flag_type()
    expected = {
        "int": "a whole number",
        "float": "a number",
        "bool": "True or False",
        "string enum": "one of " + ", ".join(getattr(parser, "enum_values", [])),
    }[kind]
    least = getattr(parser, "lower_bound", None)
    if least is not None:
        expected += f", {least} or more"
    return f"{name} = {value!r}: expected {expected}"
