"""The function that makes a user's own network: its file, which the record keeps whole.

`model` names it as ``path/to/file.py:function`` or ``package.module:function``. The record holds
the file's text and checksum, so that the network can be made again where the file has changed or
gone, and so that a changed file is told before a run goes on with another network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnnlib.errors import DistributedError, ExperimentError, RecordError
from bnnlib.experiment import unknown_name
from bnnlib.record.protocols import Ranks

FORM = "expected path/to/file.py:function or package.module:function"


def is_own(model: str) -> bool:
    """Whether `model` names a user's function rather than a network of this library."""
    return ":" in model


def read(model: str) -> dict[str, str] | None:
    """The file of a user's function.

    Returns:
        ``file`` (its path), ``function`` (its name), ``sha256`` and ``text`` of the file; None for
        a network of this library.

    Raises:
        ExperimentError: there is no such file or module.
    """
    if not is_own(model):
        return None
    place, _, function = model.rpartition(":")
    if not place or not function.isidentifier():
        raise ExperimentError(f"model = {model!r}: {FORM}")
    # A path is within the folder that papermill was started in, as a run's own is.
    started = os.environ.get("BNN_START_DIR", "")
    path = Path(started, place) if place.endswith(".py") else _file_of_module(model, place)
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"model = {model!r}: no readable file ({error}); {FORM}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": str(path), "function": function, "sha256": sha256, "text": text}


def read_alike(model: str, ranks: Ranks) -> dict[str, str] | None:
    """What :func:`read` gives, the same on every rank; all ranks call it.

    Raises:
        ExperimentError: of :func:`read`, on every rank.
        DistributedError: ranks read different files.
    """
    source = ranks.agree(lambda: read(model))
    refuse_unequal(ranks.gather((socket.gethostname(), source)))
    return source


def _file_of_module(model: str, name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise ExperimentError(f"model = {model!r}: no module {name!r} ({error}); {FORM}") from error
    if spec is None or not spec.has_location or spec.origin is None:
        raise ExperimentError(f"model = {model!r}: no module {name!r} with a file; {FORM}")
    return Path(spec.origin)


def function_of(source: Mapping[str, str], model: str) -> Callable[..., Any]:
    """The function itself, from the text of its file.

    Only that text is executed: a file beside it cannot be imported, an installed package can. It
    may be text of a record: a run of somebody else's network is somebody else's code.

    Raises:
        ExperimentError: the text cannot be executed, or has no such function.
    """
    module = "" if model.rpartition(":")[0].endswith(".py") else model.rpartition(":")[0]
    namespace = {
        "__name__": module or Path(source["file"]).stem,
        "__package__": module.rpartition(".")[0],
        "__file__": source["file"],
    }
    try:
        exec(compile(source["text"], source["file"], "exec"), namespace)
    except Exception as error:
        raise ExperimentError(
            f"model = {model!r}: {source['file']} cannot be executed: {told(error)}. The record "
            "keeps this one file, and what it imports must be installed"
        ) from error
    functions = {name: value for name, value in namespace.items() if callable(value)}
    if source["function"] not in functions:
        text = unknown_name(source["function"], list(functions), f"function in {source['file']}")
        raise ExperimentError(f"model = {model!r}: {text}")
    return functions[source["function"]]


def told(error: BaseException) -> str:
    """An error in a user's code: its type, its words and its line."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({last[0].filename}, line {last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {error}{place}"


def refuse_changed(
    directory: Path, then: Mapping[str, str] | None, now: Mapping[str, str] | None
) -> None:
    """Refuses to go on with a run whose network's file has changed.

    Args:
        directory: of the run.
        then: the source in its record.
        now: the source now.

    Raises:
        RecordError: with both checksums, and what to do.
    """
    if then and now and then["sha256"] != now["sha256"]:
        raise RecordError(
            f"{directory}: {now['file']} has changed since the run began (SHA-256 "
            f"{then['sha256'][:12]} there, {now['sha256'][:12]} now), so that the network may be "
            "another; put the old text back, which run.json holds under `source`, or give another "
            "run_dir"
        )


def refuse_unequal(everyones: Sequence[tuple[str, Mapping[str, str] | None]]) -> None:
    """Refuses ranks that read different files.

    Args:
        everyones: of each rank its host and its source.

    Raises:
        DistributedError: with the first rank that differs from rank 0, and its host.
    """
    first_host, first = everyones[0]
    for rank, (host, source) in enumerate(everyones):
        if source and first and source["sha256"] != first["sha256"]:
            raise DistributedError(
                f"{source['file']} on rank {rank} ({host}) is another file than on rank 0 "
                f"({first_host}): SHA-256 {source['sha256'][:12]} and {first['sha256'][:12]}; copy "
                "one file to all nodes, or name it by a path on a file system that they share"
            )
