"""Run records: written before training starts, followable while it runs, loaded as one table.

A run's directory, ``runs/<group>/<run id>/``, holds

- ``run.json``: what was asked and what came of it, the keys in :data:`KEYS`;
- ``steps.jsonl``: one :class:`bnnlib.training.StepLog` a line, to be followed by ``tail -f``;
- ``predictions.npz``: of each evaluation set, ``<set>/labels`` int64 ``(num_images,)``,
  ``<set>/mean_probs`` float32 ``(num_images, num_classes)`` and ``<set>/expected_entropy`` float32
  ``(num_images,)`` in nats;
- ``posterior.jsonl``: one :class:`bnnlib.posterior.LayerLog` a line, of each Bayesian layer before
  training and after every epoch;
- ``checkpoints/``: training states; ``train.ipynb``: the executed notebook.

``python -m bnnlib.results runs/<group>`` prints the table of a group.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from bnnlib import checkpoint, data, distributed, metrics, models, posterior
from bnnlib.checkpoint import write_atomically
from bnnlib.data import Dataset
from bnnlib.distributed import Ranks
from bnnlib.errors import BnnlibError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.models import Network
from bnnlib.posterior import LayerLog
from bnnlib.prediction import Prediction
from bnnlib.training import StepLog, Trainer

Line = TypeVar("Line")

STATUSES = ("running", "finished", "stopped", "failed")
# Every key of run.json and its type; None stands for what could not be known.
KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "parameters": (dict,),
    "status": (str,),
    "metrics": (dict,),
    "error": (dict, type(None)),
    "ranks": (int,),
    "hosts": (list,),
    "threads": (int,),
    "seed": (int,),
    "commit": (str, type(None)),
    "clean": (bool, type(None)),
    "versions": (dict,),
    "horovod": (dict,),
    "launcher": (str,),
    "job_id": (str, type(None)),
    "environment": (dict,),
    "command": (str,),
    "started": (str,),
    "ended": (str, type(None)),
}
SCHEMA = 1
# The table's first columns; all others follow in the record's order.
COLUMNS = (
    "group",
    "run_id",
    "model",
    "dataset",
    "seed",
    "ranks",
    "status",
    "accuracy",
    "nll",
    "brier",
    "ece",
    "images_per_second",
)
TABLE_COLUMNS = COLUMNS[2:]


class Run:
    """One run's directory on one rank; only rank 0 writes.

    Attributes:
        directory: the run's directory.
        lines: the lines of ``steps.jsonl`` so far, on every rank.
    """

    def __init__(self, directory: Path, experiment: Experiment, ranks: Ranks) -> None:
        self.directory, self.experiment, self.ranks = directory, experiment, ranks
        self.lines: list[StepLog] = []

    @classmethod
    def open(cls, experiment: Experiment, ranks: Ranks, provenance: Mapping[str, Any]) -> Run:
        """Writes the record, status ``running``, before anything is trained; all ranks call it.

        A directory with a record of the same parameters and ranks is continued from its last
        checkpoint. A failed one that had trained nothing is replaced.

        Args:
            experiment: its `run_dir` is the place; if empty, the folder of the executed notebook
                (the spmd engine's ``BNN_RUN_DIR``), else one named by parameters.
            ranks: this process' place.
            provenance: of :func:`bnnlib.provenance.collect`.

        Raises:
            RecordError: the directory holds a run of other parameters or ranks, or cannot be
                written. Raised on every rank.
        """
        directory = run_directory(experiment, ranks.size)
        run = cls(directory, experiment, ranks)
        horovod = distributed.build_info()

        def write_first() -> None:
            if ranks.rank == 0:
                run._write_first(provenance, horovod)

        distributed.agree(write_first)
        _OPEN.append(run)
        _fail_with_the_kernel(run)
        return run

    def resume(self, trainer: Trainer) -> int:
        """Sets `trainer` to the last checkpoint, on all ranks; returns its step, 0 without one.

        Raises:
            BnnlibError: the checkpoint is not of this network, or ``steps.jsonl`` is damaged or
                cannot be written; raised on every rank.
        """

        def restore() -> None:
            if self.ranks.rank == 0:
                state = checkpoint.latest(self.directory / "checkpoints")
                if state is not None:
                    trainer.restore(state)
                # Lines after the checkpoint are written again when their steps are done again.
                kept = [line for line in read_steps(self.directory) if line.step <= trainer.step]
                text = "".join(_json_line(line) for line in kept)
                write_atomically(self.directory / "steps.jsonl", lambda f: f.write(text.encode()))
                self.lines = kept
                self._keep_posterior(trainer.step)

        distributed.agree(restore)
        trainer.broadcast()
        self.lines = distributed.gather(self.lines)[0]
        return trainer.step

    def follow(self, trainer: Trainer) -> Iterator[StepLog]:
        """Trains to the end; logs each line, and posterior and checkpoint after each epoch.

        Yields:
            The lines of :meth:`bnnlib.training.Trainer.run`, each already in ``steps.jsonl``.
        """
        if trainer.step == 0:
            self.log_posterior(trainer)
        for line in trainer.run():
            self.log(line)
            if trainer.step % trainer.steps_per_epoch == 0 or trainer.step == trainer.num_steps:
                # The posterior first: lines after the checkpoint are dropped when it is resumed,
                # but one that is missing would stay missing.
                self.log_posterior(trainer)
                self.save(trainer)
            yield line

    def log(self, line: StepLog) -> None:
        """Appends a line to ``steps.jsonl``, at once visible to ``tail -f``."""
        self.lines.append(line)
        if self.ranks.rank == 0:
            self._append("steps.jsonl", [line])

    def log_posterior(self, trainer: Trainer) -> None:
        """Appends the present posterior to ``posterior.jsonl``, from rank 0: weights are equal."""
        if self.ranks.rank == 0 and trainer.network.is_bayesian:
            epoch = trainer.step / trainer.steps_per_epoch
            self._append("posterior.jsonl", posterior.logs(trainer.network, trainer.step, epoch))

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, from rank 0; the other ranks go on."""
        if self.ranks.rank == 0:
            checkpoint.save(self.directory / "checkpoints", trainer.state())

    def finish(
        self, predictions: Mapping[str, tuple[Prediction, np.ndarray]], status: str = "finished"
    ) -> dict[str, Any]:
        """Writes predictions and metrics and closes the record.

        Args:
            predictions: by evaluation set, the prediction and its labels ``(num_images,)``;
                ``test`` gives the record's own metrics.
            status: ``finished``, or ``stopped`` where training ended before its last step.

        Returns:
            The metrics, on every rank: those of :func:`bnnlib.metrics.summary` on ``test``, and
            ``images_per_second``, ``train_seconds``, ``steps``, ``kl`` (nats), ``train_nll``.
        """
        prediction, labels = predictions["test"]
        values: dict[str, Any] = metrics.summary(
            prediction.mean_probs, labels, prediction.expected_entropy
        )
        values |= training_metrics(self.lines)
        if self.ranks.rank == 0:
            arrays = {}
            for name, (one, its_labels) in predictions.items():
                arrays[f"{name}/labels"] = its_labels
                arrays[f"{name}/mean_probs"] = one.mean_probs
                arrays[f"{name}/expected_entropy"] = one.expected_entropy
            checkpoint.write_npz(self.directory / "predictions.npz", arrays)
            self._update(status=status, metrics=values, error=None, ended=_now())
        self._close()
        return values

    def fail(self, error: Mapping[str, Any]) -> None:
        """Closes the record with status ``failed`` and what happened."""
        if self.ranks.rank == 0:
            self._update(status="failed", error=dict(error), ended=_now())
        self._close()

    def _append(self, name: str, lines: Sequence[StepLog | LayerLog]) -> None:
        try:
            with open(self.directory / name, "a", encoding="utf-8") as file:
                file.writelines(_json_line(line) for line in lines)
        except OSError as error:
            raise RecordError(
                f"{self.directory / name}: could not be written ({error.strerror}); "
                "checkpoints and lines written before are unharmed"
            ) from error

    def _keep_posterior(self, step: int) -> None:
        """Drops the lines that training from `step` on writes again; those of step 0 among them."""
        path = self.directory / "posterior.jsonl"
        if path.exists():
            lines = read_posterior(self.directory) if step > 0 else []
            text = "".join(_json_line(line) for line in lines if line.step <= step)
            write_atomically(path, lambda file: file.write(text.encode()))

    def _close(self) -> None:
        if self in _OPEN:
            _OPEN.remove(self)

    def _write_first(self, provenance: Mapping[str, Any], horovod: Mapping[str, Any]) -> None:
        path = self.directory / "run.json"
        record = {
            "schema": SCHEMA,
            "parameters": self.experiment.to_dict(),
            "status": "running",
            "metrics": {},
            "error": None,
            "ranks": self.ranks.size,
            "hosts": list(self.ranks.hosts),
            "threads": self.ranks.threads,
            "seed": self.experiment.seed,
            **provenance,
            "horovod": dict(horovod),
            "started": _now(),
            "ended": None,
        }
        if path.exists():
            old = read_record(self.directory)
            trained = (self.directory / "checkpoints").exists()
            if trained or old["status"] != "failed":
                _refuse_other(self.directory, old, record)
                record["started"] = old["started"]
                record["metrics"] = old["metrics"]
        write_atomically(path, lambda file: file.write(_json(record)))

    def _update(self, **changes: Any) -> None:
        record = read_record(self.directory) | changes
        write_atomically(self.directory / "run.json", lambda file: file.write(_json(record)))


_OPEN: list[Run] = []  # the runs that this process has open, for what must close them on a failure


def run_directory(experiment: Experiment, ranks: int) -> Path:
    """Where the run's record goes: `run_dir`, else the executed notebook's folder, else a name."""
    if experiment.run_dir:
        return Path(experiment.run_dir)
    notebook = os.environ.get("BNN_RUN_DIR")
    return Path(notebook) if notebook else experiment.default_run_dir(ranks)


def record_failure(
    directory: str | Path, parameters: Mapping[str, Any], error: Mapping[str, Any]
) -> None:
    """Records that a run failed, whether or not it had come as far as its record.

    Args:
        directory: where the record goes if none is open in this process.
        parameters: as they were given, for a run whose parameters were refused.
        error: ``rank``, ``type``, ``message``, ``traceback`` (lines).

    A record of another run in that directory, one that trained or may be training, is left as it
    is, so that a mistyped parameter does not cost the run that it was meant to continue.
    """
    if _OPEN:
        for run in list(_OPEN):
            run.fail(error)
        return
    directory = Path(directory)
    path = directory / "run.json"
    trained = (directory / "checkpoints").exists()
    if path.exists() and (trained or read_record(directory)["status"] != "failed"):
        return
    ranks = int(error.get("ranks", 1))
    record = {
        "schema": SCHEMA,
        "parameters": dict(parameters),
        "status": "failed",
        "metrics": {},
        "error": dict(error),
        "ranks": ranks,
        "hosts": [],
        "threads": 0,
        "seed": 0,
        "commit": None,
        "clean": None,
        "versions": {},
        "horovod": {},
        "launcher": "",
        "job_id": None,
        "environment": {},
        "command": "",
        "started": _now(),
        "ended": _now(),
    }
    write_atomically(path, lambda file: file.write(_json(record)))


def training_metrics(lines: list[StepLog]) -> dict[str, Any]:
    """Speed and last losses of a run's lines; lines with the graph's first run are no measurement.

    Returns:
        ``images_per_second`` of all ranks together and ``train_seconds``, both over the measured
        lines (over all where a run is too short to have others), ``steps``, ``train_nll`` (nats
        an image) and ``kl`` (nats) at the end; empty for no lines.
    """
    if not lines:
        return {}
    measured = [line for line in lines if not line.warmup] or lines
    seconds = sum(line.seconds for line in measured)
    images = sum(line.images_per_second * line.seconds for line in measured)
    return {
        "images_per_second": images / seconds,
        "train_seconds": sum(line.seconds for line in lines),
        "steps": lines[-1].step,
        "train_nll": lines[-1].nll,
        "kl": lines[-1].kl,
    }


def read_record(directory: str | Path) -> dict[str, Any]:
    """One run's ``run.json``.

    Raises:
        RecordError: it is missing, no JSON, or a key is missing or of another type.
    """
    path = Path(directory) / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: no readable run record ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path}: no run record, expected an object with the key `parameters`")
    for key, types in KEYS.items():
        value = record.get(key, ...)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            found = repr(record[key])[:60] if key in record else "nothing"
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise RecordError(f"{path}: key {key!r}: expected {expected}, found {found}")
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{path}: status = {record['status']!r}: expected one of {', '.join(STATUSES)}"
        )
    for key, value in record["metrics"].items():
        if key in COLUMNS and not _is_number(value) and value is not None:
            raise RecordError(f"{path}: metric {key!r}: expected a number, found {value!r:.60}")
    return record


def read_steps(directory: str | Path) -> list[StepLog]:
    """The lines of a run's ``steps.jsonl``; an unfinished last line is left out.

    Raises:
        RecordError: another line is no step, or the file cannot be read.
    """

    def step(values: dict[str, Any]) -> StepLog:
        if not all(isinstance(value, int | float) for value in values.values()):
            raise ValueError("expected numbers only")
        return StepLog(**values)

    return _read_lines(Path(directory) / "steps.jsonl", "step", step)


def read_posterior(directory: str | Path) -> list[LayerLog]:
    """The lines of a run's ``posterior.jsonl``; an unfinished last line is left out.

    Returns:
        In order of training; empty for a deterministic network, and for a run older than this file.

    Raises:
        RecordError: another line is no layer's posterior, or the file cannot be read.
    """

    def layer(values: dict[str, Any]) -> LayerLog:
        line = LayerLog(**values)
        quantiles = [*line.mean, *line.stddev, *line.snr]
        numbers = [line.step, line.epoch, line.entries, *quantiles]
        if len(quantiles) != 3 * len(posterior.LEVELS) or not all(map(_is_number, numbers)):
            raise ValueError(f"expected {len(posterior.LEVELS)} quantiles of each quantity")
        return line

    return _read_lines(Path(directory) / "posterior.jsonl", "layer's posterior", layer)


def _read_lines(path: Path, what: str, parse: Callable[[dict[str, Any]], Line]) -> list[Line]:
    """The lines of a file that grows; its last may be cut off by the end of the process."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: no readable {path.stem} ({error})") from error
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            lines.append(parse(json.loads(line)))
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
            raise RecordError(f"{path}, line {number}: no {what} ({error})") from error
    return lines


def restore(directory: str | Path) -> tuple[Experiment, Dataset, Network]:
    """A run's network as its last checkpoint has it, with the data set it was trained on.

    Raises:
        RecordError: there is no record, or no readable checkpoint.
        DataError: the data set is not on this machine.
        ExperimentError: the checkpoint is not of the network that the record describes.
    """
    experiment = Experiment.from_mapping(read_record(directory)["parameters"])
    state = checkpoint.latest(Path(directory) / "checkpoints")
    if state is None:
        raise RecordError(
            f"{directory}: no readable checkpoint; the network is made by training it again"
        )
    dataset = data.load(experiment.dataset, experiment.subtract_mean)
    network = models.build(
        experiment.model,
        dataset.image_shape,
        dataset.num_classes,
        experiment.prior_stddev,
        experiment.bayesian_layers,
        experiment.seed,
    )
    network.load_weights({n: value for n, value in state.items() if n.startswith("layer")})
    return experiment, dataset, network


def read_predictions(directory: str | Path, name: str = "test") -> tuple[Prediction, np.ndarray]:
    """The prediction of one evaluation set of a run, and its labels ``(num_images,)``.

    Raises:
        RecordError: the file or the set in it is missing or damaged.
    """
    path = Path(directory) / "predictions.npz"
    arrays = checkpoint.read_npz(path, "predictions")
    names = sorted({key.split("/")[0] for key in arrays})
    if name not in names:
        raise RecordError(f"{path}: no evaluation set {name!r}; it holds {', '.join(names)}")
    parts = ("mean_probs", "expected_entropy", "labels")
    missing = [part for part in parts if f"{name}/{part}" not in arrays]
    if missing:
        raise RecordError(f"{path}: {name!r} has no {', '.join(missing)}")
    mean_probs, expected_entropy, labels = (arrays[f"{name}/{part}"] for part in parts)
    return Prediction(mean_probs, expected_entropy), labels


def load(path: str | Path) -> pd.DataFrame:
    """All runs below a folder, one row each, in order of path.

    Args:
        path: a group (``runs/digits``), a single run's directory, or a folder of groups.

    Returns:
        The columns :data:`COLUMNS`, ``path`` and then every other parameter, metric and entry of
        the record; a metric that a run does not have is NaN.

    Raises:
        RecordError: no run there, or a damaged record.
    """
    found = sorted(Path(path).rglob("run.json"))
    if not found:
        raise RecordError(
            f"{path}: no run records (run.json) below; train first, for example with make study"
        )
    table = pd.DataFrame([_row(file.parent) for file in found])
    return table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table.columns])))


def _row(directory: Path) -> dict[str, Any]:
    record = read_record(directory)
    place = directory.resolve()
    row: dict[str, Any] = {"group": place.parent.name, "run_id": place.name, "path": str(directory)}
    row |= record["parameters"] | record["metrics"]
    row |= {key: record[key] for key in ("ranks", "threads", "status", "commit", "clean")}
    row |= {"num_hosts": len(record["hosts"]), "command": record["command"]}
    return row | {"started": record["started"], "ended": record["ended"]}


def _refuse_other(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = dict(old["parameters"]), dict(new["parameters"])
    before["ranks"], after["ranks"] = old["ranks"], new["ranks"]
    different = [
        f"{name} ({before.get(name)!r} there, {after.get(name)!r} now)"
        for name in dict.fromkeys([*before, *after])
        if name != "run_dir" and before.get(name) != after.get(name)
    ]
    if different:
        raise RecordError(
            f"{directory}: holds a run with other parameters: {', '.join(different)}. "
            "Give another run_dir (or output notebook), or move the old run away"
        )


def _fail_with_the_kernel(run: Run) -> None:
    """In a Jupyter kernel, a cell's error closes the record; the spmd engine does so itself."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return

    def after_cell(result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        if error is not None and run in _OPEN:
            run.fail({"rank": 0, "type": type(error).__name__, "message": str(error)})

    shell.events.register("post_run_cell", after_cell)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(record), indent=2, allow_nan=False) + "\n").encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json_line(line: StepLog | LayerLog) -> str:
    return json.dumps(_plain(dataclasses.asdict(line)), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """JSON's values: no NaN, for which null stands, and text for what JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)  # such as a date in a refused parameter file


def main(argv: list[str] | None = None) -> int:
    """``python -m bnnlib.results runs/<group> [--csv FILE]``: prints the table of a group."""
    parser = argparse.ArgumentParser(prog="python -m bnnlib.results", description=main.__doc__)
    parser.add_argument("runs", help="a group of runs, such as runs/digits")
    parser.add_argument("--csv", metavar="FILE", help="write the whole table there")
    arguments = parser.parse_args(argv)
    try:
        table = load(arguments.runs)
    except BnnlibError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    shown = table[list(TABLE_COLUMNS)].copy()
    shown["dataset"] = shown["dataset"].map(lambda name: Path(str(name)).name, na_action="ignore")
    digits = {"accuracy": 4, "nll": 4, "brier": 4, "ece": 4, "images_per_second": 0}
    formats: dict[str, Any] = {n: f"{{:.{places}f}}".format for n, places in digits.items()}
    # Beside a run whose parameters were refused, the others' whole numbers are floats.
    formats["seed"] = lambda seed: f"{seed:.0f}" if isinstance(seed, float) else str(seed)
    print(shown.to_string(index=False, formatters=formats, na_rep="-"))
    if arguments.csv:
        try:
            write_atomically(
                Path(arguments.csv), lambda f: f.write(table.to_csv(index=False).encode())
            )
        except RecordError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
        print(f"written: {arguments.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
