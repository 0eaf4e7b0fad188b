"""The files that grow while a run trains, a JSON object a line, to be followed by ``tail -f``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bnnlib.errors import RecordError
from bnnlib.record.files import write_text
from bnnlib.record.schema import from_plain, is_number, plain

STEPS, POSTERIOR, ACCURACY = "steps.jsonl", "posterior.jsonl", "accuracy.jsonl"
Line = TypeVar("Line")
# The quantiles that are kept: the extremes, what lies outside 98 % and 90 %, and the quartiles.
LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class StepLog:
    """One line of ``steps.jsonl``: means over the steps since the line before.

    Attributes:
        step: steps done.
        epoch: passes over the training set done.
        loss: nll + the weighted kl / N, nats an image.
        nll: mean negative log-likelihood over the global batches, nats an image.
        kl: KL(q||p) in nats.
        learning_rate: at the last step.
        images_per_second: of all ranks together.
        seconds: time that these steps took.
        warmup: whether the graph's first run is among them, so that the time is no measurement.
    """

    step: int
    epoch: float
    loss: float
    nll: float
    kl: float
    learning_rate: float
    images_per_second: float
    seconds: float
    warmup: bool


@dataclasses.dataclass(frozen=True)
class LayerLog:
    """One line of ``posterior.jsonl``: a Bayesian layer's kernel after some training.

    Attributes:
        step: steps done.
        epoch: passes over the training set done; 0 for the initial posterior.
        layer: its name, such as ``layer0_convolution``.
        entries: number of kernel entries.
        mean: quantiles of the entries' posterior means at :data:`LEVELS`.
        stddev: quantiles of their posterior standard deviations.
        snr: quantiles of their signal-to-noise ratios abs(mean)/stddev (Blundell et al. 2015,
            section 5.1, by which weights are pruned).
    """

    step: int
    epoch: float
    layer: str
    entries: int
    mean: list[float]
    stddev: list[float]
    snr: list[float]


@dataclasses.dataclass(frozen=True)
class AccuracyLog:
    """One line of ``accuracy.jsonl``.

    Attributes:
        step: steps done.
        epoch: passes over the training set done.
        accuracy: on the test set, of the network whose weights are the posterior's means.
        validation_nll: of the predictive distribution, on the images held out, or on the test
            images where none are held out; nats an image, None in lines older than this key.
    """

    step: int
    epoch: float
    accuracy: float
    validation_nll: float | None = None


Log = StepLog | LayerLog | AccuracyLog


def scalars(line: Log, num_images: int) -> dict[str, float]:
    """What TensorBoard shows of a line; a layer's posterior has no scalar.

    Args:
        line: of one of these files.
        num_images: of the training set.

    Returns:
        By the names of the lines; but the KL divergence is `kl_per_image`, in nats, so that its
        curve and the `nll`'s add up to the `loss` where `kl_weight` is 1.
    """
    if isinstance(line, StepLog):
        speed = {} if line.warmup else {"images_per_second": line.images_per_second}
        own = {"loss": line.loss, "nll": line.nll, "kl_per_image": line.kl / num_images}
        return own | {"learning_rate": line.learning_rate} | speed
    if isinstance(line, AccuracyLog):
        look = {"accuracy": line.accuracy, "validation_nll": line.validation_nll}
        return {name: value for name, value in look.items() if value is not None}
    return {}


def read_steps(directory: str | Path) -> list[StepLog]:
    """The lines of a run's ``steps.jsonl``; an unfinished last line is left out.

    Raises:
        RecordError: another line is no step, or the file cannot be read.
    """

    def step(values: dict[str, Any]) -> StepLog:
        values = _with_nan(from_plain(values))
        if not all(isinstance(value, int | float) for value in values.values()):
            raise ValueError("expected numbers only")
        return StepLog(**values)

    return _read_lines(Path(directory) / STEPS, "step", step)


def read_posterior(directory: str | Path) -> list[LayerLog]:
    """The lines of a run's ``posterior.jsonl``; an unfinished last line is left out.

    Returns:
        In order of training; empty for a deterministic network, and for a run older than this file.

    Raises:
        RecordError: another line is no layer's posterior, or the file cannot be read.
    """

    def layer(values: dict[str, Any]) -> LayerLog:
        line = LayerLog(**_with_nan(from_plain(values)))
        quantiles = [*line.mean, *line.stddev, *line.snr]
        numbers = [line.step, line.epoch, line.entries, *quantiles]
        if len(quantiles) != 3 * len(LEVELS) or not all(map(is_number, numbers)):
            raise ValueError(f"expected {len(LEVELS)} quantiles of each quantity")
        return line

    return _read_lines(Path(directory) / POSTERIOR, "layer's posterior", layer)


def read_accuracy(directory: str | Path) -> list[AccuracyLog]:
    """The lines of a run's ``accuracy.jsonl``; none if the run was not asked for them.

    Raises:
        RecordError: a line but the last, which may be unfinished, is none.
    """
    path = Path(directory) / ACCURACY
    return _read_lines(path, "accuracy", lambda values: AccuracyLog(**values))


def _with_nan(value: Any) -> Any:
    """A line's values with NaN where the file has null."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


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


def append(path: Path, lines: Iterable[Log]) -> None:
    """Appends lines to one of these files, at once visible to ``tail -f``.

    Raises:
        RecordError: the disk is full, say.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json_line(line) for line in lines)
    except OSError as error:
        raise RecordError(
            f"{path}: could not be written ({error.strerror}); checkpoints and lines written "
            "before are unharmed"
        ) from error


def keep_until(directory: Path, step: int) -> list[StepLog]:
    """Drops the lines that training from `step` on writes again; returns the remaining step lines.

    Raises:
        RecordError: a file is damaged, or cannot be written.
    """
    if (directory / ACCURACY).exists():
        _write(directory / ACCURACY, [one for one in read_accuracy(directory) if one.step <= step])
    kept = [line for line in read_steps(directory) if line.step <= step]
    _write(directory / STEPS, kept)
    if (directory / POSTERIOR).exists():
        # The initial posterior is written again by a run that starts again.
        layers = read_posterior(directory) if step > 0 else []
        _write(directory / POSTERIOR, [line for line in layers if line.step <= step])
    return kept


def _write(path: Path, lines: Iterable[Log]) -> None:
    text = "".join(map(json_line, lines))
    write_text(path, text)


def json_line(line: Log) -> str:
    """A line of one of these files, with its end."""
    return json.dumps(plain(dataclasses.asdict(line)), allow_nan=False) + "\n"


def training_metrics(lines: list[StepLog], timed_from: int = 0) -> dict[str, Any]:
    """Speed and last losses of a run's lines; lines with the graph's first run are no measurement.

    Args:
        lines: of the whole run.
        timed_from: the step from which the attempt trained whose machine the record names: what
            was trained before, elsewhere perhaps, is no measurement of it.

    Returns:
        ``images_per_second`` of all ranks together, over the measured lines (over all where a run
        is too short to have others), ``step_ms_p10``, ``step_ms_p50`` and ``step_ms_p90``, the
        quantiles over those lines of a step's milliseconds, each line with the weight of its steps,
        ``timed_seconds`` over the measured lines, ``train_seconds`` over all lines, ``steps_done``,
        ``train_nll`` (nats an image) and ``kl`` (nats) at the end; empty for no lines.
    """
    if not lines:
        return {}
    steps = np.diff([line.step for line in lines], prepend=0)
    pairs = [(int(n), line) for n, line in zip(steps, lines, strict=True) if n > 0]
    measured = [(n, line) for n, line in pairs if not line.warmup] or pairs
    measured = [(n, line) for n, line in measured if line.step > timed_from] or measured
    seconds = sum(line.seconds for _, line in measured)
    images = sum(line.images_per_second * line.seconds for _, line in measured)
    times = np.repeat([1e3 * line.seconds / n for n, line in measured], [n for n, _ in measured])
    return {
        "images_per_second": images / seconds,
        "timed_seconds": sum(line.seconds for _, line in measured if not line.warmup),
        **{f"step_ms_p{q}": float(np.percentile(times, q)) for q in (10, 50, 90)},
        "train_seconds": sum(line.seconds for line in lines),
        "steps_done": lines[-1].step,
        "train_nll": lines[-1].nll,
        "kl": lines[-1].kl,
    }
