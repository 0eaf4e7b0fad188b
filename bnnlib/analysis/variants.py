"""Which runs may stand in one comparison: a choice of them, of one data set, told apart by colour.

Variants are runs that differ in a parameter; :func:`bnnlib.analysis.runs.named` names them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.names import network_of, settings_of

# As many as colour and marker tell apart in one figure.
MOST = 12
# What runs are chosen by beside their parameters.
OTHERS = ("ranks", "run_id")


def chosen(runs: pd.DataFrame, variants: str) -> pd.DataFrame:
    """The runs that have certain parameters.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.
        variants: conditions with a semicolon between them, each a parameter (or ``ranks``,
            ``run_id``) and the values it may have, such as ``prior_stddev=0.1,1; model=CNN_FC``.
            Empty: all runs.

    Raises:
        RecordError: a condition that is none, a parameter that no run has (with the nearest one),
            or no run that meets them.
    """
    kept = runs
    for condition in filter(None, (part.strip() for part in variants.split(";"))):
        name, equals, values = (part.strip() for part in condition.partition("="))
        if not equals or not values:
            raise RecordError(
                f"variants = {variants!r}: {condition!r} is no condition; expected a parameter and "
                "its values, such as prior_stddev=0.1,1"
            )
        if name not in OTHERS and (name not in Experiment.names() or name not in runs):
            near = difflib.get_close_matches(name, [*OTHERS, *Experiment.names()], 1)
            raise RecordError(
                f"variants = {variants!r}: no run has a parameter {name!r}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        default = Experiment().to_dict().get(name)
        # A run older than a parameter was made with what is its default now.
        has = runs[name].map(lambda v, d=default: _plain(d if v is None or v != v else v))
        wanted = {_plain(value) for value in values.split(",")}
        if name == "dataset":  # where one's own lies differs between machines
            has, wanted = has.map(_file), set(map(_file, wanted))
        if not wanted <= set(has):
            missing = ", ".join(sorted(wanted - set(has)))
            raise RecordError(
                f"variants = {variants!r}: no run has {name} = {missing}; the runs have "
                + ", ".join(sorted(set(has)))
            )
        kept = kept[has[kept.index].isin(wanted)]
    if variants.strip() and kept.empty:
        raise RecordError(f"variants = {variants!r}: no run meets all of these; leave one out")
    return kept


def _plain(value: object) -> str:
    """A value as text, numbers alike however they are written."""
    text = str(value).strip()
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def _file(dataset: str) -> str:
    """A data set's name wherever its file lies."""
    return Path(dataset).name


def refuse_too_many(variants: Sequence[str]) -> None:
    """Refuses more variants than one figure can tell apart.

    Raises:
        RecordError: they are more than :data:`MOST`; it says how to choose some.
    """
    if len(variants) <= MOST:
        return
    values: dict[str, list[str]] = {"model": list(dict.fromkeys(map(network_of, variants)))}
    for name in variants:
        for key, value in settings_of(name):
            if value not in values.setdefault(key, []):
                values[key].append(value)
    key, most = max(values.items(), key=lambda item: len(item[1]))
    raise RecordError(
        f"{len(variants)} variants in one comparison, and a figure can tell {MOST} apart: choose "
        f"some by the parameter `variants`, for example {key}={','.join(most[:2])}. They are: "
        + ", ".join(variants)
    )


def refuse_mixed_sets(runs: pd.DataFrame, test_images: Mapping[str, bytes]) -> None:
    """Refuses runs that were not all judged on one test set, trained on one data set.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.
        test_images: what tells the test images and their labels apart, by the run's directory.

    Raises:
        RecordError: there are several sets; it names them and their runs.
    """
    sets: dict[tuple[str, bytes], list[str]] = {}
    for run in runs.itertuples():
        sets.setdefault((_file(str(run.dataset)), test_images[run.path]), []).append(run.run_id)
    if len(sets) < 2:
        return
    names = [name for name, _ in sets]
    shown = [
        f"{name}{_which(name, names, index)}: {', '.join(ids)}"
        for index, ((name, _), ids) in enumerate(sets.items())
    ]
    most = max(sets, key=lambda one: len(sets[one]))
    remedy = f"dataset={most[0]}" if len(set(names)) > 1 else f"run_id={','.join(sets[most])}"
    raise RecordError(
        f"runs of {len(sets)} data sets or test sets cannot be compared ({'; '.join(shown)}); "
        f"choose those of one by the parameter `variants`, for example {remedy}, or give each "
        "a folder"
    )


def _which(name: str, names: Sequence[str], index: int) -> str:
    """Tells test sets of one data set apart: they hold other images or labels."""
    if names.count(name) < 2:
        return ""
    return f" (test set {names[: index + 1].count(name)})"
