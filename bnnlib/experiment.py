"""Every parameter of a run, in one place: name, type, default, meaning, unit and limits.

The parameters cell of ``notebooks/01_train.ipynb``, papermill's parameter files, the original
study's flagfiles and the run record all speak of the fields of :class:`Experiment`, and a test
holds the notebook's cell equal to :meth:`Experiment.parameters_cell`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from bnnlib import parameters
from bnnlib.errors import ExperimentError
from bnnlib.limits import (
    ANY,
    DATASET,
    LAYERS,
    MODEL,
    NAMES,
    NOT_NEGATIVE,
    OOD_SETS,
    POSITIVE,
    Check,
    one_of,
)
from bnnlib.names import unknown_name

# How a run is kept safe, and shown while it trains. None of it changes what is trained or measured,
# and so each may be another when a run is continued.
UPKEEP = (
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep_checkpoints",
    "on_rank_change",
    "check_ranks_every",
    "stall_minutes",
    "tensorboard",
)

# What papermill's --inject-paths puts beside the parameters.
PAPERMILLS_OWN = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")


def _parameter(default: Any, meaning: str, check: Check = ANY, heading: str = "") -> Any:
    """A field whose metadata hold what the manual and the validation need.

    Args:
        default: its default value.
        meaning: one short readable line.
        check: its limits.
        heading: of the group of parameters that begins here.
    """
    metadata = {"meaning": meaning, "check": check, "heading": heading}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What makes one run the run it is; frozen, validated when made.

    Raises:
        ExperimentError: a name that is no parameter's, a value of the wrong type or outside its
            limits, or an unknown network or data set. The message names the parameter, the value
            and what was expected, with the nearest name.
    """

    model: str = _parameter(
        "BNN_conv_flip",
        "a name in bnnlib.names, or path/file.py:function",
        MODEL,
        "network and data",
    )
    dataset: str = _parameter(
        "digits", "digits | mnist | cifar10 | tiny | tiny_cifar10 | path of an .npz", DATASET
    )
    pixel_range: str = _parameter(
        "auto",
        "pixels of an .npz: auto | 0..255 (divided by 255) | 0..1 | any (as is)",
        one_of("auto", "0..255", "0..1", "any"),
    )
    channels: str = _parameter(
        "auto",
        "where an .npz has its channels: auto | last | first (n, channels, …)",
        one_of("auto", "last", "first"),
    )
    bayesian_layers: object = _parameter(
        "auto", "auto | none | first | last | all, or a list of layers' names", LAYERS
    )
    estimator: str = _parameter(
        "auto",
        "auto | flipout | reparameterization | local, of your own network",
        one_of("auto", "flipout", "reparameterization", "local"),
    )
    init_from: str = _parameter(
        "", "start at a twin: the folder of its finished run; model: at its own weights"
    )
    init_scale: float = _parameter(
        0.1, "initial deviations as a share of init_from's weights", POSITIVE
    )
    inference: str = _parameter(
        "adam",
        "adam | ivon (rate near 0.2) | swag: posterior on all weights of a CNN_…",
        one_of("adam", "ivon", "swag"),
    )
    subtract_mean: bool = _parameter(False, "subtract the training set's mean image")
    epochs: int = _parameter(
        10, "passes over the training set", POSITIVE, "length and batch of training"
    )
    steps: int = _parameter(
        0, "train this many steps instead of epochs; 0: train epochs", NOT_NEGATIVE
    )
    until: str = _parameter(
        "epochs",
        "epochs | converged: until the posterior has too, at most the epochs",
        one_of("epochs", "converged"),
    )
    batch_size: int = _parameter(64, "images a virtual rank a step", POSITIVE)
    virtual_ranks: int = _parameter(
        1, "virtual ranks a process carries: a batch and a stream of noise each", POSITIVE
    )
    learning_rate: float = _parameter(1e-3, "step size at one rank", POSITIVE, "learning rate")
    learning_rate_scaling: str = _parameter(
        "linear",
        "none | sqrt | linear: its growth with all virtual ranks",
        one_of("none", "sqrt", "linear"),
    )
    learning_rate_schedule: str = _parameter(
        "constant",
        "constant | cosine: after the warm-up; cosine ends at 0",
        one_of("constant", "cosine"),
    )
    rho_rate: float = _parameter(
        1.0, "factor on the learning rate of the posterior's deviations", POSITIVE
    )
    warmup_epochs: float = _parameter(
        1.0, "epochs in which the rate grows linearly to its scaled value", NOT_NEGATIVE
    )
    kl_weight: float = _parameter(
        1.0, "factor on KL(q||p)/N in the loss; 1: the ELBO", NOT_NEGATIVE, "objective and prior"
    )
    kl_annealing_epochs: float = _parameter(
        0.0, "epochs in which kl_weight grows linearly from 0", NOT_NEGATIVE
    )
    prior_stddev: float = _parameter(
        1.0, "standard deviation of the normal prior on each kernel entry", POSITIVE
    )
    posterior_stddev: float = _parameter(
        0.0, "the posterior's initial standard deviation; 0: TFP's, about 0.05", NOT_NEGATIVE
    )
    weight_decay: str = _parameter(
        "none",
        "none | prior: a twin's kernels under the prior too (MAP), CNN_… only",
        one_of("none", "prior"),
    )
    ivon_h0: float = _parameter(
        1.0, "ivon: first estimate of the loss's second derivatives", POSITIVE
    )
    ivon_beta2: float = _parameter(
        0.99999,
        "ivon: share of that estimate that a step keeps",
        (lambda v: 0 <= v < 1, "0 or more and less than 1"),
    )
    swag_start: float = _parameter(
        0.5,
        "swag: share of the epochs from which on the weights at their ends count",
        (lambda v: 0 <= v < 1, "0 or more and less than 1"),
    )
    swag_rate: float = _parameter(
        1.0, "swag: factor on the learning rate from then on, constant", POSITIVE
    )
    dropout: float = _parameter(
        0.0,
        "dropout rate before the later dense layers, CNN_… only; > 0: MC dropout",
        (lambda v: 0 <= v < 1, "0 or more and less than 1"),
    )
    train_draws: int = _parameter(1, "weight draws a training step", POSITIVE)
    test_draws: int = _parameter(
        30, "weight draws of the predictive distribution", POSITIVE, "evaluation"
    )
    eval_draws: int = _parameter(
        0, "the same for all sets but test and holdout; 0: test_draws", NOT_NEGATIVE
    )
    eval_images: int = _parameter(
        1000, "images of each of these, a fixed part with all classes; 0: all", NOT_NEGATIVE
    )
    predict_with: str = _parameter(
        "draws",
        "draws | mean | probit (of laplace): what makes the prediction",
        one_of("draws", "mean", "probit"),
    )
    laplace: bool = _parameter(
        False, "give a CNN_… a posterior of its last layer, once it has been trained"
    )
    holdout: float = _parameter(
        0.0,
        "share of the training images held out to fit the temperature on",
        (lambda v: 0 <= v < 0.5, "0 or more and less than 0.5"),
    )
    train_images: int = _parameter(
        0, "images to train on, every class with its share; 0: all not held out", NOT_NEGATIVE
    )
    train_images_seed: int = _parameter(
        0, "which images these are, whatever the run's seed", NOT_NEGATIVE
    )
    eval_sets: list[str] = _parameter(  # noqa: RUF009 - a field with a factory
        ["test"], "test sets, or groups such as shifts (bnnlib.data.expand)", NAMES
    )
    ood_sets: list[str] = _parameter(  # noqa: RUF009
        [], "out of distribution: near, far, bnnlib.data.OOD_NAMES, paths of .npz", OOD_SETS
    )
    evaluate_every: int = _parameter(
        0,
        "epochs between looks at test accuracy and validation NLL; 0: none",
        NOT_NEGATIVE,
    )
    noise_streams: int = _parameter(
        0,
        "streams of weight noise; 0: one a virtual rank, 1: one, G: groups",
        NOT_NEGATIVE,
        "noise",
    )
    seed: int = _parameter(
        0,
        "sets initial weights, data order and weight noise",
        (lambda v: 0 <= v < 2**31, "0 to 2^31-1"),
    )
    threads: int = _parameter(
        0,
        "TensorFlow threads of a rank in an op; 0: its share of the cores",
        NOT_NEGATIVE,
        "machine",
    )
    inter_threads: int = _parameter(1, "TensorFlow threads of a rank between ops", POSITIVE)
    compression: str = _parameter(
        "none", "none | fp16: how gradients travel between ranks", one_of("none", "fp16")
    )
    profile: bool = _parameter(False, "record where each step's time goes, in profile.csv")
    log_every: int = _parameter(
        50, "steps from one line of steps.jsonl to the next", POSITIVE, "record"
    )
    tensorboard: bool = _parameter(
        False, "write loss, NLL, KL/N, speed and rate for TensorBoard, too"
    )
    checkpoint_steps: int = _parameter(
        0,
        "steps from one checkpoint to the next; 0: none by steps",
        NOT_NEGATIVE,
    )
    checkpoint_minutes: float = _parameter(
        0.0,
        "minutes from one checkpoint to the next; both 0: one an epoch",
        NOT_NEGATIVE,
    )
    keep_checkpoints: int = _parameter(2, "how many of the newest checkpoints are kept", POSITIVE)
    on_rank_change: str = _parameter(
        "refuse",
        "refuse | continue: a run that another number of ranks began",
        one_of("refuse", "continue"),
    )
    check_ranks_every: int = _parameter(
        0,
        "steps between checks that all ranks hold equal weights; 0: none",
        NOT_NEGATIVE,
    )
    stall_minutes: float = _parameter(
        30.0,
        "minutes without a log line or a draw that end a run as hung; 0: never",
        NOT_NEGATIVE,
    )
    run_dir: str = _parameter(
        "", "the record's folder; empty: the notebook's, or one named by parameters"
    )

    def __new__(cls, *values: Any, **by_name: Any) -> Self:
        """Refuses a name that is no parameter's, with the nearest one."""
        for name in by_name:
            if name not in _TYPES:
                raise ExperimentError(unknown_name(name, list(_TYPES)))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Validates every field; an int given for a float becomes one."""
        for field in dataclasses.fields(self):
            value = parameters.typed(field.name, getattr(self, field.name), _TYPES[field.name])
            object.__setattr__(self, field.name, value)
            holds, expected = field.metadata["check"]
            if not holds(value):
                told = expected(value) if callable(expected) else expected
                raise ExperimentError(f"{field.name} = {value!r}: expected {told}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """An experiment from names and values of the fields' types, defaults for the rest.

        Raises:
            ExperimentError: a name that is no parameter (with the nearest one), or a bad value.
        """
        for name in values:
            if name not in _TYPES:  # which may be no text, either
                raise ExperimentError(unknown_name(name, list(_TYPES)))
        return cls(**dict(values))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """An experiment from names and values as people write them (:mod:`bnnlib.parameters`).

        Raises:
            ExperimentError: as :meth:`from_mapping`, or a text that is no value of its field's.
        """
        return cls.from_mapping({name: read_value(name, value) for name, value in values.items()})

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> Self:
        """An experiment from a notebook's ``globals()``, straight after its parameters cell.

        Papermill only warns of a parameter that the notebook does not have, and a mistyped name
        would silently run the defaults. Here every plain value (text, number, list, dictionary,
        None) under a public name must be a parameter. Not so what was there before the notebook:
        the names of IPython's startup files, and papermill's own (``--inject-paths``). A notebook
        that is run again from its top in a live JupyterLab holds other names by then; once
        `experiment` stands in the namespace only the parameters are read.

        Raises:
            ExperimentError: as :meth:`read`.
        """
        plain = (str, int, float, bool, list, dict, type(None))
        values = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_") and (name in _TYPES or isinstance(value, plain))
        }
        others = {"In", "Out", *PAPERMILLS_OWN, *_startup_names(namespace)}
        if "experiment" in namespace:
            others |= set(values)
        return cls.read({k: v for k, v in values.items() if k in _TYPES or k not in others})

    @classmethod
    def manual(cls) -> str:
        """All parameters under their headings, a line each: name, default, meaning."""
        lines = []
        for field in dataclasses.fields(cls):
            if field.metadata["heading"]:
                lines.append(field.metadata["heading"])
            default = str(getattr(cls(), field.name)) or '""'
            lines.append(f"  {field.name:22} {default:13} {field.metadata['meaning']}")
        return "\n".join(lines)

    @classmethod
    def parameters_cell(cls) -> str:
        """The source of the notebook's parameters cell: ``name: type = default  # meaning``.

        Papermill's manual shows the meanings alone: the first of a group begins with its heading.
        """
        lines = []
        for field in dataclasses.fields(cls):
            default = getattr(cls(), field.name)
            # As the formatter writes them: text in double quotes, True and not true.
            text = json.dumps(default) if isinstance(default, str | list) else repr(default)
            heading, meaning = field.metadata["heading"], field.metadata["meaning"]
            shown = f"[{heading}] {meaning}" if heading else meaning
            lines.append(f"{field.name}: {field.type} = {text}  # {shown}")
        return "\n".join(lines)

    @classmethod
    def names(cls) -> list[str]:
        """The parameters' names, in the order of the notebook's cell."""
        return list(_TYPES)

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain values, in order, for the record."""
        return dataclasses.asdict(self)

    def learning_rate_factor(self, virtual_ranks: int) -> float:
        """The factor on `learning_rate` once warmed up.

        Args:
            virtual_ranks: on all processes together: the batches that a step averages over.

        ``linear`` is Goyal et al. 2017 (arXiv 1706.02677) and the original study's: it keeps the
        distance that weights and posterior can travel in an epoch, whatever the number of ranks.
        ``sqrt`` is what Malladi et al. 2022 (arXiv 2205.10287) derive for Adam's noise; it is the
        safer one at many ranks.
        """
        factors = {"none": 1.0, "sqrt": math.sqrt(virtual_ranks), "linear": float(virtual_ranks)}
        return factors[self.learning_rate_scaling]

    def virtual_ranks_of(self, processes: int, total_before: int | None = None) -> int:
        """The virtual ranks that each of `processes` carries.

        Args:
            processes: that train now.
            total_before: all virtual ranks of the run so far, if it was begun before.

        Returns:
            So many that all virtual ranks are as many as before, where `processes` divides them;
            else `virtual_ranks`.
        """
        if total_before and total_before % processes == 0:
            return total_before // processes
        return self.virtual_ranks

    def default_run_dir(self, ranks: int) -> Path:
        """The place for an empty `run_dir`: ``runs/single/<dataset>/<name>``.

        The name is ``<model>-r<ranks>-s<seed>[-<what differs>]``.

        Never in a folder of a study, such as runs/digits: its figures would show the run, too.

        Values that a name cannot hold (a path, a very long list) add a checksum at its end, so that
        other parameters always have another directory.
        """
        named = {"model", "dataset", "seed", "run_dir", *UPKEEP}
        default = type(self)()
        differs = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name not in named and getattr(self, field.name) != getattr(default, field.name)
        ]
        full = "-".join([self.model, f"r{ranks}", f"s{self.seed}", *differs])
        group = re.sub(r"[^\w.-]+", "_", Path(self.dataset).stem, flags=re.ASCII).strip(".")
        name = re.sub(r"[^\w.=,-]+", "_", full, flags=re.ASCII)
        if (group, name) != (self.dataset, full) or len(group) > 100 or len(name) > 200:
            values = {k: v for k, v in self.to_dict().items() if k not in UPKEEP}
            text = json.dumps(values | {"run_dir": ""})
            name = f"{name[:190]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return Path("runs", "single", group[:100] or "data", name)


_TYPES: dict[str, Any] = typing.get_type_hints(Experiment)


# What `bnnlib.Experiment?` shows in IPython and Jupyter.
_INIT = inspect.signature(Experiment.__init__)
Experiment.__signature__ = _INIT.replace(  # type: ignore[attr-defined]
    parameters=list(_INIT.parameters.values())[1:], return_annotation=inspect.Signature.empty
)
Experiment.__doc__ = f"{Experiment.__doc__}\n\n{Experiment.manual()}"


def read_value(name: str, value: Any) -> Any:
    """One parameter's value from how it is written; a name that is none keeps its value."""
    return parameters.read(name, value, _TYPES[name]) if name in _TYPES else value


def _startup_names(namespace: Mapping[str, Any]) -> set[str]:
    """The names that IPython's startup files have left in a kernel's namespace, unchanged."""
    ask = namespace.get("get_ipython")
    hidden = getattr(ask(), "user_ns_hidden", {}) if callable(ask) else {}
    return {name for name, value in hidden.items() if namespace.get(name) is value}
