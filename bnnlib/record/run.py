"""One run's record: written before training starts, followed while it runs, closed at its end.

A run's directory, ``runs/<group>/<run id>/``, holds

- ``run.json``: what was asked and what came of it (:mod:`bnnlib.record.schema`); ``history`` says
  when it was stopped (with what asked for it), continued (from which step), or changed its ranks;
- ``steps.jsonl``: one :class:`bnnlib.record.logs.StepLog` a line, to be followed by ``tail -f``;
- ``posterior.jsonl``: one :class:`bnnlib.record.logs.LayerLog` a line, of each Bayesian layer
  before training and after every epoch;
- ``accuracy.jsonl``, with `evaluate_every`: one :class:`bnnlib.record.logs.AccuracyLog` a line;
- ``events.out.tfevents.*``, with `tensorboard`: the same numbers for TensorBoard;
- ``predictions.npz``: of each evaluation set (:mod:`bnnlib.record.predictions`);
- ``laplace.npz``, with `laplace`: the last layer's posterior (:mod:`bnnlib.inference.laplace`);
- ``profile.csv``, with `profile`: where each step's time went on each rank since the run was last
  started (:mod:`bnnlib.record.profile`); ``timeline.json``, Horovod's own;
- ``checkpoints/``: training states; ``train.ipynb``: the executed notebook;
- ``run.lock`` while a process writes there (:mod:`bnnlib.record.lock`).
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnlib.experiment import Experiment
from bnnlib.metrics import Evaluation
from bnnlib.record import checkpoint, files, lock, logs, profile, source
from bnnlib.record.convergence import convergence
from bnnlib.record.failure import without_home
from bnnlib.record.identity import (
    refuse_changed,
    refuse_other,
    refuse_unequal,
    remarks,
    run_directory,
    told_ranks,
)
from bnnlib.record.lock import Lock
from bnnlib.record.logs import AccuracyLog, StepLog, read_steps, training_metrics
from bnnlib.record.predictions import read_all_predictions, write_predictions
from bnnlib.record.protocols import Ranks, Scalars, Session, Trainer
from bnnlib.record.provenance import new_attempt
from bnnlib.record.schema import event_of, new_record, now, read_file, read_record, write_record
from bnnlib.record.stopping import Stopped

logger = logging.getLogger(__name__)


class Run:
    """One run's directory on one rank; only rank 0 writes.

    Attributes:
        directory: the run's directory.
        lines: the lines of ``steps.jsonl`` so far, on every rank.
        is_finished: whether an earlier start has finished the run.
        has_begun: whether this start has come to its first step.
        found: on rank 0, the record and the folders above it as this start found them.
        source: the file of a user's own network, of :func:`bnnlib.record.source.read`.
    """

    def __init__(
        self, session: Session, directory: Path, experiment: Experiment, ranks: Ranks
    ) -> None:
        self.session, self.directory = session, directory
        self.experiment, self.ranks = experiment, ranks
        self.lines = list[StepLog]()
        self.found: files.Found | None = None
        self.is_finished = self.has_begun = False
        self.source: dict[str, str] | None = None
        self._has_trained, self._timed_from = False, 0
        self._lock: Lock | None = None
        self._writer = checkpoint.Writer()
        self._scalars: Scalars | None = None
        self._saved_step, self._checked_step, self._saved_at = 0, 0, time.monotonic()
        self._training: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        session: Session,
        experiment: Experiment,
        ranks: Ranks,
        provenance: Mapping[str, Any],
        events: Sequence[tuple[str, str]] = (),
        trained: bool = False,
    ) -> Run:
        """Writes the record, status ``running``, before anything is trained; all ranks call it.

        A directory with a record of the same parameters and ranks is continued from its last
        checkpoint. A failed one that had trained nothing is replaced. A finished one is left as it
        is (:attr:`is_finished`): there is nothing to train, and nothing is written.

        Args:
            session: of this process, in which the run stays open until it ends.
            experiment: its `run_dir` is the place; if empty, the folder of the executed notebook
                (papermill's `spmd` engine sets ``BNN_RUN_DIR``), else one named by parameters.
            ranks: this process' place.
            provenance: of :func:`bnnlib.record.provenance.collect`.
            events: what has happened, and how, for the record's ``history``.
            trained: whether nothing is left to train, so that other ranks change nothing.

        Raises:
            BnnlibError: the directory holds a run of other parameters, ranks or source, is being
                written by another run (:mod:`bnnlib.record.lock`), or cannot be written; ranks read
                different sources, or cannot read them. Raised on every rank.
        """
        directory = run_directory(experiment, ranks.size)
        run = cls(session, directory, experiment, ranks)
        run.source = source.read_alike(experiment.model, ranks)

        def write_first() -> bool:
            if ranks.rank != 0 or run._was_finished():
                return ranks.rank == 0
            run.found = files.Found.of(directory / "run.json")
            run._lock = lock.acquire(directory)
            try:
                files.remove_leftovers(directory)
                run._write_first(provenance, ranks.build_info(), events, trained)
            except BaseException:
                run._lock.release()
                run.found.remove_folders()
                raise
            return False

        run.is_finished = ranks.gather(ranks.agree(write_first))[0]
        if not run.is_finished:
            session.runs.append(run)
        return run

    def _was_finished(self) -> bool:
        """Whether an earlier start of this run has finished it."""
        if not (self.directory / "run.json").exists():
            return False
        record = read_record(self.directory)
        if record["status"] != "finished":
            return False
        refuse_other(self.directory, record, self.experiment, self.ranks.size)
        source.refuse_changed(self.directory, record["source"], self.source)
        lock.tidy(self.directory)
        return True

    def note_data(self, content: Mapping[str, Any]) -> None:
        """Holds the data equal on all ranks, and to what the run began with; all ranks call it.

        Call it before the network is built. The first start writes the content into the record and
        says which classes have no training image, and which members of a group are missing.

        Args:
            content: of :func:`bnnlib.data.content`, on this rank.

        Raises:
            DataError: ranks read different data, or the data have changed since the run began.
                Raised on every rank.
        """
        refuse_unequal(self.ranks.gather((socket.gethostname(), dict(content))))

        def compare() -> None:
            if self.ranks.rank == 0:
                before = read_file(self.directory)["data"] or {}  # None in an older record
                if before:
                    refuse_changed(self.directory, before, content)
                if content.keys() - before.keys() and not self.is_finished:
                    self._update(data=content)
                    for remark in remarks(content):
                        logger.warning("%s", remark)

        self.ranks.agree(compare)

    def resume(self, trainer: Trainer) -> int:
        """Sets `trainer` to the last checkpoint, on all ranks; returns its step, 0 without one.

        Raises:
            BnnlibError: the checkpoint is not of this network, or ``steps.jsonl`` is damaged or
                cannot be written; raised on every rank.
        """

        def restore() -> None:
            if self.ranks.rank == 0:
                state = checkpoint.latest(
                    self.directory / "checkpoints", set_aside=not self.is_finished
                )
                if state is not None:
                    trainer.restore(state)
                if self.is_finished:
                    self.lines = read_steps(self.directory)
                    return
                # Lines after the checkpoint are written again when their steps are done again.
                self.lines = logs.keep_until(self.directory, trainer.step)
                self._timed_from = read_record(self.directory)["first_step"] or 0
                self._saved_step = trainer.step
                if trainer.step > 0:
                    self._add_event("continued", f"from step {trainer.step}")

        self.ranks.agree(restore)
        trainer.broadcast()
        self.lines, self._timed_from = self.ranks.gather((self.lines, self._timed_from))[0]
        return trainer.step

    def follow(
        self, trainer: Trainer, until: Callable[[], bool] = lambda: False
    ) -> Iterator[StepLog]:
        """Trains to the end; logs each line, and posterior and checkpoint after each epoch.

        With `until` of the experiment ``converged``, an epoch at whose end the posterior has
        converged (:mod:`bnnlib.record.convergence`) is the last.

        Args:
            trainer: of this run, on every rank.
            until: asked after each line; True, on all ranks alike, ends the training there, with a
                checkpoint. Called again, this goes on.

        Yields:
            The lines of :meth:`bnnlib.inference.trainer.Trainer.run`, each already in
            ``steps.jsonl``.

        Raises:
            Stopped: a signal or the deadline asked to (:mod:`bnnlib.record.stopping`); the
            checkpoint is written and the record says ``stopped``. Raised on every rank after one
            step.
        """
        if self.is_finished:
            return
        self.has_begun = True
        self._training = {"bytes_a_step": trainer.bytes_a_step}
        if self.is_trained(trainer):
            return
        if self.experiment.tensorboard:
            self.ranks.agree(lambda: self._open_scalars(trainer))
        first_step = trainer.step
        if first_step == 0:
            self.log_posterior(trainer)
        stamped: list[tuple[StepLog, np.ndarray]] = []
        if self.experiment.profile and self.ranks.rank == 0:
            self.ranks.start_timeline(str(self.directory / profile.TIMELINE))
        with (
            self.session.requests.calling(trainer.ask_to_stop),
            self.session.watch(self.experiment.stall_minutes) as watch,
        ):
            for line in trainer.run(lambda: until() or self.is_trained(trainer)):
                watch.alive()
                if not self._has_trained:
                    self._note_training(first_step)
                self.log(line)
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
            everyones = self.ranks.gather(profile.stamps_of(stamped, trainer.bytes_a_step))
            if self.ranks.rank == 0:
                self.ranks.stop_timeline()
                profile.write(self.directory, everyones)
        if trainer.stopped:
            self.save(trainer)
            self._writer.wait()
            reasons = list(filter(None, self.ranks.gather(self.session.requests.reason)))
            text = f"{reasons[0] if reasons else 'asked to'}, after step {trainer.step} of "
            self.stop(f"{text}{trainer.num_steps}")
            raise Stopped(f"{text}{trainer.num_steps}; the same command started again goes on")
        if trainer.step != self._saved_step:  # `until` has ended it
            self.save(trainer)
        self._writer.wait()

    def _open_scalars(self, trainer: Trainer) -> None:
        """Begins TensorBoard's file anew, with the lines so far, on rank 0."""
        if self.ranks.rank == 0:
            self._scalars = trainer.scalars(self.directory)
            self._scalars.write([*self.lines, *logs.read_accuracy(self.directory)])

    def is_trained(self, trainer: Trainer) -> bool:
        """Whether training has come to its end, by steps or by convergence; alike on all ranks."""
        if trainer.step >= trainer.num_steps or self.experiment.until == "epochs":
            return trainer.step >= trainer.num_steps
        found = convergence(self.lines) if trainer.position % trainer.steps_per_epoch == 0 else None
        return found is not None and bool(found["converged"])

    def _note_training(self, first_step: int) -> None:
        """Notes that this attempt has trained, and from which step."""
        self._has_trained, self._timed_from = True, first_step
        if self.ranks.rank == 0:
            seconds = self.session.clock.seconds()
            self._update({"first_step": first_step, "startup_seconds": seconds})

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
            self.ranks.refuse_difference(state)

    def log(self, line: StepLog) -> None:
        """Appends a line to ``steps.jsonl``, at once visible to ``tail -f``."""
        self.lines.append(line)
        if self.ranks.rank == 0:
            self._append(logs.STEPS, [line])

    def _log_accuracy(self, trainer: Trainer) -> None:
        """Appends to ``accuracy.jsonl`` where `evaluate_every` says so; every rank calls it."""
        every = self.experiment.evaluate_every * trainer.steps_per_epoch
        if every == 0 or (trainer.position % every and trainer.step != trainer.num_steps):
            return
        if self.ranks.rank == 0:
            epoch, means = trainer.position / trainer.steps_per_epoch, trainer.accuracy_of_means()
            line = AccuracyLog(trainer.step, epoch, means, trainer.validation_nll())
            self._append(logs.ACCURACY, [line])
        # The others wait here, not in the first allreduce of the next line, which is timed.
        self.ranks.gather(None)

    def log_posterior(self, trainer: Trainer) -> None:
        """Appends the present posterior to ``posterior.jsonl``, from rank 0: weights are equal."""
        lines = trainer.layer_logs() if self.ranks.rank == 0 else []
        if lines:
            self._append(logs.POSTERIOR, lines)

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, from rank 0, while training goes on with the next steps.

        The present state is copied first. The log lines up to here reach the disk before the
        checkpoint does, so that no checkpoint is further than its log, even after a power cut.
        """
        if self.ranks.rank != 0:
            return
        state, folder = trainer.state(), self.directory / "checkpoints"

        def write() -> None:
            self._check_lock()
            for name in (logs.STEPS, logs.POSTERIOR, logs.ACCURACY):
                files.sync(self.directory / name)
            checkpoint.save(folder, state, self.experiment.keep_checkpoints)

        self._writer.start(write)
        self._saved_step, self._saved_at = trainer.step, time.monotonic()

    def note(self, metrics: Mapping[str, float]) -> None:
        """Adds numbers on what was done beside training to the metrics of :meth:`finish`."""
        self._training |= metrics

    def evaluation(self) -> Evaluation | None:
        """The evaluation in a finished run's record, on every rank; None if it is still to be made.

        Raises:
            RecordError: the record or its predictions are damaged; raised on every rank.
        """

        def read() -> Evaluation | None:
            if not self.is_finished or self.ranks.rank > 0:
                return None
            record = read_record(self.directory)
            predictions = read_all_predictions(self.directory)
            return Evaluation(predictions, record["evaluation"], record["metrics"])

        return self.ranks.gather(self.ranks.agree(read))[0]

    def finish(self, evaluation: Evaluation, status: str = "finished") -> dict[str, Any]:
        """Writes predictions, the row of each set and the metrics, and closes the record.

        Args:
            evaluation: of :func:`bnnlib.inference.evaluation.evaluate`, or of :meth:`evaluation`.
            status: ``finished``, or ``stopped`` where training ended before its last step.

        Returns:
            The metrics, on every rank: those of the evaluation, and ``images_per_second``,
            ``train_seconds``, ``steps_done``, ``kl`` (nats), ``train_nll``, and ``bytes_a_step``
            that a rank gives to the average.
        """
        if self.is_finished:
            return evaluation.metrics
        values = training_metrics(self.lines, self._timed_from) | self._training
        values = evaluation.metrics | values
        if self.ranks.rank == 0:
            write_predictions(self.directory, evaluation.predictions)
            self._update(
                {"ended": now()},
                status=status,
                metrics=values,
                evaluation=evaluation.rows,
                converged=convergence(self.lines),
                error=None,
            )
        self._close()
        return values

    def stop(self, reason: str) -> None:
        """Closes the record with status ``stopped``; its history names what asked for the stop."""
        if self.is_finished:
            return
        if self.ranks.rank == 0:
            self._add_event("stopped", reason)
            self._update({"ended": now()}, status="stopped")
        self._close()

    def fail(self, error: Mapping[str, Any]) -> None:
        """Closes the record with status ``failed`` and the error, on whichever rank it happened.

        The first error stays: later errors of other ranks are its consequences.
        """
        if self.is_finished:
            return
        try:
            concerned = self.ranks.rank in (0, error.get("rank"))
            if concerned and read_file(self.directory)["status"] != "failed":
                self._update({"ended": now()}, status="failed", error=without_home(dict(error)))
        finally:
            self._close()

    def _add_event(self, event: str, what: str) -> None:
        self._update(history=[*read_file(self.directory)["history"], event_of(event, what)])

    def abandon(self) -> None:
        """Closes the run but leaves its record as it is, for another start of this process.

        Raises:
            RecordError: the last checkpoint could not be written; the one before is there.
        """
        try:
            self._writer.wait()
        finally:
            self._close()

    def _close(self) -> None:
        if self in self.session.runs:
            self.session.runs.remove(self)
            self.session.clock.restart()  # of this process' next run
        self._writer.close()
        if self._scalars:
            self._scalars.close()
        if self._lock is not None:
            self._lock.release()

    def _append(self, name: str, lines: Sequence[logs.Log]) -> None:
        self._check_lock()
        logs.append(self.directory / name, lines)
        if self._scalars:
            self._scalars.write(lines)

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _write_first(
        self,
        provenance: Mapping[str, Any],
        horovod: Mapping[str, Any],
        events: Sequence[tuple[str, str]],
        trained_before: bool,
    ) -> None:
        attempt = new_attempt(self.ranks, self.experiment.virtual_ranks, provenance, horovod)
        record = new_record(self.experiment.to_dict(), "running", [attempt])
        record["source"] = self.source
        if (self.directory / "run.json").exists():
            old = read_record(self.directory)
            record["attempts"] = [*old["attempts"], attempt]
            record["history"] = [*old["history"], *(event_of(*event) for event in events)]
            trained = (self.directory / "checkpoints").exists()
            if trained or old["status"] != "failed":
                refuse_other(self.directory, old, self.experiment, self.ranks.size)
                source.refuse_changed(self.directory, old["source"], self.source)
                if trained:
                    total = old["ranks"] * old["virtual_ranks"]
                    count = self.experiment.virtual_ranks_of(self.ranks.size, total)
                    attempt["virtual_ranks"] = count
                    if old["ranks"] != self.ranks.size and not trained_before:
                        text = told_ranks(self.experiment, self.ranks.size, count, old)
                        logger.warning("%s: %s", self.directory, text)
                        record["history"].append(event_of("ranks changed", text))
                record |= {key: old[key] for key in ("metrics", "evaluation", "converged", "data")}
        write_record(self.directory, record)

    def _update(self, attempt: Mapping[str, Any] | None = None, **changes: Any) -> None:
        """Changes keys of the record, and of this attempt in it."""
        self._check_lock()
        record = read_file(self.directory) | changes
        record["attempts"][-1] |= attempt or {}
        write_record(self.directory, record)
