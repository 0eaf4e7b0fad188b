"""A run's curves in TensorBoard: ``tensorboard --logdir runs/digits`` shows each run by its id.

The file of events holds the numbers of ``steps.jsonl`` and ``accuracy.jsonl`` and lies beside them.
It is a picture of these files, which are the record: a run that goes on draws it anew, so that no
step stands in it twice. The times that TensorBoard shows are those of the drawing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from bnnlib.errors import RecordError
from bnnlib.record import logs

# The end of the file's name; a user's own events in that folder have another.
SUFFIX = ".bnnlib"


class Scalars:
    """The scalars of a run's log lines, by step.

    Args:
        directory: of the run; a file of events that an earlier start has left there is removed.
        num_images: of the training set.

    Raises:
        RecordError: the file cannot be made.
    """

    def __init__(self, directory: str | Path, num_images: int) -> None:
        self.directory, self.num_images = Path(directory), num_images
        try:
            for old in self.directory.glob(f"events.out.tfevents.*{SUFFIX}"):
                old.unlink()
            self._writer = tf.summary.create_file_writer(str(directory), filename_suffix=SUFFIX)
        except (OSError, tf.errors.OpError) as error:
            raise self._unwritten(error) from error

    def write(self, lines: Iterable[logs.Log]) -> None:
        """Appends what TensorBoard shows of some lines, at once visible there.

        Raises:
            RecordError: the disk is full, say.
        """
        try:
            with self._writer.as_default():
                for line in lines:
                    for name, value in logs.scalars(line, self.num_images).items():
                        tf.summary.scalar(name, value, step=line.step)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Closes the file; each line is in it already."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    def _unwritten(self, error: Exception) -> RecordError:
        return RecordError(
            f"{self.directory}: TensorBoard's events could not be written ({error}); tensorboard: "
            "false trains without them"
        )
