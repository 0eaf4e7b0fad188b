"""Watches a run while it trains: curves that move, and a button that stops the run.

Watching reads the run's ``steps.jsonl``, so it costs the ranks nothing, and what is shown is what
is recorded. Stopping leaves a file in the run's directory, which rank 0 looks for after each line;
the ranks agree, write a checkpoint and end their cell. Training again goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis import figures
from bnnlib.inference.distributed import Ranks
from bnnlib.interactive.cluster import LOOK_EVERY, Cluster
from bnnlib.record.logs import AccuracyLog, StepLog, read_accuracy, read_steps
from bnnlib.record.run import Run
from bnnlib.record.schema import read_record

# Seconds from one picture to the next; one takes a tenth of that, on cores that are the ranks'.
DRAW_EVERY = 1.0
COLUMNS = [*StepLog.__dataclass_fields__]


def request_stop(directory: str | Path) -> None:
    """Asks the run in this directory to stop after its next line."""
    _stop_file(directory).touch()


def stop_requested(run: Run, ranks: Ranks) -> Callable[[], bool]:
    """Whether the reader has asked to stop, for `until` of :meth:`bnnlib.record.run.Run.follow`.

    Returns:
        A function that all ranks call together and that answers alike on all. What was asked
        before is forgotten.
    """
    file = _stop_file(run.directory)
    if ranks.rank == 0:
        file.unlink(missing_ok=True)

    def until() -> bool:
        asked = bool(ranks.gather(ranks.rank == 0 and file.exists())[0])
        if asked and ranks.rank == 0:
            file.unlink(missing_ok=True)
        return asked

    return until


async def watch(
    cluster: Cluster,
    directory: str | Path,
    epochs: float | None = None,
    num_train_examples: int | None = None,
) -> None:
    """Shows a run's curves while the cluster's last cell trains it, with a button that stops it.

    To be awaited; returns when the cell has ended. Picture and closing line stay in the saved
    notebook; the button, which would be dead there, does not.

    Args:
        cluster: where it trains.
        directory: the run's.
        epochs: of the whole run, for the axes.
        num_train_examples: N, by which KL is divided.

    Raises:
        DistributedError: as :meth:`bnnlib.interactive.cluster.Cluster.wait`.
    """
    from IPython.display import Markdown, display
    from ipywidgets import Button

    button = Button(
        description="Stop", tooltip="after the next line, with a checkpoint", icon="stop"
    )
    button.on_click(lambda _: request_stop(directory))
    below = display(button, display_id=True)

    earlier = before(directory)

    def drawing(lines: list[StepLog]) -> Figure:
        accuracies = read_accuracy(directory)
        return curves(lines, epochs, num_train_examples, accuracies, earlier)

    picture = display(drawing([]), display_id=True)
    shown, drawn = 0, time.monotonic()

    def redraw(now: bool = False) -> None:
        nonlocal shown, drawn
        if now or time.monotonic() - drawn >= DRAW_EVERY:
            lines = read(directory)
            if len(lines) != shown:
                picture.update(drawing(lines))
            shown, drawn = len(lines), time.monotonic()

    try:
        with contextlib.closing(cluster.looks()) as looks:
            for _ in looks:
                redraw()
                await asyncio.sleep(LOOK_EVERY)  # a kernel hears of the button while a cell awaits
    finally:
        redraw(now=True)
        last = read(directory)[-1:]
        text = f"{last[0].step} steps, {last[0].epoch:.2f} epochs" if last else "no line"
        below.update(Markdown(f"Training has ended here: {text}."))
        button.close()


def read(directory: str | Path) -> list[StepLog]:
    """A run's lines so far; empty if none is written yet."""
    path = Path(directory) / "steps.jsonl"
    return read_steps(directory) if path.exists() else []


def before(directory: str | Path) -> list[StepLog]:
    """The lines of the run that this one goes on from with other parameters, up to that step.

    Empty if it goes on from none, or if that run's record has gone.
    """
    continues = read_record(directory).get("continues")
    if not continues:
        return []
    return [line for line in read(continues["run"]) if line.step <= continues["step"]]


def curves(
    lines: list[StepLog],
    epochs: float | None = None,
    num_train_examples: int | None = None,
    accuracies: Sequence[AccuracyLog] = (),
    earlier: Sequence[StepLog] = (),
) -> Figure:
    """The picture of :func:`watch`; `earlier` are the lines of :func:`before`, drawn in grey."""
    # Before the first line the tables are empty, and an empty table has no numbers by itself.
    validation = pd.DataFrame(accuracies, columns=[*AccuracyLog.__dataclass_fields__]).astype(float)
    types = dict.fromkeys(COLUMNS, float) | {"warmup": bool}
    steps, old = (pd.DataFrame(one, columns=COLUMNS).astype(types) for one in (lines, earlier))
    grey = old if len(old) else None
    return figures.training_curves(steps, epochs, num_train_examples, validation, grey)


def _stop_file(directory: str | Path) -> Path:
    return Path(directory) / "stop"
