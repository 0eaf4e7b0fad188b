"""Where papermill writes a notebook, as its output path says.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

RANK0_PREFIX = "rank0:"


def local_path(path: Any) -> Path | None:
    """The absolute local path that papermill writes `path` to; None for a remote one or none."""
    from papermill.iorw import LocalHandler, papermill_io

    if not isinstance(path, str):
        return None
    path = path.removeprefix(RANK0_PREFIX)
    handler = papermill_io.get_handler(path)
    if not isinstance(handler, LocalHandler):
        return None
    return Path(start_folder(), path).absolute()


def start_folder() -> str:
    """The folder that papermill was started in, against which it resolves paths under --cwd."""
    from papermill.iorw import papermill_io

    # The handler gives the folder away only in exchange for another one.
    handler = papermill_io.get_handler("")
    folder = handler.cwd(None)
    handler.cwd(folder)
    return folder or os.getcwd()


def is_standard_output(path: Any) -> bool:
    """Whether papermill writes the notebook to this process' standard output."""
    return str(path).removeprefix(RANK0_PREFIX) == "-"
