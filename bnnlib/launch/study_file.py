"""Study files: many runs in one YAML file, for a launch of ranks here or for a site's queue.

A file says only what differs from the defaults of :class:`bnnlib.experiment.Experiment`::

    common: {dataset: digits, epochs: 6}       # the same in all runs
    parts:
      - group: weak                            # records in runs/weak/
        ranks: [1, 2]                          # one run each; or nodes: [1, 2]
        grid: {model: [CNN_FC, BNN_FC_flip], noise_streams: [0, 1]}   # every combination
        repeats: 3                             # of each run
        walltime: "00:30:00"                   # of each job, where a queue runs them
      - group: strong
        ranks: 2                               # one value needs no list
        common: {learning_rate_scaling: none}  # in this part, beside or in place of the file's
        grid: {model: CNN_FC, global_batch: 64}

A file with one part has its keys at the top, without ``parts``. What stands beside ``parts`` holds
for each part that says nothing else. ``global_batch``, in place of ``batch_size``, is the images a
step of all ranks together. A run is named by its model, its ranks and its values of the grid:
``runs/weak/CNN_FC-r2-noise_streams=1-repeat1``; the first of several repeats has no number.

:func:`read` checks the whole file before anything starts. :mod:`bnnlib.launch.here` runs it in one
launch, :mod:`bnnlib.launch.queue` submits it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnlib import data, parameters
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment, read_value, unknown_name

SHARED_KEYS = ("common", "group", "ranks", "nodes", "repeats", "walltime")
PART_KEYS = (*SHARED_KEYS, "grid")
FILE_KEYS = (*SHARED_KEYS, "parts")
PARAMETERS = (*Experiment.names(), "global_batch")
DEFAULT_WALLTIME = "01:00:00"
# The words of the two languages that this one replaces, and what each is now.
OLD_KEYS = {"vary": "grid", "parameters": "common"}


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study file.

    Attributes:
        experiment: its parameters; `run_dir` is ``<runs>/<group>/<name>``.
        ranks: number of ranks in all.
        nodes: number of nodes, where the file asks for nodes; 0 where it asks for ranks.
        repeat: 0 for the first of several equal runs.
        walltime: of its job, HH:MM:SS.
    """

    experiment: Experiment
    ranks: int
    nodes: int
    repeat: int
    walltime: str

    @property
    def directory(self) -> Path:
        """The folder of its record."""
        return Path(self.experiment.run_dir)


def read(
    path: str | Path,
    runs: str | Path = "runs",
    any_ranks: int | None = None,
    ranks_per_node: int = 1,
) -> list[StudyRun]:
    """All runs of a study file: the first of all repeats in the file's order, then the second.

    Args:
        path: of the file.
        runs: folder of the groups.
        any_ranks: number of ranks of a part that names none; None: each part must name them.
        ranks_per_node: what a part's ``nodes`` are multiplied by.

    Raises:
        ExperimentError: the file cannot be read, or any of its parts says what no run can do. The
            message names the file, the part and the key.
    """
    by_directory: dict[str, tuple[str, StudyRun]] = {}
    for where, part in _parts(path):
        try:
            for run in _expand(part, Path(runs), any_ranks, ranks_per_node):
                name = run.experiment.run_dir
                if name in by_directory:
                    raise ExperimentError(
                        f"a run in {name}, where {by_directory[name][0]} has one already; give the "
                        "part another group, or move what differs from common to grid"
                    )
                by_directory[name] = (where, run)
        except BnnlibError as error:
            raise ExperimentError(f"{path}: {where}: {error}") from error
    return sorted((run for _, run in by_directory.values()), key=lambda run: run.repeat)


def hours(walltime: str) -> float:
    """HH:MM:SS as hours."""
    whole, minutes, seconds = map(int, walltime.split(":"))
    return whole + minutes / 60 + seconds / 3600


def differences(experiment: Experiment) -> dict[str, Any]:
    """The parameters that are not the defaults, but for `run_dir`."""
    default = Experiment().to_dict()
    values = experiment.to_dict().items()
    return {name: v for name, v in values if v != default[name] and name != "run_dir"}


def _parts(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Each part's place in the file, and its keys with the file's keys that hold for it."""
    content = parameters.read_file(path, "study file")
    if isinstance(content, list):
        raise ExperimentError(
            f"{path}: a list of parts is the language of older plans; write `parts:` above it"
        )
    keys = FILE_KEYS if isinstance(content, dict) and "parts" in content else PART_KEYS
    _check_keys(f"{path}", content, keys)
    default_group = {"group": Path(path).stem}
    if "parts" not in content:
        return [("its one part", default_group | _given(content))]
    shared = {key: value for key, value in _given(content).items() if key != "parts"}
    if not isinstance(content["parts"], list) or not content["parts"]:
        raise ExperimentError(f"{path}: parts = {content['parts']!r:.60}: expected a list of parts")
    parts = []
    for number, part in enumerate(content["parts"], start=1):
        where = f"part {number}"
        _check_keys(f"{path}: {where}", part, PART_KEYS)
        part = _given(part)
        where += f" ({part['group']})" if "group" in part else ""
        above = dict(shared)
        if "ranks" in part or "nodes" in part:
            above = {key: v for key, v in above.items() if key not in ("ranks", "nodes")}
        if isinstance(above.get("common"), Mapping) and isinstance(part.get("common"), Mapping):
            part = part | {"common": {**above["common"], **part["common"]}}
        parts.append((where, default_group | above | part))
    return parts


def _given(content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say something: an empty one is as if it were not there."""
    return {key: value for key, value in content.items() if value is not None}


def _check_keys(where: str, content: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ExperimentError(
            f"{where}: expected the keys {', '.join(keys)}, found {content!r:.60}"
        )
    for key in content:
        if key in OLD_KEYS:
            raise ExperimentError(
                f"{where}: {key} is a word of older sweeps; write {OLD_KEYS[key]}"
            )
        if key in PARAMETERS:
            raise ExperimentError(
                f"{where}: {key} is a parameter; write it below common, or with several values "
                "below grid"
            )
        if key not in keys:
            raise ExperimentError(f"{where}: {unknown_name(key, list(keys), 'key')}")


def _expand(
    part: Mapping[str, Any], runs: Path, any_ranks: int | None, ranks_per_node: int
) -> Iterator[StudyRun]:
    group = str(part["group"])
    if not re.fullmatch(r"[\w+-][\w.+-]*", group):
        raise ExperimentError(f"group = {group!r}: expected a folder's name")
    walltime = read_walltime(part.get("walltime", DEFAULT_WALLTIME))
    repeats = _whole("repeats", part.get("repeats", 1))
    common = {name: _value(name, v) for name, v in _mapping("common", part.get("common")).items()}
    grid = {name: _choices(name, v) for name, v in _mapping("grid", part.get("grid")).items()}
    for name in common:
        if name in grid:
            raise ExperimentError(f"{name}: both in common and in grid")
    if "batch_size" in {*common, *grid} and "global_batch" in {*common, *grid}:
        raise ExperimentError("batch_size and global_batch: expected one of the two")
    for repeat in range(repeats):
        for ranks, nodes in _places(part, any_ranks, ranks_per_node):
            for combination in itertools.product(*grid.values()):
                chosen = dict(zip(grid, combination, strict=True))
                values = {name: value for name, (value, _) in chosen.items()}
                experiment = _experiment({**common, **values}, ranks)
                words = {name: word for name, (_, word) in chosen.items()}
                name = _name(experiment.model, words, ranks, repeat)
                directory = str(runs / group / name)
                experiment = dataclasses.replace(experiment, run_dir=directory)
                yield StudyRun(experiment, ranks, nodes, repeat, walltime)


def _places(
    part: Mapping[str, Any], any_ranks: int | None, ranks_per_node: int
) -> list[tuple[int, int]]:
    """Ranks and nodes of each place that the runs of a part are made at; nodes 0: not named."""
    if "ranks" in part and "nodes" in part:
        raise ExperimentError("ranks and nodes: expected one of the two")
    if "nodes" in part:
        return [(number * ranks_per_node, number) for number in _numbers("nodes", part["nodes"])]
    if "ranks" in part:
        return [(number, 0) for number in _numbers("ranks", part["ranks"])]
    if any_ranks is None:
        raise ExperimentError("expected either ranks or nodes, one number or a list")
    return [(any_ranks, 0)]


def _experiment(values: dict[str, Any], ranks: int) -> Experiment:
    """The experiment of one run at a number of ranks, its evaluation sets' names checked."""
    images = values.pop("global_batch", None)
    if images is not None:
        total = ranks * _whole("virtual_ranks", values.get("virtual_ranks", 1))
        if _whole("global_batch", images) % total:
            raise ExperimentError(
                f"global_batch = {images}: expected a multiple of all virtual ranks, {total}"
            )
        values["batch_size"] = images // total
    experiment = Experiment.from_mapping(values)
    data.expand(experiment.eval_sets)
    return experiment


def _name(model: str, chosen: Mapping[str, str], ranks: int, repeat: int) -> str:
    """``<model>-r<ranks>[-<name>=<value> …][-repeat<n>]``, safe as a folder and in any queue."""
    words = [model, f"r{ranks}"]
    words += [f"{name}={word}" for name, word in chosen.items() if name != "model"]
    words += [f"repeat{repeat}"] if repeat else []
    full = "-".join(words)
    name = re.sub(r"[^\w.=+-]+", "_", full, flags=re.ASCII)
    if len(name) > 200:  # a file system takes 255
        name = f"{name[:190]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
    return name


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ExperimentError(f"{key} = {value!r:.60}: expected name: value")
    for name in value:
        if name == "run_dir":
            raise ExperimentError(f"{key}: run_dir: a study names its runs' folders itself")
        if name not in PARAMETERS:
            raise ExperimentError(f"{key}: {unknown_name(name, list(PARAMETERS))}")
    return dict(value)


def _value(name: str, written: Any) -> Any:
    """A parameter's value from how the file has it."""
    return _whole(name, written) if name == "global_batch" else read_value(name, written)


def _choices(name: str, written: Any) -> list[tuple[Any, str]]:
    """The values of a parameter in the grid, each with its word in a run's name."""
    choices: list[tuple[Any, str]] = []
    for one in _listed(name, written):
        value = _value(name, one)
        if any(value == other for other, _ in choices):
            raise ExperimentError(f"{name}: {value!r} stands twice")
        word = "+".join(value) if isinstance(value, list) else str(value)
        if isinstance(value, float) and re.fullmatch("-?[0-9]+", str(one)):
            word = str(one)  # 1, not 1.0
        choices.append((value, word))
    return choices


def _numbers(key: str, written: Any) -> list[int]:
    numbers = [_whole(key, one) for one in _listed(key, written)]
    for number in numbers:
        if numbers.count(number) > 1:
            raise ExperimentError(f"{key}: {number} stands twice")
    return numbers


def _listed(key: str, written: Any) -> list[Any]:
    """The values of a key: those of a list, or the one that stands there."""
    values = written if isinstance(written, list) else [written]
    if not values:
        raise ExperimentError(f"{key} = []: expected one value or more")
    return values


def _whole(key: str, written: Any) -> int:
    number = parameters.read(key, written, int)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ExperimentError(f"{key} = {number!r}: expected a whole number, 1 or more")
    return number


def read_walltime(value: Any) -> str:
    """HH:MM:SS of a walltime that is given so or in seconds.

    Raises:
        ExperimentError: it is neither.
    """
    if str(value).isdecimal():
        seconds = int(value)
        value = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    match = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", str(value))
    if match is None or not any(map(int, match.groups())):
        raise ExperimentError(f'walltime = {value!r}: expected "HH:MM:SS", such as "01:00:00"')
    return str(value)
