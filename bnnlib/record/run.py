"""Run records: written before training starts, followable while it runs, loaded as one table.

A run's directory, ``runs/<group>/<run id>/``, holds

- ``run.json``: what was asked and what came of it, the keys in :data:`KEYS`; ``history`` says when
  it was stopped (with what asked for it), continued (from which step), or changed its ranks;
- ``steps.jsonl``: one :class:`bnnlib.inference.trainer.StepLog` a line, to be followed by ``tail
  -f``;
- ``predictions.npz``: of each evaluation set, ``<set>/labels`` int64 ``(num_images,)``, left out
  for a set out of distribution, ``<set>/mean_probs`` float32 ``(num_images, num_classes)`` and
  ``<set>/expected_entropy`` float32 ``(num_images,)`` in nats; sets are ``test``, ``holdout`` where
  images are held out, and those of `eval_sets` and `ood_sets`. Of ``test`` also how it came to be
  with the number of draws: ``test/ladder_draws`` int64 ``(num_counts,)``,
  ``test/ladder_mean_probs`` float32 ``(num_counts, num_images, num_classes)`` and
  ``test/ladder_expected_entropy`` float32 ``(num_counts, num_images)``;
- ``posterior.jsonl``: one :class:`bnnlib.networks.posterior.LayerLog` a line, of each Bayesian
  layer before
  training and after every epoch;
- ``accuracy.jsonl``, with `evaluate_every`: one :class:`AccuracyLog` a line;
- ``profile.csv``, with `profile`: where each step's time went on each rank since the run was last
  started, the table of :func:`bnnlib.inference.step_clock.tabulate`; ``timeline.json``, Horovod's
  own;
- ``checkpoints/``: training states; ``train.ipynb``: the executed notebook;
- ``run.lock`` while a process writes there (:mod:`bnnlib.record.lock`).

``python -m bnnlib.record.run runs/<group>`` prints the table of a group.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from bnnlib import data, launcher, metrics
from bnnlib.data import Dataset
from bnnlib.errors import BnnlibError, DistributedError, RecordError
from bnnlib.experiment import UPKEEP, Experiment
from bnnlib.inference import distributed, evaluation
from bnnlib.inference import step_clock as profile
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import StepLog, Trainer
from bnnlib.metrics import DrawsCurve, Evaluation, Labels, Prediction
from bnnlib.networks import networks as models
from bnnlib.networks import posterior
from bnnlib.networks.networks import Network
from bnnlib.networks.posterior import LayerLog
from bnnlib.record import checkpoint, lock, startup, stopping
from bnnlib.record import watchdog as stall
from bnnlib.record.checkpoint import write_atomically
from bnnlib.record.lock import Lock
from bnnlib.record.stopping import Stopped

logger = logging.getLogger(__name__)

Line = TypeVar("Line")

STATUSES = ("running", "finished", "stopped", "failed")
# Every key of run.json and its type; None stands for what could not be known.
KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "parameters": (dict,),
    "status": (str,),
    "metrics": (dict,),
    "evaluation": (list,),
    "error": (dict, type(None)),
    "ranks": (int,),
    "hosts": (list,),
    "threads": (int,),
    "cores": (int, type(None)),
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
    "history": (list,),
    "startup_seconds": (dict, type(None)),
}
# 2: `evaluation`, a row a set of :class:`bnnlib.metrics.Evaluation`; 1 had the test
# set alone.
SCHEMA = 2
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
# The first columns of :func:`load_evaluation`: whose row it is, then of which set.
EVALUATION_COLUMNS = (
    "group",
    "run_id",
    "path",
    "model",
    "dataset",
    "seed",
    "ranks",
    "set",
    "kind",
    "num_images",
    "family",
    "severity",
)
SCALED_COLUMNS = ("temperature", *(f"{name}_scaled" for name in metrics.SCALED))
# What may differ between the members of an ensemble: nothing of it changes a trained network's
# predictions, but for the seed. Other evaluation sets leave those that all members have.
MAY_DIFFER = {
    *("seed", "run_dir", "threads", "inter_threads", "log_every", "eval_sets", "ood_sets"),
    *UPKEEP,
}


@dataclasses.dataclass(frozen=True)
class AccuracyLog:
    """One line of ``accuracy.jsonl``.

    Attributes:
        step: steps done.
        epoch: passes over the training set done.
        accuracy: on the test set, of the network whose weights are the posterior's means.
    """

    step: int
    epoch: float
    accuracy: float


class Run:
    """One run's directory on one rank; only rank 0 writes.

    Attributes:
        directory: the run's directory.
        lines: the lines of ``steps.jsonl`` so far, on every rank.
    """

    def __init__(self, directory: Path, experiment: Experiment, ranks: Ranks) -> None:
        self.directory, self.experiment, self.ranks = directory, experiment, ranks
        self.lines: list[StepLog] = []
        self._lock: Lock | None = None
        self._writer = checkpoint.Writer()
        self._saved_step, self._saved_at = 0, time.monotonic()
        self._checked_step = 0

    @classmethod
    def open(
        cls,
        experiment: Experiment,
        ranks: Ranks,
        provenance: Mapping[str, Any],
        events: Sequence[tuple[str, str]] = (),
    ) -> Run:
        """Writes the record, status ``running``, before anything is trained; all ranks call it.

        A directory with a record of the same parameters and ranks is continued from its last
        checkpoint. A failed one that had trained nothing is replaced.

        Args:
            experiment: its `run_dir` is the place; if empty, the folder of the executed notebook
                (the spmd engine's ``BNN_RUN_DIR``), else one named by parameters.
            ranks: this process' place.
            provenance: of :func:`bnnlib.record.provenance.collect`.
            events: what has happened, and how, for the record's ``history``.

        Raises:
            RecordError: the directory holds a run of other parameters or ranks, is being written
                by another run (:mod:`bnnlib.record.lock`), or cannot be written. Raised on every
                rank.
        """
        directory = run_directory(experiment, ranks.size)
        run = cls(directory, experiment, ranks)
        horovod = distributed.build_info()

        def write_first() -> None:
            if ranks.rank == 0:
                run._lock = lock.acquire(directory)
                try:
                    checkpoint.remove_leftovers(directory)
                    run._write_first(provenance, horovod, events)
                except BaseException:
                    run._lock.release()
                    raise

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
                self._keep_accuracy(trainer.step)
                kept = [line for line in read_steps(self.directory) if line.step <= trainer.step]
                text = "".join(_json_line(line) for line in kept)
                write_atomically(self.directory / "steps.jsonl", lambda f: f.write(text.encode()))
                self.lines = kept
                self._keep_posterior(trainer.step)
                self._saved_step = trainer.step
                if trainer.step > 0:
                    history = read_record(self.directory)["history"]
                    event = _event("continued", f"from step {trainer.step}")
                    self._update(history=[*history, event])

        distributed.agree(restore)
        trainer.broadcast()
        self.lines = distributed.gather(self.lines)[0]
        return trainer.step

    def follow(
        self, trainer: Trainer, until: Callable[[], bool] = lambda: False
    ) -> Iterator[StepLog]:
        """Trains to the end; logs each line, and posterior and checkpoint after each epoch.

        Args:
            trainer: of this run, on every rank.
            until: asked after each line; True, on all ranks alike, ends the training there, with a
                checkpoint. Called again, this goes on.

        Yields:
            The lines of :meth:`bnnlib.inference.trainer.Trainer.run`, each already in
            ``steps.jsonl``.

        Raises:
            Stopped: a signal or the deadline asked to (:mod:`bnnlib.record.stopping`); the
            checkpoint is
                written and the record says ``stopped``. Raised on every rank after one step.
        """
        if trainer.step == 0:
            self.log_posterior(trainer)
        stopping.when_asked(trainer.ask_to_stop)
        timeline = self.directory / "timeline.json"
        stamped: list[tuple[StepLog, np.ndarray]] = []
        if self.experiment.profile and self.ranks.rank == 0:
            distributed.start_timeline(str(timeline))
        with stall.Watch(60 * self.experiment.stall_minutes) as watch:
            for line in trainer.run(until):
                watch.alive()
                self.log(line)
                if line.warmup and self.ranks.rank == 0:
                    self._update(startup_seconds=startup.seconds())
                if self.experiment.profile:
                    stamped.append((line, trainer.take_stamps()))
                self._log_accuracy(trainer)
                self._check_ranks(trainer)
                epoch_ended = trainer.position % trainer.steps_per_epoch == 0
                last = trainer.step == trainer.num_steps
                if epoch_ended or last:
                    # The posterior first: lines after the checkpoint are dropped when it is
                    # resumed, but one that is missing would stay missing.
                    self.log_posterior(trainer)
                if last or self._is_due(trainer.step, epoch_ended):
                    self.save(trainer)
                watch.pause()  # who takes the lines may take his time
                yield line
                watch.alive()
        if stamped:
            self._write_profile(trainer, stamped, timeline)
        if trainer.stopped:
            self.save(trainer)
            self._writer.wait()
            reasons = [reason for reason in distributed.gather(stopping.asked()) if reason]
            text = f"{reasons[0] if reasons else 'asked to'}, after step {trainer.step} of "
            self.stop(f"{text}{trainer.num_steps}")
            raise Stopped(f"{text}{trainer.num_steps}; the same command started again goes on")
        if trainer.step != self._saved_step:  # `until` has ended it
            self.save(trainer)
        self._writer.wait()

    def _is_due(self, step: int, epoch_ended: bool) -> bool:
        """Whether rank 0 makes a checkpoint now; the other ranks need not know."""
        steps, minutes = self.experiment.checkpoint_steps, self.experiment.checkpoint_minutes
        if not steps and not minutes:
            return epoch_ended
        by_steps = bool(steps) and step // steps > self._saved_step // steps
        return by_steps or (0 < minutes <= (time.monotonic() - self._saved_at) / 60)

    def _check_ranks(self, trainer: Trainer) -> None:
        every = self.experiment.check_ranks_every
        if every and trainer.step // every > self._checked_step // every and self.ranks.size > 1:
            self._checked_step = trainer.step
            state = trainer.state()
            del state["line/seconds"]  # each rank's own time
            distributed.refuse_difference(state)

    def log(self, line: StepLog) -> None:
        """Appends a line to ``steps.jsonl``, at once visible to ``tail -f``."""
        self.lines.append(line)
        if self.ranks.rank == 0:
            self._append("steps.jsonl", [line])

    def _log_accuracy(self, trainer: Trainer) -> None:
        """Appends to ``accuracy.jsonl`` where `evaluate_every` says so; every rank calls it."""
        every = self.experiment.evaluate_every * trainer.steps_per_epoch
        if every == 0 or (trainer.position % every and trainer.step != trainer.num_steps):
            return
        if self.ranks.rank == 0:
            accuracy = evaluation.accuracy_of_means(trainer.network, trainer.dataset)
            epoch = trainer.position / trainer.steps_per_epoch
            self._append("accuracy.jsonl", [AccuracyLog(trainer.step, epoch, accuracy)])
        # The others wait here, not in the first allreduce of the next line, which is timed.
        distributed.gather(None)

    def _write_profile(
        self, trainer: Trainer, stamped: list[tuple[StepLog, np.ndarray]], timeline: Path
    ) -> None:
        """Writes ``profile.csv`` from all ranks' stamps; every rank calls it."""
        times = np.concatenate([stamps for _, stamps in stamped])
        counts = [len(stamps) for _, stamps in stamped]
        own = profile.Stamps(
            host=socket.gethostname(),
            steps=np.arange(stamped[-1][0].step - len(times), stamped[-1][0].step) + 1,
            warmup=np.repeat([line.warmup for line, _ in stamped], counts),
            times=times,
            bytes=trainer.bytes_a_step,
        )
        everyones = distributed.gather(own)
        if self.ranks.rank == 0:
            distributed.stop_timeline()
            allreduces = profile.read_timeline(timeline)
            for _ in range(20):  # Horovod's thread writes behind
                if self.ranks.size == 1 or len(allreduces) >= len(times):
                    break
                time.sleep(0.1)
                allreduces = profile.read_timeline(timeline)
            table = profile.tabulate(everyones, allreduces)
            write_atomically(
                self.directory / "profile.csv",
                lambda file: file.write(table.to_csv(index=False, float_format="%.6g").encode()),
            )

    def log_posterior(self, trainer: Trainer) -> None:
        """Appends the present posterior to ``posterior.jsonl``, from rank 0: weights are equal."""
        if self.ranks.rank == 0 and trainer.network.is_bayesian:
            epoch = trainer.position / trainer.steps_per_epoch
            self._append("posterior.jsonl", posterior.logs(trainer.network, trainer.step, epoch))

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, from rank 0, while training goes on with the next steps.

        What is copied is the state of now. The lines up to here are on the disk before it is, so
        that no checkpoint is further than its log, even after a power cut.
        """
        if self.ranks.rank != 0:
            return
        state, folder = trainer.state(), self.directory / "checkpoints"

        def write() -> None:
            self._check_lock()
            for name in ("steps.jsonl", "posterior.jsonl", "accuracy.jsonl"):
                checkpoint.sync(self.directory / name)
            checkpoint.save(folder, state, self.experiment.keep_checkpoints)

        self._writer.start(write)
        self._saved_step, self._saved_at = trainer.step, time.monotonic()

    def finish(self, found: Evaluation, status: str = "finished") -> dict[str, Any]:
        """Writes predictions, the row of each set and the metrics, and closes the record.

        Args:
            found: of :func:`bnnlib.inference.evaluation.evaluate`.
            status: ``finished``, or ``stopped`` where training ended before its last step.

        Returns:
            The metrics, on every rank: those of the evaluation, and ``images_per_second``,
            ``train_seconds``, ``steps``, ``kl`` (nats), ``train_nll``.
        """
        values = found.metrics | training_metrics(self.lines)
        if self.ranks.rank == 0:
            arrays = {}
            for name, (one, labels) in found.predictions.items():
                if labels is not None:
                    arrays[f"{name}/labels"] = labels
                arrays[f"{name}/mean_probs"] = one.mean_probs
                arrays[f"{name}/expected_entropy"] = one.expected_entropy
                if one.draws_curve is not None:
                    for field in dataclasses.fields(DrawsCurve):
                        key = f"{name}/ladder_{field.name}"
                        arrays[key] = getattr(one.draws_curve, field.name)
            checkpoint.write_npz(self.directory / "predictions.npz", arrays)
            self._update(
                status=status, metrics=values, evaluation=found.rows, error=None, ended=_now()
            )
        self._close()
        return values

    def stop(self, reason: str) -> None:
        """Closes the record with status ``stopped``, in its history what asked for it."""
        if self.ranks.rank == 0:
            self._update(
                status="stopped",
                ended=_now(),
                history=[*read_record(self.directory)["history"], _event("stopped", reason)],
            )
        self._close()

    def fail(self, error: Mapping[str, Any]) -> None:
        """Closes the record with status ``failed`` and what happened, on whichever rank it did.

        The first error stays: what other ranks meet after it are its consequences.
        """
        if self.ranks.rank in (0, error.get("rank")) and not self._has_failed():
            self._update(status="failed", error=_without_home(dict(error)), ended=_now())
        self._close()

    def _has_failed(self) -> bool:
        return bool(read_record(self.directory)["status"] == "failed")

    def _append(self, name: str, lines: Sequence[StepLog | LayerLog | AccuracyLog]) -> None:
        self._check_lock()
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

    def _keep_accuracy(self, step: int) -> None:
        path = self.directory / "accuracy.jsonl"
        if path.exists():
            lines = [line for line in read_accuracy(self.directory) if line.step <= step]
            text = "".join(map(_json_line, lines))
            write_atomically(path, lambda file: file.write(text.encode()))

    def _close(self) -> None:
        if self in _OPEN:
            _OPEN.remove(self)
        if self._lock is not None:
            self._lock.release()

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _write_first(
        self,
        provenance: Mapping[str, Any],
        horovod: Mapping[str, Any],
        events: Sequence[tuple[str, str]],
    ) -> None:
        path = self.directory / "run.json"
        record = {
            "schema": SCHEMA,
            "parameters": self.experiment.to_dict(),
            "status": "running",
            "metrics": {},
            "evaluation": [],
            "error": None,
            "ranks": self.ranks.size,
            "hosts": list(self.ranks.hosts),
            "threads": self.ranks.threads,
            "cores": self.ranks.cores,
            "seed": self.experiment.seed,
            **provenance,
            "horovod": dict(horovod),
            "started": _now(),
            "ended": None,
            "history": [],
            "startup_seconds": None,
        }
        if path.exists():
            old = read_record(self.directory)
            record["history"] = [*old["history"], *(_event(*event) for event in events)]
            trained = (self.directory / "checkpoints").exists()
            if trained or old["status"] != "failed":
                _refuse_other(self.directory, old, record)
                if trained and old["ranks"] != self.ranks.size:
                    record["history"].append(self._change_of_ranks(old["ranks"]))
                record["started"] = old["started"]
                record["metrics"] = old["metrics"]
                record["evaluation"] = old["evaluation"]
        write_atomically(path, lambda file: file.write(_json(record)))

    def _change_of_ranks(self, before: int) -> dict[str, Any]:
        text = (
            f"{self.ranks.size} rank(s) instead of {before}: from here on data order, weight noise "
            "and global batch are other ones, so that the run ends with other weights than an "
            "uninterrupted one; an epoch's part that was begun goes on at the nearest earlier step"
        )
        logger.warning("%s: %s", self.directory, text)
        return _event("ranks changed", text)

    def _update(self, **changes: Any) -> None:
        self._check_lock()
        record = read_record(self.directory) | changes
        write_atomically(self.directory / "run.json", lambda file: file.write(_json(record)))


_OPEN: list[Run] = []  # the runs that this process has open, for what must close them on a failure


def run_directory(experiment: Experiment, ranks: int) -> Path:
    """Where the run's record goes: `run_dir`, else the executed notebook's folder, else a name."""
    if experiment.run_dir:
        return Path(experiment.run_dir)
    notebook = os.environ.get("BNN_RUN_DIR")
    return Path(notebook) if notebook else experiment.default_run_dir(ranks)


def abandon() -> list[int]:
    """Leaves this process' runs as they are, for another start of it; their last lines' steps."""
    steps = []
    for run in list(_OPEN):
        with contextlib.suppress(RecordError):  # the checkpoint before is what the start finds
            run._writer.wait()
        run._close()
        steps += [line.step for line in run.lines[-1:]]
    return steps


def record_stop(reason: str) -> None:
    """Records that this process' run was stopped; for what hears of it outside of training."""
    for run in list(_OPEN):
        run.stop(reason)


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
        "evaluation": [],
        "error": _without_home(dict(error)),
        "ranks": ranks,
        "hosts": [],
        "threads": 0,
        "cores": None,
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
        "history": [],
        "startup_seconds": None,
    }
    write_atomically(path, lambda file: file.write(_json(record)))


def training_metrics(lines: list[StepLog]) -> dict[str, Any]:
    """Speed and last losses of a run's lines; lines with the graph's first run are no measurement.

    Returns:
        ``images_per_second`` of all ranks together, over the measured lines (over all where a run
        is too short to have others), ``step_ms_p10``, ``step_ms_p50`` and ``step_ms_p90``, the
        quantiles over those lines of a step's milliseconds, each line with the weight of its steps,
        ``train_seconds`` over all lines, ``steps``, ``train_nll`` (nats an image) and ``kl`` (nats)
        at the end; empty for no lines.
    """
    if not lines:
        return {}
    measured = [line for line in lines if not line.warmup] or lines
    seconds = sum(line.seconds for line in measured)
    images = sum(line.images_per_second * line.seconds for line in measured)
    return {
        "images_per_second": images / seconds,
        **_step_quantiles(lines),
        "train_seconds": sum(line.seconds for line in lines),
        "steps": lines[-1].step,
        "train_nll": lines[-1].nll,
        "kl": lines[-1].kl,
    }


def _step_quantiles(lines: list[StepLog]) -> dict[str, float]:
    ends = [line.step for line in lines]
    steps = np.diff(ends, prepend=0)
    pairs = [(n, line) for n, line in zip(steps, lines, strict=True) if n > 0]
    measured = [(n, line) for n, line in pairs if not line.warmup] or pairs
    times = np.repeat(
        [1e3 * line.seconds / n for n, line in measured], [int(n) for n, _ in measured]
    )
    return {f"step_ms_p{q}": float(np.percentile(times, q)) for q in (10, 50, 90)}


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
    record.setdefault("evaluation", [])  # schema 1
    record.setdefault("history", [])  # runs older than it
    for key in ("cores", "startup_seconds"):
        record.setdefault(key, None)  # records older than the key
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
    for row in record["evaluation"]:
        _check_row(path, row)
    return record


def _check_row(path: Path, row: Any) -> None:
    """Refuses what is no row of :class:`bnnlib.metrics.Evaluation`."""
    texts = ("set", "kind")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
        raise RecordError(f"{path}: evaluation: expected rows with set and kind, found {row!r:.60}")
    if row["kind"] not in metrics.KINDS:
        expected = ", ".join(metrics.KINDS)
        raise RecordError(
            f"{path}: evaluation of {row['set']!r}: kind = {row['kind']!r}: expected one of "
            f"{expected}"
        )
    for key, value in row.items():
        if key not in texts and not _is_number(value) and value is not None:
            raise RecordError(
                f"{path}: evaluation of {row['set']!r}: {key!r}: expected a number, found "
                f"{value!r:.60}"
            )


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


def read_accuracy(directory: str | Path) -> list[AccuracyLog]:
    """The lines of a run's ``accuracy.jsonl``; none if the run was not asked for them.

    Raises:
        RecordError: a line but the last, which may be unfinished, is none.
    """
    path = Path(directory) / "accuracy.jsonl"
    if not path.exists():
        return []
    return _read_lines(path, "accuracy", lambda values: AccuracyLog(**values))


def read_profile(directory: str | Path) -> pd.DataFrame:
    """A run's ``profile.csv``, the table of :func:`bnnlib.inference.step_clock.tabulate`.

    Raises:
        RecordError: the run was not asked for a profile, or the file is damaged.
    """
    path = Path(directory) / "profile.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: no readable profile ({error}); train with `profile: true`"
        ) from error
    if list(table.columns) != list(profile.COLUMNS):
        raise RecordError(f"{path}: expected the columns {', '.join(profile.COLUMNS)}")
    return table


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
    dataset = data.load(experiment.dataset, experiment.subtract_mean, experiment.holdout)
    network = models.build_for(experiment, dataset)
    network.load_weights({n: value for n, value in state.items() if n.startswith("layer")})
    return experiment, dataset, network


def read_predictions(directory: str | Path, name: str = "test") -> tuple[Prediction, Labels]:
    """The prediction of one evaluation set of a run, and its labels ``(num_images,)``.

    Returns:
        The prediction, with its draws curve where the record has one; labels are None for a set out
        of distribution.

    Raises:
        RecordError: the file or the set in it is missing or damaged.
    """
    path = Path(directory) / "predictions.npz"
    found = _read_all_predictions(path)
    if name not in found:
        raise RecordError(
            f"{path}: no evaluation set {name!r}; it holds {', '.join(sorted(found))}"
        )
    return found[name]


def _read_all_predictions(path: Path) -> dict[str, tuple[Prediction, Labels]]:
    """What one ``predictions.npz`` holds, by set, in order of evaluation."""
    sets: dict[str, dict[str, np.ndarray]] = {}
    for key, array in checkpoint.read_npz(path, "predictions").items():
        name, _, part = key.rpartition("/")
        sets.setdefault(name, {})[part] = array
    found: dict[str, tuple[Prediction, Labels]] = {}
    for name, parts in sets.items():
        missing = [part for part in ("mean_probs", "expected_entropy") if part not in parts]
        if missing:
            raise RecordError(f"{path}: {name!r} has no {', '.join(missing)}")
        of_counts = [parts.get(f"ladder_{field.name}") for field in dataclasses.fields(DrawsCurve)]
        curve = None if any(part is None for part in of_counts) else DrawsCurve(*of_counts)  # type: ignore[arg-type]
        prediction = Prediction(parts["mean_probs"], parts["expected_entropy"], curve)
        found[name] = prediction, parts.get("labels")
    return found


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
    table = table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table.columns])))
    for name in set(SCALED_COLUMNS) & set(table.columns):
        table[name] = table[name].astype(float)  # null where nothing is held out
    return table


def load_evaluation(path: str | Path) -> pd.DataFrame:
    """All evaluation sets of all runs below a folder, a row a run and set.

    Args:
        path: as for :func:`load`.

    Returns:
        The columns :data:`EVALUATION_COLUMNS` and then the scores of the record's rows
        (:class:`bnnlib.metrics.Evaluation`), NaN where a set has none. A shift's
        ``family`` and
        ``severity`` are the two parts of its name, such as rotate and 30. A run without a finished
        evaluation has no row.

    Raises:
        RecordError: no run there, or a damaged record.
    """
    runs = load(path)
    rows = []
    for run in runs.to_dict("records"):
        whose = {name: run[name] for name in EVALUATION_COLUMNS[:7]}
        rows += [whose | row for row in read_record(run["path"])["evaluation"]]
    return _evaluation_table(rows)


def _evaluation_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    for row in rows:
        if row["kind"] == "shift":
            row["family"], _, severity = row["set"].rpartition("-")
            row["severity"] = float(severity) if severity.isdecimal() else math.nan
    scores = dict.fromkeys(key for row in rows for key in row if key not in EVALUATION_COLUMNS)
    table = pd.DataFrame(rows, columns=[*EVALUATION_COLUMNS, *scores])
    numbers = ["severity", *scores]
    return table.astype(dict.fromkeys(numbers, float))


def ensembles(table: pd.DataFrame, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Deep ensembles: the runs of one model with different seeds, judged as one predictor.

    Lakshminarayanan et al. 2017, section 2.4: the members' probabilities are averaged with equal
    weights. Nothing is trained: an ensemble is a group of runs that exist.

    Args:
        table: of :func:`load`; runs that are not finished are passed over.
        by: columns that the members of one ensemble share, such as ``("model", "dropout")``.

    Returns:
        As :func:`load_evaluation`, a row an ensemble and set that all its members have: ``model``
        is ``<model> ensemble(<members>)``, with what else of `by` is no default as in
        ``CNN_FC dropout(0.1) ensemble(5)``, ``run_id`` its members', joined by ``+``, and ``path``
        and ``seed`` are empty. A model with one run has none. The temperature is the ensemble's
        own, fitted on the images held out.

    Raises:
        RecordError: the members differ in a parameter other than their seed, or not in that, or
            were judged on other images.
    """
    rows: list[dict[str, Any]] = []
    defaults = Experiment().to_dict()
    finished = table[table["status"] == "finished"]
    for _, members in finished.groupby(list(by), sort=False, dropna=False):
        if len(members) < 2:
            continue
        _refuse_unlike_members(members, by)
        first = members.iloc[0]
        more = [
            f"{name}({first[name]})"
            for name in by
            if name not in EVALUATION_COLUMNS and first[name] != defaults.get(name)
        ]
        whose = {
            "group": first["group"],
            "run_id": "+".join(members["run_id"]),
            "path": "",
            "model": " ".join([first["model"], *more, f"ensemble({len(members)})"]),
            "dataset": first["dataset"],
            "seed": None,
            "ranks": first["ranks"],
        }
        predictions = [_read_all_predictions(Path(p) / "predictions.npz") for p in members["path"]]
        common = [name for name in predictions[0] if all(name in one for one in predictions)]
        judged = metrics.judge(
            {name: _ensemble([one[name] for one in predictions], name) for name in common}
        )
        rows += [whose | row for row in judged.rows]
    return _evaluation_table(rows)


def ensemble_predictions(
    paths: Sequence[str | Path], name: str = "test"
) -> tuple[Prediction, Labels]:
    """The prediction of an ensemble on one evaluation set, from its members' records.

    Args:
        paths: the members' directories, runs of one model with different seeds.
        name: the evaluation set.

    Returns:
        The members' mean probabilities, averaged, and the average of their expected entropies, so
        that the mutual information holds what the members disagree about, too; and the labels.

    Raises:
        RecordError: a member lacks the set, or the members were judged on other images.
    """
    return _ensemble([read_predictions(path, name) for path in paths], name)


def _ensemble(members: Sequence[tuple[Prediction, Labels]], name: str) -> tuple[Prediction, Labels]:
    if not members:
        raise RecordError(f"an ensemble for {name!r} without members: give the paths of its runs")
    labels = members[0][1]
    shape = members[0][0].mean_probs.shape
    for prediction, its_labels in members[1:]:
        same = (labels is None) == (its_labels is None) and prediction.mean_probs.shape == shape
        if not same or (labels is not None and not np.array_equal(labels, its_labels)):
            raise RecordError(
                f"the members of an ensemble were judged on different images or labels of "
                f"{name!r}; take runs of one data set"
            )
    predictions = [prediction for prediction, _ in members]
    mean_probs = np.mean([one.mean_probs for one in predictions], axis=0, dtype=np.float64)
    entropy = np.mean([one.expected_entropy for one in predictions], axis=0, dtype=np.float64)
    return Prediction(mean_probs.astype(np.float32), entropy.astype(np.float32)), labels


def _refuse_unlike_members(members: pd.DataFrame, by: Sequence[str]) -> None:
    names = [name for name in Experiment.names() if name in members and name not in MAY_DIFFER]
    defaults = Experiment().to_dict()
    # A run older than a parameter was made with what is its default now.
    known = members[names].fillna({name: defaults[name] for name in names})
    different = [
        f"{name} ({', '.join(map(str, dict.fromkeys(values)))})"
        for name, values in [*known.items(), ("ranks", members["ranks"])]
        if len(set(values)) > 1
    ]
    what = f"{', '.join(map(str, members.iloc[0][list(by)]))} ({', '.join(members['run_id'])})"
    if different:
        raise RecordError(
            f"no ensemble of {what}: its runs differ in {', '.join(different)}; select runs, or "
            "add the parameter to `by`"
        )
    if members["seed"].duplicated().any():
        raise RecordError(f"no ensemble of {what}: two of its runs have one seed; select runs")


def _row(directory: Path) -> dict[str, Any]:
    record = read_record(directory)
    place = directory.resolve()
    row: dict[str, Any] = {"group": place.parent.name, "run_id": place.name, "path": str(directory)}
    row |= record["parameters"] | record["metrics"]
    keys = ("ranks", "threads", "cores", "status", "commit", "clean")
    row |= {key: record[key] for key in keys}
    row |= {"num_hosts": len(record["hosts"]), "command": record["command"]}
    return row | {"started": record["started"], "ended": record["ended"]}


def _refuse_other(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    # A run older than a parameter was made with what is its default now.
    before, after = Experiment().to_dict() | old["parameters"], dict(new["parameters"])
    may_differ = {"run_dir", *UPKEEP}
    different = [
        f"{name} ({before.get(name)!r} there, {after.get(name)!r} now)"
        for name in dict.fromkeys([*before, *after])
        if name not in may_differ and before.get(name) != after.get(name)
    ]
    if old["ranks"] != new["ranks"] and after["on_rank_change"] == "refuse":
        if not different:
            raise RecordError(
                f"{directory}: holds a run with other parameters: ranks ({old['ranks']!r} there, "
                f"{new['ranks']!r} now). Start it with as many as it was begun with; or set "
                "on_rank_change to continue, for a run that ends with other weights than an "
                "uninterrupted one"
            )
        different.append(f"ranks ({old['ranks']!r} there, {new['ranks']!r} now)")
    if different:
        raise RecordError(
            f"{directory}: holds a run with other parameters: {', '.join(different)}. "
            "Give another run_dir (or output notebook), or move the old run away"
        )


def _fail_open_runs(error: DistributedError) -> None:
    for run in list(_OPEN):
        run.fail(error_of(error))


stall.ENDINGS.append(_fail_open_runs)


def error_of(error: BaseException) -> dict[str, Any]:
    """An exception on this rank as :func:`record_failure` takes it."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {
        "rank": launcher.rank(),
        "type": type(error).__name__,
        "message": str(error),
        "traceback": lines,
    }


def _fail_with_the_kernel(run: Run) -> None:
    """In a Jupyter kernel, a cell's error closes the record; the spmd engine does so itself."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return

    def after_cell(result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        if isinstance(error, Stopped) and run in _OPEN:
            run.stop(str(error))
        elif error is not None and run in _OPEN:
            run.fail(error_of(error))

    shell.events.register("post_run_cell", after_cell)


def _without_home(value: Any) -> Any:
    """Texts with ``~`` for the user's home: a traceback names the place of every file."""
    home = str(Path.home()).rstrip("/")
    if isinstance(value, Mapping):
        return {key: _without_home(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_home(item) for item in value]
    return value.replace(home, "~") if isinstance(value, str) and home else value


def _event(event: str, what: str) -> dict[str, Any]:
    """A line of the record's ``history``: what happened to the run beside its training."""
    return {"time": _now(), "event": event, "what": what, "job_id": launcher.job_id()}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(_plain(record), indent=2, allow_nan=False) + "\n").encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json_line(line: StepLog | LayerLog | AccuracyLog) -> str:
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
    """``python -m bnnlib.record.run runs/<group> [--csv FILE]``: prints the table of a group."""
    parser = argparse.ArgumentParser(prog="python -m bnnlib.record.run", description=main.__doc__)
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
