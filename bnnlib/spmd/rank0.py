"""papermill's output handler `rank0:`: of many ranks that run one notebook, rank 0 writes it.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import sys
from typing import Any

from bnnlib import launcher
from bnnlib.record.files import write_text
from bnnlib.spmd.kernel import KernelEngine
from bnnlib.spmd.paths import RANK0_PREFIX, is_standard_output, local_path


class Rank0Handler:
    """papermill's handler for `rank0:PATH`: only rank 0 writes, to whatever PATH papermill knows.

    Rank 0 creates missing parent folders of a local path and replaces the file as a whole.
    papermill registers what the entry point names as it is, so the class itself is the handler.
    """

    @staticmethod
    def _rest(path: str) -> tuple[Any, str]:
        from papermill.iorw import papermill_io

        rest = path.removeprefix(RANK0_PREFIX)
        return papermill_io.get_handler(rest), rest

    @classmethod
    def read(cls, path: str) -> Any:
        """The content of the notebook at `path`, on every rank."""
        handler, rest = cls._rest(path)
        return handler.read(rest)

    @classmethod
    def listdir(cls, path: str) -> Any:
        """The names in the folder `path`, on every rank."""
        handler, rest = cls._rest(path)
        return handler.listdir(rest)

    @classmethod
    def write(cls, buf: str, path: str) -> Any:
        """Write `buf` to `path` on rank 0; do nothing on the others."""
        if launcher.rank() != 0:
            return None
        local = local_path(path)
        if local is not None:
            return write_text(local, buf)
        if is_standard_output(path):  # not the cells' own stream, which may be in its place
            assert sys.__stdout__ is not None  # papermill itself does not start without
            sys.__stdout__.buffer.write(buf.encode())
            return sys.__stdout__.buffer.flush()
        handler, rest = cls._rest(path)
        return handler.write(buf, rest)

    @classmethod
    def pretty_path(cls, path: str) -> str:
        """The path as papermill logs it, once, before it does anything else with the notebook."""
        KernelEngine.register()
        handler, rest = cls._rest(path)
        return f"{RANK0_PREFIX}{handler.pretty_path(rest)}"
