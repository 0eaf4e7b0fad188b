"""Which run a start is of: its directory, and whether it goes on with what is held there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnnlib.errors import DataError, RecordError
from bnnlib.experiment import UPKEEP, Experiment

Content = Mapping[str, Any]  # of bnnlib.data.content


def run_directory(experiment: Experiment, ranks: int) -> Path:
    """The record's directory: `run_dir`, else the executed notebook's folder, else a name."""
    if experiment.run_dir:  # within the folder that papermill was started in, as its output is
        return Path(os.environ.get("BNN_START_DIR", ""), experiment.run_dir)
    notebook = os.environ.get("BNN_RUN_DIR")
    return Path(notebook) if notebook else experiment.default_run_dir(ranks)


def refuse_other(
    directory: Path, old: Mapping[str, Any], experiment: Experiment, ranks: int
) -> None:
    """Refuses to continue one run as another; what :data:`UPKEEP` names may differ.

    Args:
        directory: of the record.
        old: the record.
        experiment: the parameters asked for.
        ranks: the number of ranks asked for.

    Raises:
        RecordError: with each parameter that differs, there and now.
    """
    # A run older than a parameter was made with what is its default now.
    before, after = Experiment().to_dict() | old["parameters"], experiment.to_dict()
    may_differ = {"run_dir", *UPKEEP}
    if experiment.on_rank_change == "continue":
        total = ranks * experiment.virtual_ranks
        may_differ |= {"virtual_ranks"} if total == old["ranks"] * old["virtual_ranks"] else set()
    different = [
        f"{name} ({before.get(name)!r} there, {after.get(name)!r} now)"
        for name in dict.fromkeys([*before, *after])
        if name not in may_differ and before.get(name) != after.get(name)
    ]
    if old["ranks"] != ranks and experiment.on_rank_change == "refuse":
        if not different:
            raise RecordError(
                f"{directory}: holds a run with other parameters: ranks ({old['ranks']!r} there, "
                f"{ranks!r} now). Start it with as many as it was begun with; or set "
                "on_rank_change to continue: where the ranks divide its "
                f"{old['ranks'] * old['virtual_ranks']} virtual ranks it goes on as the same run "
                "up to rounding, else it ends with other weights than an uninterrupted one"
            )
        different.append(f"ranks ({old['ranks']!r} there, {ranks!r} now)")
    if different:
        raise RecordError(
            f"{directory}: holds a run with other parameters: {', '.join(different)}. "
            "Give another run_dir (or output notebook), or move the old run away"
        )


def told_ranks(experiment: Experiment, ranks: int, carries: int, old: Mapping[str, Any]) -> str:
    """Says what other ranks change of the run, for the record's history.

    Args:
        experiment: the parameters asked for.
        ranks: that train now.
        carries: virtual ranks of each now.
        old: the record of those that trained before.
    """
    before, now = old["ranks"] * old["virtual_ranks"], ranks * carries
    text = f"{ranks} rank(s) x {carries} virtual instead of {old['ranks']} x "
    text += f"{old['virtual_ranks']}: "
    if now == before:
        return text + (
            f"still {now} virtual ranks, so that data order, weight noise, learning rate and "
            "global batch stay; the average's rounding changes"
        )
    size, factor = experiment.batch_size, experiment.learning_rate_factor
    return text + (
        f"{ranks} does not divide {before}, so that from here on the global batch is {now * size} "
        f"images instead of {before * size}, the learning rate's factor {factor(now):.4g} instead "
        f"of {factor(before):.4g}, and data order and weight noise are other ones: the run ends "
        "with other weights than an uninterrupted one. An epoch's part that was begun goes on at "
        "the nearest earlier step"
    )


def refuse_unequal(everyones: Sequence[tuple[str, Content]]) -> None:
    """Refuses ranks that have read different data.

    Args:
        everyones: of each rank its host and the content of its data.

    Raises:
        DataError: with what differs, and the first rank that holds it otherwise than rank 0.
    """
    host, first = everyones[0]
    for rank, (other_host, other) in enumerate(everyones):
        different = _differences(
            first, other, f"on rank 0 ({host})", f"on rank {rank} ({other_host})"
        )
        if different:
            ranks = [str(number) for number, (_, each) in enumerate(everyones) if each != first]
            raise DataError(
                f"rank(s) {', '.join(ranks)} read other data than rank 0: {different}. Give all "
                "ranks one file: copy it to every node anew, or name it by an absolute path on a "
                "file system that all nodes share"
            )


def refuse_changed(directory: Path, before: Content, now: Content) -> None:
    """Refuses to go on with other data than those that the run began with.

    Raises:
        DataError: with what differs.
        RecordError: the record's content is damaged.
    """
    try:
        different = _differences(before, now, "when the run began", "now")
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(
            f"{directory / 'run.json'}: key 'data' is no content of a data set ({error!r}); give "
            "another run_dir (or output notebook), or remove the key if the data are the same"
        ) from error
    if different:
        raise DataError(
            f"{directory}: its data have changed: {different}. Put the data back as they were, or "
            "give another run_dir (or output notebook) for a run with the new data"
        )


def remarks(content: Content) -> list[str]:
    """What a run says once of its data: empty classes, and missing sets out of distribution."""
    told = [_told_empty(content)] if content["empty_classes"] else []
    missing = {name: of["missing"] for name, of in content.get("ood_groups", {}).items()}
    if any(missing.values()):
        lacks = [f"{name!r} without {', '.join(of)}" for name, of in missing.items() if of]
        remedies = dict.fromkeys(text for of in missing.values() for text in of.values())
        told.append(
            f"ood_sets: this run is evaluated on the group {', on the group '.join(lacks)}, which "
            f"are not on this machine. {' '.join(remedies)}"
        )
    return told


def _told_empty(content: Content) -> str:
    empty, number = content["empty_classes"], content["num_classes"]
    names = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
    text = f"no training image has the label {names}: the network has {number} outputs, for "
    text += f"labels 0 to {number - 1}, and every score counts the empty class"
    return text + (". If your labels count from 1, subtract 1" if empty == [0] else "")


def _differences(first: Content, other: Content, here: str, there: str) -> str:
    """What differs between two contents, empty if nothing does."""
    told = []
    if first["num_classes"] != other["num_classes"]:
        told.append(f"{first['num_classes']} classes {here}, {other['num_classes']} {there}")
    for name in dict.fromkeys([*first["arrays"], *other["arrays"]]):
        one, two = first["arrays"].get(name), other["arrays"].get(name)
        if one != two:
            told.append(f"{name} {_told(one)} {here}, {_told(two)} {there}")
    if not told and first["scale"] != other["scale"]:
        told.append(f"pixels times {first['scale']} {here}, {other['scale']} {there}")
    return "; ".join(told)


def _told(array: Mapping[str, Any] | None) -> str:
    if array is None:
        return "missing"
    return f"{tuple(array['shape'])} {array['dtype']} {array['sha256'][:8]}…"
